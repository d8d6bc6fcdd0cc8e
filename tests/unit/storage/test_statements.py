import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import create_engine, url_of
from aiproxyd.storage.statements import among, insert_new, upsert

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


async def _rows(connection: AsyncConnection, ids: list[str]) -> list[tuple[object, ...]]:
    rows = await connection.execute(select(things).where(among(things.c.id)).order_by(things.c.id), {"ids": ids})
    return [tuple(row) for row in rows]
