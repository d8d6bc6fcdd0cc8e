"""Are all requests recorded, and all tokens right? Counted through the real daemon, against what the fake provider answered."""
