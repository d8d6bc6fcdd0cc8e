"""Things to copy, and one thing to run: `make demo`."""
