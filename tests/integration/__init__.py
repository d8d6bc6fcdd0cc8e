"""Stories: the real daemon as a process, real clients, a fake provider over TLS under real host names. One file a story."""
