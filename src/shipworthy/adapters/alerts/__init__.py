"""Where budget alerts are posted."""
