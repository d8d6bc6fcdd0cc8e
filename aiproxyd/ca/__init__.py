"""Floor 3: the certificate authority and its leaves. The only folder that knows cryptography."""
