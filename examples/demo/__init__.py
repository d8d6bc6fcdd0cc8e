"""The whole thing at work without an API key: `make demo`."""
