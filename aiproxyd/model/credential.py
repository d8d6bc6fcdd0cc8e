"""A provider's keys as the data plane holds them. Not where they come from (`config.keys`), nor how they are used.

Secrets: no `repr` here shows one. They are opened where a request's head is written, and nowhere else.
"""

import enum

import msgspec


class CredentialKind(enum.StrEnum):
    """Whose credential a request goes upstream with; Coder's words."""

    BYOK = "byok"
    """The user's own: bring your own key."""
    CENTRALIZED = "centralized"
    """One of the provider entry's keys."""


class UpstreamKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key of a provider entry: an API key, or credentials for requests to AWS."""

    secret: str
    """The API key, or the secret access key."""
    access_key_id: str = ""
    """Of AWS credentials; empty for an API key."""
    session_token: str = ""
    """Of temporary AWS credentials."""
    region: str = ""
    """The AWS region to sign for, where the host does not name one."""

    @property
    def is_aws(self) -> bool:
        """Whether requests are signed with it, instead of carrying it."""
        return bool(self.access_key_id)

    @property
    def identity(self) -> str:
        """What tells it from other keys to whoever reads a hint: the id of AWS credentials, else the secret itself."""
        return self.access_key_id or self.secret

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing may show of it. The id of AWS credentials is no secret to AWS; here it is shown masked alone."""
        return tuple(secret for secret in (self.secret, self.session_token, self.access_key_id) if secret)

    def __repr__(self) -> str:
        return "UpstreamKey(aws)" if self.is_aws else "UpstreamKey()"


class ProviderKeys(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of the `keys` of a provider entry."""

    keys: tuple[UpstreamKey, ...] = ()
    """In the order of the entry; empty when there is a problem."""
    problem: str = ""
    """Why they cannot be used: a sentence that holds no secret. The entry is not in use then."""
