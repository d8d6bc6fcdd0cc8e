"""Twin of aiproxyd/telemetry/rotating_file.py."""

import os
from pathlib import Path

import pytest

from aiproxyd.exceptions import AiproxydError
from aiproxyd.telemetry.rotating_file import RotatingFile


def test_a_full_file_is_put_aside_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RotatingFile(path, max_bytes=40, files=2) as file:
        for number in range(10):
            file.write(f"line {number} " + "x" * 10)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    texts = [(tmp_path / name).read_text() for name in ("log.2", "log.1", "log")]
    numbers = [int(line.split()[1]) for text in texts for line in text.splitlines()]
    assert numbers == list(range(10))[-len(numbers) :]
    assert all(len(text) <= 40 for text in texts)


def test_a_line_longer_than_the_file_may_be_is_written_whole(tmp_path: Path) -> None:
    with RotatingFile(tmp_path / "log", max_bytes=10, files=1) as file:
        file.write("x" * 100)
        file.write("y")
    assert (tmp_path / "log.1").read_text() == "x" * 100 + "\n"


def test_what_was_there_is_kept_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with RotatingFile(path, max_bytes=10, files=1) as file:
        file.write("after")
    assert ((tmp_path / "log.1").read_text(), path.read_text()) == ("before\n", "after\n")


def test_only_the_owner_reads_it_and_odd_text_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RotatingFile(path, max_bytes=1000, files=1) as file:
        file.write("\ud800")
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text() == "\\ud800\n"


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AiproxydError, match="cannot be written"):
        RotatingFile(tmp_path / "nowhere" / "log", max_bytes=10, files=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RotatingFile(path, max_bytes=1000, files=1) as file:
        good = file._file
        file._file = os.open("/dev/full", os.O_WRONLY)
        file.write("lost")
        file.write("lost, too")
        assert file.lost_lines == 2
        os.close(file._file)
        file._file = good
        file.write("kept")
        assert file.lost_lines == 0
    assert path.read_text() == "kept\n"
