"""Twin of aiproxyd/storage/counted.py: rows in hand count as they will when they are read back."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, text

from aiproxyd.model.outcome import UsageSource
from aiproxyd.storage.counted import counted_of, day_of, read_counted
from aiproxyd.storage.rows import Known, changes_of
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import interceptions, token_usages
from tests.support.observations import START, described, ended, of_worker, progressed, started

_LAST_SECOND_OF_DAY = START + 57_599.999999
_NONE_KNOWN: dict[str, Known] = {}


@pytest.mark.parametrize(
    ("observations", "project"),
    [
        ([started("i")], ""),
        ([started("i"), progressed("i")], ""),
        ([started("i", at=_LAST_SECOND_OF_DAY), described("i", metadata={"project": "web"}), ended("i")], "web"),
        ([started("i"), described("i", metadata={"repo": "api"}, has_prompt=False), ended("i")], "api"),
        ([started("i"), described("i", metadata={"project": "", "repo": "api"}, client_session_id="s"), ended("i")], ""),
        ([started("i"), described("i", request_model="m\x00"), ended("i", usage_source=UsageSource.NONE)], ""),
    ],
)
async def test_rows_in_hand_count_as_they_will_when_read(store: Store, observations: list[object], project: str) -> None:
    changes = changes_of(of_worker("w", *observations), _NONE_KNOWN)  # type: ignore[arg-type]
    for row in changes.tokens.values():
        row["cost_micros"] = 7
    in_hand = list(counted_of(changes.started.values(), changes.tokens))
    async with store._engine.begin() as connection:
        await connection.execute(insert(interceptions), list(changes.started.values()))
        if changes.tokens:
            await connection.execute(insert(token_usages), list(changes.tokens.values()))
        assert await read_counted(connection, {"i", "not there"}) == in_hand
        day = (await connection.execute(select(day_of(connection.dialect.name)))).scalar_one()
    (only,) = in_hand
    assert only.project == project
    assert only.day == day == datetime.fromtimestamp(observations[0].at, UTC).date().isoformat()  # type: ignore[attr-defined]
    assert only.is_first


async def test_an_interception_with_two_token_rows_is_one_request(store: Store) -> None:
    await store.apply(of_worker("w", started("i"), described("i"), ended("i")), {"w-00000001.jsonl": 1})
    async with store._engine.begin() as connection:
        names = ", ".join(column.name for column in token_usages.c if column.name != "position")
        await connection.execute(text(f"INSERT INTO token_usages ({names}, position) SELECT {names}, 1 FROM token_usages"))
        found = await read_counted(connection, {"i"})
    assert sorted(each.position or 0 for each in found) == [0, 1]
    assert [each.is_first for each in sorted(found, key=lambda each: each.position or 0)] == [True, False]
