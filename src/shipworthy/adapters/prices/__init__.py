"""The price table that comes with the installation."""
