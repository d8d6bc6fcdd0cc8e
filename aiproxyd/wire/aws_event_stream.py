"""Bytes of an AWS event stream (`application/vnd.amazon.eventstream`) to messages. Not a parser of what their payloads mean.

Facts (all integers big-endian, all checksums CRC-32 of IEEE 802.3):
- A message is: total length (4 bytes), length of the headers (4), checksum of these eight (4), headers, payload, checksum of all
  before it (4). So it has 16 bytes more than its headers and payload.
- A header is: length of its name (1), name, type of its value (1), value. Types: 0 true, 1 false, 2 to 5 integers of 1, 2, 4 and 8
  bytes, 6 bytes and 7 text with a length of 2 before them, 8 a time in milliseconds (8 bytes), 9 a UUID (16 bytes).
- Headers take 128 KiB at most, a payload 24 MiB.

Strategy: nothing is read before its length came; a message is cut out whole, so that each byte is copied and summed once or twice,
however the stream is cut. A wrong checksum means that framing is lost, and that is the end.

Source:
    https://smithy.io/2.0/aws/amazon-eventstream.html
    https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html
"""

import struct
import zlib
from typing import Final

import msgspec

from aiproxyd.exceptions import EventTooLarge, MalformedBody, WireError

MAX_HEADERS_BYTES: Final = 128 << 10

_PRELUDE: Final = struct.Struct("!III")
_CHECKSUM: Final = struct.Struct("!I")
_OVERHEAD_BYTES: Final = _PRELUDE.size + _CHECKSUM.size

_BYTES: Final = 6
_TEXT: Final = 7
_FIXED_BYTES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Size of a value by its type; bytes and text bring their own."""


class AwsEventMessage(msgspec.Struct, frozen=True, gc=False):
    """One message."""

    headers: dict[str, str]
    """Those whose value is text, by name; the others say nothing to an observer."""
    payload: bytes


class AwsEventStreamDecoder:
    """Incremental and bounded. Any split of a stream into calls gives the same messages."""

    __slots__ = ("_buffer", "_failure", "_max_message_bytes", "_total_bytes", "scanned_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        """Return a decoder at the start of a stream.

        Args:
            max_message_bytes: Most bytes of one message that are held, 16 at least. A whole stream may be longer.
        """
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        """The unfinished message."""
        self._total_bytes = 0
        """Length of the unfinished message; 0 until its prelude came."""
        self._failure: WireError | None = None
        self.scanned_bytes = 0
        """Bytes looked at so far, each as often as it was; a test holds it to a multiple of the bytes fed."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of the unfinished message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[AwsEventMessage]:
        """Return the messages completed by `data`, oldest first.

        Args:
            data: The next bytes, after content decoding. May be empty.

        Raises:
            EventTooLarge: A message announces more than `max_message_bytes`.
            MalformedBody: A length or a checksum is wrong. Either way the decoder is spent; messages that were complete before are
                returned first, and the next call raises.
        """
        if self._failure is not None:
            raise self._failure
        messages: list[AwsEventMessage] = []
        rest = memoryview(data)
        try:
            while rest:
                rest = self._take(rest, messages)
        except WireError as exc:
            self._failure = exc
            self._buffer = bytearray()
            if not messages:
                raise
        return messages

    def close(self) -> list[AwsEventMessage]:
        """Return nothing: a message that is unfinished at the end was cut.

        Raises:
            EventTooLarge: As `feed`, when its failure has not been raised yet.
            MalformedBody: Likewise.
        """
        if self._failure is not None:
            raise self._failure
        self._buffer = bytearray()
        return []

    def _take(self, data: memoryview, messages: list[AwsEventMessage]) -> memoryview:
        """Take what the prelude, or the message it announced, still needs; return what is left of `data`."""
        held = self._buffer
        needed = (self._total_bytes or _PRELUDE.size) - len(held)
        held += data[:needed]
        rest = data[needed:]
        if len(data) < needed:
            return rest
        if not self._total_bytes:
            self._total_bytes = self._read_prelude(held)
            return rest
        self._buffer = bytearray()
        self._total_bytes = 0
        messages.append(self._read_message(bytes(held)))
        return rest

    def _read_prelude(self, held: bytearray) -> int:
        self.scanned_bytes += _PRELUDE.size
        total, headers, checksum = _PRELUDE.unpack(held)
        if zlib.crc32(held[:8]) != checksum:
            raise MalformedBody("the checksum of a message's lengths is wrong: this is no AWS event stream")
        if total < _OVERHEAD_BYTES + headers or headers > MAX_HEADERS_BYTES:
            raise MalformedBody(f"a message of {total} bytes announces {headers} bytes of headers")
        if total > self._max_message_bytes:
            raise EventTooLarge(held_bytes=total, max_bytes=self._max_message_bytes)
        return int(total)

    def _read_message(self, message: bytes) -> AwsEventMessage:
        self.scanned_bytes += len(message)
        end = len(message) - _CHECKSUM.size
        (checksum,) = _CHECKSUM.unpack_from(message, end)
        if zlib.crc32(memoryview(message)[:end]) != checksum:
            raise MalformedBody("the checksum of a message is wrong")
        headers_end = _PRELUDE.size + int.from_bytes(message[4:8])
        return AwsEventMessage(_headers(message[_PRELUDE.size : headers_end]), message[headers_end:end])


def _headers(data: bytes) -> dict[str, str]:
    """Return the text headers of `data`.

    Raises:
        MalformedBody: It ends inside a header, or has a value of a type that does not exist.
    """
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end]
            kind = data[name_end]
            start = name_end + 1
            if kind in {_BYTES, _TEXT}:
                start += 2
                size = int.from_bytes(data[start - 2 : start])
            else:
                size = _FIXED_BYTES[kind]
            at = start + size
            if kind == _TEXT:
                headers[name.decode("utf-8", "replace")] = data[start:at].decode("utf-8", "replace")
    except (IndexError, KeyError) as exc:
        raise MalformedBody("a message's headers are cut or of an unknown type") from exc
    if at != len(data):
        raise MalformedBody("a message's last header is cut")
    return headers
