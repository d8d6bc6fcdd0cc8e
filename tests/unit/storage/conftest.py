"""Both databases, empty for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aiproxyd.storage.store import Store
from tests.support.postgres import PostgresServer, is_installed, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a process."""
    if not is_installed():
        pytest.skip("initdb is not on PATH")
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.sqlite3'}"
        return
    server = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """A new store."""
    opened = await Store.open(database_url)
    yield opened
    await opened.close()
