"""Reads the records of `bulk` from a SQLite file, by a connection of its own and without SQLAlchemy between the file and the structs.
For commands, which have nothing else to do meanwhile: it blocks.

Facts, measured with a million records:

* Pages are small because of the processor's cache: what was read is still there when it is encoded. A thousand rows at once take
  a third more time than a hundred.
* A statement through an event loop and the driver's thread costs as much as three rows, so it would need large pages.
* The ids of a page are one parameter of one statement for each table of children. A statement with a parameter an id is put
  together anew each time.
* Each page is a transaction of its own: what is exported may flow into a pipe that nobody empties, and a reader that stays keeps
  SQLite from using its WAL again.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, func, select, tuple_
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import NullType, Text

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.bulk import CHILDREN, SELECT, Record, assembled, compiled
from aiproxyd.storage.engine import LOCK_TIMEOUT_SECONDS
from aiproxyd.storage.queries import KEYS
from aiproxyd.storage.tables import interceptions

PAGE = 64
"""Records that are read at once."""

_DIALECT = sqlite.dialect(paramstyle="named")

# Negative is KiB: 8 MiB. More of a file that is read once only pushes records out of the processor's cache.
_CACHE_KIB = -8192

_STARTED_AT = KEYS.index("started_at")


def read_pages(file: Path, conditions: Sequence[ColumnElement[Any]]) -> Iterator[list[Record]]:
    """Yield records, newest first, some at a time.

    Args:
        file: Of a store with the newest schema.
        conditions: Of records.

    Raises:
        StorageError: It cannot be read.
    """
    columns = interceptions.c
    # The place as it stands in the file: text, of which nothing is parsed.
    place = tuple_(bindparam("after_started_at", "", NullType()), bindparam("after_id", "", Text()))
    query = SELECT.where(*conditions).limit(PAGE)
    statement, values = compiled(query, _DIALECT)
    behind, behind_values = compiled(query.where(tuple_(columns.started_at, columns.id) < place), _DIALECT)
    listed = func.json_each(bindparam("ids", "", Text())).table_valued("value")
    of_ids = [
        compiled(each.where(table.c.interception_id.in_(select(listed.c.value))), _DIALECT)[0] for table, each in CHILDREN
    ]
    with contextlib.closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)) as connection:
        while True:
            with _sentences():
                rows, children = _read(connection, statement, values, of_ids)
            if not rows:
                return
            yield assembled(rows, children)
            if len(rows) < PAGE:
                return
            statement, values = behind, behind_values | {"after_started_at": rows[-1][_STARTED_AT], "after_id": rows[-1][0]}


def _read(
    connection: sqlite3.Connection, statement: str, values: Mapping[str, Any], of_ids: Iterable[str]
) -> tuple[list[Any], list[list[Any]]]:
    """Return the rows of a statement and those of its children."""
    connection.execute(f"PRAGMA cache_size={_CACHE_KIB}")
    connection.execute("BEGIN")
    rows = connection.execute(statement, values).fetchall()
    ids = msgspec.json.encode([row[0] for row in rows]).decode()
    children = [connection.execute(each, {"ids": ids}).fetchall() for each in of_ids]
    connection.execute("COMMIT")
    return rows, children


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        message = f"the store refused: {exc}"
        raise StorageError(message) from exc
