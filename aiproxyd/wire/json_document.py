"""Collects a body that only makes sense whole, within a limit. Does not parse it: what a document means is its API's business."""

from typing import Final

from aiproxyd.exceptions import MalformedBody

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class DocumentCollector:
    """Bytes in, one document out. Any split of the body into calls gives the same document."""

    __slots__ = ("_body", "_max_body_bytes", "is_too_large")

    def __init__(self, max_body_bytes: int) -> None:
        """Return an empty collector.

        Args:
            max_body_bytes: Most bytes that are held. A longer body is not kept in part.
        """
        self._max_body_bytes = max_body_bytes
        self._body: bytes | bytearray = b""
        self.is_too_large = False
        """Whether the body exceeded its limit, and nothing of it is kept."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept so far."""
        return len(self._body)

    def feed(self, data: bytes) -> None:
        """Keep `data`.

        Raises:
            MalformedBody: The body exceeds `max_body_bytes`; what was held is let go, and every later call raises again.
        """
        if self.is_too_large or len(self._body) + len(data) > self._max_body_bytes:
            self.is_too_large = True
            self._body = b""
            raise MalformedBody(f"body exceeds {self._max_body_bytes} bytes")
        if not self._body:
            # Most documents come in one chunk, which needs no copy.
            self._body = data
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += data

    def close(self) -> bytes:
        """Return the whole document, without a byte order mark (RFC 8259 §8.1 lets a reader ignore it), and forget it.

        Raises:
            MalformedBody: The body exceeded its limit.
        """
        if self.is_too_large:
            raise MalformedBody(f"body exceeds {self._max_body_bytes} bytes")
        body, self._body = bytes(self._body), b""
        return body.removeprefix(_BYTE_ORDER_MARK)
