"""Users with a token of the store. Who they are on the wire is `identity`'s business.

A token is shown once, when it is made; the store has its SHA-256. A fast hash is enough: the token is 190 bits of chance, which
nobody guesses, and the proxy checks one for every connection.
"""

import hashlib
import secrets
import string
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.exceptions import StorageError
from aiproxyd.model.principal import TOKEN_PREFIX, Principal, id_of_name
from aiproxyd.storage.rows import storable
from aiproxyd.storage.tables import users

_TOKEN_ALPHABET = string.ascii_letters + string.digits
_TOKEN_CHARACTERS = 32

MAX_NAME_CHARACTERS = 120


class StoredUser(NamedTuple):
    """A user who has or had a token."""

    id: str
    name: str
    groups: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


def make_token() -> str:
    """Return a new token: `aip_` and 32 letters and digits."""
    return TOKEN_PREFIX + "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(_TOKEN_CHARACTERS))


def digest_of(token: str) -> str:
    """Return the lower-case hex of a token's SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()


async def add_user(connection: AsyncConnection, name: str, groups: Iterable[str], at: datetime) -> str:
    """Give a user a token and return it.

    Raises:
        StorageError: The name is not usable, or the user has a token.
    """
    if ":" in name:
        # Basic credentials are split at their first colon.
        message = f"a user's name has no colon, which ends it in a proxy URL: {name!r}"
        raise StorageError(message)
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or storable(name) != name or name != name.strip():
        message = f"a user's name has 1 to {MAX_NAME_CHARACTERS} characters, no space around them and no control characters"
        raise StorageError(message)
    id_ = id_of_name(name)
    row = (await connection.execute(select(users.c.token_sha256, users.c.revoked_at).where(users.c.id == id_))).first()
    if row is not None and row.token_sha256 is not None and row.revoked_at is None:
        message = f"user {name!r} has a token; revoke it first"
        raise StorageError(message)
    token = make_token()
    values = {"name": name, "groups": list(groups), "token_sha256": digest_of(token), "created_at": at, "revoked_at": None}
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(users).values(id=id_, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
    return token


async def list_users(connection: AsyncConnection) -> list[StoredUser]:
    """Return the users who have or had a token, by name."""
    columns = users.c
    query = (
        select(columns.id, columns.name, columns.groups, columns.created_at, columns.revoked_at)
        .where(columns.token_sha256.is_not(None))
        .order_by(columns.name, columns.id)
    )
    return [
        StoredUser(row.id, row.name, tuple(row.groups), row.created_at, row.revoked_at)
        for row in await connection.execute(query)
    ]


async def revoke_user(connection: AsyncConnection, name: str, at: datetime) -> bool:
    """Make a user's token worthless; return whether there was one."""
    columns = users.c
    statement = (
        update(users)
        .where(columns.name == name, columns.token_sha256.is_not(None), columns.revoked_at.is_(None))
        .values(revoked_at=at)
    )
    return (await connection.execute(statement)).rowcount > 0


async def find_principal(connection: AsyncConnection, token_sha256: str) -> Principal | None:
    """Return who has the token with this SHA-256, or None when nobody has."""
    columns = users.c
    query = select(columns.id, columns.name, columns.groups).where(
        columns.token_sha256 == token_sha256, columns.revoked_at.is_(None)
    )
    row = (await connection.execute(query)).first()
    return None if row is None else Principal(id=row.id, name=row.name, groups=tuple(row.groups))
