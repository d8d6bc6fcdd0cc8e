"""The public keys of an identity provider (a JSON Web Key Set), from a file or from its URL.

Strategy: keys of a URL are fetched when they are first needed, again in the background once they are `REFRESH_SECONDS` old, and when a token
names one that is not there, which is how a provider begins to use a new key; but never twice within `FETCH_FLOOR_SECONDS`, or
made-up names would be a way to have us ask all the time. A provider that is away does not stop those whose keys are known, for
`MAX_AGE_SECONDS`: a key that it withdrew must not be good for ever.
"""

import asyncio
import json
import time
from pathlib import Path

import jwt
import structlog
from jwt import PyJWK

from aiproxyd.config.identity import JwtAuthConfig
from aiproxyd.exceptions import ConfigError
from aiproxyd.identity.answer import SourceUnavailable, answered
from aiproxyd.identity.web import Service

log = structlog.get_logger("aiproxyd.identity")

SOURCE = "jwt"

REFRESH_SECONDS = 300.0
MAX_AGE_SECONDS = 3600.0
FETCH_FLOOR_SECONDS = 10.0
FETCH_TIMEOUT_SECONDS = 5.0

# Providers publish two to ten.
MAX_KEYS = 100

# Kinds of key pairs. A shared secret ("oct") in a set of public keys is a mistake, and would let anyone who reads it sign.
_PUBLIC = frozenset({"RSA", "EC", "OKP"})


class KeySet:
    """Keys by their id."""

    def __init__(self, config: JwtAuthConfig) -> None:
        """
        Raises:
            ConfigError: The file of keys, or that of further roots, cannot be used.
        """
        self._url = config.jwks_url or ""
        self._service: Service | None = None
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        if config.jwks_file is not None:
            self._keys = _keys_of_file(config.jwks_file)
        else:
            self._service = Service(
                SOURCE, setting="auth.jwt.jwks_ca_file", ca_file=config.jwks_ca_file, timeout_seconds=FETCH_TIMEOUT_SECONDS
            )

    async def key(self, key_id: str | None) -> PyJWK | None:
        """Return the key with an id, or the only one there is for a token that names none; None when there is no such key.

        Raises:
            SourceUnavailable: There are no keys that are young enough.
        """
        if self._service is not None:
            age = time.monotonic() - self._fetched_at
            if age > MAX_AGE_SECONDS:
                await self._fetched()
            elif age > REFRESH_SECONDS:
                self._fetch()
        found = self._find(key_id)
        if found is None and self._service is not None and self._may_fetch():
            await self._fetched()
            found = self._find(key_id)
        return found

    async def close(self) -> None:
        """Let go of an open question and of connections."""
        if self._fetching is not None:
            self._fetching.cancel()
        if self._service is not None:
            await self._service.close()

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _may_fetch(self) -> bool:
        return self._fetching is not None or time.monotonic() - self._tried_at >= FETCH_FLOOR_SECONDS

    async def _fetched(self) -> None:
        """Return when a fetch is over that is open or may be begun.

        Raises:
            SourceUnavailable: It failed, or the last one did a moment ago.
        """
        fetch = self._fetch()
        if fetch is None:
            raise SourceUnavailable(SOURCE, "unreachable", f"the keys of {self._url} could not be fetched a moment ago")
        await answered(fetch, SOURCE)

    def _fetch(self) -> asyncio.Task[None] | None:
        if self._fetching is None and self._may_fetch():
            self._tried_at = time.monotonic()
            self._fetching = asyncio.ensure_future(self._fetch_now())
            self._fetching.add_done_callback(self._fetch_ended)
        return self._fetching

    def _fetch_ended(self, fetch: asyncio.Task[None]) -> None:
        self._fetching = None
        if not fetch.cancelled() and (failure := fetch.exception()) is not None:
            log.warning("keys for signed tokens could not be fetched", error=str(failure))

    async def _fetch_now(self) -> None:
        assert self._service is not None
        status, body = await self._service.get(self._url)
        if status != 200:
            raise SourceUnavailable(SOURCE, "status", f"{self._url} answered {status}")
        try:
            self._keys = _keys_in(body)
        except ValueError as exc:
            raise SourceUnavailable(SOURCE, "malformed", f"{self._url} answered what is no key set: {exc}") from exc
        self._fetched_at = time.monotonic()


def _keys_of_file(file: Path) -> dict[str, PyJWK]:
    try:
        return _keys_in(file.read_bytes())
    except OSError as exc:
        raise ConfigError(f"auth.jwt.jwks_file: {file} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"auth.jwt.jwks_file: {file} is no key set: {exc}") from exc


def _keys_in(document: bytes) -> dict[str, PyJWK]:
    """Return the usable keys of a set by their id; one without an id has an empty one.

    Raises:
        ValueError: It is no set, or has no key that can be used.
    """
    found = json.loads(document)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        message = 'it has no list "keys"'
        raise ValueError(message)  # noqa: TRY004  (one kind of error for whatever is wrong with it)
    keys: dict[str, PyJWK] = {}
    for entry in listed[:MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("kty") not in _PUBLIC or entry.get("use", "sig") != "sig":
            continue
        try:
            keys.setdefault(str(entry.get("kid", "")), PyJWK(entry))
        except jwt.PyJWTError:
            continue  # of a curve or a kind that is not known here; the others are of use
    if not keys:
        message = "none of its keys can be used"
        raise ValueError(message)
    return keys
