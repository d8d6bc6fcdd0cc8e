"""Every test. `support` holds what they stand on: the fake provider and the harness that runs the real daemon."""
