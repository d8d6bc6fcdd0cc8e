"""Notices that a user may not use the proxy any more, whoever said so: this daemon, another one with the same store, or the command line.

Looks at the users every two seconds: a revocation by `aiproxyd user revoke` reaches the store and nobody else. A store that nobody
wrote to since is asked now and then: the question is three steps of SQLite's thread, a third of what a daemon does that nobody uses. Not
asked about credentials (`identity` is); it ends what stands.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from aiproxyd.beat import next_beat
from aiproxyd.exceptions import StorageError
from aiproxyd.storage.store import Store
from aiproxyd.storage.users import StoredUser

log = structlog.get_logger("aiproxyd.revocations")

# With the way to the workers it stays far below the five seconds in which a revocation is promised to have its effect.
LOOK_SECONDS = 2.0

# A store that shows no write is asked so often all the same: a commit may be seen long after it was written, on a disk that hangs.
ASK_SECONDS = 30.0


async def watch_revocations(
    store: Store, configured: Callable[[], Iterable[tuple[str, str]]], revoke: Callable[[set[str]], None]
) -> None:
    """Call `revoke` with the ids of those who lost their token, or got another one. Endless.

    Args:
        store: Holds users.
        configured: Returns id and token digest of the users of the configuration, as it is at the moment.
        revoke: Closes what they have open.
    """
    before: set[tuple[str, str]] | None = None
    revoked_before: set[tuple[str, str]] = set()
    users: list[StoredUser] = []
    asked_at: object | None = None
    ask_again_at = 0.0
    clock = asyncio.get_running_loop().time
    while True:
        # Before the question: what is written meanwhile shows at the next look.
        written_at = store.written_at()
        try:
            if written_at is None or written_at != asked_at or clock() >= ask_again_at:
                users = await store.list_users()
                asked_at, ask_again_at = written_at, clock() + ASK_SECONDS
        except StorageError as exc:
            # Nobody can be asked who is whose, and nobody new is let in; what stands, stands.
            log.debug("users cannot be looked at", error=str(exc))
        else:
            stored = {(user.id, user.created_at.isoformat()) for user in users if user.revoked_at is None}
            # Besides those who were seen with a token: who was made and revoked between two looks was never among them.
            revoked = {(user.id, user.revoked_at.isoformat()) for user in users if user.revoked_at is not None}
            now = stored | set(configured())
            gone = {id_ for id_, _ in (before - now) | (revoked - revoked_before)} if before is not None else set()
            if gone:
                log.info("connections of users without a token are closed", users=len(gone))
                revoke(gone)
            before, revoked_before = now, revoked
        await next_beat(LOOK_SECONDS)
