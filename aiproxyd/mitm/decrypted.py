"""Between the tap and those who carry decrypted bytes: whose connection it is, what to keep, what is told, and who ended a request early."""

import enum
from typing import Protocol

import msgspec

from aiproxyd.classify import Provider
from aiproxyd.clients import KNOWN, ClientTable
from aiproxyd.config.clients import client_table
from aiproxyd.config.schema import Config, ContentRecording
from aiproxyd.model.authority import Authority
from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.model.principal import Principal


class DecryptedConnection(msgspec.Struct, frozen=True):
    """A client's connection to a provider, after its CONNECT was answered with 200."""

    id: str
    """A UUID."""
    authority: Authority
    """What the CONNECT named."""
    provider: Provider
    """Who claims it."""
    principal: Principal
    """Who is charged."""
    token: str = ""
    """The client's credential of this proxy, which must not leave in a request; empty when it sent none. Never shown, not even masked:
    it is no key of a provider."""
    key_hint: str | None = None
    """The mask of the provider's key of ours that a request is sent with; None where the client's own credential goes on."""

    def __repr__(self) -> str:
        return f"DecryptedConnection({self.id}, {self.authority}, {self.provider.name})"


class TapSettings(msgspec.Struct, frozen=True):
    """What the tap keeps, and up to which size it reads."""

    record_content: bool = True
    """Whether prompts, tool arguments and reasoning leave the tap."""
    max_request_body_bytes: int = 32 << 20
    """A larger request body (decoded) is not read."""
    max_response_body_bytes: int = 16 << 20
    """A larger response document (decoded), or event of a stream, is not read."""
    record_project: bool = True
    """Whether the folder, repository and branch that a tool works in leave the tap."""
    clients: ClientTable = KNOWN
    """Which clients are known."""
    header_labels: tuple[tuple[str, str], ...] = ()
    """Labels of metrics and the lower-case names of the request headers that hold their values."""

    @classmethod
    def of(cls, config: Config) -> "TapSettings":
        """Return the settings that `config` holds."""
        recording = config.recording
        return cls(
            record_content=recording.content is ContentRecording.FULL,
            max_request_body_bytes=recording.max_request_body_bytes,
            max_response_body_bytes=recording.max_response_body_bytes,
            record_project=recording.project,
            clients=client_table(config.clients),
            header_labels=tuple(config.metrics.header_labels.items()),
        )


class AbortedBy(enum.Enum):
    """Who ended a request before its response was whole."""

    CLIENT = enum.auto()
    """It closed or reset its connection, or its stream."""
    UPSTREAM = enum.auto()
    """It closed or reset the connection, or broke the framing of HTTP."""
    UNREACHABLE = enum.auto()
    """No connection with the provider came about."""
    PROXY = enum.auto()
    """We did: a drain ran out of time, or an idle timeout met."""
    REFUSED = enum.auto()
    """We answered instead of the provider."""
    NO_KEY = enum.auto()
    """We answered instead of the provider, because it accepts none of our keys, or none now."""


STATUS_OF_ABORT = {
    AbortedBy.CLIENT: 499,
    AbortedBy.UPSTREAM: 502,
    AbortedBy.UNREACHABLE: 502,
    AbortedBy.PROXY: 503,
    AbortedBy.REFUSED: 403,
    AbortedBy.NO_KEY: 502,
}
"""The status that is recorded when an abort comes before the provider's own."""


class RequestTap(Protocol):
    """What looks at one request: `tap.RequestTap` does."""

    def request_data(self, data: bytes) -> None: ...
    def request_end(self) -> None: ...
    def response_head(self, head: ResponseHead, at: float | None = None) -> None: ...
    def response_data(self, data: bytes, at: float | None = None) -> None: ...
    def response_end(self, at: float | None = None) -> None: ...
    @property
    def is_midstream(self) -> bool: ...
    def held(self, seconds: float) -> None: ...
    def abort(self, by: AbortedBy, detail: str = "", *, status_code: int = 0) -> None: ...
    def lose_sight(self, anomaly: str) -> None: ...
    @property
    def request_model(self) -> str: ...
    def carried(self, attempts: int, credential_hint: str, remark: str = "") -> None: ...
    @property
    def is_upgraded(self) -> bool: ...
    def upgraded_request_data(self, data: bytes) -> None: ...
    def upgraded_response_data(self, data: bytes) -> None: ...
    def upgraded_end(self, by: AbortedBy, detail: str = "") -> None: ...


class Tap(Protocol):
    """What looks at requests: `tap.Tap` does."""

    def open(self, connection: DecryptedConnection, head: RequestHead, at: float | None = None) -> RequestTap: ...
