"""Twin of aiproxyd/storage/schema.py: migrations, as an installed package runs them."""

import asyncio
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from aiproxyd.exceptions import StorageError
from aiproxyd.storage import schema, tables
from aiproxyd.storage.engine import create_engine, prepare_sqlite_file, url_of
from aiproxyd.storage.store import Store


async def _run(url: str, *statements: str) -> None:
    address = url_of(url)
    if address.get_backend_name() == "sqlite":
        prepare_sqlite_file(address, create=True)
    engine = create_engine(address)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


def test_the_newest_version_is_the_last_migration() -> None:
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert scripts.get_heads() == [schema.NEWEST]
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert sorted(revisions, reverse=True) == revisions, "`newer` is told by comparing them"


async def test_migrations_make_the_tables_that_the_program_uses(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, tables.schema)

    async with store._engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_partial_indexes_are_partial(store: Store) -> None:
    def conditions(connection: Connection) -> dict[str, object]:
        found = {}
        for index in inspect(connection).get_indexes("interceptions"):
            for name, value in index.get("dialect_options", {}).items():
                if name.endswith("_where"):
                    found[index["name"]] = str(value).replace("(", "").replace(")", "").replace("::text", "")
        return found

    async with store._engine.connect() as connection:
        assert await connection.run_sync(conditions) == {
            "ix_interceptions_open": "ended_at IS NULL",
            "ix_interceptions_outcome": "outcome <> 'completed'",
            "ix_interceptions_unlinked": "correlating_tool_call_id IS NOT NULL AND thread_parent_id IS NULL",
        }


async def test_opening_again_changes_nothing(database_url: str) -> None:
    for _ in range(2):
        store = await Store.open(database_url)
        await store.add_user(f"user-{_}")
        await store.close()
    store = await Store.open(database_url, create=False)
    assert len(await store.list_users()) == 2
    await store.close()


async def test_daemons_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    stores = await asyncio.gather(*(Store.open(database_url) for _ in range(4)))
    for store in stores:
        await store.ping()
        await store.close()


async def test_a_new_store_waits_for_another_that_writes_to_it_before_it_has_a_wal(tmp_path: Path) -> None:
    await (await Store.open(f"sqlite:///{tmp_path}/before")).close()  # so that nothing is left to be imported
    other = sqlite3.connect(tmp_path / "store", isolation_level=None)
    other.execute("PRAGMA user_version=1")
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.ensure_future(Store.open(f"sqlite:///{tmp_path}/store"))
    done, _ = await asyncio.wait([opening], timeout=0.3)
    assert not done
    other.execute("ROLLBACK")
    store = await opening
    await store.ping()
    await store.close()
    other.close()


async def test_a_store_of_a_newer_program_is_left_alone(database_url: str) -> None:
    await (await Store.open(database_url)).close()
    await _run(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for create in (True, False):
        with pytest.raises(StorageError, match="made by a newer aiproxyd: its schema is 9999, this one knows"):
            await Store.open(database_url, create=create)


async def test_a_reader_does_not_change_a_store(database_url: str) -> None:
    await _run(database_url)
    with pytest.raises(StorageError, match="the store is empty"):
        await Store.open(database_url, create=False)
    await (await Store.open(database_url)).close()
    await _run(database_url, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(StorageError, match="brings it up to date"):
        await Store.open(database_url, create=False)


async def test_a_database_of_another_program_is_left_alone(database_url: str) -> None:
    await _run(database_url, "CREATE TABLE interceptions (id INTEGER)")
    with pytest.raises(StorageError, match="did not make"):
        await Store.open(database_url)


async def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(StorageError, match="not a database"):
        await Store.open(f"sqlite:///{path}")


async def test_a_reader_does_not_make_a_file(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite3"
    with pytest.raises(StorageError, match="there is no store at"):
        await Store.open(f"sqlite:///{path}", create=False)
    assert not path.exists()


def test_a_migration_that_fails_leaves_no_half(tmp_path: Path) -> None:
    async def interrupted() -> None:
        url = f"sqlite:///{tmp_path / 'store.sqlite3'}"
        # A table that the migration makes last but one is there already.
        await _run(url, "CREATE TABLE tool_usages (id INTEGER)")
        with pytest.raises(StorageError, match="tool_usages already exists"):
            await Store.open(url)
        await _run(url, "DROP TABLE tool_usages")
        await (await Store.open(url)).close()

    asyncio.run(interrupted())


def test_an_installed_wheel_brings_its_migrations(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=root, check=True, capture_output=True, timeout=100)
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "site with spaces and 100%"
    zipfile.ZipFile(wheel).extractall(installed)
    program = (
        "import asyncio, sys; from aiproxyd.storage import store; assert sys.argv[1] in store.__file__, store.__file__;"
        "opened = asyncio.run(store.Store.open(sys.argv[2])); print('opened')"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, str(installed), f"sqlite:///{tmp_path}/store.sqlite3"],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert result.stdout == "opened\n", result.stderr
