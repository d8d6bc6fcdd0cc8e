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


def _tell(reporter: Reporter) -> None:
    reporter.tell(WorkerStarted(at=reporter.now(), worker_id="w1", pid=1))


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
    _tell(reporter)
    _tell(reporter)
    (write,) = scheduled
    write()
    assert not journal.has_pending
    _tell(reporter)
    assert len(scheduled) == 2
    journal.close()


def test_what_ends_in_one_turn_of_the_loop_is_written_together_and_without_a_loop_at_once(tmp_path: Path) -> None:
    due: list[Callable[[], None]] = []
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal, soon=due.append)
    for _ in range(2):
        _tell(reporter)
        reporter.flush_soon()
    (write,) = due
    assert journal.has_pending
    write()
    assert not journal.has_pending
    at_once = Reporter(journal)
    _tell(at_once)
    assert journal.has_pending
    at_once.flush_soon()
    assert not journal.has_pending
    _tell(reporter)
    reporter.flush_soon()
    assert len(due) == 2
    journal.close()


def test_what_is_to_be_written_while_all_is_held_is_written_together_when_it_is_released(tmp_path: Path) -> None:
    due: list[Callable[[], None]] = []
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal, soon=due.append)
    (segment,) = tmp_path.glob("*.jsonl")
    for _ in range(2):
        reporter.hold()
        for write in (reporter.flush, reporter.flush_soon):
            _tell(reporter)
            write()
        assert (journal.has_pending, due) == (True, [])
        reporter.release()
        assert not journal.has_pending
    assert segment.read_bytes().count(b"\n") == 4
    reporter.hold()
    _tell(reporter)
    reporter.release()
    assert journal.has_pending  # nobody asked for it
    reporter.flush()
    assert not journal.has_pending
    journal.close()


def test_no_two_of_many_ids_are_equal(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, "w1")
    reporter = Reporter(journal)
    # More than are made of the randomness that is asked for at once.
    ids = {reporter.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    # Of a time that is the same for many; what is behind it is not.
    assert len({id_[14:] for id_ in ids}) == 2000
    journal.close()
