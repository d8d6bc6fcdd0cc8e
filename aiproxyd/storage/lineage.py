"""Links interceptions to threads: a request that answers a tool call belongs to the thread of the request that got the call.

Facts: the parent of an interception is the one with the newest tool usage of the call id it answers. The root is the parent's
root, or the parent itself. A session is what the client calls one, else the thread.

Strategy: both rows may come in any order, because between workers there is none, least of all while a backlog is read. So the
link is looked for when the answer comes and when the call comes. Call ids that are not unique (some servers count from
`call_0`) do not join strangers: parent and child have one initiator, and the call came before the answer.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.engine import in_pieces
from aiproxyd.storage.figures import Touch
from aiproxyd.storage.rows import Changes
from aiproxyd.storage.statements import among
from aiproxyd.storage.tables import interceptions, tool_usages

_child = interceptions.alias("child")
_parent = interceptions.alias("parent")

_parent_id = (
    select(tool_usages.c.interception_id)
    .join(_parent, _parent.c.id == tool_usages.c.interception_id)
    .where(
        tool_usages.c.provider_tool_call_id == _child.c.correlating_tool_call_id,
        tool_usages.c.created_at <= _child.c.described_at,
        _parent.c.initiator_id == _child.c.initiator_id,
        _parent.c.id != _child.c.id,
    )
    .order_by(tool_usages.c.created_at.desc())
    .limit(1)
    .correlate(_child)
    .scalar_subquery()
)

_unlinked = select(_child.c.id, _parent_id.label("parent_id")).where(
    _child.c.correlating_tool_call_id.is_not(None), _child.c.thread_parent_id.is_(None)
)
_ANSWERS = _unlinked.where(among(_child.c.id))
# Who asked before the earliest call of the batch answers none of them.
_ANSWERS_TO = _unlinked.where(among(_child.c.correlating_tool_call_id), _child.c.described_at >= bindparam("since"))

_ROOTS = select(interceptions.c.id, interceptions.c.thread_root_id).where(among(interceptions.c.id))
_THREADS = select(interceptions.c.id, interceptions.c.thread_root_id).where(among(interceptions.c.thread_root_id))

_session_id = func.coalesce(interceptions.c.client_session_id, bindparam("root_id"))
_LINK = (
    update(interceptions)
    .where(interceptions.c.id == bindparam("key"))
    .values(thread_parent_id=bindparam("parent_id"), thread_root_id=bindparam("root_id"), session_id=_session_id)
)
# A thread that turns out to be the continuation of another moves there whole.
_MOVE = (
    update(interceptions)
    .where(interceptions.c.id == bindparam("key"), interceptions.c.thread_root_id == bindparam("former_root_id"))
    .values(thread_root_id=bindparam("root_id"), session_id=_session_id)
)


async def link_threads(connection: AsyncConnection, changes: Changes, touch: Touch) -> None:
    """Link what a batch makes linkable.

    Args:
        connection: In the transaction in which the rows of the batch are written.
        changes: The batch.
        touch: Called with interceptions, of this batch or not, before they move.
    """
    answers = [id_ for id_, row in (changes.started | changes.described).items() if row["correlating_tool_call_id"]]
    parents = await _parents(connection, _ANSWERS, answers, {})
    calls = {row["provider_tool_call_id"] for row in changes.tools.values()} - {""}
    if calls:
        since: datetime = min(row["created_at"] for row in changes.tools.values())
        parents |= await _parents(connection, _ANSWERS_TO, calls, {"since": since})
    if not parents:
        return
    roots = roots_of(parents, await _stored_roots(connection, set(parents.values())))
    links = [{"key": child, "parent_id": parents[child], "root_id": root} for child, root in sorted(roots.items())]
    # Only an interception of an earlier batch can have children there that take it for their root.
    new_roots = {link["key"]: link["root_id"] for link in links if link["key"] not in changes.started}
    moves = [
        {"key": child, "former_root_id": former, "root_id": new_roots[former]}
        for child, former in await _threads_of(connection, new_roots)
    ]
    await touch([each["key"] for each in links + moves])
    if links:
        await connection.execute(_LINK, links)
    if moves:
        await connection.execute(_MOVE, moves)


def roots_of(parents: Mapping[str, str], stored: Mapping[str, str | None]) -> dict[str, str]:
    """Return the root of each child; a child whose ancestors form a ring has none.

    Args:
        parents: Child to parent, the links that are not written yet.
        stored: Written roots of those parents, None for the beginning of a thread. They may be children in `parents`.
    """
    roots: dict[str, str] = {}
    for child, parent in parents.items():
        path = {child}
        at = parent
        while at not in path:
            if at in roots:
                at = roots[at]
                break
            above = parents.get(at) or stored.get(at)
            if above is None:
                break
            path.add(at)
            at = above
        if at not in path:
            roots.update(dict.fromkeys(path & parents.keys(), at))
    return roots


async def _parents(
    connection: AsyncConnection, statement: Any, ids: Collection[str], bound: Mapping[str, Any]
) -> dict[str, str]:
    parents = {}
    for piece in in_pieces(ids):
        rows = await connection.execute(statement, {"ids": piece, **bound})
        parents.update({child: parent for child, parent in rows if parent is not None})
    return parents


async def _threads_of(connection: AsyncConnection, roots: Collection[str]) -> list[tuple[str, str]]:
    """Return what belongs to threads, each with its root, in the order of ids."""
    found: list[tuple[str, str]] = []
    for piece in in_pieces(roots):
        rows = await connection.execute(_THREADS, {"ids": piece})
        found += [(row[0], row[1]) for row in rows]
    return sorted(found)


async def _stored_roots(connection: AsyncConnection, ids: Collection[str]) -> dict[str, str | None]:
    roots: dict[str, str | None] = {}
    for piece in in_pieces(ids):
        roots.update({row[0]: row[1] for row in await connection.execute(_ROOTS, {"ids": piece})})
    return roots
