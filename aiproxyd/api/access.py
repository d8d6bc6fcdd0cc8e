"""Who asks, and what they may see. Pure but for the clock of page sessions; the web framework is not here.

A viewer sees figures, an auditor content too, an admin may change things. Without any token configured the server listens on
loopback alone, and whoever reaches it is an admin.

Digests are compared in constant time and all of them are compared, so that neither a token's length, nor its beginning, nor its
place in the list can be measured.
"""

import base64
import enum
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

SESSION_SECONDS = 12 * 3600
"""How long a login of the page lasts."""

# A token is shorter; what is longer is not worth hashing.
_MAX_TOKEN_CHARACTERS = 4096


class Role(enum.StrEnum):
    """What a caller may do; each may do what the one before may."""

    VIEWER = "viewer"
    """Figures: no prompt, tool argument, reasoning or error message."""
    AUDITOR = "auditor"
    """Content, too. Each reading is logged."""
    ADMIN = "admin"
    """Users and configuration, too."""

    def includes(self, other: "Role") -> bool:
        """Return whether whoever has this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class AdminToken(NamedTuple):
    """A token that opens the admin server."""

    name: str
    """Of whoever has it, for the log."""
    sha256: str
    """Lower-case hex."""
    role: Role


class Caller(NamedTuple):
    """Who asks."""

    name: str
    role: Role
    key: str = ""
    """The token's digest; empty where none is needed."""


LOCAL = Caller("local", Role.ADMIN)
"""Whoever reaches a server that asks for no token."""


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token in lower-case hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def caller_of_token(token: str, tokens: Sequence[AdminToken]) -> Caller | None:
    """Return whose token it is, or None when it is nobody's."""
    return _caller_of_digest(digest_of(token[:_MAX_TOKEN_CHARACTERS]), tokens) if token else None


def caller_of_header(authorization: str, tokens: Sequence[AdminToken]) -> Caller | None:
    """Return who an `Authorization` value names, or None."""
    scheme, _, credential = authorization.partition(" ")
    return caller_of_token(credential.strip(), tokens) if scheme.lower() == "bearer" else None


def _caller_of_digest(digest: str, tokens: Sequence[AdminToken]) -> Caller | None:
    found = None
    for token in tokens:
        if hmac.compare_digest(digest, token.sha256):
            found = Caller(token.name, token.role, token.sha256)
    return found


class PageSessions:
    """Signs the page's cookies and the forms' tokens. The key lives as long as the process: a restart asks to log in again."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def cookie(self, caller: Caller) -> str:
        """Return the value that lets `caller` in again."""
        body = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(12)}.{caller.key}"
        return f"{body}.{self._signature('session', body)}"

    def caller(self, cookie: str, tokens: Sequence[AdminToken]) -> Caller | None:
        """Return whom a cookie lets in: nobody once it is old, or its token is none any more."""
        body, _, signature = cookie.rpartition(".")
        if not body or not _is_equal(signature, self._signature("session", body)):
            return None
        expires, _, rest = body.partition(".")
        if int(expires) < time.time():
            return None
        return _caller_of_digest(rest.rpartition(".")[2], tokens)

    def form_token(self, cookie: str) -> str:
        """Return what a form of the session behind `cookie` carries, so that nobody else's page can send it."""
        return self._signature("form", cookie)

    def is_form_token(self, token: str, cookie: str) -> bool:
        """Return whether a form came with the token of its session."""
        return _is_equal(token, self.form_token(cookie))

    def _signature(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._key, f"{purpose}:{text}".encode("utf-8", "surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def opens_metrics(authorization: str, credentials: Sequence[str]) -> bool:
    """Return whether an `Authorization` value is one of `credentials`. In constant time, whichever it is."""
    scheme, _, credential = authorization.partition(" ")
    given = digest_of(f"{scheme.title()} {credential.strip()}")
    return sum(hmac.compare_digest(given, digest_of(value)) for value in credentials) > 0


def _is_equal(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode("utf-8", "surrogatepass"), second.encode("utf-8", "surrogatepass"))
