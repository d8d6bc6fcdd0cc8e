"""Remembers how many records a selection lets through, for as long as it was worth: a count that took long is believed longer, and
while a newer one is made, which nobody waits for.

Why: a list says how many there are in all, and counting a million rows takes longer than showing a hundred. A count of a small
store takes no time and is always made anew.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple

BELIEVED_TIMES = 100
"""A count that took 10 ms is believed for a second."""

MAX_BELIEVED_SECONDS = 60.0

TOLERATED_SECONDS = 600.0
"""For so much longer a count is told while a new one is being made."""

_ALWAYS_ANEW_SECONDS = 0.02
_MAX_REMEMBERED = 200


class _Count(NamedTuple):
    number: int
    believed_until: float
    tolerated_until: float


class Counts:
    """Counts by what was counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[Hashable, _Count] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[int]] = {}

    async def count(self, what: Hashable, make: Callable[[], Awaitable[int]]) -> int:
        """Return a count that is still believed, or make one; one that is not much older is told while a new one is made."""
        now = self._clock()
        remembered = self._counts.get(what)
        if remembered is None or now >= remembered.tolerated_until:
            return await self._make(what, make)
        if now >= remembered.believed_until and what not in self._making:
            task = asyncio.ensure_future(self._make(what, make))
            self._making[what] = task
            task.add_done_callback(lambda done: self._made(what, done))
        return remembered.number

    async def _make(self, what: Hashable, make: Callable[[], Awaitable[int]]) -> int:
        began = self._clock()
        count = await make()
        now = self._clock()
        took = now - began
        if took > _ALWAYS_ANEW_SECONDS:
            believed_until = now + min(MAX_BELIEVED_SECONDS, took * BELIEVED_TIMES)
            self._counts[what] = _Count(count, believed_until, believed_until + TOLERATED_SECONDS)
            self._counts.move_to_end(what)
            if len(self._counts) > _MAX_REMEMBERED:
                self._counts.popitem(last=False)
        else:
            self._counts.pop(what, None)
        return count

    def _made(self, what: Hashable, task: "asyncio.Task[int]") -> None:
        self._making.pop(what, None)
        # A count that failed is made again by who asks next; this one nobody waits for.
        if not task.cancelled():
            task.exception()
