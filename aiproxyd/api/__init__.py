"""Floor 4: the admin HTTP server. The only floor that knows the web framework."""
