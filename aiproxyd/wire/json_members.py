"""Bytes of one JSON object, as they arrive, to a few of its members. The others are passed over and never held.

For answers whose bulk is of no interest: embeddings and images are megabytes of numbers and base64 beside a few figures.

Facts:
- A member's name is a string; a value is a string, an object, an array, or a word that ends at a comma, a bracket or white space.
- What is inside a value is not looked at beyond brackets and strings (RFC 8259 §7), so a faulty value that is passed over stays
  unnoticed. One that is kept is for whoever decodes it to refuse.
"""

import enum
import re
from collections.abc import Iterable
from typing import Final

from aiproxyd.exceptions import EventTooLarge, MalformedBody, WireError

_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_IN_STRING: Final = re.compile(rb'["\\]')
_WORD_END: Final = re.compile(rb"[,}\] \t\r\n]")
_OPENING: Final = frozenset(b"{[")
_QUOTE: Final = ord('"')
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_MAX_NAME_BYTES: Final = 128
"""A longer name is none that anybody asks for, and is not held."""


class _Phase(enum.Enum):
    START = enum.auto()
    NAME_OR_END = enum.auto()
    NAME = enum.auto()
    IN_NAME = enum.auto()
    COLON = enum.auto()
    VALUE = enum.auto()
    IN_STRING = enum.auto()
    IN_BRACKETS = enum.auto()
    IN_WORD = enum.auto()
    COMMA_OR_END = enum.auto()
    END = enum.auto()


class JsonMembersDecoder:
    """Incremental and bounded. Any split of a body into calls gives the same members."""

    __slots__ = (
        "_after_backslash",
        "_depth",
        "_failure",
        "_in_string",
        "_kept_bytes",
        "_mark",
        "_max_kept_bytes",
        "_members",
        "_name",
        "_names",
        "_phase",
        "_value",
        "scanned_bytes",
    )

    def __init__(self, names: Iterable[str], max_kept_bytes: int) -> None:
        """Return a decoder at the start of a body.

        Args:
            names: Of the members to keep; they hold nothing that JSON escapes.
            max_kept_bytes: Most bytes of kept values that are held. The body may be longer without limit.
        """
        self._names = {name.encode() for name in names}
        self._max_kept_bytes = max_kept_bytes
        self._phase = _Phase.START
        self._mark = 0
        """Bytes of a leading byte order mark that came."""
        self._name = bytearray()
        self._value: bytearray | None = None
        """Of the member that is being read; None while it is passed over."""
        self._depth = 0
        self._in_string = False
        self._after_backslash = False
        self._members: dict[str, bytes] = {}
        self._kept_bytes = 0
        """Size of all complete values."""
        self._failure: WireError | None = None
        self.scanned_bytes = 0
        """Bytes looked at so far, each as often as it was; a test holds it to a multiple of the bytes fed."""

    @property
    def held_bytes(self) -> int:
        """Bytes kept of values so far."""
        return self._kept_bytes + len(self._value or b"")

    def feed(self, data: bytes) -> None:
        """Read `data`.

        Args:
            data: The next bytes, after content decoding. May be empty.

        Raises:
            EventTooLarge: The kept values exceed `max_kept_bytes`.
            MalformedBody: The body is no JSON object. Either way the decoder is spent, and every later call raises again.
        """
        if self._failure is not None:
            raise self._failure
        at = 0
        try:
            while at < len(data):
                at = self._step(data, at)
        except WireError as exc:
            self._failure = exc
            self._value = None
            self._members = {}
            self._kept_bytes = 0
            raise

    def close(self) -> dict[str, bytes]:
        """Return the kept members' values as they were sent; of a name that came twice, the last.

        Raises:
            EventTooLarge: As `feed`.
            MalformedBody: As `feed`, or the object is not complete.
        """
        if self._failure is None and self._phase is not _Phase.END:
            self._failure = MalformedBody("the document is cut" if self._phase is not _Phase.START else "the document is empty")
        if self._failure is not None:
            raise self._failure
        return self._members

    def _step(self, data: bytes, at: int) -> int:
        """Read on from `at` to the next change of phase, or to the end of `data`; return where."""
        match self._phase:
            case _Phase.IN_STRING:
                return self._in_text(data, at, _Phase.COMMA_OR_END, self._value)
            case _Phase.IN_BRACKETS:
                return self._in_brackets(data, at)
            case _Phase.IN_WORD:
                return self._in_word(data, at)
            case _Phase.IN_NAME:
                return self._in_text(data, at, _Phase.COLON, self._name)
            case _Phase.START if self._mark < len(_BYTE_ORDER_MARK):
                if data[at] == _BYTE_ORDER_MARK[self._mark]:
                    self._mark += 1
                    self.scanned_bytes += 1
                    return at + 1
                if self._mark:
                    raise MalformedBody("the body is no UTF-8")
        start = at
        space = _SPACE.match(data, at)
        at = at if space is None else space.end()
        self.scanned_bytes += at - start
        if at < len(data):
            self.scanned_bytes += 1
            return self._mark_of(data, at)
        return at

    def _mark_of(self, data: bytes, at: int) -> int:
        """Take the one byte that structure has here, or the first of a value."""
        byte = data[at]
        match self._phase, chr(byte):
            case _Phase.START, "{":
                self._phase = _Phase.NAME_OR_END
            case _Phase.NAME_OR_END | _Phase.COMMA_OR_END, "}":
                self._phase = _Phase.END
            case _Phase.NAME_OR_END | _Phase.NAME, '"':
                self._phase = _Phase.IN_NAME
                self._name = bytearray()
            case _Phase.COLON, ":":
                self._phase = _Phase.VALUE
                is_wanted = bytes(self._name[:-1]) in self._names
                self._value = bytearray() if is_wanted else None
            case _Phase.VALUE, _:
                return self._begin_value(data, at)
            case _Phase.COMMA_OR_END, ",":
                self._phase = _Phase.NAME
            case _Phase.START, _:
                raise MalformedBody("the body is no JSON object")
            case _Phase.END, _:
                raise MalformedBody("the body goes on after its end")
            case _:
                raise MalformedBody("the body does not follow the grammar of JSON")
        return at + 1

    def _begin_value(self, data: bytes, at: int) -> int:
        byte = data[at]
        if byte == _QUOTE:
            self._phase = _Phase.IN_STRING
        elif byte in _OPENING:
            self._phase = _Phase.IN_BRACKETS
            self._depth = 1
        elif byte in b"]},:":
            raise MalformedBody("a member has no value")
        else:
            self._phase = _Phase.IN_WORD
        self._keep(self._value, data, at, at + 1)
        return at + 1

    def _in_text(self, data: bytes, at: int, after: _Phase, kept: bytearray | None) -> int:
        """Read on in a string; `after` it comes that phase."""
        stop, is_ended = self._end_of_string(data, at)
        self._keep(kept, data, at, stop)
        if is_ended:
            self._phase = after
            if after is _Phase.COMMA_OR_END:
                self._end_value()
        return stop

    def _in_brackets(self, data: bytes, at: int) -> int:
        start = at
        while at < len(data) and self._depth:
            if self._in_string:
                at, is_ended = self._end_of_string(data, at)
                self._in_string = not is_ended
                continue
            found = _STRUCTURE.search(data, at)
            stop = len(data) if found is None else found.end()
            self.scanned_bytes += stop - at
            at = stop
            if found is None:
                break
            byte = data[at - 1]
            if byte == _QUOTE:
                self._in_string = True
            else:
                self._depth += 1 if byte in _OPENING else -1
        self._keep(self._value, data, start, at)
        if not self._depth:
            self._phase = _Phase.COMMA_OR_END
            self._end_value()
        return at

    def _in_word(self, data: bytes, at: int) -> int:
        found = _WORD_END.search(data, at)
        stop = len(data) if found is None else found.start()
        self.scanned_bytes += stop - at + (found is not None)
        self._keep(self._value, data, at, stop)
        if found is not None:
            self._phase = _Phase.COMMA_OR_END
            self._end_value()
        return stop

    def _end_of_string(self, data: bytes, at: int) -> tuple[int, bool]:
        """Return where the string goes on to, and whether its closing mark is just before that."""
        start = at
        if self._after_backslash:
            self._after_backslash = False
            at += 1
        while (found := _IN_STRING.search(data, at)) is not None:
            at = found.end()
            if data[at - 1] == _QUOTE:
                self.scanned_bytes += at - start
                return at, True
            if at == len(data):
                self._after_backslash = True
            at += 1
        self.scanned_bytes += len(data) - start
        return len(data), False

    def _keep(self, kept: bytearray | None, data: bytes, start: int, stop: int) -> None:
        if kept is None:
            return
        if kept is self._name:
            kept += data[start : min(stop, start + _MAX_NAME_BYTES + 1 - len(kept))]
            return
        held = self.held_bytes + stop - start
        if held > self._max_kept_bytes:
            raise EventTooLarge(held_bytes=held, max_bytes=self._max_kept_bytes)
        kept += data[start:stop]

    def _end_value(self) -> None:
        if self._value is None:
            return
        name = bytes(self._name[:-1]).decode()
        self._kept_bytes += len(self._value) - len(self._members.get(name, b""))
        self._members[name] = bytes(self._value)
        self._value = None
