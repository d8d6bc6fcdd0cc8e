"""The open, standalone egress proxy for AI traffic."""

__version__ = "0.1.0"
