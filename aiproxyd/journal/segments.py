"""What lies in a journal's folder: segments `<worker id>-<sequence>.jsonl`, the sequence from 1 in at least eight digits, and
a lock `<worker id>.lock` a worker, which the kernel holds for as long as the worker lives.
"""

import fcntl
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

_SEGMENT = re.compile(r"([A-Za-z0-9_.-]{1,128})-(\d{8,})\.jsonl\Z")
_LOCK_SUFFIX = ".lock"
_WORKER_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")


class Segment(NamedTuple):
    """One file of a worker's journal."""

    worker_id: str
    sequence: int

    @property
    def name(self) -> str:
        """Its file name."""
        return f"{self.worker_id}-{self.sequence:08d}.jsonl"


def segment_name(worker_id: str, sequence: int) -> str:
    """Return the file name of a segment.

    Raises:
        ValueError: `worker_id` cannot be a part of a file name.
    """
    return Segment(_checked(worker_id), sequence).name


def lock_name(worker_id: str) -> str:
    """Return the file name of a worker's lock.

    Raises:
        ValueError: `worker_id` cannot be a part of a file name.
    """
    return f"{_checked(worker_id)}{_LOCK_SUFFIX}"


def segment_of(name: str) -> Segment | None:
    """Return the segment that a file name belongs to, or None when it is no segment's."""
    match = _SEGMENT.match(name)
    return Segment(match[1], int(match[2])) if match else None


def segments_in(folder: Path) -> list[Segment]:
    """Return the segments in `folder`, by worker and age; none when there is no such folder."""
    return segments_among(names_in(folder))


def segments_among(names: Iterable[str]) -> list[Segment]:
    """Return the segments that have their names among those of files, by worker and age."""
    return sorted(segment for name in names if (segment := segment_of(name)))


def workers_in(folder: Path) -> set[str]:
    """Return the ids of the workers that left a lock or a segment in `folder`."""
    return workers_among(names_in(folder))


def workers_among(names: Collection[str]) -> set[str]:
    """Return the ids of the workers whose lock or segment has its name among those of files."""
    locks = {name.removesuffix(_LOCK_SUFFIX) for name in names if name.endswith(_LOCK_SUFFIX)}
    workers = {worker_id for worker_id in locks if _WORKER_ID.match(worker_id)}
    return workers.union(segment.worker_id for name in names if (segment := segment_of(name)))


def is_alive(folder: Path, worker_id: str) -> bool:
    """Return whether a living process holds a worker's lock; one that is not there is held by nobody.

    Raises:
        OSError: The lock cannot be opened, so it is not known.
    """
    try:
        descriptor = os.open(folder / lock_name(worker_id), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who try at once do not take each other for the worker.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def has_live_worker(folder: Path) -> bool:
    """Return whether any worker that writes to `folder` lives."""
    return any(is_alive(folder, worker_id) for worker_id in workers_in(folder))


def segment_bytes(folder: Path, segment: Segment) -> int:
    """Return the size of a segment, 0 when it is not there."""
    try:
        return (folder / segment.name).stat().st_size
    except FileNotFoundError:
        return 0


def journal_bytes(folder: Path) -> int:
    """Return the bytes that all segments in `folder` hold."""
    return sum(segment_bytes(folder, segment) for segment in segments_in(folder))


def names_in(folder: Path) -> list[str]:
    """Return the names of all that is in `folder`; none when there is no such folder."""
    try:
        return os.listdir(folder)  # noqa: PTH208  (names are all we need)
    except FileNotFoundError:
        return []


def _checked(worker_id: str) -> str:
    if not _WORKER_ID.match(worker_id):
        message = f"{worker_id!r} is not a worker id: letters, digits, '-', '_' and '.', at most 128 of them"
        raise ValueError(message)
    return worker_id
