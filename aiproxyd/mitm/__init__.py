"""Floor 4: the data plane. The only floor that knows mitmproxy."""
