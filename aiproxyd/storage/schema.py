"""Brings a database to the newest schema, or says why it cannot.

Alembic is imported only when there is something to do: a look at one row tells, and `interceptions list` should not wait.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from aiproxyd.exceptions import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

NEWEST = "0007"
"""The last file in `migrations/versions`."""

# Any number; daemons that start at once on one PostgreSQL wait for each other with it.
_MIGRATION_LOCK = 0x6169_7078


def version_of(connection: Connection) -> str | None:
    """Return the schema's version, None for a database without one.

    Raises:
        StorageError: The database holds tables that are not ours.
    """
    inspector = inspect(connection)
    if not inspector.has_table("alembic_version"):
        if inspector.has_table("interceptions"):
            raise StorageError("the database has a table named interceptions that this program did not make")
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def check(connection: Connection) -> None:
    """Make sure that a database can be used as it is.

    Raises:
        StorageError: It is empty, older or newer.
    """
    version = version_of(connection)
    if version is None:
        raise StorageError("the store is empty; start it with `aiproxyd run`")
    if version != NEWEST:
        _refuse_newer(version)
        message = f"the store has schema {version} and this program needs {NEWEST}; `aiproxyd run` brings it up to date"
        raise StorageError(message)


def is_current(connection: Connection) -> bool:
    """Return whether a database has every table as it is now; False for one that `upgrade` would bring there.

    Raises:
        StorageError: It was made by a newer program, or is not ours.
    """
    version = version_of(connection)
    if version is not None:
        _refuse_newer(version)
    return version == NEWEST


def upgrade(connection: Connection) -> None:
    """Run the migrations a database lacks, in the transaction of `connection`.

    Raises:
        StorageError: It was made by a newer program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    version = version_of(connection)
    if version == NEWEST:
        return
    if version is not None:
        _refuse_newer(version)
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, NEWEST)


def alembic_config() -> "Config":
    """Return Alembic's settings: the folder of this package, wherever it is installed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _refuse_newer(version: str) -> None:
    if version > NEWEST:
        message = f"the store was made by a newer aiproxyd: its schema is {version}, this one knows {NEWEST}"
        raise StorageError(message)
