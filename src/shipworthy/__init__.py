"""Shipworthy: a firm's GenAI prototype, made a production system that it can run, audit and afford."""

__version__ = "0.1.0"
