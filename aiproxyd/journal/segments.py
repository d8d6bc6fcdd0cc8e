"""Names of journal segments: `<worker id>-<sequence>.jsonl`, the sequence from 1 in at least eight digits."""

import os
import re
from pathlib import Path
from typing import NamedTuple

_SEGMENT = re.compile(r"([A-Za-z0-9_.-]+)-(\d{8,})\.jsonl\Z")
_WORKER_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")


class Segment(NamedTuple):
    """One file of a worker's journal."""

    worker_id: str
    sequence: int

    @property
    def name(self) -> str:
        """Its file name."""
        return segment_name(self.worker_id, self.sequence)


def segment_name(worker_id: str, sequence: int) -> str:
    """Return the file name of a segment.

    Raises:
        ValueError: `worker_id` cannot be a part of a file name.
    """
    if not _WORKER_ID.match(worker_id):
        message = f"{worker_id!r} is not a worker id: letters, digits, '-', '_' and '.', at most 128 of them"
        raise ValueError(message)
    return f"{worker_id}-{sequence:08d}.jsonl"


def segment_of(name: str) -> Segment | None:
    """Return the segment that a file name belongs to, or None when it is no segment's."""
    match = _SEGMENT.match(name)
    return Segment(match[1], int(match[2])) if match else None


def segments_in(folder: Path) -> list[Segment]:
    """Return the segments in `folder`, by worker and age."""
    return sorted(segment for name in os.listdir(folder) if (segment := segment_of(name)))  # noqa: PTH208  (names are all we need)
