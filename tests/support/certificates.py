"""A certificate authority for the length of a run: it signs the fake provider's leaf, and no key of it is ever kept.

Not the proxy's own CA: this one plays the public roots that a provider's certificate leads to.
"""

import ssl
from pathlib import Path

import trustme

PROVIDER_HOSTS = (
    "api.anthropic.com",
    "api.openai.com",
    "chatgpt.com",
    "api.individual.githubcopilot.com",
    "generativelanguage.googleapis.com",
    "cloudcode-pa.googleapis.com",
    "us-central1-aiplatform.googleapis.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "acme.openai.azure.com",
    "api.cohere.com",
    "api.deepseek.com",
    "api.groq.com",
    "api.mistral.ai",
    "ai-gateway.vercel.sh",
    "api.moonshot.ai",
    "api.perplexity.ai",
    "api.together.xyz",
    "api.x.ai",
    "llm.example.net",
    "openrouter.ai",
)
"""Hosts of AI providers that the fake provider answers for."""

OTHER_HOSTS = ("files.example.com", "untrusted.example.com")
"""Hosts of nobody in particular: what goes to them is tunnelled."""


class Certificates:
    """One CA, and the server contexts it signs for."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def write_roots(self, path: Path) -> Path:
        """Write the CA's certificate as PEM to `path` and return it."""
        path.write_bytes(self._authority.cert_pem.bytes())
        return path

    def server_context(self, *hosts: str, http2: bool = False) -> ssl.SSLContext:
        """Return a context with one leaf for all `hosts`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*hosts).configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return context


def pem(kind: str, body: str) -> bytes:
    """Return a block of PEM with any text as its body.

    Args:
        kind: What its header names, as `PRIVATE KEY`, which stands in no file as a whole header.
        body: What stands between the two lines.
    """
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()
