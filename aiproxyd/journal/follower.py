"""The reader's half of the journal: lines of every worker's segments, from where the reader stands, oldest first.

It applies nothing and stores nothing: whoever reads says with `mark_applied` how far the lines have become somebody's lasting
knowledge, and hands the positions back to the next follower. Several followers may read one folder.

Facts:

* A segment is finished when its worker has a later one, or is dead. A worker is dead when its lock can be taken.
* Lines of one worker come in order. Between workers there is none.

Strategy: whether a segment is finished is decided before its bytes are read, so what is found behind the last line feed of a
finished segment will never become a line and is passed over. In an unfinished one it is a line that is still being written: only then
is the worker's lock tried, and if it is dead the bytes are read again. Most looks find nothing; they list the folder and ask for the
size of each segment that is left.
A line that cannot be understood is counted and passed over; a bad line must not hold up the good ones behind it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import msgspec
import structlog

from aiproxyd.journal.segments import (
    Segment,
    is_alive,
    lock_name,
    names_in,
    segment_bytes,
    segments_among,
    segments_in,
    workers_among,
)
from aiproxyd.model.observation import Observation

_log = structlog.get_logger(__name__)

READ_BYTES = 512 << 10
"""Bytes of journal in one batch, exceeded only by a longer line: 300 to 500 interceptions without long prompts."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one `read` found."""

    lines: list[tuple[str, Observation]] = field(default_factory=list)
    """Worker id and observation, in order within each worker."""
    positions: dict[str, int] = field(default_factory=dict)
    """By segment name: the offset in bytes behind the last line of this batch. Only segments that were advanced."""
    starts: dict[str, int] = field(default_factory=dict)
    """By segment name: the offset where this batch begins."""
    unreadable: int = 0
    """Lines that were passed over because they could not be understood."""
    is_full: bool = False
    """Whether it has as much as was to be taken, and there is more."""

    def __bool__(self) -> bool:
        return bool(self.positions)


class Follower:
    """Reads a journal's folder from given positions on. For one thread at a time.

    Args:
        folder: The journal's folder; may be absent, and is then empty.
        positions: By segment name, the offset in bytes to go on from; segments not named are read from their beginning.
    """

    def __init__(self, folder: Path, positions: Mapping[str, int]) -> None:
        self.folder = folder
        self._listed: list[str] | None = None
        self._by_worker: dict[str, list[Segment]] = {}
        self._workers: set[str] = set()
        self._applied = dict(positions)
        self._read: dict[str, int] = {}
        self._list()
        self._read = dict(self._applied)
        # Removed by an earlier follower that died before their positions were deleted.
        self._stale = [name for name in positions if name not in self._applied]
        self._decoder = msgspec.json.Decoder(Observation)
        self._dead: set[str] = set()
        self._forgotten: set[str] = set()
        self._turn = ""

    @property
    def positions(self) -> dict[str, int]:
        """How far everything is applied, by segment name."""
        return dict(self._applied)

    def read(self, *, max_bytes: int = READ_BYTES) -> Batch:
        """Return the next lines, and advance.

        Args:
            max_bytes: About how much of the journal to take; one line is taken however long it is.

        Raises:
            OSError: The folder or a segment cannot be read; nothing is lost, call again.
        """
        batch = _Reading(self._decoder)
        by_worker = self._list()
        # The worker after the last one served comes first, so that a busy one cannot starve the others.
        workers = sorted(by_worker)
        start = next((index for index, worker in enumerate(workers) if worker > self._turn), 0)
        for worker_id in workers[start:] + workers[:start]:
            if batch.is_full:
                break
            self._turn = worker_id
            self._read_worker(worker_id, by_worker[worker_id], batch, max_bytes)
        starts = {name: self._read.get(name, 0) for name in batch.positions}
        self._read.update(batch.positions)
        return Batch(batch.lines, batch.positions, starts, batch.unreadable, batch.is_full)

    def mark_applied(self, positions: Mapping[str, int]) -> None:
        """Say that everything before `positions`, those of a batch, need not be read again by anybody who goes on from here."""
        self._applied.update(positions)

    def rewind(self, positions: Mapping[str, int] | None = None) -> None:
        """Go back to what is applied: the next `read` returns again what was read and not applied.

        Args:
            positions: How far everything is applied, where somebody else knows better: a transaction whose answer was lost may
                have been committed.
        """
        if positions is not None:
            self._applied = {name: positions.get(name, 0) for name in self._applied.keys() | positions.keys()}
        self._read = dict(self._applied)
        self._listed = None  # what was removed may be among them

    def lag_bytes(self) -> int:
        """Return how many bytes of the journal are not applied."""
        return sum(
            max(0, segment_bytes(self.folder, segment) - self._applied.get(segment.name, 0))
            for segment in segments_in(self.folder)
        )

    def lost_workers(self) -> list[str]:
        """Return the dead workers all of whose lines are applied and that were not forgotten."""
        self._learn_deaths()
        gone = self._dead - self._forgotten
        # What they wrote before they died may have come after the last look.
        by_worker = self._list() if gone else {}
        return [worker for worker in sorted(gone) if all(self._is_passed(s) for s in by_worker.get(worker, ()))]

    def forget(self, worker_id: str) -> None:
        """Say that everything about a dead worker is settled; `lost_workers` does not name it again."""
        self._forgotten.add(worker_id)

    def remove_consumed(self, *others: Mapping[str, int]) -> list[str]:
        """Remove the finished segments that are applied here and passed by every other follower.

        The last of a dead worker's files, its lock, goes when the worker is forgotten here.

        Args:
            others: The `positions` of each other follower of this folder.

        Returns:
            The names of segments that are gone; their positions can be deleted wherever they are kept, but only after this
            call, or a segment would be read a second time.
        """
        removed, self._stale = self._stale, []
        self._learn_deaths()
        if not any(worker_id in self._dead or len(segments) > 1 for worker_id, segments in self._by_worker.items()):
            return removed
        for worker_id, segments in self._list().items():
            is_dead = worker_id in self._dead
            for index, segment in enumerate(segments):
                if not is_dead and index == len(segments) - 1:
                    break
                size = segment_bytes(self.folder, segment)
                if not self._is_passed(segment) or any(other.get(segment.name, 0) < size for other in others):
                    break
                (self.folder / segment.name).unlink(missing_ok=True)
                removed.append(segment.name)
            else:
                if worker_id in self._forgotten:
                    (self.folder / lock_name(worker_id)).unlink(missing_ok=True)
                    self._workers.discard(worker_id)
        return removed

    def _is_passed(self, segment: Segment) -> bool:
        return self._applied.get(segment.name, 0) >= segment_bytes(self.folder, segment)

    def _list(self) -> dict[str, list[Segment]]:
        """Return the segments of each worker by age, as they are now; of one that left only its lock, none."""
        names = names_in(self.folder)
        if names == self._listed:
            return self._by_worker
        by_worker: dict[str, list[Segment]] = {worker_id: [] for worker_id in workers_among(names)}
        for segment in segments_among(names):
            by_worker[segment.worker_id].append(segment)
        for positions in (self._applied, self._read):
            # Those of removed segments would pile up.
            for name in positions.keys() - set(names):
                del positions[name]
        self._workers |= by_worker.keys()
        self._listed, self._by_worker = names, by_worker
        return by_worker

    def _learn_deaths(self) -> None:
        for worker_id in self._workers - self._dead:
            self._has_died(worker_id)

    def _has_died(self, worker_id: str) -> bool:
        if worker_id not in self._dead and not is_alive(self.folder, worker_id):
            self._dead.add(worker_id)
        return worker_id in self._dead

    def _read_worker(self, worker_id: str, segments: list[Segment], batch: "_Reading", max_bytes: int) -> None:
        for index, segment in enumerate(segments):
            is_finished = worker_id in self._dead or index < len(segments) - 1
            position = self._read.get(segment.name, 0)
            try:
                whole = batch.read_segment(self.folder, segment, position, is_finished=is_finished, max_bytes=max_bytes)
            except FileNotFoundError:
                continue  # another follower removed it: everybody had passed it
            if not (whole and is_finished):
                break
        else:
            return
        if batch.leaves_rest and self._has_died(worker_id):
            start = batch.positions.get(segment.name, position)
            batch.read_segment(self.folder, segment, start, is_finished=True, max_bytes=max_bytes)


class _Reading:
    """A batch that is being read."""

    def __init__(self, decoder: "msgspec.json.Decoder[Observation]") -> None:
        self._decoder = decoder
        self.lines: list[tuple[str, Observation]] = []
        self.positions: dict[str, int] = {}
        self.unreadable = 0
        self.size = 0
        self.is_full = False
        self.leaves_rest = False
        """Whether an unfinished segment that was read last has something behind its last line."""

    def read_segment(self, folder: Path, segment: Segment, position: int, *, is_finished: bool, max_bytes: int) -> bool:
        """Take lines from `position` on; return whether the end of the segment was reached."""
        self.leaves_rest = False
        if segment_bytes(folder, segment) <= position:
            return True
        descriptor = os.open(folder / segment.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            wanted = max(max_bytes - self.size, 1)
            while True:
                data = os.pread(descriptor, wanted, position)
                end = data.rfind(b"\n") + 1
                at_end = len(data) < wanted
                if not end and not at_end:
                    wanted *= 2  # a line longer than the batch
                    continue
                if end:
                    self._take(segment, position, data[:end])
                if at_end and end < len(data):
                    if is_finished:
                        self._pass_over(segment, position + end, "torn")
                        end = len(data)
                    else:
                        self.leaves_rest = True
                if end:
                    self.positions[segment.name] = position + end
                    self.size += end
                self.is_full = self.is_full or not at_end
                return at_end
        finally:
            os.close(descriptor)

    def _take(self, segment: Segment, position: int, data: bytes) -> None:
        worker_id = segment.worker_id
        try:
            self.lines += zip(repeat(worker_id), self._decoder.decode_lines(data))
        except (msgspec.DecodeError, UnicodeDecodeError):
            for line in data.split(b"\n")[:-1]:
                try:
                    self.lines.append((worker_id, self._decoder.decode(line)))
                except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                    self._pass_over(segment, position, str(exc))
                position += len(line) + 1

    def _pass_over(self, segment: Segment, position: int, error: str) -> None:
        # The line itself is never logged: it may hold a prompt.
        self.unreadable += 1
        _log.warning("journal line passed over", segment=segment.name, position=position, error=error)


def end_positions(folder: Path) -> dict[str, int]:
    """Return the positions behind everything that is in `folder` at this time, for a follower that wants only what comes.

    A line that is being written meanwhile may be cut by them; the follower counts the rest of it as unreadable.
    """
    return {segment.name: _whole_lines(folder / segment.name) for segment in segments_in(folder)}


def _whole_lines(path: Path) -> int:
    """Return the offset behind the last line feed of a file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
    except FileNotFoundError:
        pass
    return 0
