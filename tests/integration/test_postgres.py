"""Three daemons on one PostgreSQL: they make its tables at once, each follows its own journal, and when the server dies under
load and comes back every request is there once.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aiproxyd.storage.listing import count_interceptions, list_page
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import journal_positions
from aiproxyd.storage.usage_report import usage_of
from tests.support.clients import decrypted, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider
from tests.support.postgres import PostgresServer, is_installed, running_postgres

HOST = "api.anthropic.com"
DAEMONS = 3


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if not is_installed():
        pytest.skip("initdb is not on PATH")
    with running_postgres() as server:
        yield server


@pytest.fixture
def daemons(postgres: PostgresServer, provider: FakeProvider, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Daemons that were started at once on an empty database."""
    store = {"store": {"url": postgres.new_database()}}
    made = [Daemon(tmp_path / f"daemon-{number}", provider, config=store) for number in range(DAEMONS)]
    try:
        with ThreadPoolExecutor(DAEMONS) as pool:
            list(pool.map(Daemon.start, made))
        yield made
    finally:
        for daemon in made:
            daemon.kill_everything()


def send(daemon: Daemon, prefix: str, numbers: range) -> None:
    with decrypted(daemon, HOST) as wire:
        for number in numbers:
            answer = wire.request("POST", "/v1/messages", HOST, message(f"{prefix}-{number:03}"))
            assert answer is not None
            assert answer.status == 200


def stored(url: str) -> tuple[Counter[str], list[str], int, int, dict[str, int]]:
    """Return how often each model was recorded, the outcomes, both counts by figures of the days, and segments by daemon."""

    async def read() -> tuple[Counter[str], list[str], int, int, dict[str, int]]:
        store = await Store.open(url, create=False)
        try:
            records = await store.read(lambda c: list_page(c, Selection(), limit=1000))
            count = await store.read(lambda c: count_interceptions(c, Selection()))
            total = (await store.read(lambda c: usage_of(c, Selection(), [])))[0]
            rows = await store.read(lambda c: c.execute(journal_positions.select()))
            owners = Counter(row.daemon_id for row in rows)
        finally:
            await store.close()
        return Counter(r["model"] for r in records), [r["outcome"] for r in records], count, total["requests"], owners

    return asyncio.run(read())


@pytest.mark.timeout(300)
def test_three_daemons_share_a_database_that_dies_and_comes_back(
    daemons: list[Daemon], postgres: PostgresServer, model: str
) -> None:
    url = str(daemons[0].config["store"]["url"])
    before, during, after = range(15), range(15, 40), range(40, 50)
    prefixes = [f"{model}-{number}" for number in range(DAEMONS)]

    def in_turn(numbers: range) -> None:
        with ThreadPoolExecutor(DAEMONS) as pool:
            list(pool.map(send, daemons, prefixes, [numbers] * DAEMONS))

    in_turn(before)
    eventually(lambda: stored(url)[2] == DAEMONS * len(before), "the first records", 60)

    # It dies while they send, and nobody notices.
    dies = threading.Thread(target=postgres.stop)
    dies.start()
    in_turn(during)
    dies.join()
    for daemon in daemons:
        eventually(lambda daemon=daemon: not daemon.is_ready(), "/readyz to say so", 60)
    in_turn(after)
    postgres.start()
    for daemon in daemons:
        eventually(daemon.is_ready, "readiness", 60)

    expected = Counter(f"{prefix}-{number:03}" for prefix in prefixes for number in range(50))
    eventually(lambda: stored(url)[1].count("completed") == len(expected), "every record", 60)
    models, outcomes, count, requests, owners = stored(url)
    assert models == expected
    assert set(outcomes) == {"completed"}
    assert count == requests == len(expected)
    assert len(owners) == DAEMONS, "each its own positions"
    for daemon in daemons:
        assert daemon.stop() == 0
        assert sum(path.stat().st_size for path in (daemon.data_dir / "journal").glob("*.jsonl")) < 100_000
    assert stored(url)[0] == expected


@pytest.mark.timeout(300)
def test_a_daemon_that_was_killed_takes_up_its_journal_and_no_other(daemons: list[Daemon], model: str) -> None:
    url = str(daemons[0].config["store"]["url"])
    for number, daemon in enumerate(daemons):
        send(daemon, f"{model}-{number}", range(10))
    victim = daemons[1]
    victim.kill_control()
    send(daemons[0], f"{model}-0", range(10, 20))
    victim.start()
    send(victim, f"{model}-1", range(10, 20))
    eventually(lambda: stored(url)[1].count("completed") >= 50, "every record", 60)
    models, outcomes, count, requests, _ = stored(url)
    assert set(models.values()) == {1}
    assert count == requests == len(models) == 50
    assert set(outcomes) == {"completed"}
