"""Floor 3: who a credential belongs to."""
