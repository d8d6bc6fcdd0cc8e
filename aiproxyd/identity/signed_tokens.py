"""Users of an identity provider, by tokens it signed (JWT), checked with its public keys. It is not asked about a token.

Everything a token says is believed only after its signature, issuer, audience and times were checked. What a header of it says chooses a
key of the provider's set and nothing else: a key, or an address of one, inside a token is never looked at.
"""

import re
import time
from typing import Any

import jwt

from aiproxyd.config.identity import JwtAuthConfig
from aiproxyd.identity.answer import NOBODY, Identified
from aiproxyd.identity.key_set import KeySet
from aiproxyd.model.principal import Principal, id_of_name

SOURCE = "jwt"

# A word of it longer than this is no name and no group.
MAX_NAME_CHARACTERS = 120
MAX_GROUPS = 100

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


def is_signed_token(credential: str) -> bool:
    """Return whether `credential` has the form of a signed token."""
    return _SHAPE.match(credential) is not None


class SignedTokens:
    """A source of identities."""

    def __init__(self, config: JwtAuthConfig) -> None:
        """
        Raises:
            ConfigError: A file that is named cannot be used.
        """
        self._config = config
        self._keys = KeySet(config)

    async def identify(self, credential: str) -> Identified:
        """Return whose token it is; nobody's when anything about it is not as it should be.

        Raises:
            SourceUnavailable: The provider's keys are not to be had.
        """
        config = self._config
        try:
            header = jwt.get_unverified_header(credential)
        except jwt.PyJWTError:
            return NOBODY
        if header.get("alg") not in config.algorithms or header.get("crit") is not None:
            return NOBODY
        key_id = header.get("kid")
        key = await self._keys.key(key_id if isinstance(key_id, str) else None)
        if key is None:
            return NOBODY
        try:
            claims = jwt.decode(
                credential,
                key.key,
                algorithms=list(config.algorithms),
                issuer=config.issuer,
                audience=list(config.audience),
                leeway=config.clock_skew_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError):
            # The latter two: a key of another kind than the signature's.
            return NOBODY
        name = self._name(claims)
        if name is None:
            return NOBODY
        left = claims["exp"] + config.clock_skew_seconds - time.time()
        return Identified(Principal(id_of_name(name), name, self._groups(claims), evidence=SOURCE), max(0.0, left))

    async def close(self) -> None:
        """Let go of connections."""
        await self._keys.close()

    def _name(self, claims: dict[str, Any]) -> str | None:
        for claim in (self._config.name_claim,) if self._config.name_claim else ("preferred_username", "sub"):
            name = claims.get(claim)
            if _is_word(name):
                return str(name)
        return None

    def _groups(self, claims: dict[str, Any]) -> tuple[str, ...]:
        groups = claims.get(self._config.groups_claim)
        listed = groups if isinstance(groups, list) else [groups]
        return tuple(dict.fromkeys(str(group) for group in listed if _is_word(group)))[:MAX_GROUPS]


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable() and value == value.strip()
