"""Which answers hold bytes that were forwarded and not read yet, so that no byte waits long when nothing follows it.

Events of a stream come one at a time, and reading each by itself costs twice what it costs in company. So a tap that has seen the
first output of an answer, after which no measured time hangs on a byte, reads a few pieces at once (`tap.RequestTap`). What the
last of them say is told late by so much, and by the times below where a stream pauses. Holds no bytes and reads none itself.
"""

from collections.abc import Callable
from typing import Final, Protocol

MAX_PIECES: Final = 8
"""Pieces of one answer that are read at once."""

MAX_BYTES: Final = 4096
"""Bytes of one answer at which its pieces are read at once, however few they are."""

SWEEP_SECONDS: Final = 0.25
"""Bytes wait for one to two times as long when nothing follows them."""

MAX_SWEPT: Final = 16
"""Answers that are read in one call of the loop; the rest lets others go first."""


class Reader(Protocol):
    """Who holds bytes: `tap.RequestTap`."""

    def read_on(self) -> None:
        """Read what is held. Must not raise."""


class Unread:
    """The answers of a worker that hold bytes."""

    __slots__ = ("_is_scheduled", "_older", "_schedule", "_younger")

    def __init__(self, schedule: Callable[[float, Callable[[], None]], object]) -> None:
        """
        Args:
            schedule: Calls something after so many seconds, as `loop.call_later`.
        """
        self._schedule = schedule
        self._is_scheduled = False
        # In order, so that those who wait longest come first.
        self._younger: dict[Reader, None] = {}
        self._older: dict[Reader, None] = {}
        """Those that a sweep has met already."""

    def add(self, reader: Reader) -> None:
        """Take note that `reader` holds bytes."""
        self._younger[reader] = None
        if not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(SWEEP_SECONDS, self._sweep)

    def discard(self, reader: Reader) -> None:
        """Take note that `reader` holds none any more."""
        if reader in self._younger:
            del self._younger[reader]
        else:
            self._older.pop(reader, None)

    def _sweep(self) -> None:
        for reader in list(self._older)[:MAX_SWEPT]:
            self._older.pop(reader, None)
            reader.read_on()
        if self._older:
            self._schedule(0.0, self._sweep)
            return
        self._older, self._younger = self._younger, self._older
        if self._older:
            self._schedule(SWEEP_SECONDS, self._sweep)
        else:
            self._is_scheduled = False
