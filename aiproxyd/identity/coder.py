"""Users of a Coder deployment, by their session tokens: asks its API, and remembers both answers for a short time.

Facts:
- `GET /api/v2/users/me` with `Coder-Session-Token` is 200 with the user, or 401. A suspended user is a 401 too.
- `GET /api/v2/groups?has_member=ID` lists the groups of a user, where the deployment has groups at all (404 elsewhere).

Strategy: a good answer is good for `cache_seconds` from the moment of the question, here and in workers together, so a revocation takes
effect within it. One that is used in its second half is asked for again meanwhile, so that nobody who works waits. What is remembered is
keyed by digest.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections import OrderedDict

import msgspec
import structlog

from aiproxyd.config.identity import CoderAuthConfig
from aiproxyd.identity.answer import NOBODY, Identified, SourceUnavailable
from aiproxyd.identity.web import Service
from aiproxyd.model.principal import Principal

log = structlog.get_logger("aiproxyd.identity")

SOURCE = "coder"

# Answers that are remembered; about 300 bytes each.
MAX_REMEMBERED = 8192

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


_USER = msgspec.json.Decoder(_User)
_GROUPS = msgspec.json.Decoder(list[_Group])


class _Remembered(msgspec.Struct, frozen=True):
    principal: Principal | None
    asked_at: float
    until: float


class CoderDeployment:
    """A source of identities."""

    def __init__(self, config: CoderAuthConfig) -> None:
        """
        Raises:
            ConfigError: The CA file cannot be used.
        """
        self._config = config
        self._service = Service(
            SOURCE, setting="auth.coder.ca_file", ca_file=config.ca_file, timeout_seconds=config.timeout_seconds
        )
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Remembered]] = {}
        self._has_groups = config.groups

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
            found = await asyncio.shield(self._question(digest, credential))
        elif found.principal is not None and now > (found.asked_at + found.until) / 2:
            self._question(digest, credential)
        return Identified(found.principal, max(0.0, found.until - time.monotonic()))

    async def close(self) -> None:
        """Let go of open questions and connections."""
        for question in list(self._asking.values()):
            question.cancel()
        await self._service.close()

    def _question(self, digest: bytes, credential: str) -> asyncio.Task[_Remembered]:
        """Return the question about a credential, asked now unless it is open already."""
        question = self._asking.get(digest)
        if question is None:
            question = self._asking[digest] = asyncio.ensure_future(self._ask(credential))
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

    async def _ask(self, credential: str) -> _Remembered:
        asked_at = time.monotonic()
        principal = await self._user(credential)
        seconds = self._config.negative_cache_seconds if principal is None else self._config.cache_seconds
        return _Remembered(principal, asked_at, asked_at + seconds)

    async def _user(self, credential: str) -> Principal | None:
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
        return Principal(user.id, user.username, await self._groups_of(user.id, headers), evidence=SOURCE)

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
