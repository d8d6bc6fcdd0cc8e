"""What lies in `examples/` does what it says."""
