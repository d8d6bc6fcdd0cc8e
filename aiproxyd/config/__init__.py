"""Floor 3: the one configuration file, its schema and how it is read."""
