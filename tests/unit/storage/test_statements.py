import datetime as dt

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import create_engine, url_of
from aiproxyd.storage.statements import among, execute_many, insert_new, upsert
from aiproxyd.storage.tables import Document, UtcDateTime

things = Table("things", MetaData(), Column("id", String, primary_key=True), Column("name", String), Column("count", Integer))


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_statement_is_made_once_a_dialect(dialect: str) -> None:
    assert insert_new(dialect, things, ("id",)) is insert_new(dialect, things, ("id",))
    assert upsert(dialect, things, ("id",), ("name",)) is upsert(dialect, things, ("id",), ("name",))
    assert upsert(dialect, things, ("id",), ("count",)) is not upsert(dialect, things, ("id",), ("name",))


async def test_rows_that_are_there_stay_or_change_in_the_columns_that_are_named(database_url: str) -> None:
    engine = create_engine(url_of(database_url))
    dialect = engine.dialect.name
    async with engine.begin() as connection:
        await connection.run_sync(things.create)
        try:
            await connection.execute(insert_new(dialect, things, ("id",)), [{"id": "a", "name": "first", "count": 1}])
            again = [{"id": "a", "name": "second", "count": 2}, {"id": "b", "name": "third", "count": 3}]
            await connection.execute(insert_new(dialect, things, ("id",)), again)
            assert await _rows(connection, ["a", "b", "c"]) == [("a", "first", 1), ("b", "third", 3)]
            await connection.execute(upsert(dialect, things, ("id",), ("name",)), again)
            assert await _rows(connection, ["a"]) == [("a", "second", 1)]
            assert await _rows(connection, []) == []
        finally:
            await connection.run_sync(things.drop)
    await engine.dispose()


EVENTS = Table(
    "events", MetaData(), Column("id", String, primary_key=True), Column("at", UtcDateTime), Column("facts", Document)
)
_MOVE = update(EVENTS).where(EVENTS.c.id == bindparam("key"))


async def test_many_rows_are_written_with_their_types_and_changed_again(database_url: str) -> None:
    engine = create_engine(url_of(database_url))
    dialect = engine.dialect.name
    at = dt.datetime(2026, 1, 31, 23, 59, 59, 7, tzinfo=dt.UTC)
    elsewhere = at.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    async with engine.begin() as connection:
        await connection.run_sync(EVENTS.create)
        try:
            rows = [{"id": "a", "at": at, "facts": {"b": ["ü"]}}, {"facts": {}, "at": elsewhere, "id": "b"}]
            await execute_many(connection, insert_new(dialect, EVENTS, ("id",)), rows)
            await execute_many(connection, insert_new(dialect, EVENTS, ("id",)), [{"id": "c", "at": None, "facts": {}}])
            await execute_many(connection, _MOVE, [{"key": "a", "facts": {"moved": 1}}])
            await execute_many(connection, _MOVE, [])
            found = [tuple(row) for row in await connection.execute(select(EVENTS).order_by(EVENTS.c.id))]
            assert found == [("a", at, {"moved": 1}), ("b", at, {}), ("c", None, {})]
        finally:
            await connection.run_sync(EVENTS.drop)
    await engine.dispose()


async def _rows(connection: AsyncConnection, ids: list[str]) -> list[tuple[object, ...]]:
    rows = await connection.execute(select(things).where(among(things.c.id)).order_by(things.c.id), {"ids": ids})
    return [tuple(row) for row in rows]
