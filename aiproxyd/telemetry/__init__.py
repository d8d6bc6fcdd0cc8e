"""Floor 3: metrics, structured logs and traces, each a listener of observations."""
