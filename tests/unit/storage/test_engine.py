"""Twin of aiproxyd/storage/engine.py."""

import pytest
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.engine import in_pieces, translated, url_of
from aiproxyd.storage.store import Store


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///a.db", "sqlite+aiosqlite"),
        ("postgres://h/d", "postgresql+asyncpg"),
        ("postgresql://h/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg"),
    ],
)
def test_a_kind_of_database_has_its_driver(text: str, driver: str) -> None:
    assert url_of(text).drivername == driver


@pytest.mark.parametrize("text", ["mysql://h/d", "postgresql+psycopg2://h/d", "sqlite+pysqlite:///a.db"])
def test_another_driver_is_refused_by_name(text: str) -> None:
    with pytest.raises(StorageError, match="a store is sqlite or postgresql"):
        url_of(text)


def test_ids_come_in_pieces_that_fit_a_statement() -> None:
    ids = [f"{number:05}" for number in range(2500)]
    pieces = list(in_pieces(reversed(ids)))
    assert [len(piece) for piece in pieces] == [1000, 1000, 500]
    assert [id_ for piece in pieces for id_ in piece] == ids
    assert list(in_pieces([])) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OperationalError("INSERT", {"prompt": "secret"}, Exception("no room\nDETAIL: secret")), "the store refused: no room"),
        (SQLAlchemyError("secret"), "the store failed: SQLAlchemyError"),
        (ConnectionRefusedError(111, "Connection refused"), "the store cannot be reached: Connection refused"),
        (TimeoutError(), "the store cannot be reached: no answer"),
        (UnicodeEncodeError("utf-8", "secret", 0, 1, "no"), "the store was asked for something that is no text"),
    ],
)
def test_what_a_database_raises_becomes_one_sentence_without_values(error: Exception, sentence: str) -> None:
    with pytest.raises(StorageError) as caught, translated():
        raise error
    assert str(caught.value) == sentence


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("x")


async def test_sqlite_is_set_up_to_lose_nothing_and_to_let_readers_go_on(tmp_path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    async with store._engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
    await store.close()
