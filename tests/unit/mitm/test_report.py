import time
import uuid
from collections.abc import Callable
from pathlib import Path

from aiproxyd.journal.writer import JournalWriter
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.observation import WorkerStarted


def test_what_is_told_is_on_disk_after_a_flush_and_not_before(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal)
    reporter.tell(WorkerStarted(at=reporter.now(), worker_id="w1", pid=1))
    (segment,) = tmp_path.glob("*.jsonl")
    assert segment.read_bytes() == b""
    reporter.flush()
    assert b'"worker_started"' in segment.read_bytes()
    journal.close()


def test_its_clocks_and_ids_are_the_real_ones(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal)
    before, before_monotonic = time.time(), time.monotonic()
    assert before <= reporter.now() <= time.time()
    assert before_monotonic <= reporter.monotonic() <= time.monotonic()
    assert uuid.UUID(reporter.new_id()) != uuid.UUID(reporter.new_id())
    journal.close()


def test_what_is_told_together_is_written_together_a_moment_later(tmp_path: Path) -> None:
    scheduled: list[Callable[[], None]] = []
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal, schedule=scheduled.append)
    for pid in (1, 2):
        reporter.tell(WorkerStarted(at=reporter.now(), worker_id="w1", pid=pid))
    (write,) = scheduled
    write()
    assert not journal.has_pending
    reporter.tell(WorkerStarted(at=reporter.now(), worker_id="w1", pid=3))
    assert len(scheduled) == 2
    journal.close()
