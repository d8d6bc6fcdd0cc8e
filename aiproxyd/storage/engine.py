"""The connection to a database: how each kind is set up, and how its errors become ours.

Facts, SQLite:

* WAL lets readers go on beside the one writer. `synchronous=NORMAL` would sync at checkpoints and not at commits: a power cut
  could take the last transactions, whole. Rows and the reader's position in the journal are in one transaction, so what is
  lost would be read again, but for segments that were removed meanwhile. `FULL` closes that gap for one sync a batch, and a
  batch is hundreds of rows.
* The driver begins transactions late and not for every statement; here they are begun in so many words. `BEGIN IMMEDIATE` takes
  the write lock at once: a transaction that reads first and then cannot write has no way out but to fail.
"""

import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.one_step import OneStepConnection

LOCK_TIMEOUT_SECONDS = 5.0
"""How long a statement waits for another writer of a SQLite file."""

_LOCK_RETRY_SECONDS = 0.01

CONNECT_TIMEOUT_SECONDS = 10.0
STATEMENT_TIMEOUT_SECONDS = 60.0
"""For PostgreSQL. A batch takes well under a second; a server that is silent for so long is down."""

# Pages of 4 KiB after which a commit moves the WAL into the database: 16 MiB, a few batches.
_WAL_PAGES = 4096
_PAGE_BYTES = 4096

# Negative is KiB: 32 MiB of pages, so that the indexes of a busy day stay in memory.
_CACHE_KIB = -32768

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}

# Below SQLite's limit of 32,766 variables a statement and PostgreSQL's of 32,767.
_IDS_A_STATEMENT = 1000

READ_ONLY = "aiproxyd_read_only"
"""Execution option of a connection whose transactions only read."""

# Classes of SQLSTATE that a value causes: data exception, integrity violation, limit exceeded (a row too large for an index).
_DATA_STATES = ("22", "23", "54")


def url_of(text: str) -> URL:
    """Return the database that `text` names, with the driver that is used for its kind.

    Raises:
        StorageError: It is no URL, or names a kind of database that is not supported.
    """
    try:
        url = make_url(text)
    except ArgumentError as exc:
        # The text is not shown: it may hold a password.
        raise StorageError(
            "store.url is not a database URL such as sqlite+aiosqlite:////path or postgresql://host/name"
        ) from exc
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _DRIVERS.values():
        message = f"store.url names {url.drivername!r}; a store is sqlite or postgresql"
        raise StorageError(message)
    return url


def create_engine(url: URL) -> AsyncEngine:
    """Return an engine that connects when it is used.

    Raises:
        StorageError: The driver is not installed.
    """
    arguments: dict[str, Any] = {"json_serializer": _json_text, "json_deserializer": msgspec.json.decode}
    try:
        if url.get_backend_name() == "sqlite":
            connect: dict[str, Any] = {"timeout": LOCK_TIMEOUT_SECONDS, "async_creator_fn": OneStepConnection.make}
            engine = create_async_engine(url, connect_args=connect, **arguments)
            event.listen(engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            return engine
        return create_async_engine(
            url,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_TIMEOUT_SECONDS, "command_timeout": STATEMENT_TIMEOUT_SECONDS},
            **arguments,
        )
    except ModuleNotFoundError as exc:
        message = f"the driver of {url.get_backend_name()} is not installed: pip install 'aiproxyd[postgres]'"
        raise StorageError(message) from exc


def in_pieces(ids: Collection[str]) -> Iterator[list[str]]:
    """Yield `ids`, sorted, in lists that fit a statement."""
    for piece in itertools.batched(sorted(ids), _IDS_A_STATEMENT):
        yield list(piece)


def sqlite_file(url: URL) -> Path:
    """Return the file of a SQLite URL.

    Raises:
        StorageError: It names none.
    """
    if not url.database or url.database == ":memory:":
        raise StorageError("store.url names no file; a store in memory would not outlive its connections")
    return Path(url.database)


def prepare_sqlite_file(url: URL, *, create: bool) -> None:
    """Make the file of a SQLite URL and its folder, for the owner alone; its WAL inherits the mode.

    Args:
        url: Names the file.
        create: Whether to make it when it is missing.

    Raises:
        StorageError: It is missing, or cannot be made.
    """
    path = sqlite_file(url)
    if not create:
        if not path.exists():
            message = f"there is no store at {path}; `aiproxyd run` makes it"
            raise StorageError(message)
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as exc:
        message = f"the store {path} cannot be made: {exc.strerror}"
        raise StorageError(message) from exc


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what a database or its driver raises into StorageError.

    Raises:
        StorageError: One sentence, without values of rows.
    """
    try:
        yield
    except DBAPIError as exc:
        raise StorageError(_first_line(exc.orig)) from exc
    except SQLAlchemyError as exc:
        message = f"the store failed: {type(exc).__name__}"
        raise StorageError(message) from exc
    except UnicodeEncodeError as exc:
        raise StorageError("the store was asked for something that is no text") from exc
    except (OSError, TimeoutError) as exc:
        message = f"the store cannot be reached: {exc.strerror if isinstance(exc, OSError) and exc.strerror else 'no answer'}"
        raise StorageError(message) from exc


def _first_line(error: BaseException | None) -> str:
    # Behind the first line PostgreSQL puts details, with values of rows; drivers put their class before it.
    text = str(error).partition("\n")[0].rpartition(">: ")[2]
    return f"the store refused: {text[:200]}"


def is_data_error(exc: Exception) -> bool:
    """Return whether a value caused it, so that other lines would get through."""
    match exc:
        case DataError() | IntegrityError():
            return True
        case DBAPIError():
            # The driver's own error is the cause of the one that SQLAlchemy makes of it.
            causes = (exc.orig, exc.orig.__cause__ if exc.orig is not None else None)
            return any(
                isinstance(cause, ValueError) or str(getattr(cause, "sqlstate", None) or "")[:2] in _DATA_STATES
                for cause in causes
            )
        case StatementError():
            return isinstance(exc.orig, ValueError | TypeError | OverflowError)
        case ValueError() | TypeError() | OverflowError():
            return True
        case _:
            return False


def _json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    # First, and for a new file: later only VACUUM can do that. It lets the file become smaller in small steps.
    cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    _use_wal(connection, cursor)
    for pragma in (
        f"journal_size_limit={_WAL_PAGES * _PAGE_BYTES}",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"wal_autocheckpoint={_WAL_PAGES}",
        f"cache_size={_CACHE_KIB}",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_wal(connection: Any, cursor: Any) -> None:
    # SQLite does not wait for the lock that it takes to change a new file's journal: of several that open one at once some would fail.
    until = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        else:
            return
        connection.run_async(lambda _connection: asyncio.sleep(_LOCK_RETRY_SECONDS))


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READ_ONLY) else "BEGIN IMMEDIATE")
