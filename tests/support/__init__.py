"""What tests, the demo and the benchmark stand on. Imports nothing of pytest, so that `examples/demo` runs without it."""
