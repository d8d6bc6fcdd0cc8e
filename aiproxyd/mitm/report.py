"""Where the data plane tells what it sees: the journal, and the only clock and source of ids of floor 4.

It interprets nothing. Times and ids come from here so that what is below it stays pure and what is beside it can be tested
with a clock of its own.
"""

import os
import time
from collections.abc import Callable
from typing import Protocol

from aiproxyd.model.ids import ENTROPY_BYTES, uuid7
from aiproxyd.model.observation import Observation

# Random bytes for so many ids are asked of the kernel at once.
_IDS_AT_ONCE = 256


class Journal(Protocol):
    """What a reporter needs of a journal: `journal.writer.JournalWriter` has it."""

    def append(self, observation: Observation) -> None:
        """Keep `observation` for the next flush. Never raises."""

    def flush(self) -> None:
        """Write what was appended. Never raises."""


class Reporter:
    """Stamps and tells. No method raises: a journal that fails counts its own losses."""

    __slots__ = (
        "_entropy",
        "_entropy_used",
        "_is_due",
        "_is_held",
        "_is_scheduled",
        "_is_wanted",
        "_journal",
        "_schedule",
        "_soon",
    )

    def __init__(
        self,
        journal: Journal,
        *,
        schedule: Callable[[Callable[[], None]], object] | None = None,
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """
        Args:
            journal: Where to.
            schedule: Calls what it is given a moment later, so that what was told since is one write. Without it only `flush`
                and `flush_soon` write.
            soon: Calls what it is given before the loop waits again. Without it `flush_soon` is `flush`.
        """
        self._journal = journal
        self._schedule = schedule
        self._soon = soon
        self._is_scheduled = False
        self._is_due = False
        self._is_held = False
        self._is_wanted = False
        """Whether something was to be written while all was held."""
        self._entropy = b""
        self._entropy_used = 0

    now: Callable[[], float] = staticmethod(time.time)
    """Returns the Unix time in seconds; for the `at` of observations."""

    monotonic: Callable[[], float] = staticmethod(time.monotonic)
    """Returns seconds of a clock that never jumps; for durations. Called twice for each event of a stream, so nothing wraps it."""

    def new_id(self) -> str:
        """Return a fresh UUID that begins with the time."""
        start = self._entropy_used
        if start == len(self._entropy):
            self._entropy = os.urandom(_IDS_AT_ONCE * ENTROPY_BYTES)
            start = 0
        self._entropy_used = end = start + ENTROPY_BYTES
        return uuid7(time.time_ns() // 1_000_000, self._entropy[start:end])

    def tell(self, observation: Observation) -> None:
        """Append `observation` to the journal. It survives our death only after the next flush."""
        self._journal.append(observation)
        if self._schedule is not None and not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(self._flush_later)

    def _flush_later(self) -> None:
        self._is_scheduled = False
        self._journal.flush()

    def flush(self) -> None:
        """Write what was told to disk before this returns: one system call, and none when nothing is pending.

        Between `hold` and `release`: before `release` returns.
        """
        if self._is_held:
            self._is_wanted = True
        else:
            self._journal.flush()

    def hold(self) -> None:
        """Have what is to be written until `release` written together, by that. Who holds must not wait before it."""
        self._is_held = True

    def release(self) -> None:
        """Write what was to be written since `hold`."""
        self._is_held = False
        if self._is_wanted:
            self._is_wanted = False
            self._journal.flush()

    def flush_soon(self) -> None:
        """Write what was told once everything that arrived with it was looked at: what ends in one turn of a busy loop is one write."""
        if self._soon is None or self._is_held:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._soon(self._flush_due)

    def _flush_due(self) -> None:
        self._is_due = False
        self._journal.flush()
