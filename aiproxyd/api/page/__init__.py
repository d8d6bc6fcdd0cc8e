"""The page at the admin address: server-rendered, with a little script, and nothing from elsewhere."""
