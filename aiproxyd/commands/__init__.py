"""Floor 5: one module a command. Each imports what it needs when it runs, so that `--help` is quick."""
