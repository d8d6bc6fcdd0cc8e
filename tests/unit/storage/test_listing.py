"""Twin of aiproxyd/storage/listing.py."""

import uuid

import msgspec
import pytest

from aiproxyd.model.usage import TokenUsage
from aiproxyd.storage.listing import count_interceptions, list_page, users_seen, values_of
from aiproxyd.storage.queries import _ID_NAMESPACE
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, of_worker, progressed, started, thought, tool_called


@pytest.fixture
async def filled(store: Store) -> Store:
    lines = []
    for number in range(20):
        lines += [
            started(f"{number:02}", at=START + number // 2, client=f"Client {number % 3}"),
            described(f"{number:02}", request_model=f"{'gpt' if number % 2 else 'claude'}-{number % 5}"),
            ended(f"{number:02}"),
        ]
    await store.apply(of_worker("w", *lines), {"w-00000001.jsonl": 1})
    return store


async def test_pages_by_cursor_and_offset_in_both_directions(filled: Store) -> None:
    async def ids(**page: object) -> list[str]:
        return [record["id"] for record in await filled.read(lambda c: list_page(c, Selection(), **page))]

    whole = [f"{number:02}" for number in range(20)]
    assert await ids() == whole[::-1]
    assert await ids(oldest_first=True) == whole
    assert await ids(limit=4, offset=3) == whole[::-1][3:7]
    assert await ids(limit=4, after_id="10") == ["09", "08", "07", "06"]
    assert await ids(limit=3, after_id="10", oldest_first=True) == ["11", "12", "13"]
    with pytest.raises(LookupError):
        await ids(after_id="x")
    assert await filled.read(lambda c: count_interceptions(c, Selection(client="Client 1"))) == 7


async def test_values_are_different_in_order_and_may_have_a_prefix(filled: Store) -> None:
    async def values(what: str, **page: object) -> list[str]:
        return await filled.read(lambda c: values_of(c, what, **page))

    assert await values("clients") == ["Client 0", "Client 1", "Client 2"]
    assert await values("providers") == ["anthropic"]
    assert await values("models", prefix="gpt") == [f"gpt-{number}" for number in range(5)]
    assert await values("models", prefix="gpt", limit=2, offset=1) == ["gpt-1", "gpt-2"]
    assert await values("models", prefix="nothing") == []


async def test_users_are_those_seen_and_those_with_a_token(filled: Store) -> None:
    await filled.add_user("carol", ["x"])
    await filled.add_user("dora")
    await filled.revoke_user("dora")
    seen = await filled.read(users_seen)
    assert [(user["name"], user["status"]) for user in seen] == [("alice", "seen"), ("carol", "active"), ("dora", "revoked")]


async def test_statistics_are_refreshed_beside_everything_else(filled: Store) -> None:
    await filled.refresh_statistics()
    assert await filled.read(lambda c: count_interceptions(c, Selection())) == 20


async def test_what_stays_text_is_the_same_when_it_is_written_down(store: Store) -> None:
    lines = [started("a"), described("a", metadata={"project": "w\u00e4b", "x": '"\\n'}), thought("a", content="null")]
    lines += [
        tool_called("a", "c", arguments=None),
        progressed("a"),
        ended("a", usage=TokenUsage(cache_write_5m_input_tokens=1)),
    ]
    await store.apply(of_worker("w", *lines, started("b", at=int(START))), {"w-00000001.jsonl": 1})
    plain = await store.read(lambda c: list_page(c, Selection()))
    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    assert plain[1]["token_usages"][0]["id"] == str(uuid.uuid5(_ID_NAMESPACE, "token:a:0"))
    assert (plain[0]["started_at"], plain[1]["ended_at"]) == ("2026-01-31T08:00:00Z", "2026-01-31T08:00:02Z")
    assert (plain[1]["streaming"], plain[0]["has_prompt"]) == (True, False)
