"""`make bench`: CPU time per unit of work, beside the peers, in one run. See `__main__`."""
