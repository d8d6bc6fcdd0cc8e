"""Pieces of a stream that are looked at together, a few at a time, after each was forwarded when it came.

Not a buffer on the way of bytes: nobody waits for what is kept here. To look at an event costs a process that was asleep several
times what it costs one that has just looked at another: its code and data are in no cache. Measured with 32 streams of 50 events
a second, by which a worker spends 7 to 9 % less.
"""

from collections.abc import Callable
from typing import Final

from aiproxyd.mitm.deadlines import Deadline, Deadlines

MAX_PIECES: Final = 12
"""So many are looked at together. With 8 or 32 it costs the same."""

MAX_PIECE_BYTES: Final = 4096
"""A larger piece is worth a look by itself. This times the number of pieces bounds what is held."""

MAX_WAIT_SECONDS: Final = 0.5
"""So long a piece waits for others, and up to two ticks of `Deadlines` longer."""


class Gathering:
    """What was not looked at yet."""

    __slots__ = ("_deadline", "_deadlines", "_look", "_pieces")

    def __init__(self, deadlines: Deadlines, look: Callable[[bytes], None]) -> None:
        """
        Args:
            deadlines: Of the loop.
            look: Looks at bytes. Must not raise.
        """
        self._deadlines = deadlines
        self._look = look
        self._pieces: list[bytes] = []
        self._deadline: Deadline | None = None

    def add(self, data: bytes) -> None:
        """Keep `data` until there is enough to look at, or the time has come."""
        self._pieces.append(data)
        if len(self._pieces) >= MAX_PIECES or len(data) > MAX_PIECE_BYTES:
            self.look()
            if self._deadline is not None:
                self._deadline.touched = self._deadlines.now
        elif self._deadline is None:
            self._deadline = self._deadlines.start(MAX_WAIT_SECONDS, self._waited)

    def append(self, data: bytes) -> None:
        """Keep `data` behind the rest until the caller looks, who is about to."""
        self._pieces.append(data)

    def look(self) -> None:
        """Look now at what was kept."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._look(data)

    def close(self) -> None:
        """Forget what was kept, and never look again by itself."""
        self._pieces.clear()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _waited(self) -> None:
        self._deadline = None
        self.look()
