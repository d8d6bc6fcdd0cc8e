"""Twin of aiproxyd/storage/rollups.py: whatever is written, repeated or priced again, the sums are those of the records."""

import asyncio
import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.observation import Observation
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage.counted import TOKENS
from aiproxyd.storage.listing import count_interceptions
from aiproxyd.storage.pruning import Pruning
from aiproxyd.storage.retention import Retention
from aiproxyd.storage.rollups import DIMENSIONS, FIGURES, id_of, rebuild
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions, schema, token_usages, usage_rollups
from aiproxyd.storage.usage_report import Dimension, usage_of
from tests.support.observations import START, described, ended, of_worker, progressed, started
from tests.support.set_prices import Prices

DAY = 86_400.0


async def rollups_of(connection: AsyncConnection) -> dict[tuple[str, ...], list[int]]:
    """Return what is stored, without the rows of nothing: the values of FIGURES and `kept`."""
    names = (*FIGURES, "kept")
    found = {}
    for row in (await connection.execute(select(usage_rollups))).mappings():
        key = tuple(row[name] for name in DIMENSIONS)
        assert row["id"] == id_of(key)
        if any(row[name] for name in names):
            found[key] = [int(row[name]) for name in names]
    return found


async def sums_of_records(
    connection: AsyncConnection, before: datetime = datetime.max.replace(tzinfo=UTC)
) -> dict[tuple[str, ...], list[int]]:
    """Return the same, made from every record that began before a time, one by one."""
    tokens = defaultdict(list)
    for row in (await connection.execute(select(token_usages))).mappings():
        tokens[row["interception_id"]].append(row)
    found: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * (len(FIGURES) + 1))
    for row in (await connection.execute(select(interceptions).where(interceptions.c.started_at < before))).mappings():
        metadata = row["metadata"]
        project = metadata.get("project", metadata.get("repo", ""))
        names = ("initiator_id", "provider", "provider_name", "model", "client")
        key = (row["started_at"].date().isoformat(), *(row[name] for name in names), project, row["outcome"] or "")
        own = tokens[row["id"]]
        costs = [each["cost_micros"] for each in own]
        known = [cost for cost in costs if cost is not None]
        figures = [1, *(sum(each[name] for each in own) for name in TOKENS), sum(known), len(known), len(costs) - len(known), 1]
        found[key] = [one + other for one, other in zip(found[key], figures, strict=True)]
    return dict(found)


async def _older(store: Store, before: datetime) -> dict[tuple[str, ...], list[int]]:
    return await store.read(lambda connection: sums_of_records(connection, before))


def _together(
    one: dict[tuple[str, ...], list[int]], other: dict[tuple[str, ...], list[int]]
) -> dict[tuple[str, ...], list[int]]:
    both = {key: list(values) for key, values in one.items()}
    for key, values in other.items():
        both[key] = [a + b for a, b in zip(both.get(key, [0] * len(values)), values, strict=True)]
    return both


# A few of each, so that the same one is met again; ends, reports and beginnings come in any order and more than once.
_IDS = st.sampled_from([f"i{number}" for number in range(6)])
_OBSERVATIONS = st.one_of(
    st.builds(
        started,
        _IDS,
        at=st.sampled_from([START + day * DAY + second for day in range(3) for second in (0, 57_599.999, 60_000)]),
        user=st.sampled_from(["alice", "bob"]),
        client=st.sampled_from(["Codex", "Claude Code"]),
        provider=st.sampled_from(["anthropic", "other"]),
    ),
    st.builds(
        described,
        _IDS,
        request_model=st.sampled_from(["claude", "gpt", "\x00" * 600]),
        metadata=st.sampled_from([{}, {"project": "web"}, {"repo": "api"}, {"project": "", "repo": "api"}]),
    ),
    st.builds(
        progressed,
        _IDS,
        response_model=st.just(""),
        usage=st.builds(TokenUsage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
    ),
    st.builds(
        ended,
        _IDS,
        outcome=st.sampled_from(list(Outcome)),
        response_model=st.just(""),
        usage_source=st.sampled_from([UsageSource.REPORTED, UsageSource.NONE]),
        usage=st.builds(TokenUsage, output_tokens=st.integers(0, 10**12), cache_read_input_tokens=st.integers(0, 9)),
    ),
)
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.lists(_OBSERVATIONS, min_size=1, max_size=12)),
        st.tuples(st.just("again"), st.just(None)),
        st.tuples(st.just("reprice"), st.sampled_from([Prices(2), Prices(3, "claude"), Prices(1, "gpt")])),
        st.tuples(st.just("interrupt"), st.just(None)),
        st.tuples(st.just("prune"), st.sampled_from([START + 1, START + DAY, START + DAY + 59_000])),
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
        # Figures of records that were deleted by age; they stay.
        gone: dict[tuple[str, ...], list[int]] = {}
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
                    gone = _together(gone, {key: [*values[:-1], 0] for key, values in (await _older(store, before)).items()})
                    await Pruning(store, pause=False).run(Retention(records_before=before), before)
                case _:
                    await store.end_interrupted("w", START + 4 * DAY)
            expected = _together(gone, await store.read(sums_of_records))
            assert await store.read(rollups_of) == expected
        total = (await store.read(lambda c: usage_of(c, Selection(), [])))[0]
        assert total["requests"] == sum(values[0] for values in expected.values())
        async with store._engine.begin() as connection:
            await rebuild(connection)
        assert await store.read(rollups_of) == await store.read(sums_of_records)
    finally:
        await store.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=_OPERATIONS)
def test_rollups_are_the_sums_of_the_records_after_anything(database_url: str, operations: list[tuple[str, Any]]) -> None:
    asyncio.run(_run(database_url, operations))


def test_values_that_run_into_each_other_have_rollups_of_their_own() -> None:
    assert id_of(("a", "bc")) != id_of(("ab", "c"))
    assert id_of(("1:a", "")) != id_of(("1", ":a"))


_TIMES = [
    None,
    *(
        datetime.fromtimestamp(START, UTC) + timedelta(days=days, seconds=seconds)
        for days in (-1, 0, 1, 2)
        for seconds in (0, 57_600)
    ),
    datetime.fromtimestamp(START, UTC) + timedelta(days=1, seconds=57_599.999),
    datetime(2026, 2, 1, tzinfo=UTC) - timedelta(microseconds=1),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]


async def test_reports_and_counts_are_those_of_the_records_whatever_is_selected(store: Store) -> None:
    lines = []
    for number in range(60):
        at = START + number * 3_600 + (0.5 if number % 3 else -START % DAY)
        id_ = f"i{number}"
        lines += [started(id_, at=at, user=("alice", "bob")[number % 2], client=("Codex", "Cursor", "x")[number % 3])]
        lines += [
            described(id_, at=at, request_model=("claude", "gpt")[number // 7 % 2], metadata={"project": f"p{number % 4}"})
        ]
        if number % 11:
            lines.append(ended(id_, at=at + 1, outcome=Outcome.UPSTREAM_ERROR if number % 5 == 0 else Outcome.COMPLETED))
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    facts: list[dict[str, str]] = [{"initiator": "bob"}, {"model": "gpt", "client": "Codex"}, {"outcome": "upstream_error"}]
    facts += [{"provider": "anthropic"}, {"provider_name": "nowhere"}, {"initiator": "nobody"}]

    async def compare(connection: AsyncConnection) -> None:
        # Each period with all records and with two of the facts, so that each fact meets nearly every beginning and end of one.
        for place, (after, before) in enumerate(itertools.product(_TIMES, _TIMES)):
            for fact in ({}, facts[place % 6], facts[(place // 6 + 3) % 6]):
                await _assert_same(connection, Selection(started_after=after, started_before=before, **fact))

    await store.read(compare)


async def _assert_same(connection: AsyncConnection, selection: Selection) -> None:
    """Compare with what one statement over the records gives: with a session id no rollup is asked."""
    from aiproxyd.storage import usage_report
    from aiproxyd.storage.selection import conditions_of

    dimensions = [Dimension.DAY, Dimension.MODEL, Dimension.PROJECT]
    conditions = await conditions_of(connection, selection)
    rows = sorted(map(tuple, await connection.execute(usage_report._of_records(connection, conditions, dimensions))))
    count = await usage_report._count_records(connection, conditions)
    assert await count_interceptions(connection, selection) == count, selection
    shaped = await usage_of(connection, selection, dimensions)
    assert sum(row["requests"] for row in shaped) == count
    found = sorted(
        (row["day"], row["model"], row["project"], row["requests"], row["failures"], row["output_tokens"], row["unpriced"])
        for row in shaped
    )
    assert found == [(*row[:5], int(row[6]), row[-1]) for row in rows], selection


async def test_a_migration_sums_up_what_is_stored(store: Store, database_url: str) -> None:
    from aiproxyd.storage import schema as migrations

    lines = [started("a"), described("a", metadata={"project": "web"}), ended("a"), started("b", at=START + DAY), started("c")]
    await store.apply(of_worker("w", *lines, described("c", metadata={"repo": "api"})), {"w-00000001.jsonl": 1})
    kept = await store.read(rollups_of)
    assert len(kept) == 3

    def back_and_forth(connection: Any) -> None:
        from alembic import command

        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        command.upgrade(config, migrations.NEWEST)

    async with store._engine.begin() as connection:
        await connection.run_sync(back_and_forth)
    assert await store.read(rollups_of) == kept
