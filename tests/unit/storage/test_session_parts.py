"""Twin of aiproxyd/storage/session_parts.py and session_places.py: whatever is written, moved, repeated, priced again or deleted,
parts are the sums of the records, and lists and counts are those that the records themselves give.
"""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.observation import Observation
from aiproxyd.model.outcome import Outcome
from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage import schema as migrations
from aiproxyd.storage import session_parts as session_parts_module
from aiproxyd.storage import session_places, sessions
from aiproxyd.storage.pruning import Pruning
from aiproxyd.storage.retention import Retention
from aiproxyd.storage.selection import Selection, conditions_of
from aiproxyd.storage.session_parts import ADDED, DIMENSIONS, id_of, session_key_of
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions, schema, session_parts, token_usages
from tests.support.observations import START, described, ended, life, new_id, of_worker, progressed, started, tool_called
from tests.support.set_prices import Prices

DAY = 86_400.0


async def parts_of(connection: AsyncConnection) -> dict[tuple[str, ...], list[Any]]:
    """Return what is stored."""
    found = {}
    for row in (await connection.execute(select(session_parts))).mappings():
        key = tuple(row[name] for name in DIMENSIONS)
        assert row["id"] == id_of(key)
        assert row["session_key"] == session_key_of(row["session_id"], row["initiator_id"])
        assert row["active_at"] == (row["prompted_at"] or row["started_at"])
        times = [row[name] for name in ("started_at", "last_started_at", "prompted_at", "ended_at")]
        found[key] = [*times, *(int(row[name]) for name in ADDED)]
    return found


async def sums_of_records(connection: AsyncConnection) -> dict[tuple[str, ...], list[Any]]:
    """Return the same, made from every record, one by one."""
    tokens = defaultdict(list)
    for row in (await connection.execute(select(token_usages))).mappings():
        tokens[row["interception_id"]].append(row)
    records = defaultdict(list)
    for row in (await connection.execute(select(interceptions).where(interceptions.c.ended_at.is_not(None)))).mappings():
        day = row["started_at"].date().isoformat()
        records[tuple(day if name == "day" else row[name] for name in DIMENSIONS)].append(row)
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    found = {}
    for key, rows in records.items():
        own = [each for row in rows for each in tokens[row["id"]]]
        costs = [each["cost_micros"] for each in own if each["cost_micros"] is not None]
        found[key] = [
            min(row["started_at"] for row in rows),
            max(row["started_at"] for row in rows),
            max((row["started_at"] for row in rows if row["has_prompt"]), default=None),
            max(row["ended_at"] for row in rows),
            len(rows),
            sum(row["thread_root_id"] is None for row in rows),
            sum(row["outcome"] != "completed" for row in rows),
            *(sum(each[name] for each in own) for name in names),
            sum(costs),
            len(costs),
        ]
    return found


_IDS = st.sampled_from([f"i{number}" for number in range(7)])
_CALLS = st.sampled_from([f"call-{number}" for number in range(5)])
_SECONDS = (0, 57_599.999, 57_600, 60_000)
_OBSERVATIONS = st.one_of(
    st.builds(
        started,
        _IDS,
        at=st.sampled_from([START + day * DAY + second for day in range(2) for second in _SECONDS]),
        user=st.sampled_from(["alice", "bob"]),
        client=st.sampled_from(["Codex", "Claude Code"]),
        provider=st.sampled_from(["anthropic", "other"]),
    ),
    st.builds(
        described,
        _IDS,
        at=st.sampled_from([START + 1, START + 3 * DAY]),
        request_model=st.sampled_from(["claude", "gpt", "\x00" * 600]),
        client_session_id=st.sampled_from([None, "s1", "s2"]),
        correlating_tool_call_id=st.one_of(st.just(""), _CALLS),
        has_prompt=st.booleans(),
        metadata=st.sampled_from([{}, {"project": "web"}]),
    ),
    st.builds(progressed, _IDS, usage=st.builds(TokenUsage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9))),
    st.builds(tool_called, _IDS, _CALLS, at=st.sampled_from([START, START + 2])),
    st.builds(
        ended,
        _IDS,
        at=st.sampled_from([START + DAY, START + 5 * DAY]),
        outcome=st.sampled_from(list(Outcome)),
        response_model=st.just(""),
        usage=st.builds(TokenUsage, output_tokens=st.integers(0, 10**12), cache_read_input_tokens=st.integers(0, 9)),
    ),
)
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.lists(_OBSERVATIONS, min_size=1, max_size=16)),
        st.tuples(st.just("again"), st.just(None)),
        st.tuples(st.just("reprice"), st.sampled_from([Prices(2), Prices(3, "claude"), Prices(1, "gpt")])),
        st.tuples(st.just("interrupt"), st.just(None)),
        st.tuples(st.just("prune"), st.sampled_from([START + 1, START + 57_600, START + DAY + 59_000])),
    ),
    min_size=1,
    max_size=8,
)


async def _run(url: str, operations: list[tuple[str, Any]]) -> None:
    store = await Store.open(url, pricer=Prices(1, "gpt"))
    try:
        async with store._engine.begin() as connection:
            for table in reversed(schema.sorted_tables):
                await connection.execute(delete(table))
        store._seen_users.clear()
        position = 0
        last: list[Observation] = []
        for what, argument in operations:
            match what:
                case "apply":
                    last = argument
                    position += 1
                    await store.apply(of_worker("w", *last), {"w-00000001.jsonl": position})
                case "again":
                    # The answer to a commit was lost, and the batch is applied once more.
                    await store.apply(of_worker("w", *last), {"w-00000001.jsonl": position})
                case "reprice":
                    await store.reprice(argument, datetime.fromtimestamp(0, UTC), dry_run=False)
                case "prune":
                    before = datetime.fromtimestamp(argument, UTC)
                    await Pruning(store, pause=False).run(Retention(records_before=before), before)
                case _:
                    await store.end_interrupted("w", START + 4 * DAY)
            assert await store.read(parts_of) == await store.read(sums_of_records)
        for selection in (Selection(), Selection(model="gpt"), Selection(started_after=datetime.fromtimestamp(START + 1, UTC))):
            await store.read(lambda c, s=selection: _assert_same(c, s))
        await store.rebuild_figures()
        assert await store.read(parts_of) == await store.read(sums_of_records)
    finally:
        await store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=_OPERATIONS)
def test_parts_are_the_sums_of_the_records_after_anything(database_url: str, operations: list[tuple[str, Any]]) -> None:
    asyncio.run(_run(database_url, operations))


async def test_a_part_that_loses_its_first_or_last_record_is_that_of_the_rest(store: Store) -> None:
    lines: list[Observation] = []
    for number in range(4):
        at = START + number * 100
        lines += [
            started(f"i{number}", at=at),
            described(f"i{number}", at=at, client_session_id="s"),
            ended(f"i{number}", at=at + 9),
        ]
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    (whole,) = (await store.read(parts_of)).values()
    before = datetime.fromtimestamp(START + 150, UTC)
    await Pruning(store, pause=False).run(Retention(records_before=before), before)
    (rest,) = (await store.read(parts_of)).values()
    assert rest[0] == whole[0] + timedelta(seconds=200)
    assert await store.read(parts_of) == await store.read(sums_of_records)


_AT = datetime.fromtimestamp(START, UTC)
_BASE: dict[str, Any] = {
    "interceptions": 2,
    "started_at": _AT,
    "last_started_at": _AT + timedelta(seconds=10),
    "prompted_at": _AT + timedelta(seconds=10),
    "ended_at": _AT + timedelta(seconds=20),
}


@pytest.mark.parametrize(
    ("changes", "shrinks"),
    [
        ({}, False),
        ({"interceptions": 3}, False),
        ({"interceptions": 1}, True),
        ({"started_at": _AT - timedelta(seconds=1)}, False),
        ({"started_at": _AT + timedelta(microseconds=1)}, True),
        *[({name: _BASE[name] + timedelta(microseconds=1)}, False) for name in ("last_started_at", "prompted_at", "ended_at")],
        *[({name: _BASE[name] - timedelta(microseconds=1)}, True) for name in ("last_started_at", "prompted_at", "ended_at")],
        ({"prompted_at": None}, True),
    ],
)
def test_a_part_is_made_again_when_any_of_its_times_may_be_gone(changes: dict[str, Any], shrinks: bool) -> None:
    """Each condition by itself: in what the store does they come together, so a story would not notice that one is missing."""
    assert session_parts_module._may_shrink(_BASE, {**_BASE, **changes}) is shrinks


def test_a_part_without_a_prompt_does_not_shrink_by_getting_one_and_a_part_that_is_gone_does() -> None:
    without = {**_BASE, "prompted_at": None}
    assert not session_parts_module._may_shrink(without, _BASE)
    assert not session_parts_module._may_shrink(without, without)
    assert session_parts_module._may_shrink(_BASE, None)


async def test_a_thread_that_moves_takes_what_it_gave_its_first_session_along(store: Store) -> None:
    """The call that the beginning of a thread answers comes to light a batch later, and all of the thread moves."""
    first = [*life("root", at=START + 10, answers="call-0", calls="call-1"), *life("child", at=START + 20, answers="call-1")]
    await store.apply(of_worker("w", *first), {"w-00000001.jsonl": 1})
    assert {key[0] for key in await store.read(parts_of)} == {"root"}
    await store.apply(of_worker("w", *life("caller", at=START, calls="call-0")), {"w-00000001.jsonl": 2})
    assert {key[0] for key in await store.read(parts_of)} == {"caller"}
    assert await store.read(parts_of) == await store.read(sums_of_records)


async def _assert_same(connection: AsyncConnection, selection: Selection, limit: int = 1000) -> None:
    """Compare a list, page by page, and its count with what the records give."""
    conditions = [session_places.ended, *await conditions_of(connection, selection)]
    places = await session_places._walk_records(connection, conditions, 1000, None)
    found = await sessions._summaries(connection, [place.key for place in places], conditions, conditions)
    expected = [found[place.key] for place in places]
    assert await session_places.count_sessions(connection, selection) == len(expected), selection
    met: list[dict[str, Any]] = []
    after = None
    while page := await sessions.list_sessions(connection, selection, limit=limit, after=after):
        met += page
        after = await sessions.place_of(connection, selection, page[-1]["id"], page[-1]["initiator"]["id"])
    assert met == expected, selection
    by_offset = await sessions.list_sessions(connection, selection, limit=limit, offset=1)
    assert by_offset == expected[1 : 1 + limit], selection


def _at(days: float, seconds: float = 0.0) -> datetime:
    return datetime.fromtimestamp(START, UTC) + timedelta(days=days, seconds=seconds)


_TIMES = [
    None,
    _at(-1),
    _at(0),
    _at(0, 3 * 3_600 + 0.5),
    _at(0, 57_599.999),
    _at(0, 57_600),
    _at(1, 3_600),
    _at(1, 3_601),
    _at(2, 3_600),
    datetime(2026, 2, 1, tzinfo=UTC) - timedelta(microseconds=1),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]

# Those that hold some time, and one that holds none.
_PERIODS = [(after, before) for after in _TIMES for before in _TIMES if after is None or before is None or after <= before]
_PERIODS.append((_at(2), _at(1)))


@pytest.mark.parametrize("limit", [3, 1000])
async def test_lists_and_counts_are_those_of_the_records_whatever_is_selected(store: Store, limit: int) -> None:
    lines: list[Observation] = []
    for number in range(72):
        at = START + number * 2_400 + (0.5 if number % 3 else 0)
        id_ = f"i{number:02}"
        client = ("Codex", "Cursor", "x")[number % 3]
        lines += [started(id_, at=at, user=("alice", "bob")[number % 2], client=client, provider=f"p{number % 2}")]
        session = None if number % 5 == 0 else f"s{number // 3 % 6 + number // 36 * 4}"
        lines += [
            described(
                id_,
                at=at,
                request_model=("claude", "gpt")[number // 7 % 2],
                client_session_id=session,
                has_prompt=number % 4 == 1,
                metadata={"project": f"p{number % 4}"},
            )
        ]
        if number % 11:
            lines.append(ended(id_, at=at + 1, outcome=Outcome.UPSTREAM_ERROR if number % 5 == 0 else Outcome.COMPLETED))
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    facts: list[dict[str, str]] = [{"initiator": "bob"}, {"model": "gpt", "client": "Codex"}, {"provider_name": "p1"}]
    facts += [{"provider": "anthropic"}, {"outcome": "upstream_error"}, {"session_id": "s4"}, {"initiator": "nobody"}]

    async def compare(connection: AsyncConnection) -> None:
        # Each period with all records and with two of the facts, so that each fact meets nearly every beginning and end of one.
        for place, (after, before) in enumerate(_PERIODS if limit == 1000 else _PERIODS[::3]):
            for fact in ({}, facts[place % 7], facts[(place + 3) % 7]):
                await _assert_same(connection, Selection(started_after=after, started_before=before, **fact), limit)

    await store.read(compare)


async def test_daemons_that_share_sessions_lose_nothing(database_url: str) -> None:
    """Both move threads to other sessions, and delete, while the other one adds to the same."""
    stores = [await Store.open(database_url, daemon_id=name) for name in ("one", "two")]
    own_ids = {name: [new_id() for _ in range(4)] for name in ("one", "two")}

    async def write(store: Store, name: str) -> None:
        for number in range(12):
            call = f"call-{number}"
            answers, calls = life(new_id(), at=START + 30 + number, answers=call), life(new_id(), at=START + 10, calls=call)
            shared = [started(id_ := new_id(), at=START + number), described(id_, client_session_id="shared"), ended(id_)]
            for part, lines in enumerate((answers, calls, shared, life(own_ids[name][number % 4], at=START))):
                await store.apply(of_worker(name, *lines), {f"{name}-00000001.jsonl": number * 4 + part + 1})

    async def prune() -> None:
        for second in range(6):
            before = datetime.fromtimestamp(START + second, UTC)
            await Pruning(stores[0]).run(Retention(records_before=before), before)

    await asyncio.gather(write(stores[0], "one"), write(stores[1], "two"), prune())
    assert await stores[0].read(parts_of) == await stores[0].read(sums_of_records)
    for store in stores:
        await store.close()


async def test_a_migration_makes_parts_of_what_is_stored(store: Store) -> None:
    lines = [started("a"), described("a", client_session_id="s"), ended("a"), started("b", at=START + DAY), started("c")]
    await store.apply(of_worker("w", *lines, described("c"), ended("c", at=START + 9)), {"w-00000001.jsonl": 1})
    kept = await store.read(parts_of)
    assert len(kept) == 2

    def back_and_forth(connection: Any) -> None:
        from alembic import command

        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0005")
        command.upgrade(config, migrations.NEWEST)

    async with store._engine.begin() as connection:
        await connection.run_sync(back_and_forth)
    assert await store.read(parts_of) == kept
    await store.read(lambda c: _assert_same(c, Selection()))


def test_values_that_run_into_each_other_have_parts_of_their_own() -> None:
    assert id_of(("a", "bc")) != id_of(("ab", "c"))
    assert session_key_of("1:a", "") != session_key_of("1", ":a")
