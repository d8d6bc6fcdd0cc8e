"""The channel between control and one worker: framed messages over a Unix socket pair.

Not the way of observations (the journal is) and never in the way of bytes. Down go the configuration, answers and the order to
drain; up come questions. When the other side is gone, `receive` returns None and every open question fails.

A message is its length in four bytes, big endian, and a JSON object tagged `m`.
"""

import asyncio
import socket
import struct

import msgspec

from aiproxyd.key_pool import KeyMark
from aiproxyd.model.credential import ProviderKeys
from aiproxyd.model.principal import Principal

_LENGTH = struct.Struct(">I")
# A configuration with thousands of users and providers stays far below it; anything larger is a broken peer.
MAX_MESSAGE_BYTES = 16 << 20


class _Message(msgspec.Struct, frozen=True, tag_field="m"):
    pass


class Configure(_Message, frozen=True, tag="configure"):
    """Down: use this configuration from now on. The first message a worker gets."""

    config: msgspec.Raw
    """The JSON of a `Config`, without what workers have no use for."""
    keys: dict[str, ProviderKeys] = {}
    """What came of the keys of the provider entries, by name."""
    generation: int = 0
    """Counts configurations; what is said about a key holds within one."""


class Propose(_Message, frozen=True, tag="propose"):
    """Down: build all that this configuration needs, keep it aside, and say whether it can be used."""

    revision: int
    """Counts proposals, from 1."""
    configuration: Configure


class Adopt(_Message, frozen=True, tag="adopt"):
    """Down: everybody can use what was proposed under this number; use it from now on."""

    revision: int


class Drain(_Message, frozen=True, tag="drain"):
    """Down: stop accepting, let responses finish for so many seconds, then exit. A second one with 0 closes at once."""

    timeout_seconds: float


class Answer(_Message, frozen=True, tag="answer"):
    """Down: whose credential it is."""

    question: int
    principal: Principal | None = None
    fresh_seconds: float | None = None
    """For how long the answer may be used; None when its source does not say."""
    failure: str = ""
    """Why nobody could be asked; then `principal` means nothing."""


class Forget(_Message, frozen=True, tag="forget"):
    """Down: drop every remembered answer; a user was added or revoked."""


class Revoked(_Message, frozen=True, tag="revoked"):
    """Down: these may not use the proxy any more; close what they have open."""

    holders: tuple[str, ...]
    """See `Principal.holder`."""


class Ready(_Message, frozen=True, tag="ready"):
    """Up: the worker accepts connections."""


class Accepted(_Message, frozen=True, tag="accepted"):
    """Up: what was proposed can be used, and waits."""

    revision: int


class Rejected(_Message, frozen=True, tag="rejected"):
    """Up: what was proposed cannot be used; the configuration before stays."""

    revision: int
    """Of the proposal; 0 for a `Configure`."""
    reason: str


class Authenticate(_Message, frozen=True, tag="authenticate"):
    """Up: a question for the owner of a credential."""

    question: int
    credential: str


class Holding(_Message, frozen=True, tag="holding"):
    """Up: sessions with something open here, all of them. Sent when it is not what it was."""

    sessions: frozenset[str]


class KeyMarked(_Message, frozen=True, tag="key_marked"):
    """Up: a provider does not take a key any more, or not now. Down, to every other worker: the same."""

    provider: str
    generation: int
    mark: KeyMark


Message = (
    Configure
    | Propose
    | Adopt
    | Drain
    | Answer
    | Forget
    | Revoked
    | Ready
    | Accepted
    | Rejected
    | Authenticate
    | Holding
    | KeyMarked
)

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()


class Channel:
    """One end of the pair. Messages are sent and received in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Return the channel over one end of a stream socket pair; it owns `end` from now on."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        """Send `message`; without effect once the other side is gone."""
        if not self._writer.is_closing():
            body = _encoder.encode(message)
            self._writer.write(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> Message | None:
        """Return the next message, or None when the other side is gone or talks nonsense."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MAX_MESSAGE_BYTES:
                return None
            return _decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """Close this end; the other side's `receive` returns None."""
        self._writer.close()
