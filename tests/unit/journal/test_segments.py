"""Twin of aiproxyd/journal/segments.py."""

from pathlib import Path

import pytest

from aiproxyd.journal.segments import (
    Segment,
    has_live_worker,
    is_alive,
    journal_bytes,
    segment_bytes,
    segment_of,
    segments_in,
    workers_in,
)
from aiproxyd.journal.writer import JournalWriter


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("w-00000001.jsonl", Segment("w", 1)),
        ("a-b-00000012.jsonl", Segment("a-b", 12)),
        ("w-123456789.jsonl", Segment("w", 123456789)),
        ("0b3e5c1a-6c5e-4c9e-9c5c-2f1a4f0f2a11-00000001.jsonl", Segment("0b3e5c1a-6c5e-4c9e-9c5c-2f1a4f0f2a11", 1)),
        ("w-1.jsonl", None),
        ("w-00000001.jsonl~", None),
        ("-00000001.jsonl", None),
        ("w.lock", None),
    ],
)
def test_names_and_segments(name: str, segment: Segment | None) -> None:
    assert segment_of(name) == segment
    if segment is not None:
        assert segment.name == name


def test_a_folder_is_listed_by_worker_and_age(tmp_path: Path) -> None:
    for name in (
        "b-00000002.jsonl",
        "a-00000010.jsonl",
        "a-00000009.jsonl",
        "a-100000000.jsonl",
        "notes.txt",
        "c.lock",
        "d.lock.77",
    ):
        (tmp_path / name).write_bytes(b"12345")
    assert [str(segment.name) for segment in segments_in(tmp_path)] == [
        "a-00000009.jsonl",
        "a-00000010.jsonl",
        "a-100000000.jsonl",
        "b-00000002.jsonl",
    ]
    assert workers_in(tmp_path) == {"a", "b", "c"}
    assert journal_bytes(tmp_path) == 20
    assert segment_bytes(tmp_path, Segment("none", 1)) == 0


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert (segments_in(folder), workers_in(folder), journal_bytes(folder), has_live_worker(folder)) == ([], set(), 0, False)


def test_looking_for_life_does_not_take_the_lock_from_anybody(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    assert is_alive(tmp_path, "w")
    assert has_live_worker(tmp_path)
    writer.close()
    assert not is_alive(tmp_path, "w")
    assert not has_live_worker(tmp_path)
    assert not is_alive(tmp_path, "never-seen")
