"""HTTP/1.1 followed, not spoken: where messages begin and end in bytes that go on exactly as they came.

Not a server's or client's parser. What could be read in two ways is not read at all: the rest of that direction is `Opaque`,
with a reason, and is forwarded and counted.

Facts (RFC 9112):
  - A request has a body when it has Content-Length or Transfer-Encoding; with both it is a smuggling attempt or a mistake (§6.1, §6.3).
  - A response's body depends on the request's method, on its status, then on Transfer-Encoding, Content-Length, the end of
    the connection, in this order (§6.3).
  - 1xx responses precede the final one; 101 ends HTTP on the connection (RFC 9110 §15.2).

Strategy: bodies are walked, not copied, except that the pieces of a chunked body are joined for each feed. Every byte that is fed
comes back in the `raw` of exactly one piece, in order; only bytes of an unfinished head are held back, at most `max_head_bytes`.
Chunks that come whole, as the events of a stream do, take one step each.
"""

import enum
import re
from abc import ABC, abstractmethod
from collections import deque

import msgspec

from aiproxyd.model.head import RequestHead, ResponseHead
from aiproxyd.wire.http1_head import UNTIL_CLOSE, Unfollowable, read_request, read_response, request_length, response_length

MAX_CHUNK_LINE_BYTES = 4096
"""A chunk's size and extensions; longer ones are not followed."""

_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)[ \t]*+(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?+\r\n")
_FOLDED_LINE = re.compile(rb"[ \t][^\x00-\x08\x0a-\x1f\x7f]*+\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n")


class Head[H: (RequestHead, ResponseHead)](msgspec.Struct, frozen=True):
    """A whole head: of a request, of a final response, or of a 101."""

    raw: bytes
    head: H


class Interim(msgspec.Struct, frozen=True):
    """The head of a 1xx response other than 101."""

    raw: bytes
    status_code: int


class Data(msgspec.Struct, frozen=True):
    """Bytes of a body with their framing, and what they carry: after transfer coding, still content-coded, maybe empty."""

    raw: bytes
    data: bytes


class End(msgspec.Struct, frozen=True):
    """The message is complete."""

    raw: bytes = b""


class Opaque(msgspec.Struct, frozen=True):
    """Bytes that are not followed, and from here on never will be."""

    raw: bytes
    reason: str = ""
    """Why not, a bounded word, in the first such piece alone; empty after an upgrade, where nothing is to be followed."""


type RequestPiece = Head[RequestHead] | Data | End | Opaque
type ResponsePiece = Head[ResponseHead] | Interim | Data | End | Opaque


class _State(enum.Enum):
    HEAD = enum.auto()
    FIXED = enum.auto()
    """`_left` bytes of body to come."""
    CHUNK_LINE = enum.auto()
    CHUNK_DATA = enum.auto()
    """`_left` bytes of the chunk to come."""
    CHUNK_END = enum.auto()
    """`_left` of the two bytes after a chunk to come."""
    TRAILERS = enum.auto()
    """Lines until an empty one; `_left` counts their bytes."""
    UNTIL_CLOSE = enum.auto()
    OPAQUE = enum.auto()


class _Follower[H: (RequestHead, ResponseHead), P](ABC):
    """What both directions share: bodies, and the search for the end of a head."""

    def __init__(self, *, max_head_bytes: int = 65536) -> None:
        """Follow a direction from its first byte.

        Args:
            max_head_bytes: A longer head, or trailer section, is not followed.
        """
        self._max_head_bytes = max_head_bytes
        self._state = _State.HEAD
        self._left = 0
        self._held = bytearray()

    @property
    def is_idle(self) -> bool:
        """Whether the last message is complete and nothing of another has come."""
        return self._state is _State.HEAD and not self._held

    @property
    def is_opaque(self) -> bool:
        """Whether this direction is no longer followed."""
        return self._state is _State.OPAQUE

    @property
    def is_in_chunks(self) -> bool:
        """Whether a chunked body is under way, and its last chunk has not begun."""
        state = self._state
        return state is _State.CHUNK_LINE or state is _State.CHUNK_DATA or state is _State.CHUNK_END

    @property
    def has_partial_head(self) -> bool:
        """Whether the first bytes of a head wait for its end."""
        return self._state is _State.HEAD and bool(self._held)

    @property
    def held_bytes(self) -> int:
        """How many bytes are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[P]:
        """Return the pieces that `data` completes, in order. Total; any split of a stream gives the same messages.

        Args:
            data: The next bytes of the connection, as they came. May be empty.
        """
        if self._state is _State.OPAQUE:
            return [Opaque(data)] if data else []  # type: ignore[list-item]
        pieces: list[Head[H] | Interim | Data | End | Opaque] = []
        position = 0
        while position < len(data):
            if self._state is _State.HEAD:
                position = self._read_head(data, position, pieces)
            elif self._state is _State.FIXED:
                position = self._read_fixed(data, position, pieces)
            elif self._state is _State.OPAQUE:
                pieces.append(Opaque(data[position:]))
                break
            else:
                position = self._read_body(data, position, pieces)
        # Each direction's own pieces, though nothing here says so: what makes Interims is the `_take_head` of responses.
        return pieces  # type: ignore[return-value]

    # Heads

    def _read_head(self, data: bytes, position: int, pieces: list[Head[H] | Interim | Data | End | Opaque]) -> int:
        held = self._held
        if held:
            known = len(held)
            # The end may lie across the border of two feeds, so the search begins three bytes before it.
            held += data[position:]
            end = held.find(b"\r\n\r\n", max(0, known - 3))
            raw = bytes(held[: end + 4]) if end >= 0 else b""
            position += end + 4 - known if end >= 0 else 0
        else:
            known = 0
            end = data.find(b"\r\n\r\n", position)
            raw = data[position : end + 4] if end >= 0 else b""
            if end >= 0:
                position = end + 4
            else:
                held += data[position:]
        if raw:
            held.clear()
            try:
                if len(raw) > self._max_head_bytes:
                    raise Unfollowable("head_too_large")
                self._take_head(raw, pieces)
            except Unfollowable as exc:
                self._state = _State.OPAQUE
                last = pieces[-1] if pieces else None
                taken = isinstance(last, Head) and last.raw is raw
                pieces.append(Opaque(b"" if taken else raw, exc.reason))
            return position
        reason = ""
        if len(held) > self._max_head_bytes:
            reason = "head_too_large"
        elif _BARE_LINE_END.search(held, max(0, known - 1)):
            # Without this, a head that ends in bare line feeds would be waited for.
            reason = "line_end"
        if reason:
            pieces.append(Opaque(bytes(held), reason))
            held.clear()
            self._state = _State.OPAQUE
        return len(data)

    @abstractmethod
    def _take_head(self, raw: bytes, pieces: list[Head[H] | Interim | Data | End | Opaque]) -> None:
        """Parse a whole head into `pieces` and await what follows it.

        Raises:
            Unfollowable: It could be read in two ways.
        """

    def _begin_body(self, length: int | None, pieces: list[Head[H] | Interim | Data | End | Opaque]) -> None:
        """Await a body of `length` bytes; None is chunked."""
        if length is None:
            self._state = _State.CHUNK_LINE
        elif length:
            self._state = _State.FIXED
            self._left = length
        else:
            self._state = _State.HEAD
            pieces.append(End())

    # Bodies

    def _read_fixed(self, data: bytes, start: int, pieces: list[Head[H] | Interim | Data | End | Opaque]) -> int:
        part = data[start : start + self._left]
        self._left -= len(part)
        pieces.append(Data(part, part))
        if not self._left:
            self._state = _State.HEAD
            pieces.append(End())
        return start + len(part)

    def _read_body(self, data: bytes, start: int, pieces: list[Head[H] | Interim | Data | End | Opaque]) -> int:
        size = len(data)
        position = start
        parts: list[bytes] = []
        ended = False
        reason = ""
        while position < size and not ended:
            match self._state:
                case _State.CHUNK_DATA:
                    part = data[position : position + self._left]
                    parts.append(part)
                    position += len(part)
                    self._left -= len(part)
                    if not self._left:
                        self._state = _State.CHUNK_END
                        self._left = 2
                case _State.CHUNK_END:
                    if data[position] != b"\r\n"[2 - self._left]:
                        reason = "chunk_end"
                        break
                    position += 1
                    self._left -= 1
                    if not self._left:
                        self._state = _State.CHUNK_LINE
                case _State.CHUNK_LINE:
                    if not self._held:
                        position = _read_whole_chunks(data, position, parts)
                        if position == size:
                            continue
                    line, position_after = self._line(data, position)
                    if line is None:
                        if len(self._held) > MAX_CHUNK_LINE_BYTES:
                            reason = "chunk_size"
                            break
                        position = size
                        continue
                    match = _CHUNK_LINE.fullmatch(line)
                    if match is None or len(line) > MAX_CHUNK_LINE_BYTES:
                        reason = "chunk_size"
                        break
                    position = position_after
                    self._left = int(match[1], 16)
                    self._state = _State.CHUNK_DATA if self._left else _State.TRAILERS
                case _State.TRAILERS:
                    line, position_after = self._line(data, position)
                    if line is None:
                        if self._left + len(self._held) > self._max_head_bytes:
                            reason = "trailers_too_large"
                            break
                        position = size
                        continue
                    is_first = not self._left
                    self._left += len(line)
                    if line == b"\r\n":
                        ended = True
                    elif _TRAILER_LINE.fullmatch(line) is None and (is_first or _FOLDED_LINE.fullmatch(line) is None):
                        reason = "trailer"
                        break
                    elif self._left > self._max_head_bytes:
                        reason = "trailers_too_large"
                        break
                    position = position_after
                case _:  # UNTIL_CLOSE
                    parts.append(data[position:])
                    position = size
        if position > start:
            pieces.append(Data(data[start:position], parts[0] if len(parts) == 1 else b"".join(parts)))
        if ended:
            self._state = _State.HEAD
            self._left = 0
            pieces.append(End())
        if reason:
            self._state = _State.OPAQUE
            self._held.clear()
            pieces.append(Opaque(data[position:], reason))
            return size
        return position

    def _line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """Return the line that ends first at or after `position`, and where it ends; None while it is unfinished, which holds it."""
        end = data.find(b"\n", position) + 1
        if not end:
            self._held += data[position:]
            return None, len(data)
        line = data[position:end]
        if self._held:
            line = bytes(self._held) + line
            self._held.clear()
        return line, end


def _read_whole_chunks(data: bytes, position: int, parts: list[bytes]) -> int:
    """Take what the chunks carry that lie in `data` whole, as most events of a stream do; return where anything else begins."""
    while (line := _CHUNK_LINE.match(data, position)) is not None:
        begin = line.end()
        end = begin + int(line[1], 16)
        if begin == end or begin - position > MAX_CHUNK_LINE_BYTES or data[end : end + 2] != b"\r\n":
            break
        parts.append(data[begin:end])
        position = end + 2
    return position


class RequestFollower(_Follower[RequestHead, RequestPiece]):
    """Follows what a client sends."""

    def close(self) -> list[RequestPiece]:
        """Return what was held back when the client ended its direction."""
        return self.stop_following()

    def stop_following(self) -> list[RequestPiece]:
        """Follow no more, because HTTP ended here (an upgrade, a fault in the other direction); return what was held back."""
        withheld = bytes(self._held) if self._state is _State.HEAD else b""
        self._held.clear()
        self._state = _State.OPAQUE
        return [Opaque(withheld)] if withheld else []

    def _read_head(self, data: bytes, position: int, pieces: list[Head[RequestHead] | Interim | Data | End | Opaque]) -> int:
        # Empty lines before a request line are to be ignored (RFC 9112 §2.2), so they can go on at once.
        if self._held == b"\r" and data[position : position + 1] == b"\n":
            self._held.clear()
            pieces.append(Data(b"\r\n", b""))
            return position + 1
        if not self._held:
            start = position
            while data.startswith(b"\r\n", position):
                position += 2
            if position > start:
                pieces.append(Data(data[start:position], b""))
                if position == len(data):
                    return position
        return super()._read_head(data, position, pieces)

    def _take_head(self, raw: bytes, pieces: list[Head[RequestHead] | Interim | Data | End | Opaque]) -> None:
        head, _ = read_request(raw)
        pieces.append(Head(raw, head))
        self._begin_body(request_length(head), pieces)


class ResponseFollower(_Follower[ResponseHead, ResponsePiece]):
    """Follows what a server sends in answer to the requests it was told of."""

    def __init__(self, *, max_head_bytes: int = 65536) -> None:
        super().__init__(max_head_bytes=max_head_bytes)
        self._expected: deque[RequestHead] = deque()

    def expect(self, head: RequestHead) -> None:
        """Say that the request `head` is about to leave; its final response comes after those of all expected before."""
        self._expected.append(head)

    def close(self) -> list[ResponsePiece]:
        """Return the End of a response that lasts until the connection's end, and that is what the server did."""
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.OPAQUE
            return [End()]
        return []

    def stop_following(self) -> None:
        """Follow no more, because of a fault in the other direction."""
        self._held.clear()
        self._state = _State.OPAQUE

    def _take_head(self, raw: bytes, pieces: list[Head[ResponseHead] | Interim | Data | End | Opaque]) -> None:
        head = read_response(raw)
        if not self._expected:
            raise Unfollowable("unrequested")
        request = self._expected[0]
        status_code = head.status_code
        if status_code == 101 and "upgrade" not in request.headers:
            raise Unfollowable("unrequested_upgrade")
        if 100 <= status_code < 200 and status_code != 101:
            pieces.append(Interim(raw, status_code))
            return
        self._expected.popleft()
        pieces.append(Head(raw, head))
        if status_code == 101 or (request.method == "CONNECT" and 200 <= status_code < 300):
            pieces.extend((End(), Opaque(b"")))
            self._state = _State.OPAQUE
            return
        length = response_length(head, request.method)
        if length == UNTIL_CLOSE:
            self._state = _State.UNTIL_CLOSE
        else:
            self._begin_body(length, pieces)
