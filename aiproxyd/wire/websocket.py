"""WebSocket frames followed in one direction, never answered: bytes in, whole messages out. Not an endpoint and not a validator.

Facts (RFC 6455 §5, RFC 7692 §7):
  - A message is one frame, or several of which all but the first continue it; control frames may stand between them.
  - permessage-deflate marks a compressed message in the first frame (RSV1), leaves the last four bytes of its deflate block away,
    and lets messages share one window unless `no_context_takeover` was agreed for their direction.
  - A window larger than the sender's reads the same, so `max_window_bits` need not be known.

Strategy: payloads are undone piece by piece as they come, so what is held is one unfinished message at most. A message above its limit
is told by its first bytes; it is still inflated, and let go, because the messages after it share its window.

Bias: what an endpoint would refuse (a wrong mask, bits nobody agreed on in a control frame, text that is not UTF-8) is followed where it
can be read in one way only.
"""

import enum
import zlib
from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers

HEAD_BYTES: Final = 4096
"""So much of a message above its limit is told."""

INFLATION_LIMIT: Final = 8
"""A message that inflates beyond so many times its limit is an attack on whoever inflates it, and ends the following."""

_PIECE_BYTES: Final = 1 << 16
_BLOCK_END: Final = b"\x00\x00\xff\xff"
_MAX_CONTROL_BYTES: Final = 125

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Message(msgspec.Struct, frozen=True):
    """A complete message of data."""

    data: bytes
    """Unmasked and inflated; the first HEAD_BYTES of one above its limit."""
    is_text: bool
    is_whole: bool = True
    """Whether `data` is all of it."""


class Compression(msgspec.Struct, frozen=True):
    """What a handshake agreed on. Without permessage-deflate no message is compressed."""

    deflate: bool = False
    client_takeover: bool = True
    """Whether the client's messages share a window."""
    server_takeover: bool = True


def agreed_compression(response: Headers) -> Compression:
    """Return what the head of a 101 response agrees on.

    Raises:
        MalformedBody: An extension was agreed on that is not known; the frames cannot be read then.
    """
    compression = Compression()
    for extension in response.tokens("sec-websocket-extensions"):
        name, *parameters = (part.strip() for part in extension.split(";"))
        if name != "permessage-deflate":
            raise MalformedBody(f"the WebSocket extension {name[:40]!r} is not known")
        compression = Compression(
            deflate=True,
            client_takeover="client_no_context_takeover" not in parameters,
            server_takeover="server_no_context_takeover" not in parameters,
        )
    return compression


class _State(enum.Enum):
    HEAD = enum.auto()
    PAYLOAD = enum.auto()
    CLOSED = enum.auto()
    """The close frame came; nothing follows it."""


class MessageFollower:
    """One direction of one connection. Any split of its bytes into calls gives the same messages."""

    __slots__ = (
        "_deflate",
        "_failure",
        "_held",
        "_inflated_bytes",
        "_inflater",
        "_is_compressed",
        "_is_final",
        "_is_too_large",
        "_left",
        "_mask",
        "_mask_at",
        "_max_message_bytes",
        "_message",
        "_opcode",
        "_state",
        "_takeover",
        "_type",
        "steps",
    )

    def __init__(self, *, max_message_bytes: int, deflate: bool = False, takeover: bool = True) -> None:
        """Follow a direction from its first frame.

        Args:
            max_message_bytes: A larger message (inflated) is told by its first HEAD_BYTES.
            deflate: Whether permessage-deflate was agreed on.
            takeover: Whether this direction's messages share a window.
        """
        self._max_message_bytes = max_message_bytes
        self._deflate = deflate
        self._takeover = takeover
        self._inflater: zlib._Decompress | None = None
        self._state = _State.HEAD
        self._failure: MalformedBody | None = None
        self._held = bytearray()
        """Of an unfinished frame head, at most 14 bytes."""
        self._message = bytearray()
        self._type = 0
        """Opcode of the unfinished message; 0 between messages."""
        self._opcode = 0
        self._is_final = False
        self._is_compressed = False
        self._is_too_large = False
        self._inflated_bytes = 0
        self._left = 0
        """Payload bytes to come of the frame."""
        self._mask = b""
        self._mask_at = 0
        self.steps = 0
        """Bytes looked at so far; grows linearly with those fed."""

    @property
    def is_closed(self) -> bool:
        """Whether this side said that it closes."""
        return self._state is _State.CLOSED

    @property
    def held_bytes(self) -> int:
        """Bytes kept of what is not finished."""
        return len(self._held) + len(self._message)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes, oldest first.

        Raises:
            MalformedBody: The bytes are no frames, or cannot be inflated. Messages that were complete before the fault are returned,
                and the next call raises. The follower is then spent.
        """
        if self._failure is not None:
            raise self._failure
        out: list[Message] = []
        try:
            self._follow(data, out)
        except MalformedBody as exc:
            self._failure = exc
            self._message = bytearray()
            self._held = bytearray()
            if not out:
                raise
        return out

    def _follow(self, data: bytes, out: list[Message]) -> None:
        view = memoryview(data)
        at = 0
        while self._state is not _State.CLOSED:
            if self._state is _State.HEAD:
                at = self._read_head(view, at)
                if self._state is _State.HEAD:
                    return
                if not self._left:
                    self._end_frame(out)
            else:
                if at >= len(view):
                    return
                piece = view[at : at + min(self._left, _PIECE_BYTES)]
                at += len(piece)
                self._left -= len(piece)
                self.steps += len(piece)
                if self._opcode < _CLOSE:
                    self._take(self._unmasked(piece))
                if not self._left:
                    self._end_frame(out)

    def _read_head(self, view: memoryview, at: int) -> int:
        """Read a frame's head, from what was held and from `view`; return where its payload begins."""
        held = self._held
        needed = 2
        while True:
            missing = max(0, needed - len(held))
            taken = view[at : at + missing]
            held += taken
            at += len(taken)
            self.steps += len(taken)
            if len(held) < needed:
                return at
            length = held[1] & 0x7F
            whole = 2 + {126: 2, 127: 8}.get(length, 0) + (4 if held[1] & 0x80 else 0)
            if needed == whole:
                break
            needed = whole
        self._begin_frame(bytes(held))
        held.clear()
        return at

    def _begin_frame(self, head: bytes) -> None:
        first, second = head[0], head[1]
        self._opcode = opcode = first & 0x0F
        self._is_final = bool(first & 0x80)
        length = second & 0x7F
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(head[2 : 2 + extended])
            if length >> 63:
                raise MalformedBody("a frame's length has its highest bit set")
        self._mask = head[2 + extended :]
        self._mask_at = 0
        self._left = length
        if opcode >= _CLOSE:
            if opcode > _PONG or length > _MAX_CONTROL_BYTES or not self._is_final:
                raise MalformedBody(f"a control frame of opcode {opcode} and {length} bytes is not one")
        elif opcode > _BINARY or (opcode == _CONTINUATION) is not bool(self._type):
            raise MalformedBody(f"a frame of opcode {opcode} does not fit the one before")
        else:
            self._begin_data(first, opcode)
        self._state = _State.PAYLOAD

    def _begin_data(self, first: int, opcode: int) -> None:
        if first & 0x30 or (first & 0x40 and (not self._deflate or opcode == _CONTINUATION)):
            raise MalformedBody("a frame uses bits that no agreed extension gives a meaning")
        if opcode != _CONTINUATION:
            self._type = opcode
            self._is_compressed = bool(first & 0x40)
            self._is_too_large = False
            self._inflated_bytes = 0

    def _unmasked(self, piece: memoryview) -> bytes | memoryview:
        if not self._mask:
            return piece
        size = len(piece)
        key = (self._mask + self._mask)[self._mask_at : self._mask_at + 4]
        self._mask_at = (self._mask_at + size) % 4
        # One exclusive or of two big numbers: linear, and without a loop over bytes.
        keys = int.from_bytes((key * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(piece, "little") ^ keys).to_bytes(size, "little")

    def _take(self, payload: bytes | memoryview) -> None:
        if not self._is_compressed:
            self._keep(payload)
        else:
            self._inflate(payload)

    def _inflate(self, payload: bytes | memoryview) -> None:
        try:
            is_full = False
            while payload or is_full:
                if self._inflater is None or self._inflater.eof:
                    # A final deflate block inside a stream is legal (RFC 7692 §7.2.3.4), and ends the window.
                    self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
                piece = self._inflater.decompress(payload, _PIECE_BYTES)
                self._keep(piece)
                # zlib may have taken the last byte in and still have more to give.
                is_full = len(piece) == _PIECE_BYTES
                payload = self._inflater.unconsumed_tail or self._inflater.unused_data
        except zlib.error as exc:
            raise MalformedBody(f"a message cannot be inflated: {exc}") from exc

    def _keep(self, piece: bytes | memoryview) -> None:
        self._inflated_bytes += len(piece)
        if self._is_too_large:
            if self._is_compressed and self._inflated_bytes > INFLATION_LIMIT * self._max_message_bytes:
                raise MalformedBody(f"a message inflates beyond {self._inflated_bytes} bytes")
            return
        self._message += piece
        if len(self._message) > self._max_message_bytes:
            self._is_too_large = True
            del self._message[HEAD_BYTES:]

    def _end_frame(self, out: list[Message]) -> None:
        self._state = _State.HEAD
        if self._opcode == _CLOSE:
            self._state = _State.CLOSED
            return
        if self._opcode > _CLOSE or not self._is_final:
            return
        if self._is_compressed:
            self._inflate(_BLOCK_END)
            if not self._takeover:
                self._inflater = None
        out.append(Message(bytes(self._message), self._type == _TEXT, not self._is_too_large))
        self._message = bytearray()
        self._type = 0
