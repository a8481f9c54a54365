"""The manifest: what the YAML may say (shape), what is made of it (link), and how it is read (load)."""
