"""Floor 3: the append-only observation files between workers and control."""
