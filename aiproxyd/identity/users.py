"""Control's side of authentication: the users of the configuration and those of the store, by the digest of their token.

Fails closed: a store that cannot answer is an error, never a principal. Not a cache: workers keep answers (`remote`).
"""

import contextlib
import getpass
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from aiproxyd.ca.files import private_folder, write_whole
from aiproxyd.config.schema import AuthMode, Config, UserConfig
from aiproxyd.exceptions import AiproxydError
from aiproxyd.model.principal import ANONYMOUS, Principal, id_of_name

FIRST_USER_TOKEN_NAME = "first-user.token"  # noqa: S105  (a file name)

# A token is shorter; what is longer is not worth hashing.
MAX_TOKEN_CHARACTERS = 4096


class PrincipalStore(Protocol):
    """The part of the store that knows tokens."""

    async def find_principal(self, token_sha256: str) -> Principal | None:
        """Return whose token has this digest, or None; revoked users have none."""


class UserStore(PrincipalStore, Protocol):
    """The part of the store that knows users."""

    async def add_user(self, name: str, groups: Iterable[str]) -> str:
        """Add a user and return the token, which is not kept."""

    async def list_users(self) -> Any:
        """Return all users, revoked ones included."""


class Identity:
    """Says whose a token is."""

    def __init__(self, users: Iterable[UserConfig], store: PrincipalStore) -> None:
        """
        Args:
            users: Those of the configuration.
            store: Holds the others.
        """
        self._store = store
        self.replace_users(users)

    def replace_users(self, users: Iterable[UserConfig]) -> None:
        """Use the users of a new configuration."""
        self._configured = {
            user.token_sha256: Principal(id=id_of_name(user.name), name=user.name, groups=user.groups) for user in users
        }

    def configured(self, token: str) -> Principal | None:
        """Return the user of the configuration whose token it is, or None."""
        digest = digest_of(token)
        return None if digest is None else self._configured.get(digest)

    async def authenticate(self, token: str) -> Principal | None:
        """Return whose token it is, or None when it is nobody's.

        Raises:
            AiproxydError: The store cannot answer; the caller refuses.
        """
        digest = digest_of(token)
        if digest is None:
            return None
        # A look-up by digest needs no constant time: an attacker cannot choose digests that share a beginning with another.
        return self._configured.get(digest) or await self._store.find_principal(digest)


def digest_of(token: str) -> str | None:
    """Return the SHA-256 of a token in lower-case hex; None for what can be no token."""
    if not token or len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        return hashlib.sha256(token.encode()).hexdigest()
    except UnicodeEncodeError:
        return None


async def ensure_first_user(store: UserStore, config: Config) -> tuple[str, str | None]:
    """Return a user that the person who starts the daemon can be, made now when there is none at all.

    The token of a user that is made stands in `data_dir/first-user.token`, so that `aiproxyd env` needs no arguments.

    Returns:
        The name, and the token where it is known: from that file, while it is somebody's. With `auth.mode: off` the name is
        that of nobody.

    Raises:
        AiproxydError: The store cannot answer, or the token cannot be kept.
    """
    if config.auth.mode is AuthMode.OFF:
        return ANONYMOUS.name, None
    token = first_user_token(config.data_dir)
    if token is not None:
        principal = await Identity(config.auth.users, store).authenticate(token)
        if principal is not None:
            return principal.name, token
    if config.auth.users:
        return config.auth.users[0].name, None
    name = login_name()
    if config.auth.coder.url is not None or config.auth.jwt.issuer is not None or await store.list_users():
        # The organisation keeps its users elsewhere, or somebody made some here: no token that nobody asked for.
        return name, None
    file = config.data_dir / FIRST_USER_TOKEN_NAME
    try:
        # Before the user is made, whose token would be lost.
        private_folder(config.data_dir)
        token = await store.add_user(name, ())
        write_whole(file, f"{token}\n".encode(), mode=0o600)
    except OSError as exc:
        raise AiproxydError(f"the token of the first user cannot be kept in {file}: {exc.strerror or exc}") from exc
    return name, token


def first_user_token(data_dir: Path) -> str | None:
    """Return the token that the first start left in `data_dir`, or None."""
    try:
        return (data_dir / FIRST_USER_TOKEN_NAME).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


async def forget_first_user_token(store: PrincipalStore, config: Config) -> None:
    """Remove the token that the first start left, once it is nobody's.

    Raises:
        AiproxydError: The store cannot answer.
    """
    token = first_user_token(config.data_dir)
    if token is not None and await Identity(config.auth.users, store).authenticate(token) is None:
        (config.data_dir / FIRST_USER_TOKEN_NAME).unlink(missing_ok=True)


def login_name() -> str:
    """Return the name of the person who runs this process; `user` where the system knows none, as in some containers."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "user"
