"""Every source of identities in its order, and what each costs. Control's side; workers ask and remember (`remote`).

Order: users of the configuration; then signed tokens, for what has their form; else users of the store; else the Coder deployment, unless it
is a token that only we make. Each credential is shown to as few as possible: a token of ours never leaves, nor does a signed one.

Fails closed: a source that cannot answer is an error and not a no, also when another one could still be asked.
"""

import time
from collections.abc import Awaitable, Callable, Collection

import structlog

from aiproxyd.beat import next_beat
from aiproxyd.config.schema import AuthConfig
from aiproxyd.exceptions import StorageError
from aiproxyd.identity import coder, signed_tokens
from aiproxyd.identity.answer import NOBODY, Identified, SourceUnavailable
from aiproxyd.identity.coder import CoderDeployment
from aiproxyd.identity.signed_tokens import SignedTokens, is_signed_token
from aiproxyd.identity.users import MAX_TOKEN_CHARACTERS, Identity, PrincipalStore
from aiproxyd.model.principal import TOKEN_PREFIX

log = structlog.get_logger("aiproxyd.identity")

USERS = "users"

# How often those are looked at who have something open; with the age of an answer and the way to the workers it stays below five seconds.
RECHECK_SECONDS = 1.0

type Asked = Callable[[str, float, str], None]
"""Told of each question: the source, its seconds, and the reason of a failure or an empty string."""


class RemoteSources:
    """The sources of one configuration that are not our own users. Built before anything of it is used, and closed after."""

    def __init__(self, config: AuthConfig) -> None:
        """
        Raises:
            ConfigError: A file that is named cannot be used.
        """
        self.coder = CoderDeployment(config.coder) if config.coder.url is not None else None
        self.signed = SignedTokens(config.jwt) if config.jwt.issuer is not None else None

    async def close(self) -> None:
        """Let go of connections."""
        for source in (self.coder, self.signed):
            if source is not None:
                await source.close()


class Sources:
    """Says whose a credential is."""

    def __init__(self, config: AuthConfig, store: PrincipalStore, asked: Asked) -> None:
        """
        Args:
            config: Names the users and the sources.
            store: Holds further users.
            asked: Told of each question.

        Raises:
            ConfigError: A file that is named cannot be used.
        """
        self._asked = asked
        self._users = Identity(config.users, store)
        self._remote = RemoteSources(config)

    def replace(self, config: AuthConfig, remote: RemoteSources) -> RemoteSources:
        """Use another configuration with its sources, and return those before it, to be closed."""
        self._users.replace_users(config.users)
        before, self._remote = self._remote, remote
        if remote.coder is not None and before.coder is not None:
            remote.coder.adopt(before.coder)
        return before

    async def watch(self, sessions: Callable[[], Collection[str]], revoke: Callable[[set[str]], None]) -> None:
        """Call `revoke` with the sessions that end elsewhere while they have something open here. Endless.

        Args:
            sessions: Returns those that have something open.
            revoke: Closes what they have open.
        """
        while True:
            await next_beat(RECHECK_SECONDS)
            held = sessions()
            remote = self._remote
            # Whose deployment is not configured any more, nobody vouches for.
            over = await remote.coder.recheck(held, self._coder_asked) if remote.coder is not None else set(held)
            if over and remote is self._remote:
                log.info("connections of sessions that ended are closed", sessions=len(over))
                revoke(over)

    def _coder_asked(self, seconds: float, reason: str) -> None:
        self._asked(coder.SOURCE, seconds, reason)

    async def identify(self, credential: str) -> Identified:
        """Return whose credential it is.

        Raises:
            AiproxydError: A source that has to say something cannot.
        """
        while True:
            remote = self._remote
            try:
                return await self._identify(credential, remote)
            except SourceUnavailable:
                if remote is self._remote:
                    raise
                # A reload closed it with the question open; the one in its place is asked.

    async def _identify(self, credential: str, remote: RemoteSources) -> Identified:
        if not credential or len(credential) > MAX_TOKEN_CHARACTERS:
            return NOBODY
        configured = self._users.configured(credential)
        if configured is not None:
            return Identified(configured)
        if remote.signed is not None and is_signed_token(credential):
            return await self._ask(signed_tokens.SOURCE, remote.signed.identify(credential))
        started = time.monotonic()
        try:
            stored = await self._users.authenticate(credential)
        except StorageError:
            self._asked(USERS, time.monotonic() - started, "store")
            raise
        self._asked(USERS, time.monotonic() - started, "")
        if stored is not None or remote.coder is None or credential.startswith(TOKEN_PREFIX):
            return Identified(stored)
        return await self._ask(coder.SOURCE, remote.coder.identify(credential))

    async def close(self) -> None:
        """Let go of connections."""
        await self._remote.close()

    async def _ask(self, source: str, question: Awaitable[Identified]) -> Identified:
        started = time.monotonic()
        try:
            answer = await question
        except SourceUnavailable as exc:
            self._asked(source, time.monotonic() - started, exc.reason)
            raise
        self._asked(source, time.monotonic() - started, "")
        return answer
