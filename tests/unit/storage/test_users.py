"""Twin of aiproxyd/storage/users.py."""

import hashlib
import re

import pytest

from aiproxyd.exceptions import StorageError
from aiproxyd.model.principal import Principal, id_of_name
from aiproxyd.storage.store import Store
from aiproxyd.storage.users import digest_of, make_token


def test_tokens_look_like_ours_and_never_repeat() -> None:
    tokens = {make_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(re.fullmatch(r"aip_[A-Za-z0-9]{32}", token) for token in tokens)


def test_a_digest_is_the_sha_256_in_hex() -> None:
    assert digest_of("aip_x") == hashlib.sha256(b"aip_x").hexdigest()


async def test_a_token_leads_to_its_user_until_it_is_revoked(store: Store) -> None:
    token = await store.add_user("alice", ["ops", "dev"])
    expected = Principal(id=id_of_name("alice"), name="alice", groups=("ops", "dev"))
    assert await store.find_principal(digest_of(token)) == expected
    assert await store.revoke_user("alice")
    assert await store.find_principal(digest_of(token)) is None
    assert not await store.revoke_user("alice"), "there is nothing left to revoke"


async def test_a_token_is_nowhere_in_the_store(store: Store) -> None:
    token = await store.add_user("alice")
    async with store._engine.connect() as connection:
        rows = (await connection.exec_driver_sql("SELECT * FROM users")).all()
    assert token not in repr(rows)
    assert digest_of(token) in repr(rows)


async def test_who_was_revoked_can_get_a_new_token(store: Store) -> None:
    first = await store.add_user("alice", ["ops"])
    await store.revoke_user("alice")
    second = await store.add_user("alice", ["dev"])
    assert await store.find_principal(digest_of(first)) is None
    principal = await store.find_principal(digest_of(second))
    assert principal is not None
    assert principal.groups == ("dev",)


async def test_a_user_has_one_token(store: Store) -> None:
    token = await store.add_user("alice")
    with pytest.raises(StorageError, match="user 'alice' has a token; revoke it first"):
        await store.add_user("alice")
    assert await store.find_principal(digest_of(token)) is not None


async def test_users_are_listed_by_name_with_those_who_were_revoked(store: Store) -> None:
    for name in ("carol", "alice", "bob"):
        await store.add_user(name)
    await store.revoke_user("bob")
    users = await store.list_users()
    assert [(user.name, user.revoked_at is None) for user in users] == [("alice", True), ("bob", False), ("carol", True)]
    assert all(user.created_at.tzinfo is not None for user in users)


@pytest.mark.parametrize("name", ["", " alice", "a:b", "alice\n", "a\0b", "\ud800", "x" * 121])
async def test_a_name_that_cannot_be_shown_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StorageError, match="a user's name"):
        await store.add_user(name)
    assert await store.list_users() == []
    assert not await store.revoke_user("nobody")
