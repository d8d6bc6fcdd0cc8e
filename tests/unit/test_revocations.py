"""Who lost a token is found, whoever took it away."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiproxyd import revocations
from aiproxyd.exceptions import StorageError
from aiproxyd.model.principal import id_of_name
from aiproxyd.revocations import watch_revocations
from aiproxyd.storage.store import Store
from aiproxyd.storage.users import StoredUser


async def test_revoked_users_and_those_with_another_token_are_told_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.01)
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.sqlite3'}")
    configured = {id_of_name("bob"): "1", id_of_name("eve"): "2"}
    told: asyncio.Queue[set[str]] = asyncio.Queue()
    looks = 0

    def configured_users() -> list[tuple[str, str]]:
        nonlocal looks
        looks += 1
        return list(configured.items())

    async def look_again() -> None:
        seen = looks
        async with asyncio.timeout(30):
            while looks < seen + 2:
                await asyncio.sleep(0.005)

    for name in ("alice", "carol"):
        await store.add_user(name, ())
    watching = asyncio.ensure_future(watch_revocations(store, configured_users, told.put_nowait))
    try:
        await look_again()
        assert told.empty()
        await store.revoke_user("alice")
        assert await asyncio.wait_for(told.get(), 30) == {id_of_name("alice")}
        await store.add_user("alice", ())
        await look_again()
        # Between two looks, of which none sees the user with a token.
        monkeypatch.setattr(revocations, "LOOK_SECONDS", 1.0)
        await look_again()
        await store.add_user("mallory", ())
        await store.revoke_user("mallory")
        monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.01)
        assert await asyncio.wait_for(told.get(), 30) == {id_of_name("mallory")}
        configured[id_of_name("bob")] = "3"
        assert await asyncio.wait_for(told.get(), 30) == {id_of_name("bob")}
        del configured[id_of_name("eve")]
        assert await asyncio.wait_for(told.get(), 30) == {id_of_name("eve")}
        await look_again()
        assert told.empty()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await store.close()


class Asked:
    """A store that says when it was written to, and counts how often its users are asked for."""

    def __init__(self, written_at: object | None) -> None:
        self.at = written_at
        self.questions = self.looks = 0
        self.fails = False
        self.users: list[StoredUser] = []

    def written_at(self) -> object | None:
        self.looks += 1
        return self.at

    async def list_users(self) -> list[StoredUser]:
        self.questions += 1
        if self.fails:
            raise StorageError("it is not there")
        return self.users

    async def look(self, times: int = 3) -> int:
        """Wait for so many looks and return how many of them led to a question."""
        looks, questions = self.looks, self.questions
        async with asyncio.timeout(30):
            while self.looks < looks + times:
                await asyncio.sleep(0.005)
        return self.questions - questions


async def test_a_store_is_asked_when_it_was_written_to_or_does_not_know_and_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.01)
    store = Asked(1)
    watching = asyncio.ensure_future(watch_revocations(store, list, lambda _: None))  # type: ignore[arg-type]
    try:
        await store.look()
        assert await store.look() == 0
        store.at = 2
        assert await store.look() == 1
        store.at = None
        assert await store.look() >= 2
        store.at = 2
        assert await store.look() == 1  # it may have been another one meanwhile
        store.fails, store.at = True, 3
        assert await store.look() >= 2
        store.fails = False
        assert await store.look() >= 1
        assert await store.look() == 0
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_commit_that_shows_long_after_it_was_written_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(revocations, "ASK_SECONDS", 0.2)
    store = Asked(1)
    alice = StoredUser(id=id_of_name("alice"), name="alice", groups=(), created_at=datetime.now(UTC), revoked_at=None)
    store.users = [alice]
    told: asyncio.Queue[set[str]] = asyncio.Queue()
    watching = asyncio.ensure_future(watch_revocations(store, list, told.put_nowait))  # type: ignore[arg-type]
    try:
        await store.look()
        store.users = [alice._replace(revoked_at=datetime.now(UTC))]
        assert await asyncio.wait_for(told.get(), 30) == {id_of_name("alice")}
        assert store.questions < store.looks
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
