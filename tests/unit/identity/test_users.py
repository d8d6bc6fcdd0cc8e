import getpass
import hashlib
import stat
from pathlib import Path

import pytest

from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError, StorageError
from aiproxyd.identity.users import (
    FIRST_USER_TOKEN_NAME,
    MAX_TOKEN_CHARACTERS,
    Identity,
    digest_of,
    ensure_first_user,
    first_user_token,
    forget_first_user_token,
    login_name,
)
from aiproxyd.model.principal import id_of_name
from aiproxyd.storage.store import Store


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _config(data_dir: Path, *, users: dict[str, str] | None = None, mode: str = "required") -> Config:
    listed = [{"name": name, "token_sha256": _sha256(token), "groups": ["g"]} for name, token in (users or {}).items()]
    return Config.model_validate({"data_dir": data_dir, "auth": {"mode": mode, "users": listed}})


@pytest.fixture
async def store(tmp_path: Path):
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.sqlite3'}")
    yield store
    await store.close()


async def test_a_token_of_the_configuration_is_its_users(tmp_path: Path, store: Store) -> None:
    identity = Identity(_config(tmp_path, users={"alice": "a-token"}).auth.users, store)
    principal = await identity.authenticate("a-token")
    assert principal is not None
    assert (principal.id, principal.name, principal.groups, principal.evidence) == (
        id_of_name("alice"),
        "alice",
        ("g",),
        "token",
    )


async def test_a_token_of_the_store_is_its_users(tmp_path: Path, store: Store) -> None:
    token = await store.add_user("bob", ["x"])
    identity = Identity((), store)
    principal = await identity.authenticate(token)
    assert principal is not None
    assert (principal.name, principal.groups) == ("bob", ("x",))
    await store.revoke_user("bob")
    assert await identity.authenticate(token) is None


@pytest.mark.parametrize(
    "token", ["", "wrong", "A-TOKEN", "a-token ", "\udcff", "x" * (MAX_TOKEN_CHARACTERS + 1), "\0", _sha256("a-token")]
)
async def test_anything_else_is_nobodys(tmp_path: Path, store: Store, token: str) -> None:
    identity = Identity(_config(tmp_path, users={"alice": "a-token"}).auth.users, store)
    assert await identity.authenticate(token) is None


async def test_a_reload_replaces_the_users_of_the_configuration(tmp_path: Path, store: Store) -> None:
    identity = Identity(_config(tmp_path, users={"alice": "one"}).auth.users, store)
    identity.replace_users(_config(tmp_path, users={"alice": "two"}).auth.users)
    assert await identity.authenticate("one") is None
    assert await identity.authenticate("two") is not None


async def test_a_store_that_cannot_answer_is_an_error_and_never_a_principal(tmp_path: Path) -> None:
    class Broken:
        async def find_principal(self, token_sha256: str):
            raise StorageError("the disk is gone")

    identity = Identity(_config(tmp_path, users={"alice": "a-token"}).auth.users, Broken())
    with pytest.raises(AiproxydError):
        await identity.authenticate("unknown")
    # Who is known without it may work on.
    assert await identity.authenticate("a-token") is not None


def test_digests_are_lower_case_hex() -> None:
    assert digest_of("a-token") == _sha256("a-token")
    assert digest_of("ü") == _sha256("ü")
    assert digest_of("") is None


async def test_the_first_start_makes_the_person_who_starts_it_a_user(tmp_path: Path, store: Store) -> None:
    config = _config(tmp_path / "state")
    name, token = await ensure_first_user(store, config)
    assert name == login_name() == getpass.getuser()
    assert token is not None
    file = tmp_path / "state" / FIRST_USER_TOKEN_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == f"{token}\n"
    assert first_user_token(config.data_dir) == token
    principal = await Identity((), store).authenticate(token)
    assert principal is not None
    assert principal.name == name
    # The second start knows both again.
    assert await ensure_first_user(store, config) == (name, token)


async def test_users_that_are_there_keep_the_first_start_from_making_one(tmp_path: Path, store: Store) -> None:
    assert await ensure_first_user(store, _config(tmp_path, users={"alice": "a-token"})) == ("alice", None)
    await store.add_user("bob", ())
    assert await ensure_first_user(store, _config(tmp_path)) == (login_name(), None)
    await store.revoke_user("bob")
    assert await ensure_first_user(store, _config(tmp_path)) == (login_name(), None)
    assert not (tmp_path / FIRST_USER_TOKEN_NAME).exists()


async def test_without_authentication_there_is_no_first_user(tmp_path: Path, store: Store) -> None:
    assert await ensure_first_user(store, _config(tmp_path, mode="off")) == ("anonymous", None)
    assert await store.list_users() == []


async def test_a_lost_store_gives_the_person_a_new_token(tmp_path: Path, store: Store) -> None:
    (tmp_path / FIRST_USER_TOKEN_NAME).write_text("of another store\n")
    _, token = await ensure_first_user(store, _config(tmp_path))
    assert token is not None
    assert first_user_token(tmp_path) == token != "of another store"


async def test_a_token_that_is_nobodys_any_more_is_forgotten(tmp_path: Path, store: Store) -> None:
    config = _config(tmp_path)
    name, token = await ensure_first_user(store, config)
    await forget_first_user_token(store, config)
    assert first_user_token(tmp_path) == token
    await store.revoke_user(name)
    await forget_first_user_token(store, config)
    assert first_user_token(tmp_path) is None
    await forget_first_user_token(store, config)


async def test_a_token_that_cannot_be_kept_is_a_sentence(tmp_path: Path, store: Store) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AiproxydError, match=r"the token of the first user cannot be kept in .*: Not a directory"):
        await ensure_first_user(store, _config(tmp_path / "file"))
    assert await store.list_users() == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_token_file_of_something_else_holds_no_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FIRST_USER_TOKEN_NAME).write_bytes(content)
    assert first_user_token(tmp_path) is None


def test_a_system_that_knows_no_login_name_has_a_user_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise OSError("no such user")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert login_name() == "user"
