"""A provider's keys in their order, and which of them may be used right now. Pure: times are arguments, in seconds of one clock.

Coder's rules. Every request begins at the first usable key. 429 makes a key `temporary` until its cooldown is over: `retry-after-ms`,
else `Retry-After` in whole seconds, else 60 s; a running cooldown is never shortened. 401 and 403 make it `permanent`, which
lasts until the configuration is loaded again. No other status is the key's fault. A request tries each key once at most.

Not for Bedrock: its 403 speaks of the model as often as of the credentials. A pool that does not fail over never marks a key.
"""

import enum
import math
import re
from collections.abc import Sequence

import msgspec

from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers

DEFAULT_COOLDOWN_SECONDS = 60.0

# A provider that asks for more is believed for a day; then the key is tried again.
MAX_COOLDOWN_SECONDS = 86_400.0

_MILLISECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?\Z", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,15}\Z", re.ASCII)


class KeyState(enum.StrEnum):
    """Whether a key may be used; the `state` label of metrics."""

    VALID = "valid"
    TEMPORARY = "temporary"
    """The provider limits its rate, until a known time."""
    PERMANENT = "permanent"
    """The provider does not accept it."""


class KeyMark(msgspec.Struct, frozen=True):
    """A key is not usable: what one worker learnt and tells the others."""

    index: int
    """Which key of the entry, from 0."""
    state: KeyState
    """`temporary` or `permanent`."""
    reason: str
    """`rate_limited`, `unauthorized` or `forbidden`; the `reason` label of metrics."""
    cooldown_seconds: float = 0.0
    """How long from now, for `temporary`."""


class Exhausted(msgspec.Struct, frozen=True):
    """No key is left for a request."""

    outcome: str
    """`rate_limited` or `auth_failed`; the `outcome` label of metrics."""
    status_code: int
    """What the client gets: 429 or 502."""
    retry_after_seconds: int
    """Until the first key may be used again, rounded up, at least 1; 0 for `auth_failed`."""


class _Mark:
    __slots__ = ("permanent", "until")

    def __init__(self) -> None:
        self.permanent = False
        self.until = -math.inf
        """End of the last cooldown."""


class KeyPool:
    """The keys of one provider in one worker."""

    def __init__(self, keys: Sequence[UpstreamKey], *, fails_over: bool = True) -> None:
        """
        Args:
            keys: In the order they are to be used; may be empty.
            fails_over: Whether answers say anything about keys. Without, the first key is always the one.
        """
        self.keys = tuple(keys)
        self.fails_over = fails_over
        self._marks = [_Mark() for _ in self.keys]

    def renewed(self, keys: Sequence[UpstreamKey], *, fails_over: bool = True) -> "KeyPool":
        """Return the pool after a reload: `permanent` keys get another chance, cooldowns of keys that stay go on."""
        pool = KeyPool(keys, fails_over=fails_over)
        running = {key: mark.until for key, mark in zip(self.keys, self._marks, strict=True)}
        for key, mark in zip(pool.keys, pool._marks, strict=True):
            mark.until = running.get(key, mark.until)
        return pool

    def walk(self) -> "KeyWalk":
        """Return the way of one request through the keys."""
        return KeyWalk(self)

    def state(self, index: int, now: float) -> KeyState:
        """Return the state of one key."""
        mark = self._marks[index]
        if mark.permanent:
            return KeyState.PERMANENT
        return KeyState.TEMPORARY if now < mark.until else KeyState.VALID

    def counts(self, now: float) -> dict[KeyState, int]:
        """Return how many keys are in each state."""
        states = [self.state(index, now) for index in range(len(self.keys))]
        return {state: states.count(state) for state in KeyState}

    def answered(self, index: int, status_code: int, headers: Headers, now: float) -> KeyMark | None:
        """Take note of the status that a request with a key got; return what it changed, to be told to others.

        Args:
            index: The key.
            status_code: Of the provider's answer.
            headers: Of the provider's answer.
            now: When it came.
        """
        if not self.fails_over:
            return None
        if status_code == 429:
            cooldown = cooldown_seconds(headers)
            return self.mark(KeyMark(index, KeyState.TEMPORARY, "rate_limited", cooldown), now)
        if status_code in {401, 403}:
            reason = "unauthorized" if status_code == 401 else "forbidden"
            return self.mark(KeyMark(index, KeyState.PERMANENT, reason), now)
        return None

    def mark(self, mark: KeyMark, now: float) -> KeyMark | None:
        """Apply what this or another worker learnt; return `mark` when the state of the key is another one now.

        A cooldown that only becomes longer is applied and is no change of state.
        """
        if not 0 <= mark.index < len(self._marks):
            return None
        before = self.state(mark.index, now)
        known = self._marks[mark.index]
        if mark.state is KeyState.PERMANENT:
            known.permanent = True
        elif mark.state is KeyState.TEMPORARY:
            known.until = max(known.until, now + mark.cooldown_seconds)
        return mark if self.state(mark.index, now) is not before else None

    def exhausted(self, now: float) -> Exhausted:
        """Return what is said when no key is left for a request."""
        # A cooldown that has just ended still means: later, not never.
        waits = [mark.until - now for mark in self._marks if not mark.permanent]
        if not waits:
            return Exhausted("auth_failed", 502, 0)
        return Exhausted("rate_limited", 429, max(1, math.ceil(min(waits))) if min(waits) > 0 else 1)


class KeyWalk:
    """One request's way through the keys of its provider: each at most once, in order."""

    __slots__ = ("_pool", "_tried", "index")

    def __init__(self, pool: KeyPool) -> None:
        self._pool = pool
        self._tried: set[int] = set()
        self.index = -1
        """The key in use; -1 before the first."""

    @property
    def attempts(self) -> int:
        """How many keys were tried."""
        return len(self._tried)

    def next(self, now: float) -> UpstreamKey | None:
        """Return the key to try (again), or None when none is left; then `pool.exhausted` says what to answer."""
        pool = self._pool
        for index, key in enumerate(pool.keys):
            if index not in self._tried and (not pool.fails_over or pool.state(index, now) is KeyState.VALID):
                self._tried.add(index)
                self.index = index
                return key
            if not pool.fails_over:
                return None
        return None

    def fails_over(self, status_code: int) -> bool:
        """Return whether an answer with this status is a reason to try the next key."""
        return self._pool.fails_over and status_code in {401, 403, 429}


def cooldown_seconds(headers: Headers) -> float:
    """Return how long a key rests after a 429 with these headers. A `Retry-After` with a date counts as absent."""
    milliseconds = (headers.first("retry-after-ms") or "").strip()
    if _MILLISECONDS.match(milliseconds):
        return min(float(milliseconds) / 1000, MAX_COOLDOWN_SECONDS)
    seconds = (headers.first("retry-after") or "").strip()
    if _SECONDS.match(seconds):
        return min(float(seconds), MAX_COOLDOWN_SECONDS)
    return DEFAULT_COOLDOWN_SECONDS
