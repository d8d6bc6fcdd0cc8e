"""Who is charged."""

import uuid

import msgspec

# Users of the configuration file have no row of their own before they are seen: their id is derived from the name, so that
# every daemon derives the same one.
_USER_NAMESPACE = uuid.UUID("6d0c9d0e-1f9c-5bb1-8a5e-3a1a0b6f2c11")


TOKEN_PREFIX = "aip_"  # noqa: S105  (not a secret, but what secrets are found by)
"""Beginning of every token that we make."""


class Principal(msgspec.Struct, frozen=True):
    """The user who is charged, and how we know."""

    id: str
    """A UUID."""
    name: str
    groups: tuple[str, ...] = ()
    evidence: str = "token"
    """How we know: `token`, `coder`, `jwt`, `network`, or `none` (authentication is off)."""
    session: str = ""
    """Which credential of the user's it was, where each ends by itself; no secret. Empty where the user as a whole is revoked."""

    @property
    def holder(self) -> str:
        """What open connections are found by when they are to end: the session, or else the user."""
        return self.session or self.id


# No UUID begins like that.
_SESSION_PREFIX = "session:"


def session_of(digest: bytes) -> str:
    """Return the name of the session whose credential has this SHA-256. Not enough of it to find the credential."""
    return _SESSION_PREFIX + digest[:12].hex()


def is_session(holder: str) -> bool:
    """Return whether a holder is a session, and not a user."""
    return holder.startswith(_SESSION_PREFIX)


def id_of_name(name: str) -> str:
    """Return the UUID of a user who is known by name alone."""
    return str(uuid.uuid5(_USER_NAMESPACE, name))


ANONYMOUS = Principal(id=id_of_name("anonymous"), name="anonymous", evidence="none")
