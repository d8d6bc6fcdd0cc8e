"""Users of a Coder deployment, by their session tokens: asks its API, and remembers both answers for a short time.

Facts:
- `GET /api/v2/users/me` with `Coder-Session-Token` is 200 with the user, or 401. A suspended user is a 401 too.
- `GET /api/v2/groups?has_member=ID` lists the groups of a user, where the deployment has groups at all (404 elsewhere).

Strategy: a good answer is good for `cache_seconds` from the moment of the question, here and in workers together, so a revocation takes
effect within it. One that is used in its second half is asked for again meanwhile, so that nobody who works waits. What is remembered is
keyed by digest.

A connection lives longer than an answer. So the tokens of those who have something open are kept, and asked for again and again
(`recheck`); the deployment's no is a revocation at once. Its silence is one after `max_silence_seconds`, so that a restart of it interrupts nobody and
nobody stays for ever whom it does not vouch for.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection

import msgspec
import structlog

from aiproxyd.config.identity import CoderAuthConfig
from aiproxyd.identity.answer import NOBODY, Identified, SourceUnavailable, answered
from aiproxyd.identity.web import Service
from aiproxyd.model.principal import Principal, session_of

log = structlog.get_logger("aiproxyd.identity")

SOURCE = "coder"

# Answers that are remembered; about 300 bytes each.
MAX_REMEMBERED = 8192

# Beyond the time of its answer, a token is kept so long without a connection being seen: one that is just begun has to dial first.
KEPT_SECONDS = 60.0

# An answer is asked for again when this part of its time is over, but not more often than once in so many seconds.
_RECHECK_PART = 0.5
_RECHECK_FLOOR_SECONDS = 1.0

# Questions of `recheck` that are open at once; the others are for those who wait at the door.
_RECHECKS_AT_ONCE = 8

# So long a round of questions waits for its answers. With the age of an answer and the way to the workers it stays below five seconds.
RECHECK_WAIT_SECONDS = 1.0

type Asked = Callable[[float, str], None]
"""Told of a question: its seconds, and the reason of a failure or an empty string."""

# A user has a handful; more are cut.
MAX_GROUPS = 100

# Ten and twenty-two letters and digits; wider, so that another version's are asked for too. It is the value of a header.
_TOKEN = re.compile(r"[!-~]{8,512}\Z")


class _User(msgspec.Struct):
    id: str
    username: str
    status: str = "active"


class _Group(msgspec.Struct):
    name: str
    display_name: str = ""


def _untold(_seconds: float, _reason: str) -> None:
    """Tell nobody."""


_USER = msgspec.json.Decoder(_User)
_GROUPS = msgspec.json.Decoder(list[_Group])


class _Remembered(msgspec.Struct, frozen=True):
    principal: Principal | None
    asked_at: float
    until: float


class _Kept(msgspec.Struct):
    credential: str
    digest: bytes
    used_at: float
    """When it came, or was last seen to have something open."""
    vouched_at: float
    """When the question was asked that the deployment last said yes to."""

    def __repr__(self) -> str:
        return "_Kept()"  # the credential is a secret


class CoderDeployment:
    """A source of identities."""

    def __init__(self, config: CoderAuthConfig) -> None:
        """
        Raises:
            ConfigError: The CA file cannot be used.
        """
        self._config = config
        self._kept: dict[str, _Kept] = {}
        """By session."""
        self._service = Service(
            SOURCE, setting="auth.coder.ca_file", ca_file=config.ca_file, timeout_seconds=config.timeout_seconds
        )
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Remembered]] = {}
        self._has_groups = config.groups
        self._rechecks: dict[str, asyncio.Task[None]] = {}
        """Questions of `recheck` that are open, by session."""
        self._turn = asyncio.Semaphore(_RECHECKS_AT_ONCE)
        self._over: set[str] = set()
        """Sessions that ended and were not told yet."""

    async def identify(self, credential: str) -> Identified:
        """Return whose session token it is.

        Raises:
            SourceUnavailable: The deployment cannot be asked, and nothing that is still good is remembered.
        """
        if not _TOKEN.match(credential):
            return NOBODY
        digest = hashlib.sha256(credential.encode()).digest()
        now = time.monotonic()
        found = self._remembered.get(digest)
        if found is None or found.until <= now:
            found = await answered(self._question(digest, credential), SOURCE)
        elif found.principal is not None and now > (found.asked_at + found.until) / 2:
            self._question(digest, credential)
        if found.principal is not None:
            self._kept[found.principal.session] = _Kept(credential, digest, now, found.asked_at)
        return Identified(found.principal, max(0.0, found.until - time.monotonic()))

    def adopt(self, before: "CoderDeployment") -> None:
        """Go on asking for the tokens that `before` knows, where it is the same deployment under another configuration."""
        self._kept = before.kept_for(self._config.url)

    def kept_for(self, url: str | None) -> dict[str, _Kept]:
        """Return what is known of sessions, for whoever asks at `url` from now on. A token goes to no other place."""
        return self._kept if url == self._config.url else {}

    async def recheck(self, sessions: Collection[str], asked: Asked = _untold) -> set[str]:
        """Ask again for those of `sessions` whose answer becomes old, and return those who are nobody's any more.

        Among them are sessions that are not known here, those of another deployment, and those for whom nobody vouched for too long.
        Returns after `RECHECK_WAIT_SECONDS` at the latest: what is answered later is returned by a later call, so that a slow answer
        holds up none but its own.

        Args:
            sessions: Who has something open.
            asked: Told of each question that was answered or failed: its seconds, and the reason of a failure or an empty string.
        """
        now = time.monotonic()
        longest = self._config.cache_seconds + self._config.max_silence_seconds
        for session in sessions:
            kept = self._kept.get(session)
            if kept is None:
                self._over.add(session)
                continue
            kept.used_at = now
            remembered = self._remembered.get(kept.digest)
            if remembered is not None and remembered.principal is not None:
                kept.vouched_at = max(kept.vouched_at, remembered.asked_at)
            age = max(_RECHECK_FLOOR_SECONDS, self._config.cache_seconds * _RECHECK_PART)
            is_due = remembered is None or remembered.principal is None or remembered.asked_at + age <= now
            if now - kept.vouched_at > longest:
                log.warning("a session is over because its deployment was silent for too long", seconds=round(longest))
                self._end(session)
            elif is_due and session not in self._rechecks:
                self._rechecks[session] = asyncio.ensure_future(self._recheck(session, kept, asked))
        for session, kept in list(self._kept.items()):
            if now - kept.used_at > self._config.cache_seconds + KEPT_SECONDS:
                del self._kept[session]
        if self._rechecks:
            await asyncio.wait(self._rechecks.values(), timeout=RECHECK_WAIT_SECONDS)
        over, self._over = self._over, set()
        return over

    async def _recheck(self, session: str, kept: _Kept, asked: Asked) -> None:
        started = time.monotonic()
        try:
            async with self._turn:
                started = time.monotonic()
                answer = await answered(self._question(kept.digest, kept.credential), SOURCE)
        except SourceUnavailable as exc:
            log.debug("a session cannot be checked", error=str(exc))
            asked(time.monotonic() - started, exc.reason)
        else:
            asked(time.monotonic() - started, "")
            if answer.principal is None:
                self._end(session)
        finally:
            del self._rechecks[session]

    def _end(self, session: str) -> None:
        self._over.add(session)
        self._kept.pop(session, None)

    async def close(self) -> None:
        """Let go of open questions and connections."""
        for question in (*self._rechecks.values(), *self._asking.values()):
            question.cancel()
        await self._service.close()

    def _question(self, digest: bytes, credential: str) -> asyncio.Task[_Remembered]:
        """Return the question about a credential, asked now unless it is open already."""
        question = self._asking.get(digest)
        if question is None:
            question = self._asking[digest] = asyncio.ensure_future(self._ask(digest, credential))
            question.add_done_callback(lambda done: self._close(digest, done))
        return question

    def _close(self, digest: bytes, question: asyncio.Task[_Remembered]) -> None:
        self._asking.pop(digest, None)
        # Asking for the exception marks it as seen: nobody waits for a question that was asked ahead of time.
        if question.cancelled() or question.exception() is not None:
            return
        self._remembered[digest] = question.result()
        self._remembered.move_to_end(digest)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _ask(self, digest: bytes, credential: str) -> _Remembered:
        asked_at = time.monotonic()
        principal = await self._user(credential, session_of(digest))
        seconds = self._config.negative_cache_seconds if principal is None else self._config.cache_seconds
        return _Remembered(principal, asked_at, asked_at + seconds)

    async def _user(self, credential: str, session: str) -> Principal | None:
        headers = {"coder-session-token": credential}
        status, body = await self._service.get(f"{self._config.url}/api/v2/users/me", headers)
        if status == 401:
            return None
        if status != 200:
            raise SourceUnavailable(SOURCE, "status", f"{self._config.url} answered {status} to a question about a token")
        try:
            user = _USER.decode(body)
            uuid.UUID(user.id)
        except (msgspec.DecodeError, ValueError) as exc:
            raise SourceUnavailable(SOURCE, "malformed", f"{self._config.url} answered what is no user: {exc}") from exc
        if not user.username or user.status == "suspended":
            return None
        return Principal(user.id, user.username, await self._groups_of(user.id, headers), evidence=SOURCE, session=session)

    async def _groups_of(self, user_id: str, headers: dict[str, str]) -> tuple[str, ...]:
        if not self._has_groups:
            return ()
        status, body = await self._service.get(f"{self._config.url}/api/v2/groups", headers, {"has_member": user_id})
        if status in {403, 404}:
            self._has_groups = False
            log.warning("the Coder deployment shows no groups; users have none until the next reload", status=status)
            return ()
        if status != 200:
            raise SourceUnavailable(SOURCE, "status", f"{self._config.url} answered {status} to a question about groups")
        try:
            groups = _GROUPS.decode(body)
        except (msgspec.DecodeError, ValueError) as exc:
            raise SourceUnavailable(SOURCE, "malformed", f"{self._config.url} answered what are no groups: {exc}") from exc
        return tuple(group.name for group in groups[:MAX_GROUPS])
