"""The settings of a provider entry about keys, and about what is done with a request besides forwarding it.

Where a secret comes from is said here; `config.keys` reads it. Values that stand in the file are `SecretStr` from the first
moment, and a message about one never repeats it.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator, model_validator

from aiproxyd.config.section import Section
from aiproxyd.credentials import CREDENTIAL_HEADERS

MAX_KEYS = 5
"""Of a provider entry; Coder's limit."""

_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}\Z")

# Fields that HTTP, a provider or this proxy gives a meaning; a name for the user must not take one of them.
_RESERVED_HEADERS = frozenset(
    {
        *CREDENTIAL_HEADERS,
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "origin",
        "originator",
        "referer",
        "session-id",
        "te",  # codespell:ignore te
        "trailer",
        "transfer-encoding",
        "traceparent",
        "tracestate",
        "upgrade",
        "user-agent",
        "via",
    }
)
_RESERVED_BEGINNINGS = (
    "anthropic-",
    "chatgpt-",
    "copilot-",
    "openai-",
    "proxy-",
    "sec-",
    "x-amz",
    "x-api-",
    "x-coder-ai-governance-",
    "x-forwarded-",
    "x-goog-",
    "x-request-",
    "x-stainless-",
)


def _from_text(value: Any) -> Any:
    """Take a plain text as the secret itself."""
    if isinstance(value, str | SecretStr):
        return {"value": value}
    if isinstance(value, int | float | bool):
        message = "a key is text in quotes, {env: NAME} or {file: PATH}"
        raise ValueError(message)  # noqa: TRY004  (pydantic reports ValueError)
    return value


def _no_empty(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not value.get_secret_value().strip():
        message = "is empty"
        raise ValueError(message)
    return value


class SecretConfig(Section):
    """A secret: text as it is, or where to read it."""

    value: SecretStr | None = None
    """The secret itself; a plain text instead of a mapping means the same."""
    env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable, of the daemon, that holds it."""
    file: Path | None = None
    """The file that holds it and nothing else. It is read again at each reload."""

    _text = model_validator(mode="before")(_from_text)
    _not_empty = field_validator("value")(_no_empty)

    @model_validator(mode="after")
    def _one_source(self) -> "SecretConfig":
        if sum(source is not None for source in (self.value, self.env, self.file)) != 1:
            message = "needs one of value, env and file"
            raise ValueError(message)
        return self


class KeyConfig(Section):
    """A key of a provider: an API key as text, `{env: NAME}` or `{file: PATH}`; for Bedrock also AWS credentials."""

    value: SecretStr | None = None
    """The API key itself; a plain text instead of a mapping means the same."""
    env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable, of the daemon, that holds the API key."""
    file: Path | None = None
    """The file that holds the API key and nothing else. It is read again at each reload."""
    access_key_id: SecretConfig | None = None
    """Of AWS credentials, with which requests are signed (SigV4). Needs the extra `bedrock`."""
    secret_access_key: SecretConfig | None = None
    """Goes with `access_key_id`."""
    session_token: SecretConfig | None = None
    """Of temporary AWS credentials."""
    region: str = Field("", pattern=r"^([a-z0-9]+(-[a-z0-9]+)+)?$")
    """The AWS region to sign for; that of the host a client asks for when absent."""

    _text = model_validator(mode="before")(_from_text)
    _not_empty = field_validator("value")(_no_empty)

    @model_validator(mode="after")
    def _one_form(self) -> "KeyConfig":
        sources = sum(source is not None for source in (self.value, self.env, self.file))
        if self.access_key_id is None and self.secret_access_key is None:
            if sources != 1:
                message = "needs one of value, env and file, or AWS credentials"
                raise ValueError(message)
            if self.session_token is not None or self.region:
                message = "session_token and region belong to AWS credentials"
                raise ValueError(message)
        elif sources or self.access_key_id is None or self.secret_access_key is None:
            message = "access_key_id and secret_access_key go together, without value, env and file"
            raise ValueError(message)
        return self

    @property
    def is_aws(self) -> bool:
        """Whether these are AWS credentials."""
        return self.access_key_id is not None


class BreakerConfig(Section):
    """Refuses requests to an endpoint and model of a provider for a while after it failed several times in a row.

    A failure is an answer 503, 504 or 529, or none at all. Each worker judges by the requests it carries.
    """

    enabled: bool = False
    """Whether there is one."""
    failure_threshold: int = Field(5, ge=1, le=1000)
    """So many failures in a row open it."""
    interval_seconds: float = Field(10.0, ge=0)
    """Within which they must happen; 0 for any time."""
    open_seconds: float = Field(30.0, gt=0)
    """How long requests are refused before some are let through to try."""
    half_open_max_requests: int = Field(3, ge=1, le=1000)
    """So many are let through then. When they succeed, all are; when one fails, none is."""


class TimeoutsConfig(Section):
    """How long a provider may take. What is absent is as in `egress` and `decrypt`."""

    connect_seconds: float | None = Field(None, gt=0)
    """To connect, TLS included."""
    first_byte_seconds: float | None = Field(None, gt=0)
    """From the end of a request to the first byte of its answer; without limit when absent."""
    idle_seconds: float | None = Field(None, gt=0)
    """Without a byte in either direction."""


class ActorHeadersConfig(Section):
    """Headers that tell the provider who a request is from. A client's own of these names are removed."""

    enabled: bool = False
    """Whether they are sent."""
    id: str = "x-ai-bridge-actor-id"
    """The header of the user's id; empty for none."""
    username: str = "x-ai-bridge-actor-metadata-username"
    """The header of the user's name; empty for none."""
    groups: str = ""
    """The header of the user's groups, separated by commas; empty for none."""

    @field_validator("id", "username", "groups")
    @classmethod
    def _usable(cls, name: str) -> str:
        name = name.lower()
        if not name:
            return name
        if not _HEADER_NAME.match(name):
            message = f"{name!r} is no name of a header of letters, digits and hyphens"
            raise ValueError(message)
        if name in _RESERVED_HEADERS or name.startswith(_RESERVED_BEGINNINGS):
            message = f"{name!r} is reserved: HTTP, a provider or this proxy gives it a meaning"
            raise ValueError(message)
        return name

    @model_validator(mode="after")
    def _different(self) -> "ActorHeadersConfig":
        names = [name for name in (self.id, self.username, self.groups) if name]
        if len(set(names)) < len(names):
            message = "two of id, username and groups name the same header"
            raise ValueError(message)
        return self
