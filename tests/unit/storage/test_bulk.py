"""Twin of aiproxyd/storage/bulk.py, bulk_postgres.py and bulk_sqlite.py: what they read is, written down, what the ordinary reading gives."""

import asyncio
import contextlib
import datetime as dt
import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import JSON, Boolean, Float, Integer, Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.commands import export
from aiproxyd.commands.records import LocalRecords
from aiproxyd.exceptions import AiproxydError, StorageError
from aiproxyd.storage import bulk_postgres, bulk_sqlite
from aiproxyd.storage.bulk import Record
from aiproxyd.storage.listing import list_page
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from aiproxyd.storage.tables import (
    UtcDateTime,
    interceptions,
    model_thoughts,
    token_usages,
    tool_usages,
    user_prompts,
    users,
)

COUNT = 60
_TEXTS = ("", "null", "{}", "=1+1", 'a "b" \\', "ä\n\t\u2028 \U0001f980", "\x01\x7f", "2026-01-31 08:00:00.000000", "x" * 3000)
_NUMBERS = (0, 1, 17, 2**31 - 1)
_SECONDS = (0.0, 0.1, 1e-7, 1e22, 12345.678901, 1 / 3)
_DOCUMENTS = ({}, {"a": "ä\n"}, {"b": [1, 2.5, None, True], "a": {"z": "<&>"}}, {"Ω": -0.5})


def _value(column: Any, chance: random.Random) -> Any:
    if column.nullable and chance.random() < 0.3:
        return None
    match column.type:
        case UtcDateTime():
            micros = chance.choice((0, 0, 1, 500_000, 999_999, 120_000))
            day = dt.datetime(chance.choice((1, 1969, 2026, 9998)), 1, 31, 8, tzinfo=dt.UTC)
            return day + dt.timedelta(seconds=chance.randrange(3), microseconds=micros)
        case Boolean():
            return chance.random() < 0.5
        case Integer():
            return chance.choice(_NUMBERS)
        case Float():
            return chance.choice(_SECONDS)
        case JSON():
            return chance.choice(_DOCUMENTS)
        case _:
            return chance.choice(_TEXTS)


def _row(table: Table, chance: random.Random, **known: object) -> dict[str, Any]:
    return {column.name: _value(column, chance) for column in table.c if column.name not in known} | known


async def _fill(store: Store, chance: random.Random) -> None:
    """Put rows into the tables that ingest would never write, but the database allows."""

    async def insert(connection: AsyncConnection) -> int:
        rows: dict[Table, list[dict[str, Any]]] = {
            users: [_row(users, chance, id=f"u{n}", token_sha256=None) for n in range(3)]
        }
        for table in (interceptions, token_usages, user_prompts, tool_usages, model_thoughts):
            rows[table] = []
        for number in range(COUNT):
            id_ = f"{chance.getrandbits(32):08x}-{number} 'ä"
            rows[interceptions].append(_row(interceptions, chance, id=id_, initiator_id=f"u{chance.randrange(4)}"))
            if chance.random() < 0.5:
                rows[user_prompts].append(_row(user_prompts, chance, interception_id=id_))
            for table in (token_usages, tool_usages, model_thoughts):
                places = chance.sample(range(12), chance.choice((0, 1, 1, 3, 11)))
                rows[table] += [_row(table, chance, interception_id=id_, position=place) for place in places]
        for table, made in rows.items():
            await connection.execute(table.insert(), made)
        return COUNT

    await store.write_timed(insert)


async def _both(store: Store, url: str, selection: Selection) -> tuple[list[dict[str, Any]], list[Record]]:
    plain = await store.read(lambda c: list_page(c, selection, limit=1000))
    return plain, await asyncio.to_thread(_in_bulk, url, selection)


def _in_bulk(url: str, selection: Selection) -> list[Record]:
    """Return what the export of a command gets; it has an event loop of its own, so this needs a thread."""
    with contextlib.closing(LocalRecords(url)) as records:
        found: list[Any] = list(itertools.chain.from_iterable(records.bulk(selection)))
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_structs_encode_to_what_ordinary_records_encode_to(store: Store, database_url: str, seed: int) -> None:
    await _fill(store, random.Random(seed))
    plain, records = await _both(store, database_url, Selection())
    assert len(records) == COUNT
    for expected, record in zip(plain, records, strict=True):
        # As text, which has the order of keys too.
        assert repr(msgspec.json.decode(msgspec.json.encode(record))) == repr(
            msgspec.json.decode(msgspec.json.encode(expected))
        )
        assert (type(record.streaming), type(record.has_prompt)) == (bool, bool)


@pytest.mark.parametrize("seed", range(2))
async def test_flat_rows_are_those_of_ordinary_records(store: Store, database_url: str, seed: int) -> None:
    await _fill(store, random.Random(seed))
    plain, records = await _both(store, database_url, Selection())
    rows = list(export.flat(records))
    metadata = export.COLUMNS.index("metadata")
    for expected, row, record in zip(export.flat(plain), rows, plain, strict=True):
        assert row[:metadata] == expected[:metadata]
        assert msgspec.json.decode(row[metadata]) == msgspec.json.decode(expected[metadata])
        named = dict(zip(export.COLUMNS, row, strict=True))
        costs = [usage["cost_micros"] for usage in record["token_usages"] if usage["cost_micros"] is not None]
        assert named["cost_micros"] == (sum(costs) if costs else None)
        assert named["input_tokens"] == sum(usage["input_tokens"] for usage in record["token_usages"])
        assert named["tool_calls"] == len(record["tool_usages"])
        assert (named["started_at"], named["ended_at"]) == (record["started_at"], record["ended_at"])
        assert (named["id"], named["user"]) == (record["id"], record["initiator"]["username"])


@pytest.mark.parametrize("page", [1, 7, COUNT, COUNT + 1])
async def test_records_are_those_of_lists_whatever_a_page_holds(
    store: Store, database_url: str, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(store, random.Random(7))
    monkeypatch.setattr(bulk_postgres, "PAGE", page)
    monkeypatch.setattr(bulk_sqlite, "PAGE", page)
    for selection in (
        Selection(),
        Selection(initiator="u1"),
        Selection(initiator="nobody"),
        Selection(model="=1+1"),
        Selection(started_after=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        Selection(
            started_after=dt.datetime(2026, 1, 31, 8, 0, 1, tzinfo=dt.UTC),
            started_before=dt.datetime(9000, 1, 1, tzinfo=dt.UTC),
        ),
        Selection(started_before=dt.datetime(1970, 1, 1, tzinfo=dt.UTC), client="{}"),
        Selection(outcome="null"),
    ):
        plain, records = await _both(store, database_url, selection)
        assert [record.id for record in records] == [record["id"] for record in plain]


async def test_users_who_share_a_name_are_both_exported(store: Store, database_url: str) -> None:
    await _fill(store, random.Random(8))
    await store.write_timed(_name_all_users("same"))
    plain, records = await _both(store, database_url, Selection(initiator="same"))
    assert {record.initiator.id for record in records} == {"u0", "u1", "u2"}
    assert [record.id for record in records] == [record["id"] for record in plain]


def _name_all_users(name: str) -> Any:
    async def change(connection: AsyncConnection) -> int:
        return int((await connection.execute(users.update().values(name=name))).rowcount)

    return change


async def test_an_export_goes_on_behind_a_record_that_is_deleted_meanwhile(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(store, random.Random(9))
    monkeypatch.setattr(bulk_postgres, "PAGE", 10)
    monkeypatch.setattr(bulk_sqlite, "PAGE", 10)
    plain = await store.read(lambda c: list_page(c, Selection(), limit=1000))

    async def delete(connection: AsyncConnection) -> int:
        return int((await connection.execute(interceptions.delete().where(interceptions.c.id == plain[9]["id"]))).rowcount)

    records = LocalRecords(database_url)
    pages = records.bulk(Selection())
    found: list[Any] = list(await asyncio.to_thread(next, pages))
    assert await store.write_timed(delete)
    found += await asyncio.to_thread(lambda: list(itertools.chain.from_iterable(pages)))
    await asyncio.to_thread(records.close)
    assert [record.id for record in found] == [record["id"] for record in plain]


async def test_an_export_may_be_left_in_its_middle_and_begun_again(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(store, random.Random(10))
    monkeypatch.setattr(bulk_postgres, "PAGE", 10)
    monkeypatch.setattr(bulk_sqlite, "PAGE", 10)
    plain = await store.read(lambda c: list_page(c, Selection(), limit=1000))

    def read_twice() -> tuple[list[Any], list[Any]]:
        with contextlib.closing(LocalRecords(database_url)) as records:
            pages = records.bulk(Selection())
            some = list(next(pages))
            # The next page is under way.
            pages.close()
            return some, list(itertools.chain.from_iterable(records.bulk(Selection())))

    some, whole = await asyncio.to_thread(read_twice)
    assert [record.id for record in some] == [record["id"] for record in plain[:10]]
    assert [record.id for record in whole] == [record["id"] for record in plain]


async def test_what_postgres_refuses_is_said_in_a_sentence(store: Store, database_url: str) -> None:
    if store.is_sqlite:
        pytest.skip("of PostgreSQL alone")
    await _fill(store, random.Random(11))
    refused = text("1 / (interceptions.request_bytes * 0) = 1")

    def read() -> None:
        list(bulk_postgres.read_pages(database_url, [refused]))  # type: ignore[list-item]  # a clause as good as any

    with pytest.raises(StorageError, match=r"^the store refused: division by zero$"):
        await asyncio.to_thread(read)


async def test_a_file_that_is_damaged_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite3"
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="the store refused: file is not a database"):
        list(bulk_sqlite.read_pages(file, []))


def test_an_answer_that_is_no_record_is_said_in_a_sentence() -> None:
    with pytest.raises(AiproxydError, match="no record"):
        Record.of({"id": "a"})
