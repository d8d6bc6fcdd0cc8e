"""Twin of aiproxyd/journal/writer.py, with real kills and a disk that is really full."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from aiproxyd.journal.follower import Follower
from aiproxyd.journal.segments import is_alive, journal_bytes, segments_in
from aiproxyd.journal.writer import MAX_PENDING_BYTES, JournalWriter
from aiproxyd.model.observation import InterceptionDescribed, Observation, RecordsLost, WorkerStarted

ROOT = Path(__file__).parents[3]


def _lines(folder: Path, **kwargs: int) -> list[Observation]:
    follower, found = Follower(folder, {}), []
    while batch := follower.read(**kwargs):
        found += [observation for _, observation in batch.lines]
        follower.mark_applied(batch.positions)
    return found


def _described(text: str) -> InterceptionDescribed:
    return InterceptionDescribed(at=1.5, interception_id="i", request_model="m", prompt=text)


def test_what_is_flushed_is_in_the_file_and_what_is_not_is_pending(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    assert not writer.has_pending
    writer.append(RecordsLost(at=0.0, count=1))
    assert writer.has_pending
    assert _lines(tmp_path) == []
    writer.flush()
    assert not writer.has_pending
    assert _lines(tmp_path) == [RecordsLost(at=0.0, count=1)]
    assert not writer.is_failing


def test_one_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(tmp_path, "w")
    written: list[int] = []
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        written.append(len(data))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    for number in range(100):
        writer.append(RecordsLost(at=0.0, count=number))
    writer.flush()
    writer.flush()
    assert len(written) == 1
    assert len(_lines(tmp_path)) == 100


def test_a_segment_is_finished_at_its_size_and_lines_are_never_cut(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=500)
    for number in range(200):
        writer.append(RecordsLost(at=0.0, count=number))
        writer.flush()
    segments = segments_in(tmp_path)
    assert [segment.sequence for segment in segments] == list(range(1, len(segments) + 1))
    for segment in segments:
        data = (tmp_path / segment.name).read_bytes()
        assert data.endswith(b"\n") or not data
        assert len(data) < 600
    assert [line.count for line in _lines(tmp_path)] == list(range(200))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\0", "\n", "\u2028", "\U0001f600", "\r\n" * 3])
def test_any_text_gets_through_and_a_line_is_a_line(tmp_path: Path, text: str) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(_described(text))
    writer.append(RecordsLost(at=0.0, count=1))
    writer.flush()
    data = (tmp_path / "w-00000001.jsonl").read_bytes()
    assert data.count(b"\n") == 2
    [first, second] = _lines(tmp_path)
    assert first == _described(text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd"))
    assert second == RecordsLost(at=0.0, count=1)
    assert not writer.has_pending


def test_what_cannot_be_encoded_is_counted_as_lost(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(RecordsLost(at=1.0, count=1))
    writer.append(msgspec.structs.replace(_described("x"), at=2.0, prompt=object()))
    writer.append(RecordsLost(at=3.0, count=3))
    assert writer.has_pending
    writer.flush()
    assert _lines(tmp_path) == [
        RecordsLost(at=1.0, count=1),
        RecordsLost(at=3.0, count=3),
        RecordsLost(at=2.0, count=1),
    ], "the last of them is the loss"
    assert not writer.has_pending


def test_a_worker_id_has_one_living_worker(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    with pytest.raises(BlockingIOError):
        JournalWriter(tmp_path, "w")
    assert is_alive(tmp_path, "w")
    writer.close()
    assert not is_alive(tmp_path, "w")


def test_a_worker_id_that_comes_again_goes_on_behind_its_segments(tmp_path: Path) -> None:
    for count in (1, 2):
        writer = JournalWriter(tmp_path, "w")
        writer.append(RecordsLost(at=0.0, count=count))
        writer.close()
    assert [line.count for line in _lines(tmp_path)] == [1, 2]
    assert len(segments_in(tmp_path)) == 2


def test_a_closed_writer_is_silent(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(RecordsLost(at=0.0, count=1))
    writer.close()
    writer.append(RecordsLost(at=0.0, count=2))
    writer.flush()
    writer.close()
    assert len(_lines(tmp_path)) == 1


@pytest.mark.parametrize("worker_id", ["", "a/b", "../x", "a b", "x" * 129])
def test_a_worker_id_that_is_no_file_name_is_refused(tmp_path: Path, worker_id: str) -> None:
    with pytest.raises(ValueError, match="is not a worker id"):
        JournalWriter(tmp_path, worker_id)
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "journal", "w")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "journal").iterdir()} == {0o600}


def test_a_journal_at_its_limit_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=1000, max_journal_bytes=3000)
    for number in range(200):
        writer.append(RecordsLost(at=0.0, count=number))
        writer.flush()
    assert writer.is_failing
    assert 3000 <= journal_bytes(tmp_path) < 4000
    follower = Follower(tmp_path, {})
    found = []
    while batch := follower.read():
        found += batch.lines
        follower.mark_applied(batch.positions)
    assert follower.remove_consumed()
    for _ in range(200):  # the size is not measured at every attempt
        writer.flush()
    assert not writer.is_failing
    while batch := follower.read():
        found += batch.lines
        follower.mark_applied(batch.positions)
    assert [observation.count for _, observation in found] == list(range(200)), "the buffer kept what the disk did not take"


def test_a_worker_starts_though_the_journal_is_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "old-00000001.jsonl").write_bytes(b"\n" * 5000)
    writer = JournalWriter(tmp_path, "w", max_journal_bytes=1000)
    writer.append(WorkerStarted(at=0.0, worker_id="w", pid=1))
    writer.flush()
    assert not writer.is_failing


# The limit on a file's size makes the kernel take a part of a line and refuse the rest, as a full disk does. In a process of its
# own, because the limit holds for every file of a process.
_FULL_DISK = """
import resource, sys
from pathlib import Path
from aiproxyd.journal.writer import JournalWriter, MAX_PENDING_BYTES
from aiproxyd.model.observation import InterceptionDescribed, RecordsLost
writer = JournalWriter(Path(sys.argv[1]), "w")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
number = 0
def tell(size):
    global number
    writer.append(InterceptionDescribed(at=float(number), interception_id=str(number), request_model="m", prompt="x" * size))
    number += 1
    writer.flush()
while not writer.is_failing:
    tell(997)
for _ in range(int(sys.argv[2])):
    tell(50_000)
assert writer.is_failing and writer.has_pending
assert len(writer._buffer) <= MAX_PENDING_BYTES + 2000, len(writer._buffer)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
tell(10)
assert not writer.is_failing and not writer.has_pending
print(number)
"""


@pytest.mark.parametrize("more", [0, 3, 100])
def test_a_full_disk_costs_only_what_the_buffer_cannot_keep_and_the_loss_is_told(tmp_path: Path, more: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "journal"), str(more)],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    total = int(result.stdout.splitlines()[-1])
    lines = _lines(tmp_path / "journal")
    kept = [int(line.interception_id) for line in lines if isinstance(line, InterceptionDescribed)]
    lost = sum(line.count for line in lines if isinstance(line, RecordsLost))
    assert kept == sorted(set(kept))
    assert len(kept) + lost == total, "every observation is there or is told to be lost"
    assert kept[: len(kept) - 1] == list(range(len(kept) - 1)), "the oldest are kept"
    if more * 50_000 < MAX_PENDING_BYTES:
        assert lost == 0
    else:
        assert lost > 50


_ENDLESS = """
import os, sys
from pathlib import Path
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.model.observation import InterceptionDescribed
writer = JournalWriter(Path(sys.argv[1]), sys.argv[2], max_segment_bytes=20_000)
number = 0
while True:
    for _ in range(7):
        writer.append(InterceptionDescribed(at=0.0, interception_id=str(number), request_model="m", prompt="x" * (number * 7919 % 500)))
        number += 1
    writer.flush()
    os.write(1, b"%d\\n" % number)
"""


def test_what_was_flushed_before_a_kill_is_there_and_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(3)
    for round_ in range(10):
        worker_id, folder = f"worker-{round_}", tmp_path / str(round_)
        process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(folder), worker_id], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        flushed = 0
        for _ in range(rng.randint(1, 300)):
            flushed = int(process.stdout.readline())
        assert is_alive(folder, worker_id)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        flushed = int(rest[-1]) if rest and rest[-1].isdigit() else flushed
        process.stdout.close()

        follower = Follower(folder, {})
        found = []
        while batch := follower.read(max_bytes=10_000):
            found += [int(line.interception_id) for _, line in batch.lines]
            follower.mark_applied(batch.positions)
        assert found == list(range(len(found)))
        assert flushed - 7 <= len(found), "the pipe's last number may be cut"
        assert len(found) >= flushed or not rest
        assert follower.lost_workers() == [worker_id]
        assert follower.lag_bytes() == 0


def test_the_lock_goes_with_the_process_whatever_kills_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(tmp_path), "w"], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(BlockingIOError):
        JournalWriter(tmp_path, "w")
    process.kill()
    process.wait()
    process.stdout.close()
    JournalWriter(tmp_path, "w").close()
