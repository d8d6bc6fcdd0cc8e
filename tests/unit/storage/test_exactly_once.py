"""Whatever restarts, and when: every interception whose beginning was written has one record, with one end.

A state machine of workers that write and die, a store that fails before or after its commit, control processes that come and
go, and segments that are removed meanwhile. What it knows to be written is compared with what is stored.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiproxyd.exceptions import StorageError
from aiproxyd.journal.follower import Batch, Follower
from aiproxyd.journal.segments import segments_in
from aiproxyd.journal.writer import JournalWriter
from aiproxyd.model.observation import InterceptionDescribed, InterceptionEnded, InterceptionStarted, Observation, ToolCalled
from aiproxyd.storage.queries import InterceptionFilter
from aiproxyd.storage.store import Store
from tests.support.observations import START, life, new_id

ROOT = Path(__file__).parents[3]

# Several segments in a few steps: a life is about 1,200 bytes.
SEGMENT_BYTES = 2000


class _Worker:
    """A process that carries interceptions, two at a time."""

    def __init__(self, folder: Path, number: int) -> None:
        self.worker_id = f"worker-{number}"
        self.writer = JournalWriter(folder, self.worker_id, max_segment_bytes=SEGMENT_BYTES)
        self.unflushed: list[Observation] = []
        self.lives: list[list[Observation]] = []

    def step(self, slot: int) -> None:
        while len(self.lives) <= slot:
            self.lives.append([])
        if not self.lives[slot]:
            self.lives[slot] = life(new_id(), at=START, calls=f"toolu_{new_id()}")
        observation = self.lives[slot].pop(0)
        self.writer.append(observation)
        self.unflushed.append(observation)

    def flush(self) -> list[Observation]:
        self.writer.flush()
        flushed, self.unflushed = self.unflushed, []
        return flushed

    def die(self, torn: int) -> None:
        """As with SIGKILL: what was not written is gone, but for the beginning of a write."""
        data = bytes(self.writer._buffer)
        end = data.find(b"\n")
        if end > 0:
            os.write(self.writer._segment, data[: min(torn, end)])
        os.close(self.writer._segment)
        os.close(self.writer._lock)


class ExactlyOnce(RuleBasedStateMachine):
    """See the head of the file."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="aiproxyd-once-"))
        self.journal = self.folder / "journal"
        self.loop = asyncio.new_event_loop()
        shutil.copy(self.template, self.folder / "store.sqlite3")
        self.workers: list[_Worker] = []
        self.started = 0
        self.written: dict[str, set[str]] = {}
        """What was written of each interception, by kind."""
        self.told: set[tuple[str, str]] = set()
        """What the live follower saw, by interception and kind."""
        self.is_restarted = False
        self.store = self._do(Store.open(f"sqlite:///{self.folder / 'store.sqlite3'}"))
        self._read_from_the_store()

    def _do(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def _read_from_the_store(self) -> None:
        positions = self._do(self.store.positions())
        self.stored, self.live = Follower(self.journal, positions), Follower(self.journal, positions)

    def _note(self, observations: list[Observation]) -> None:
        for observation in observations:
            self.written.setdefault(observation.interception_id, set()).add(type(observation).__name__)

    @rule()
    @precondition(lambda self: len(self.workers) < 3)
    def start_worker(self) -> None:
        self.started += 1
        self.workers.append(_Worker(self.journal, self.started))

    @rule(which=st.integers(0, 2), slots=st.lists(st.integers(0, 1), min_size=1, max_size=12), flushed=st.booleans())
    @precondition(lambda self: self.workers)
    def work(self, which: int, slots: list[int], flushed: bool) -> None:
        worker = self.workers[which % len(self.workers)]
        for slot in slots:
            worker.step(slot)
        if flushed:
            self._note(worker.flush())

    @rule(which=st.integers(0, 2), torn=st.integers(0, 300))
    @precondition(lambda self: self.workers)
    def kill_worker(self, which: int, torn: int) -> None:
        self.workers.pop(which % len(self.workers)).die(torn)

    @rule(max_bytes=st.sampled_from([1, 500, 3000, 1 << 20]))
    def fold_into_the_store(self, max_bytes: int) -> None:
        batch = self.stored.read(max_bytes=max_bytes)
        self._apply(batch)
        self.stored.mark_applied(batch.positions)

    @rule(max_bytes=st.sampled_from([500, 1 << 20]), steps=st.integers(0, 40))
    def fold_and_be_cancelled(self, max_bytes: int, steps: int) -> None:
        """The transaction is cut anywhere, before, in or behind its commit."""
        batch = self.stored.read(max_bytes=max_bytes)

        async def cut() -> None:
            task = asyncio.ensure_future(self.store.apply(batch.lines, batch.positions, starts=batch.starts))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._do(cut())
        self.stored.rewind(self._do(self.store.positions()))

    @rule(max_bytes=st.sampled_from([500, 1 << 20]))
    def fold_and_lose_the_answer(self, max_bytes: int) -> None:
        """It was committed and nobody heard of it; the next reading may be longer."""
        self._apply(self.stored.read(max_bytes=max_bytes))
        self.stored.rewind()
        batch = self.stored.read()
        try:
            self._apply(batch)
        except StorageError:
            self.stored.rewind(self._do(self.store.positions()))
        else:
            self.stored.mark_applied(batch.positions)

    @rule()
    def read_live(self) -> None:
        self._read_live()

    def _read_live(self) -> Batch:
        batch = self.live.read()
        self.told |= {(line.interception_id, type(line).__name__) for _, line in batch.lines}
        self.live.mark_applied(batch.positions)
        return batch

    @rule()
    def settle_dead_workers(self) -> None:
        for worker_id in self.stored.lost_workers():
            self._do(self.store.end_interrupted(worker_id, START + 100))
            self.stored.forget(worker_id)

    @rule(positions_too=st.booleans())
    def remove_consumed(self, positions_too: bool) -> None:
        removed = self.stored.remove_consumed(self.live.positions)
        if positions_too:
            self._do(self.store.forget_positions(removed))

    @rule()
    def restart_control(self) -> None:
        self.is_restarted = True
        self._do(self.store.close())
        self.store = self._do(Store.open(f"sqlite:///{self.folder / 'store.sqlite3'}"))
        self._read_from_the_store()

    @invariant()
    def a_living_worker_is_never_lost(self) -> None:
        living = {worker.worker_id for worker in self.workers}
        assert not living & set(self.stored.lost_workers())

    def _apply(self, batch: Batch) -> None:
        self._do(self.store.apply(batch.lines, batch.positions, starts=batch.starts))

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self._do(self.store.close())
            self.loop.close()
            shutil.rmtree(self.folder)

    def _finish(self) -> None:
        """Let everything end, and compare."""
        while self.workers:
            self.workers.pop().die(0)
        for _ in range(2):
            while batch := self.stored.read():
                self._apply(batch)
                self.stored.mark_applied(batch.positions)
            while self._read_live():
                pass
            self.settle_dead_workers()
            self.remove_consumed(positions_too=True)
        assert list(segments_in(self.journal)) == []
        assert not self.journal.exists() or list(self.journal.iterdir()) == []

        records = {each["id"]: each for each in self._do(self.store.interceptions(InterceptionFilter(limit=1000)))}
        assert records.keys() == {id_ for id_, kinds in self.written.items() if InterceptionStarted.__name__ in kinds}
        for id_, record in records.items():
            kinds = self.written[id_]
            is_ended = InterceptionEnded.__name__ in kinds
            assert record["outcome"] == ("completed" if is_ended else "interrupted")
            assert len(record["user_prompts"]) == (InterceptionDescribed.__name__ in kinds)
            assert len(record["tool_usages"]) == (ToolCalled.__name__ in kinds)
            if is_ended:
                assert [usage["output_tokens"] for usage in record["token_usages"]] == [300]
        if not self.is_restarted:  # a new control process counts from where the store stands
            assert self.told == {(id_, kind) for id_, kinds in self.written.items() for kind in kinds}
        assert self.store.orphaned_lines == self.store.rejected_lines == 0


@pytest.fixture(scope="module", autouse=True)
def _template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty store, made once: the migration takes longer than a whole run of the machine."""
    path = tmp_path_factory.mktemp("template") / "store.sqlite3"

    async def make() -> None:
        await (await Store.open(f"sqlite:///{path}")).close()

    asyncio.run(make())
    ExactlyOnce.template = path


TestExactlyOnce = ExactlyOnce.TestCase
TestExactlyOnce.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


# A control process reduced to its reader of the store: it says how many batches it applied, and waits for its end.
_READER = """
import asyncio, os, sys
from pathlib import Path
from aiproxyd.journal.follower import Follower
from aiproxyd.storage.store import Store

async def main():
    store = await Store.open(sys.argv[2])
    follower = Follower(Path(sys.argv[1]), await store.positions())
    while batch := follower.read(max_bytes=3000):
        await store.apply(batch.lines, batch.positions, starts=batch.starts)
        follower.mark_applied(batch.positions)
        removed = follower.remove_consumed()
        await store.forget_positions(removed)
        os.write(1, b".")
    os.write(1, b"!")
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_a_reader_that_is_killed_again_and_again_applies_everything_once(tmp_path: Path) -> None:
    journal, url = tmp_path / "journal", f"sqlite:///{tmp_path / 'store.sqlite3'}"
    shutil.copy(ExactlyOnce.template, tmp_path / "store.sqlite3")
    writer = JournalWriter(journal, "w", max_segment_bytes=20_000)
    ids = [new_id() for _ in range(400)]
    for id_ in ids:
        for observation in life(id_, calls=f"toolu_{id_}"):
            writer.append(observation)
        writer.flush()
    writer.close()
    rng = random.Random(11)
    finished, kills = False, 0
    while not finished:
        process = subprocess.Popen([sys.executable, "-c", _READER, str(journal), url], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 40)):
            said = process.stdout.read(1)
            assert said in {b".", b"!"}, "the reader ended by itself"
            if said == b"!":
                finished = True
                break
        process.kill()
        process.wait()
        process.stdout.close()
        kills += 1
    assert kills > 3

    async def check() -> None:
        store = await Store.open(url)
        records = await store.interceptions(InterceptionFilter(limit=1000))
        assert sorted(record["id"] for record in records) == sorted(ids)
        for record in records:
            assert record["outcome"] == "completed"
            assert [len(record[name]) for name in ("token_usages", "user_prompts", "tool_usages")] == [1, 1, 1]
        follower = Follower(journal, await store.positions())
        assert not follower.read()
        follower.remove_consumed()
        assert segments_in(journal) == []
        await store.close()

    asyncio.run(check())
