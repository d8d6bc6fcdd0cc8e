"""Statements that each transaction needs, made once a dialect: to put one together takes longer than to run it.

Not for queries of readers, whose conditions differ.
"""

import functools
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(dialect: str, table: Table) -> Any:
    """Return an insert that knows conflicts; both dialects spell it alike and neither shares a class."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@functools.cache
def insert_new(dialect: str, table: Table, key: tuple[str, ...]) -> Any:
    """Return an insert of rows of which those stay as they are that are there, by `key`."""
    return insert_into(dialect, table).on_conflict_do_nothing(index_elements=key)


@functools.cache
def upsert(dialect: str, table: Table, key: tuple[str, ...], change: tuple[str, ...]) -> Any:
    """Return an insert of rows that writes the columns `change` of those that are there, by `key`."""
    statement = insert_into(dialect, table)
    return statement.on_conflict_do_update(index_elements=key, set_={name: statement.excluded[name] for name in change})


def among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return that `column` is one of the parameter `ids`, a list."""
    return column.in_(bindparam("ids", expanding=True))
