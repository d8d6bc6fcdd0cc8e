"""Twin of aiproxyd/storage/queries.py."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from aiproxyd.exceptions import StorageError
from aiproxyd.model.observation import Observation
from aiproxyd.storage.queries import InterceptionFilter, list_interceptions
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions
from tests.support.observations import START, described, ended, life, of_worker, started


async def _apply(store: Store, *observations: Observation) -> None:
    position = (await store.positions()).get("w-00000001.jsonl", 0) + 1
    await store.apply(of_worker("w", *observations), {"w-00000001.jsonl": position})


async def _ids(store: Store, **conditions: object) -> list[str]:
    return [record["id"] for record in await store.interceptions(InterceptionFilter(**conditions))]


async def test_the_newest_come_first_and_equal_starts_have_an_order(store: Store) -> None:
    for id_, at in (("a", 0), ("c", 10), ("b", 10), ("d", 5)):
        await _apply(store, started(id_, at=START + at))
    assert await _ids(store) == ["c", "b", "d", "a"]


async def test_pages_follow_each_other_without_gap_or_overlap(store: Store) -> None:
    # Three start at each time, so that pages end between equals.
    await _apply(store, *(started(f"{number:03}", at=START + number // 3) for number in range(50)))
    pages, last = [], ""
    while page := await _ids(store, limit=7, after_id=last):
        pages.append(page)
        last = page[-1]
    assert [len(page) for page in pages] == [7] * 7 + [1]
    assert [id_ for page in pages for id_ in page] == await _ids(store, limit=1000)


async def test_a_page_behind_an_unknown_interception_is_an_error(store: Store) -> None:
    with pytest.raises(StorageError, match="after_id: interception 'x' not found"):
        await _ids(store, after_id="x")


async def test_every_condition_narrows(store: Store) -> None:
    await _apply(
        store,
        *life("a", user="alice"),
        started("b", at=START + 1, user="bob", provider="work", provider_type="openai", client="Codex"),
        described("b", request_model="gpt-5.2", client_session_id="s"),
        started("c", at=START + 2, provider_type="copilot", provider="copilot"),
    )
    assert await _ids(store, initiator="alice") == ["c", "a"]
    assert await _ids(store, initiator="id-of-bob") == ["b"]
    assert await _ids(store, initiator="nobody") == []
    assert await _ids(store, provider="openai") == ["b"], "by type"
    assert await _ids(store, provider="work") == ["b"], "by name"
    assert await _ids(store, model="gpt-5.2") == ["b"]
    assert await _ids(store, client="Claude Code") == ["c", "a"]
    assert await _ids(store, session_id="s") == ["b"]
    assert await _ids(store, initiator="bob", model="claude-sonnet-4-5") == []


async def test_times_are_inclusive_and_may_be_of_any_zone(store: Store) -> None:
    await _apply(store, *(started(id_, at=START + number) for number, id_ in enumerate("abc")))
    middle = datetime.fromtimestamp(START + 1, UTC)
    elsewhere = middle.astimezone(timezone(timedelta(hours=9)))
    assert await _ids(store, started_after=middle) == await _ids(store, started_after=elsewhere) == ["c", "b"]
    assert await _ids(store, started_before=elsewhere) == ["b", "a"]
    assert await _ids(store, started_after=middle, started_before=middle) == ["b"]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused_in_coders_words(limit: int) -> None:
    with pytest.raises(ValueError, match=r"^limit value must be between 1 and 1000$"):
        InterceptionFilter(limit=limit)


async def test_a_name_is_a_value_and_no_statement(store: Store) -> None:
    await _apply(store, *life("a"))
    assert await _ids(store, initiator="' OR 1=1 --", model='"; DROP TABLE interceptions; --') == []
    assert await _ids(store) == ["a"]


async def test_ids_of_children_are_the_same_at_every_reading(store: Store) -> None:
    await _apply(store, *life("a", calls="t1"), *life("b", calls="t1"))
    first, second = await store.interceptions(InterceptionFilter()), await store.interceptions(InterceptionFilter())
    assert first == second
    children = [
        child["id"] for record in first for name in ("token_usages", "user_prompts", "tool_usages") for child in record[name]
    ]
    assert len(set(children)) == 6


async def test_an_interception_that_is_not_there_is_none(store: Store) -> None:
    assert await store.interception("x") is None


async def test_a_fraction_of_a_second_is_kept(store: Store) -> None:
    await _apply(store, started("a", at=START + 0.25), ended("a", at=START + 0.5))
    record = await store.interception("a")
    assert (record["started_at"], record["ended_at"]) == ("2026-01-31T08:00:00.250000Z", "2026-01-31T08:00:00.500000Z")


async def test_sqlite_serves_each_filter_from_an_index(store: Store) -> None:
    """A list of the newest must not read a store of millions."""
    if store._engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by statistics, and an empty table has none")
    plans = {}
    await _apply(store, *life("a", user="alice"))
    for name, value in {
        "": "", "initiator": "alice", "provider": "x", "model": "x", "client": "x", "session_id": "x", "after_id": "a",
    }.items():  # fmt: skip
        seen: list[str] = []
        async with store._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.set_trace_callback(seen.append)
            await list_interceptions(connection, InterceptionFilter(**({name: value} if name else {})))
            await raw.set_trace_callback(None)
            statements = [text for text in seen if text.startswith("SELECT interceptions.id,")]
            plans[name] = [
                row[3] for text in statements for row in await connection.exec_driver_sql("EXPLAIN QUERY PLAN " + text)
            ]
    for name, plan in plans.items():
        assert not any(step.startswith("SCAN interceptions") and "USING INDEX" not in step for step in plan), (name, plan)
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan, (name, plan)


async def test_both_databases_look_up_a_users_records_of_a_model_by_both(store: Store) -> None:
    """Or a week of one of them would be read for a few records of both. Without statistics, as in a new store."""
    for id_, user, model in (("a", "alice", "m"), ("b", "bob", "n"), ("c", "alice", "n")):
        await _apply(store, started(id_, user=user), described(id_, request_model=model))
    columns = interceptions.c
    alice = (await store.interception("a") or {})["initiator"]["id"]
    query = select(columns.id).where(columns.initiator_id == alice, columns.model == "n").order_by(columns.started_at.desc())
    text = str(query.compile(store._engine.sync_engine, compile_kwargs={"literal_binds": True}))
    async with store._engine.connect() as connection:
        if store.is_sqlite:
            plan = [row[3] for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
        else:
            # Of three rows it would read all.
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = list((await connection.exec_driver_sql(f"EXPLAIN {text}")).scalars())
        assert list((await connection.execute(query)).scalars()) == ["c"]
    assert "ix_interceptions_initiator_id_model" in plan[0], plan
