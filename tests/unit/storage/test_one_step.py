"""The connection to SQLite that asks its thread once for each statement, as SQLAlchemy uses it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from aiproxyd.storage.engine import create_engine, url_of
from aiproxyd.storage.one_step import OneStepConnection


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(url_of(f"sqlite:///{tmp_path / 'a.sqlite3'}"))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT UNIQUE)")
        await connection.exec_driver_sql("INSERT INTO words (word) VALUES (?)", [("one",), ("two",), ("three",)])
    yield engine
    await engine.dispose()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is asked of the connection's thread, as it is asked."""
    seen: list[str] = []
    ask = OneStepConnection._execute

    async def counted(self: OneStepConnection, call: object, *arguments: object, **options: object) -> object:
        seen.append(getattr(call, "__name__", str(call)))
        return await ask(self, call, *arguments, **options)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(OneStepConnection, "_execute", counted)
    return seen


async def test_rows_and_their_names_come_as_the_driver_has_them(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        result = await connection.execute(text("SELECT id, word FROM words ORDER BY id"))
        assert list(result.keys()) == ["id", "word"]
        assert [tuple(row) for row in result] == [(1, "one"), (2, "two"), (3, "three")]


async def test_a_select_without_rows_has_names_still(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        result = await connection.execute(text("SELECT word FROM words WHERE id = 99"))
        assert list(result.keys()) == ["word"]
        assert result.all() == []


async def test_changes_say_how_many_they_were(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        changed = await connection.execute(text("UPDATE words SET word = word || '!' WHERE id > 1"))
        assert changed.rowcount == 2
        many = await connection.exec_driver_sql("UPDATE words SET word = ? WHERE id = ?", [("a", 1), ("b", 2), ("c", 99)])
        assert many.rowcount == 2


async def test_rows_of_an_insert_come_back_and_it_is_there(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        assert (await connection.execute(text("INSERT INTO words (word) VALUES ('four') RETURNING id"))).scalar_one() == 4
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT word FROM words WHERE id = 4"))).scalar_one() == "four"


async def test_what_sqlite_refuses_is_raised_and_the_connection_goes_on(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.exec_driver_sql("INSERT INTO words (word) VALUES (?)", [("new",), ("one",)])
        with pytest.raises(OperationalError, match="no such table"):
            await connection.execute(text("SELECT * FROM nowhere"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT count(*) FROM words"))).scalar_one() == 3


async def test_a_transaction_that_fails_leaves_nothing(engine: AsyncEngine) -> None:
    async def fail() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM words"))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM words"))).scalar_one() == 3


async def test_each_statement_is_one_step_and_a_commit_is_the_last(engine: AsyncEngine, steps: list[str]) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SELECT word FROM words"))
        await connection.exec_driver_sql("INSERT INTO words (word) VALUES (?)", [("x",), ("y",)])
    assert steps == ["_execute", "_execute", "_execute_many", "commit"]
    # The first is BEGIN.
    steps.clear()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT word FROM words"))
    assert steps == ["_execute", "_execute", "rollback"]
