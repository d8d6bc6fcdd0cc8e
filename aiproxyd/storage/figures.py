"""Keeps all that is summed up from interceptions while a transaction changes them: figures by day, and the parts of sessions.

What each of them is, and how it is kept, stands in `rollups` and `session_parts`.
"""

import contextlib
from collections.abc import AsyncIterator, Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage import rollups, session_parts


@contextlib.asynccontextmanager
async def keeping_figures(connection: AsyncConnection, ids: Collection[str]) -> AsyncIterator[session_parts.Touch]:
    """Add to the sums what the body of the `with` changes in the interceptions `ids`.

    Args:
        connection: In a transaction.
        ids: Every interception that may change; some may not exist before or after. Those that only move to another thread or
            session the body names by calling what it gets, before it moves them.
    """
    # The inner one writes first: figures and then parts, in every transaction, or two could wait for each other.
    async with session_parts.keeping_sessions(connection, ids) as touch, rollups.keeping_rollups(connection, ids):
        yield touch


async def rebuild(connection: AsyncConnection) -> None:
    """Make every sum again from the records. For stores filled from elsewhere."""
    await rollups.rebuild(connection)
    await session_parts.rebuild(connection)
