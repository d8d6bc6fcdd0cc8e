"""Twin of aiproxyd/storage/store.py."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from aiproxyd.exceptions import StorageError
from aiproxyd.model.observation import ConnectDecided, RecordsLost, WorkerStarted
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.model.verdict import Action
from aiproxyd.storage.queries import InterceptionFilter
from aiproxyd.storage.store import Store
from tests.support.observations import (
    START,
    described,
    ended,
    life,
    new_id,
    of_worker,
    progressed,
    started,
    thought,
    tool_called,
)
from tests.support.postgres import PostgresServer


async def _all(store: Store) -> list[dict]:
    return await store.interceptions(InterceptionFilter(limit=1000))


async def _apply(store: Store, *observations: object, worker_id: str = "w") -> None:
    """Apply observations as a batch of their own."""
    segment = f"{worker_id}-00000001.jsonl"
    start = (await store.positions()).get(segment, 0)
    await store.apply(of_worker(worker_id, *observations), {segment: start + 1}, starts={segment: start})


async def test_an_interception_is_one_record_with_all_that_belongs_to_it(store: Store) -> None:
    id_ = new_id()
    await _apply(
        store,
        started(id_),
        described(id_, client_session_id="s-1", metadata={"betas": "x"}),
        progressed(id_),
        thought(id_, content="First."),
        tool_called(id_, "toolu_1"),
        tool_called(id_, "toolu_2", position=1),
        thought(id_, position=1, content="Second."),
        ended(id_, metadata={"service_tier": "priority"}, usage=TokenUsage(output_tokens=7, cache_write_5m_input_tokens=2)),
    )
    [record] = await _all(store)
    assert record == await store.interception(id_)
    assert (
        record
        | {
            "id": id_,
            "initiator": {"id": "id-of-alice", "username": "alice", "name": "alice", "avatar_url": ""},
            "provider": "anthropic",
            "model": "claude-sonnet-4-5",
            "response_model": "claude-sonnet-4-5-20250929",
            "client": "Claude Code",
            "session_id": "s-1",
            "outcome": "completed",
            "usage_source": "reported",
            "error_type": None,
            "error_message": None,
            "started_at": "2026-01-31T08:00:00Z",
            "ended_at": "2026-01-31T08:00:02Z",
            "metadata": {"request_user_agent": "claude-cli/2.0.67 (external, cli)", "betas": "x", "service_tier": "priority"},
        }
        == record
    )
    [usage] = record["token_usages"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_micros"]) == (0, 7, None)
    assert usage["metadata"] == {"cache_ephemeral_5m_input": 2, "service_tier": "priority"}
    assert [prompt["prompt"] for prompt in record["user_prompts"]] == ["Fix the bug."]
    assert record["user_prompts"][0]["provider_response_id"] == "msg_1"
    assert [call["tool_call_id"] for call in record["tool_usages"]] == ["toolu_1", "toolu_2"]
    assert [(each["content"], each["metadata"]) for each in record["model_thoughts"]] == [
        ("First.", {"source": "thinking"}),
        ("Second.", {"source": "thinking"}),
    ]


async def test_the_record_is_the_same_however_its_lines_are_cut_into_batches(store: Store) -> None:
    whole, cut = new_id(), new_id()
    lines = [*life(whole, calls="toolu_1"), thought(whole)]
    await _apply(store, *lines)
    for line in [*life(cut, calls="toolu_1"), thought(cut)]:
        await _apply(store, line)
    records = {record["id"]: record for record in await _all(store)}

    def plain(id_: str) -> str:
        text = repr(records[id_]).replace(id_, "ID")
        children = [child["id"] for name in ("token_usages", "user_prompts", "tool_usages") for child in records[id_][name]]
        for child in children:
            text = text.replace(child, "CHILD")
        return text

    assert plain(whole) == plain(cut)


@pytest.mark.parametrize("batches", [1, 2])
async def test_a_record_names_the_key_that_was_used_in_the_end(store: Store, batches: int) -> None:
    switched, kept = new_id(), new_id()
    first = [started(id_, credential_kind="centralized", credential_hint="sk-1...aaaa") for id_ in (switched, kept)]
    last = [ended(switched, credential_hint="sk-2...bbbb"), ended(kept), ended(switched, credential_hint="sk-3...cccc")]
    for batch in [first + last] if batches == 1 else [first, last]:
        await _apply(store, *batch)
    hints = {record["id"]: record["credential_hint"] for record in await _all(store)}
    assert hints == {switched: "sk-2...bbbb", kept: "sk-1...aaaa"}


async def test_usage_of_a_response_that_never_ended_is_kept(store: Store) -> None:
    id_ = new_id()
    await _apply(store, started(id_), described(id_), progressed(id_, usage=TokenUsage(input_tokens=5, output_tokens=1)))
    [record] = await _all(store)
    assert record["ended_at"] is None
    assert record["token_usages"][0]["input_tokens"] == 5


async def test_an_interception_without_tokens_has_no_token_row(store: Store) -> None:
    id_ = new_id()
    refused = ended(
        id_,
        usage_source=UsageSource.NONE,
        usage=TokenUsage(),
        outcome=Outcome.UPSTREAM_ERROR,
        status_code=529,
        error_type=ErrorType.OVERLOADED,
        error_message="Overloaded",
    )
    await _apply(store, started(id_), described(id_), refused)
    [record] = await _all(store)
    assert record["token_usages"] == []
    assert (record["outcome"], record["error_type"], record["error_message"]) == ("upstream_error", "overloaded", "Overloaded")
    assert record["user_prompts"][0]["prompt"] == "Fix the bug.", "a request that failed still shows its prompt"


async def test_the_first_end_wins(store: Store) -> None:
    together, apart = new_id(), new_id()
    late = {"outcome": Outcome.CLIENT_ABORTED, "usage": TokenUsage(output_tokens=999_999)}
    await _apply(store, started(together), ended(together), ended(together, **late), started(apart), ended(apart))
    await _apply(store, ended(apart, **late), progressed(apart, usage=TokenUsage(output_tokens=999_999)))
    for record in await _all(store):
        assert record["outcome"] == "completed"
        assert record["token_usages"][0]["output_tokens"] == 300


async def test_a_batch_is_applied_once_however_often_it_is_offered(store: Store) -> None:
    lines, positions = of_worker("w", *life(new_id(), calls="toolu_1")), {"w-00000001.jsonl": 700}
    for _ in range(3):
        await store.apply(lines, positions, starts={"w-00000001.jsonl": 0})
    assert len(await _all(store)) == 1
    assert await store.positions() == positions


async def test_a_batch_that_does_not_begin_where_the_store_stands_is_refused(store: Store) -> None:
    with pytest.raises(StorageError, match=r"begins at 10 of w-00000001\.jsonl and the store stands at 0"):
        await store.apply(of_worker("w", *life(new_id())), {"w-00000001.jsonl": 20}, starts={"w-00000001.jsonl": 10})
    assert await _all(store) == []
    assert await store.positions() == {}


async def test_positions_are_forgotten_by_name_and_belong_to_a_daemon(database_url: str) -> None:
    first = await Store.open(database_url, daemon_id="a")
    second = await Store.open(database_url, daemon_id="b")
    await first.apply([], {"w-00000001.jsonl": 10, "w-00000002.jsonl": 5})
    await second.apply([], {"w-00000001.jsonl": 3})
    await first.forget_positions(["w-00000001.jsonl"])
    assert await first.positions() == {"w-00000002.jsonl": 5}
    assert await second.positions() == {"w-00000001.jsonl": 3}
    await first.close()
    await second.close()


async def test_a_dead_workers_open_interceptions_are_interrupted_and_no_others(store: Store) -> None:
    silent, speaking, done, of_another = (new_id() for _ in range(4))
    await _apply(store, started(silent), started(speaking), progressed(speaking), *life(done))
    await _apply(store, started(of_another), worker_id="v")
    assert await store.end_interrupted("w", START + 60) == 2
    assert await store.end_interrupted("w", START + 90) == 0
    records = {record["id"]: record for record in await _all(store)}
    assert (records[silent]["outcome"], records[silent]["usage_source"]) == ("interrupted", "none")
    assert (records[speaking]["outcome"], records[speaking]["usage_source"]) == ("interrupted", "reported")
    assert records[silent]["ended_at"] == "2026-01-31T08:01:00Z"
    assert records[done]["outcome"] == "completed"
    assert records[of_another]["outcome"] is None


async def test_observations_that_are_no_records_change_nothing_but_the_position(store: Store) -> None:
    await _apply(
        store,
        WorkerStarted(at=START, worker_id="w", pid=1),
        ConnectDecided(at=START, action=Action.TUNNEL, reason="no_provider", status_code=200),
        RecordsLost(at=START, count=3),
    )
    assert await _all(store) == []
    assert await store.positions() == {"w-00000001.jsonl": 1}


async def test_lines_whose_beginning_was_lost_are_counted_and_do_no_harm(store: Store) -> None:
    lost, whole = new_id(), new_id()
    await _apply(store, *life(lost, calls="toolu_1")[1:], thought(lost), *life(whole))
    assert [record["id"] for record in await _all(store)] == [whole]
    assert store.orphaned_lines == 5


# Each is one observation of an interception that a database refuses, or that cannot be made a row.
POISON = {
    "a number beyond 64 bits": lambda id_: ended(id_, request_bytes=1 << 70),
    "a time beyond the year 9999": lambda id_: described(id_, at=1e18),
    "a status beyond 32 bits": lambda id_: ended(id_, status_code=1 << 40),
    "a position beyond 32 bits": lambda id_: tool_called(id_, "toolu_x", position=1 << 70),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_a_line_that_cannot_be_stored_does_not_hold_up_the_others(store: Store, poison: object) -> None:
    before, poisoned, after = new_id(), new_id(), new_id()
    bad = poison(poisoned)
    await _apply(store, *life(before), started(poisoned), bad, *life(after), thought(poisoned))
    records = {record["id"]: record for record in await _all(store)}
    assert records.keys() == {before, poisoned, after}
    assert records[before]["outcome"] == records[after]["outcome"] == "completed"
    assert records[poisoned]["model_thoughts"], "what came behind the bad line is there"
    assert store.rejected_lines in {0, 1}, "SQLite takes a status of 40 bits"
    assert await store.positions() == {"w-00000001.jsonl": 1}


async def test_a_batch_of_nothing_but_bad_lines_still_moves_on(store: Store) -> None:
    await _apply(store, *(started(new_id(), at=1e18) for _ in range(9)))
    assert store.rejected_lines == 9
    assert await store.positions() == {"w-00000001.jsonl": 1}


@pytest.mark.parametrize("trouble", ["a\0b", "a\ud800b", "\udfff", "\0"])
async def test_what_no_database_can_hold_is_replaced(store: Store, trouble: str) -> None:
    id_ = new_id()
    await _apply(
        store,
        started(id_, user=trouble, user_agent=trouble, client=trouble),
        described(id_, request_model=trouble, prompt=trouble, client_session_id=trouble, metadata={trouble: trouble}),
        tool_called(id_, trouble, tool=trouble, arguments=trouble),
        thought(id_, content=trouble),
        ended(id_, response_id=trouble, error_message=trouble, usage=TokenUsage(extra={trouble: 1})),
    )
    record = await store.interception(id_)
    clean = trouble.replace("\0", "\ufffd").replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert record["user_prompts"][0]["prompt"] == record["tool_usages"][0]["input"] == record["model"] == clean
    assert record["metadata"][clean] == clean
    assert store.rejected_lines == 0


async def test_long_words_are_cut_so_that_an_index_takes_them(store: Store) -> None:
    id_, long = new_id(), "\U0001f600" * 5000
    await _apply(
        store,
        started(id_, client=long, user=long),
        described(id_, request_model=long, client_session_id=long, correlating_tool_call_id=long),
        tool_called(id_, long),
        ended(id_, error_type=ErrorType.UNKNOWN, error_message=long),
    )
    record = await store.interception(id_)
    assert store.rejected_lines == 0
    assert len(record["model"]) == 512
    assert record["error_message"] == long[:256], "1,024 bytes, as Coder's column"


async def test_a_principal_is_a_user_with_its_newest_name_and_groups(store: Store) -> None:
    await _apply(store, started(new_id(), principal_id="u", principal_name="al", principal_groups=("a",)))
    await _apply(store, started(new_id(), principal_id="u", principal_name="alice", principal_groups=("a", "b")))
    assert {record["initiator"]["username"] for record in await _all(store)} == {"alice"}
    assert await store.list_users() == [], "a principal without a token of the store is none of its users"


async def test_a_user_who_asks_keeps_the_token(store: Store) -> None:
    token = await store.add_user("alice", ["ops"])
    [user] = await store.list_users()
    await _apply(store, started(new_id(), principal_id=user.id, principal_name="alice", principal_groups=("ops",)))
    assert await store.list_users() == [user]
    assert token.startswith("aip_")


async def test_who_is_cancelled_does_not_cut_a_write_in_two(store: Store) -> None:
    for round_ in range(30):
        id_, segment = new_id(), f"w-{round_:08d}.jsonl"
        task = asyncio.ensure_future(store.apply(of_worker("w", *life(id_)), {segment: 1}, starts={segment: 0}))
        for _ in range(round_):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        is_applied = segment in await store.positions()
        record = await store.interception(id_)
        assert (record is not None) == is_applied
        assert record is None or record["outcome"] == "completed"


async def test_a_look_at_statistics_that_nobody_waits_for_goes_to_its_end(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    await _apply(store, started(new_id()))
    task = asyncio.ensure_future(store.refresh_statistics())
    await asyncio.sleep(0)
    task.cancel()
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite3")) as file:
        assert file.execute("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'interceptions'").fetchone()[0] > 0


async def test_closing_waits_for_a_write_that_nobody_waits_for(database_url: str) -> None:
    store = await Store.open(database_url)
    task = asyncio.ensure_future(store.add_user("alice"))
    await asyncio.sleep(0)
    task.cancel()
    await store.close()
    store = await Store.open(database_url)
    assert [user.name for user in await store.list_users()] == ["alice"]
    await store.close()


async def test_a_locked_store_is_an_error_and_takes_the_batch_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiproxyd.storage.engine.LOCK_TIMEOUT_SECONDS", 0.05)
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    other = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    lines, positions = of_worker("w", *life(new_id())), {"w-00000001.jsonl": 9}
    with pytest.raises(StorageError, match="database is locked"):
        await store.apply(lines, positions)
    assert await _all(store) == [], "readers go on"
    await store.ping()
    other.execute("ROLLBACK")
    other.close()
    await store.apply(lines, positions)
    assert len(await _all(store)) == 1
    await store.close()


async def test_a_transaction_that_fails_in_its_middle_leaves_nothing(database_url: str, store: Store) -> None:
    id_ = new_id()
    # The table that is written last is gone: everything before has succeeded by then.
    async with store._engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE model_thoughts RENAME TO elsewhere")
    lines = of_worker("w", *life(id_), thought(id_))
    with pytest.raises(StorageError, match="model_thoughts"):
        await store.apply(lines, {"w-00000001.jsonl": 5})
    assert await store.positions() == {}
    async with store._engine.begin() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM interceptions")).scalar_one() == 0
        await connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO model_thoughts")
    await store.apply(lines, {"w-00000001.jsonl": 5})
    assert [record["id"] for record in await _all(store)] == [id_]


async def test_a_server_that_goes_away_is_an_error_and_takes_the_batch_when_it_is_back(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    store = await Store.open(url)
    lines, positions = of_worker("w", *life(new_id())), {"w-00000001.jsonl": 9}
    postgres.stop()
    try:
        for call in (store.ping(), store.apply(lines, positions), store.positions()):
            with pytest.raises(StorageError):
                await call
    finally:
        postgres.start()
    await store.apply(lines, positions)
    assert len(await _all(store)) == 1
    await store.close()
    postgres.drop_database(url)


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite3"
    store = await Store.open(f"sqlite:///{path}")
    await _apply(store, *life(new_id()))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "store.sqlite3": 0o600,
        "store.sqlite3-wal": 0o600,
        "store.sqlite3-shm": 0o600,
    }
    await store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense:secret", "not a database URL"),
        ("mysql://u:secret@h/d", "a store is sqlite or postgresql"),
        ("sqlite://", "names no file"),
        ("sqlite:////proc/none/store.sqlite3", "cannot be made"),
        ("postgresql://u:secret@127.0.0.1:1/d", "cannot be reached"),
    ],
)
async def test_a_store_that_cannot_be_opened_says_so_without_the_password(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        await Store.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_each_daemon_has_positions_of_its_own_and_takes_over_those_of_its_segments(database_url: str) -> None:
    first, second = [await Store.open(database_url, daemon_id=name) for name in ("first", "second")]
    await first.apply(of_worker("w", *life("a")), {"w-00000001.jsonl": 10, "w-00000002.jsonl": 20})
    await second.apply(of_worker("v", *life("b")), {"v-00000001.jsonl": 30})
    assert await second.positions() == {"v-00000001.jsonl": 30}
    renamed = await Store.open(database_url, daemon_id="renamed")
    await renamed.adopt_positions(["w-00000002.jsonl", "w-00000003.jsonl"])
    assert await renamed.positions() == {"w-00000002.jsonl": 20}
    assert await first.positions() == {"w-00000001.jsonl": 10}
    assert await second.positions() == {"v-00000001.jsonl": 30}
    for store in (first, second, renamed):
        await store.close()
