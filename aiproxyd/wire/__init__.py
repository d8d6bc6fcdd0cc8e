"""Floor 1: bytes to framed pieces, pure. Each decoder has `feed(data)` and `close()`, and a named limit on what it holds."""
