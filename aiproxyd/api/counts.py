"""Remembers how many records a selection lets through, for as long as it was worth: a count that took long is believed longer.

Why: a list says how many there are in all, and counting a million rows takes longer than showing a hundred. A count of a small
store takes no time and is always made anew.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

BELIEVED_TIMES = 100
"""A count that took 10 ms is believed for a second."""

MAX_BELIEVED_SECONDS = 60.0

_ALWAYS_ANEW_SECONDS = 0.02
_MAX_REMEMBERED = 200


class Counts:
    """Counts by what was counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    async def count(self, what: Hashable, make: Callable[[], Awaitable[int]]) -> int:
        """Return a count that is still believed, or make one."""
        now = self._clock()
        remembered = self._counts.get(what)
        if remembered is not None and now < remembered[1]:
            return remembered[0]
        count = await make()
        took = self._clock() - now
        if took > _ALWAYS_ANEW_SECONDS:
            self._counts[what] = (count, now + took + min(MAX_BELIEVED_SECONDS, took * BELIEVED_TIMES))
            self._counts.move_to_end(what)
            if len(self._counts) > _MAX_REMEMBERED:
                self._counts.popitem(last=False)
        else:
            self._counts.pop(what, None)
        return count
