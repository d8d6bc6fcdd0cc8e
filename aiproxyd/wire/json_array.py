"""Bytes of a JSON array of objects, as they arrive, to its elements. Reads brackets and strings only, not what an element says.

Facts:
- Google's streaming methods answer with one JSON array whose elements are written one by one, when no event stream is asked for.
  An error before the first element comes as an array of one, or as the object alone.
- Within a JSON text a bracket stands for structure unless it is inside a string, and a string ends at the first quotation mark
  that no backslash escapes (RFC 8259 §7).

Strategy: a regular expression jumps from one bracket or quotation mark to the next, in the new bytes only. An element is returned
as it was sent; what is inside is for whoever decodes it to accept or refuse.
"""

import re
from typing import Final

from aiproxyd.exceptions import EventTooLarge, MalformedBody

_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_IN_STRING: Final = re.compile(rb'["\\]')
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")
_OPENING: Final = frozenset(b"{[")


class JsonArrayDecoder:
    """Incremental and bounded. Any split of a body into calls gives the same elements.

    A body that is one object instead of an array gives that object as its only element.
    """

    __slots__ = (
        "_after_backslash",
        "_before_array",
        "_depth",
        "_failure",
        "_in_array",
        "_in_string",
        "_item",
        "_mark",
        "_max_item_bytes",
        "_needs_comma",
        "is_complete",
        "scanned_bytes",
    )

    def __init__(self, max_item_bytes: int) -> None:
        """Return a decoder at the start of a body.

        Args:
            max_item_bytes: Most bytes of one element that are held. A whole array may be longer.
        """
        self._max_item_bytes = max_item_bytes
        self._before_array = True
        self._mark = 0
        """Bytes of a leading byte order mark that came."""
        self._in_array = False
        self._needs_comma = False
        """An element ended, so that a comma must come before the next."""
        self._depth = 0
        """Open brackets of the unfinished element; 0 between elements."""
        self._in_string = False
        self._after_backslash = False
        """The next byte is escaped."""
        self._item = bytearray()
        """The unfinished element."""
        self._failure: EventTooLarge | MalformedBody | None = None
        self.is_complete = False
        """Whether the closing bracket of the array, or the end of the single object, came."""
        self.scanned_bytes = 0
        """Bytes looked at so far, each as often as it was; a test holds it to a multiple of the bytes fed."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of the unfinished element."""
        return len(self._item)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the elements completed by `data`, in order.

        Args:
            data: The next bytes, after content decoding. May be empty.

        Raises:
            EventTooLarge: An element exceeds `max_item_bytes`.
            MalformedBody: The body is no array of objects or arrays. Either way the decoder is spent; elements that were complete
                before are returned first, and the next call raises.
        """
        if self._failure is not None:
            raise self._failure
        items: list[bytes] = []
        at = 0
        while at < len(data) and self._failure is None:
            at = self._inside(data, at, items) if self._depth else self._between(data, at)
        if self._failure is not None and not items:
            raise self._failure
        return items

    def close(self) -> list[bytes]:
        """Return nothing: what is unfinished at the end was cut.

        Raises:
            EventTooLarge: As `feed`, when its failure has not been raised yet.
            MalformedBody: Likewise.
        """
        if self._failure is not None:
            raise self._failure
        self._item = bytearray()
        return []

    def _between(self, data: bytes, at: int) -> int:
        """Read what stands before, between and after elements; return where to go on."""
        if self._before_array and self._mark < len(_BYTE_ORDER_MARK):
            if data[at] == _BYTE_ORDER_MARK[self._mark]:
                self._mark += 1
                self.scanned_bytes += 1
                return at + 1
            if self._mark:
                return self._refuse("the body is no UTF-8", at)
        start = at
        match = _SPACE.match(data, at)
        at = match.end() if match is not None else at
        self.scanned_bytes += at - start
        if at == len(data):
            return at
        self.scanned_bytes += 1
        byte = data[at]
        if self.is_complete:
            return self._refuse("the body goes on after its end", at)
        if self._before_array:
            self._before_array = False
            if byte == ord("["):
                self._in_array = True
                return at + 1
            if byte != ord("{"):
                return self._refuse("the body is neither a JSON array nor an object", at)
        elif byte == ord("]"):
            # A comma before it is no JSON, and says no less.
            self.is_complete = True
            return at + 1
        elif self._needs_comma:
            if byte != _COMMA:
                return self._refuse("two elements have no comma between them", at)
            self._needs_comma = False
            return at + 1
        if byte not in _OPENING:
            return self._refuse("an element of the array is neither an object nor an array", at)
        self._depth = 1
        self._item.append(byte)
        return at + 1

    def _inside(self, data: bytes, at: int, items: list[bytes]) -> int:
        """Read on in the unfinished element; return where it ends, or where `data` does."""
        start = at
        depth = self._depth
        in_string = self._in_string
        if self._after_backslash:
            self._after_backslash = False
            at += 1
        end = 0
        while True:
            match = (_IN_STRING if in_string else _STRUCTURE).search(data, at)
            if match is None:
                break
            at = match.end()
            byte = data[at - 1]
            if in_string:
                if byte == _QUOTE:
                    in_string = False
                elif at == len(data):
                    self._after_backslash = True
                else:
                    at += 1
            elif byte == _QUOTE:
                in_string = True
            elif byte in _OPENING:
                depth += 1
            else:
                depth -= 1
                if not depth:
                    end = at
                    break
        stop = end or len(data)
        self.scanned_bytes += stop - start
        self._depth = depth
        self._in_string = in_string
        if len(self._item) + stop - start > self._max_item_bytes:
            self._failure = EventTooLarge(held_bytes=len(self._item) + stop - start, max_bytes=self._max_item_bytes)
            self._item = bytearray()
            return stop
        self._item += data[start:stop]
        if end:
            items.append(bytes(self._item))
            self._item = bytearray()
            self._needs_comma = True
            self.is_complete = not self._in_array
        return stop

    def _refuse(self, reason: str, at: int) -> int:
        self._failure = MalformedBody(reason)
        return at
