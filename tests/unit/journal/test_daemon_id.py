"""Twin of aiproxyd/journal/daemon_id.py."""

import uuid
from pathlib import Path

import pytest

from aiproxyd.journal.daemon_id import FILE, daemon_id_of
from aiproxyd.journal.segments import segments_in, workers_in


def test_an_id_is_made_once_and_is_no_worker(tmp_path: Path) -> None:
    id_ = daemon_id_of(tmp_path)
    assert str(uuid.UUID(id_)) == id_
    assert daemon_id_of(tmp_path) == id_
    assert (segments_in(tmp_path), workers_in(tmp_path)) == ([], set())
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "not an id", "0" * 10])
def test_a_file_that_holds_none_gets_a_new_one(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert daemon_id_of(tmp_path) == daemon_id_of(tmp_path)
