"""One coarse timer for everything that may wait too long: heads, handshakes, idle tunnels.

Not for anything that needs precision: a deadline passes up to two ticks late. In exchange, activity costs an assignment, no clock
is read for it, and ten thousand idle tunnels cost a look a minute each.

    deadline = deadlines.start(30.0, self._head_took_too_long)
    deadline.touched = deadlines.now    # something happened
    deadline.cancel()
"""

import asyncio
from collections.abc import Callable

# Deadlines further away than this are looked at so often, in seconds.
_LOOK_SECONDS = 60.0


class Deadline:
    """Calls back once, when nothing has touched it for its time."""

    __slots__ = ("bucket", "callback", "seconds", "touched")

    def __init__(self, seconds: float, callback: Callable[[], None], now: float) -> None:
        self.touched = now
        """When something happened last, as `Deadlines.now`. Assign it."""
        self.seconds = seconds
        self.callback: Callable[[], None] | None = callback
        """None when it passed or was cancelled."""
        self.bucket: set[Deadline] | None = None
        """Where `Deadlines` keeps it."""

    def cancel(self) -> None:
        """Never call back. May be called again."""
        self.callback = None
        if self.bucket is not None:
            self.bucket.discard(self)
            self.bucket = None


class Deadlines:
    """All deadlines of a loop, in buckets of one tick."""

    def __init__(self, *, tick_seconds: float = 1.0) -> None:
        """Belong to the running loop. The timer runs while there are deadlines.

        Args:
            tick_seconds: How exact deadlines are.
        """
        self._tick_seconds = tick_seconds
        self._loop = asyncio.get_running_loop()
        self._buckets: dict[int, set[Deadline]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = 0
        self.now = self._loop.time()
        """The loop's time at the last tick, in seconds."""

    def start(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Return a deadline that passes after `seconds` without a touch."""
        if self._timer is None:
            self.now = self._loop.time()
            self._last_tick = int(self.now / self._tick_seconds)
            self._timer = self._loop.call_later(self._tick_seconds, self._tick)
        deadline = Deadline(seconds, callback, self.now)
        self._place(deadline)
        return deadline

    def close(self) -> None:
        """Stop the timer; no deadline passes any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()

    def _place(self, deadline: Deadline) -> None:
        # `now` is up to a tick old, so one is added: a deadline may pass late, never early.
        due = min(deadline.touched + deadline.seconds + self._tick_seconds, self.now + _LOOK_SECONDS)
        tick = max(int(due / self._tick_seconds) + 1, self._last_tick + 1)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
        bucket.add(deadline)
        deadline.bucket = bucket

    def _tick(self) -> None:
        self.now = self._loop.time()
        # A loop that was busy may have missed ticks.
        first, self._last_tick = self._last_tick + 1, int(self.now / self._tick_seconds)
        for tick in range(first, self._last_tick + 1):
            for deadline in self._buckets.pop(tick, ()):
                if deadline.touched + deadline.seconds > self.now:
                    self._place(deadline)
                elif deadline.callback is not None:
                    # Soon, not here: a callback that fails or cancels others must not disturb this loop.
                    self._loop.call_soon(self._pass, deadline)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick) if self._buckets else None

    def _pass(self, deadline: Deadline) -> None:
        callback, deadline.callback = deadline.callback, None
        if callback is not None:
            callback()
