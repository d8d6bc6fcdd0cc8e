"""Twin of aiproxyd/journal/follower.py."""

import os
from pathlib import Path

from aiproxyd.journal.follower import Follower, end_positions
from aiproxyd.journal.segments import segment_bytes, segments_in
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.model.observation import InterceptionDescribed, RecordsLost, WorkerStarted


def _numbered(start: int, stop: int) -> list[RecordsLost]:
    return [RecordsLost(at=0.0, count=number) for number in range(start, stop)]


def _write(writer: JournalWriter, observations: list[RecordsLost]) -> None:
    for observation in observations:
        writer.append(observation)
        writer.flush()


def _read_all(follower: Follower, **kwargs: int) -> list[object]:
    found = []
    while batch := follower.read(**kwargs):
        found += [observation for _, observation in batch.lines]
        follower.mark_applied(batch.positions)
    return found


def test_lines_come_once_and_in_order_across_segments(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=200)
    _write(writer, _numbered(0, 50))
    assert len(segments_in(tmp_path)) > 5
    follower = Follower(tmp_path, {})
    assert _read_all(follower, max_bytes=64) == _numbered(0, 50)
    _write(writer, _numbered(50, 60))
    assert _read_all(follower) == _numbered(50, 60)
    assert Follower(tmp_path, follower.positions).read().lines == []


def test_a_batch_is_full_while_there_is_more(tmp_path: Path) -> None:
    _write(JournalWriter(tmp_path, "w"), _numbered(0, 50))
    follower = Follower(tmp_path, {})
    batches = []
    while batch := follower.read(max_bytes=1000):
        batches.append(batch)
    assert len(batches) > 2
    assert [batch.is_full for batch in batches] == [True] * (len(batches) - 1) + [False]
    assert not follower.read().is_full


def test_a_line_longer_than_a_batch_comes_whole(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    long = InterceptionDescribed(at=0.0, interception_id="i", request_model="m", prompt="p" * 100_000)
    writer.append(long)
    writer.flush()
    assert _read_all(Follower(tmp_path, {}), max_bytes=100) == [long]


def test_an_unfinished_line_is_left_until_it_is_finished(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(RecordsLost(at=0.0, count=1))
    line = bytes(writer._buffer)
    writer._buffer.clear()
    os.write(writer._segment, line[:10])
    follower = Follower(tmp_path, {})
    assert not follower.read()
    os.write(writer._segment, line[10:])
    assert follower.read().lines == [("w", RecordsLost(at=0.0, count=1))]


def test_a_line_that_a_dead_worker_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(RecordsLost(at=0.0, count=1))
    writer.flush()
    os.write(writer._segment, b'{"o":"records_lo')
    follower = Follower(tmp_path, {})
    batch = follower.read()
    follower.mark_applied(batch.positions)
    assert batch.unreadable == 0
    assert follower.lost_workers() == []
    writer.close()
    batch = follower.read()
    assert (batch.lines, batch.unreadable) == ([], 1)
    follower.mark_applied(batch.positions)
    assert follower.lost_workers() == ["w"]
    assert follower.lag_bytes() == 0


def test_whole_lines_before_a_torn_one_come_once_when_the_death_is_learned_in_the_same_look(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    _write(writer, _numbered(0, 3))
    os.write(writer._segment, b'{"torn')
    writer.close()
    follower = Follower(tmp_path, {})
    batch = follower.read()
    assert [observation for _, observation in batch.lines] == _numbered(0, 3)
    assert batch.unreadable == 1
    follower.mark_applied(batch.positions)
    assert not follower.read()
    assert follower.lost_workers() == ["w"]


def test_lines_that_cannot_be_understood_do_not_hold_up_the_others(tmp_path: Path) -> None:
    (tmp_path / "w-00000001.jsonl").write_bytes(
        b'{"o":"records_lost","at":0,"count":1}\n'
        b"\xff\xfe\n"
        b"\n"
        b'{"o":"from_a_newer_version","at":0}\n'
        b'{"o":"records_lost","at":"no","count":1}\n'
        b'{"o":"records_lost","at":0,"count":2,"new_field":1}\n'
    )
    batch = Follower(tmp_path, {}).read()
    assert [observation.count for _, observation in batch.lines] == [1, 2]
    assert batch.unreadable == 4


def test_what_is_not_applied_is_read_again_after_a_rewind_and_by_the_next_follower(tmp_path: Path) -> None:
    _write(JournalWriter(tmp_path, "w"), _numbered(0, 3))
    follower = Follower(tmp_path, {})
    first = follower.read()
    assert not follower.read()
    follower.rewind()
    assert follower.read() == first
    assert Follower(tmp_path, follower.positions).read() == first


def test_a_busy_worker_does_not_starve_the_others(tmp_path: Path) -> None:
    for worker_id in "abc":
        _write(JournalWriter(tmp_path, worker_id), _numbered(0, 50))
    follower = Follower(tmp_path, {})
    served = [{worker for worker, _ in follower.read(max_bytes=1).lines} for _ in range(6)]
    assert served == [{"a"}, {"b"}, {"c"}, {"a"}, {"b"}, {"c"}]


def test_a_worker_is_lost_when_it_is_dead_and_everything_of_it_is_applied(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    _write(writer, _numbered(0, 3))
    follower = Follower(tmp_path, {})
    batch = follower.read()
    writer.close()
    assert follower.lost_workers() == []
    follower.mark_applied(batch.positions)
    assert follower.lost_workers() == ["w"]
    follower.forget("w")
    assert follower.lost_workers() == []


def test_what_a_worker_wrote_before_it_died_comes_before_it_is_lost(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=100)
    _write(writer, _numbered(0, 1))
    filled = 1
    while segment_bytes(tmp_path, segments_in(tmp_path)[0]) < 100:
        _write(writer, _numbered(filled, filled + 1))
        filled += 1
    follower = Follower(tmp_path, {})
    _read_all(follower)
    # Into segments that no look has seen; the first one does not grow any more.
    _write(writer, _numbered(filled, filled + 5))
    writer.close()
    assert follower.lost_workers() == []
    assert follower.remove_consumed() == ["w-00000001.jsonl"]
    assert _read_all(follower) == _numbered(filled, filled + 5)
    assert follower.lost_workers() == ["w"]


def test_a_worker_whose_files_another_follower_removed_is_lost_all_the_same(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    _write(writer, _numbered(0, 3))
    store, live = Follower(tmp_path, {}), Follower(tmp_path, {})
    _read_all(store), _read_all(live)
    writer.close()
    store.forget(*store.lost_workers())
    store.remove_consumed(live.positions)
    assert list(tmp_path.iterdir()) == []
    assert not live.read()
    assert live.lost_workers() == ["w"]


def test_positions_of_removed_segments_do_not_pile_up(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=100)
    _write(writer, _numbered(0, 6))
    store, live = Follower(tmp_path, {}), Follower(tmp_path, {})
    _read_all(store), _read_all(live)
    gone = store.remove_consumed(live.positions)
    assert gone
    for follower in (store, live):
        follower.read()
        assert follower.positions.keys() == {segment.name for segment in segments_in(tmp_path)}
    store.rewind(dict.fromkeys(gone, 1))
    store.read()
    assert store.positions.keys() == live.positions.keys()


def test_a_segment_goes_when_it_is_finished_and_both_followers_passed_it(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w", max_segment_bytes=100)
    _write(writer, _numbered(0, 6))
    store, live = Follower(tmp_path, {}), Follower(tmp_path, {})
    names = [segment.name for segment in segments_in(tmp_path)]
    _read_all(store)
    assert store.remove_consumed(live.positions) == []
    _read_all(live)
    assert store.remove_consumed(live.positions) == names[:-1]
    assert [segment.name for segment in segments_in(tmp_path)] == names[-1:]
    _write(writer, _numbered(6, 12))
    assert _read_all(store) == _read_all(live) == _numbered(6, 12)


def test_the_files_of_a_dead_worker_go_when_it_is_forgotten(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    _write(writer, _numbered(0, 3))
    store, live = Follower(tmp_path, {}), Follower(tmp_path, {})
    _read_all(store), _read_all(live)
    writer.close()
    assert store.lost_workers() == live.lost_workers() == ["w"]
    live.forget("w")
    assert store.remove_consumed(live.positions) == ["w-00000001.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["w.lock"], "or a restart would not end what the worker left open"
    assert Follower(tmp_path, {}).lost_workers() == ["w"]
    store.forget("w")
    store.remove_consumed(live.positions)
    assert list(tmp_path.iterdir()) == []


def test_positions_of_segments_that_an_earlier_follower_removed_are_named_for_deletion(tmp_path: Path) -> None:
    follower = Follower(tmp_path, {"gone-00000001.jsonl": 7})
    assert follower.positions == {}
    assert follower.remove_consumed() == ["gone-00000001.jsonl"]
    assert follower.remove_consumed() == []


def test_a_follower_can_begin_at_the_end(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    _write(writer, _numbered(0, 3))
    with (tmp_path / "w-00000001.jsonl").open("ab") as file:
        file.write(b"x" * 70_000)
    follower = Follower(tmp_path, end_positions(tmp_path))
    assert not follower.read()
    (tmp_path / "empty-00000001.jsonl").touch()
    assert end_positions(tmp_path)["empty-00000001.jsonl"] == 0


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "none", {})
    assert not follower.read()
    assert follower.lost_workers() == follower.remove_consumed() == []
    assert end_positions(tmp_path / "none") == {}


def test_lag_is_what_is_not_applied(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "w")
    writer.append(WorkerStarted(at=0.0, worker_id="w", pid=1))
    writer.flush()
    follower = Follower(tmp_path, {})
    batch = follower.read()
    assert follower.lag_bytes() == batch.positions["w-00000001.jsonl"] > 0
    follower.mark_applied(batch.positions)
    assert follower.lag_bytes() == 0
