"""Twin of aiproxyd/storage/last_write.py, with real databases that other processes write to."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiproxyd.storage import last_write
from aiproxyd.storage.engine import create_engine, url_of
from aiproxyd.storage.last_write import written_at
from aiproxyd.storage.store import Store

# What another program may do to a database, in a process of its own: nothing but a commit, or that after the WAL was moved away.
_WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
"""
_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"
_CHANGE = "UPDATE numbers SET number = number + 1"


def write_elsewhere(file: Path, *statements: str) -> None:
    """Let another process run `statements`."""
    subprocess.run([sys.executable, "-c", _WRITE, file, *statements], check=True)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A database in WAL mode that this process has open, as a daemon does; times of its files count at once."""
    monkeypatch.setattr(last_write, "_UNSURE_SECONDS", 0.0)
    file = tmp_path / "store.sqlite3"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    yield file
    connection.close()


@pytest.mark.parametrize("through_link", [False, True])
def test_a_write_of_another_process_shows_also_where_the_wal_stays_as_long_as_it_is(
    database: Path, tmp_path: Path, through_link: bool
) -> None:
    name = database
    if through_link:
        name = tmp_path / "links" / "linked.sqlite3"
        name.parent.mkdir()
        name.symlink_to(database)
    seen, sizes = [written_at(name)], set()
    for _ in range(3):
        write_elsewhere(database, _CHANGE)
        seen.append(written_at(name))
        write_elsewhere(database, _MOVE, _CHANGE)  # the change begins the WAL at its front again
        seen.append(written_at(name))
        sizes.add(Path(f"{database}-wal").stat().st_size)
    assert None not in seen
    assert len(set(seen)) == len(seen)
    assert len(sizes) < 3  # else nothing was written over


def test_what_nobody_wrote_to_shows_the_same_however_often_it_is_read(database: Path) -> None:
    before = written_at(database)
    write_elsewhere(database, "SELECT * FROM numbers")
    assert written_at(database) == before is not None


def test_a_write_of_this_moment_may_have_the_time_of_the_next_one(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_write, "_UNSURE_SECONDS", 60.0)
    wal = Path(f"{database}-wal")
    past, now, future = time.time() - 3600, time.time(), time.time() + 3600
    for of_database, of_wal, is_known in ((past, past, True), (past, now, False), (now, past, False), (past, future, False)):
        os.utime(database, (of_database, of_database))
        os.utime(wal, (of_wal, of_wal))
        assert (written_at(database) is not None) is is_known


def test_a_database_that_cannot_be_looked_at_has_to_be_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert written_at(tmp_path / "file" / "store.sqlite3") is None


async def test_a_database_on_a_server_has_to_be_asked() -> None:
    store = Store(create_engine(url_of("postgresql://127.0.0.1/none")), "")
    assert store.written_at() is None
    await store.close()
