"""Twin of aiproxyd/storage/sessions.py."""

import random

import pytest

from aiproxyd.model.observation import Observation
from aiproxyd.storage.selection import Selection
from aiproxyd.storage.session_places import count_sessions
from aiproxyd.storage.sessions import list_sessions, place_of, show_session, sum_of_figures
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, life, of_worker, started, thought, tool_called

EVERYTHING = Selection()


async def _apply(store: Store, *observations: Observation) -> None:
    position = (await store.positions()).get("w-00000001.jsonl", 0) + 1
    await store.apply(of_worker("w", *observations), {"w-00000001.jsonl": position})


def _request(id_: str, at: float, session: str, *, user: str = "alice", prompt: str | None = None) -> list[Observation]:
    return [
        started(id_, at=START + at, user=user),
        described(id_, at=START + at, client_session_id=session, prompt=prompt, has_prompt=prompt is not None),
        ended(id_, at=START + at + 1),
    ]


async def _ids(store: Store, selection: Selection = EVERYTHING, **page: object) -> list[str]:
    return [session["id"] for session in await store.read(lambda c: list_sessions(c, selection, **page))]


async def test_a_session_is_as_active_as_its_newest_prompt_or_else_its_first_request(store: Store) -> None:
    await _apply(
        store,
        *_request("a1", 0, "prompted", prompt="first"),
        *_request("a2", 30, "prompted", prompt="second"),
        *_request("a3", 99, "prompted"),
        *_request("b1", 20, "silent"),
        *_request("b2", 90, "silent"),
        *_request("c1", 40, "newest", prompt="x"),
    )
    assert await _ids(store) == ["newest", "prompted", "silent"]
    prompted = (await store.read(lambda c: list_sessions(c, EVERYTHING)))[1]
    assert prompted["last_prompt"] == "second"
    assert prompted["last_active_at"] == "2026-01-31T08:00:30Z"
    assert prompted["started_at"] == "2026-01-31T08:00:00Z"
    assert prompted["ended_at"] == "2026-01-31T08:01:40Z"
    assert prompted["interceptions"] == 3
    assert prompted["providers"] == ["anthropic"]
    assert prompted["token_usage_summary"] == {
        "input_tokens": 9,
        "output_tokens": 900,
        "cache_read_input_tokens": 37035,
        "cache_write_input_tokens": 0,
    }


async def test_only_ended_interceptions_count(store: Store) -> None:
    await _apply(store, started("a"), described("a", client_session_id="open"), *_request("b", 1, "done", prompt="x"))
    assert await _ids(store) == ["done"]
    assert await store.read(lambda c: show_session(c, "open")) is None


async def test_users_do_not_share_a_session(store: Store) -> None:
    await _apply(store, *_request("a", 0, "s", prompt="of alice"), *_request("b", 5, "s", user="bob", prompt="of bob"))
    sessions = await store.read(lambda c: list_sessions(c, EVERYTHING))
    assert [(session["id"], session["initiator"]["name"], session["last_prompt"]) for session in sessions] == [
        ("s", "bob", "of bob"),
        ("s", "alice", "of alice"),
    ]
    shown = await store.read(lambda c: show_session(c, "s", initiator="id-of-alice"))
    assert shown is not None
    assert [id_ for id_, _ in shown.threads] == ["a"]


@pytest.mark.parametrize("limit", [1, 3, 7])
async def test_pages_by_cursor_and_by_offset_give_the_whole_list_in_its_order(store: Store, limit: int) -> None:
    chance = random.Random(limit)
    lines: list[Observation] = []
    for number in range(120):
        lines += _request(
            f"{number:03}",
            number // 2 * 10,
            f"s{chance.randrange(15)}",
            user=chance.choice(["alice", "bob"]),
            prompt=chance.choice([None, None, "x"]),
        )
    await _apply(store, *lines)
    whole = await store.read(lambda c: list_sessions(c, EVERYTHING, limit=1000))
    places = [(session["last_active_at"], session["id"], session["initiator"]["id"]) for session in whole]
    assert places == sorted(places, reverse=True)
    assert await store.read(lambda c: count_sessions(c, EVERYTHING)) == len(whole)
    by_cursor, after = [], None
    while page := await store.read(lambda c, a=after: list_sessions(c, EVERYTHING, limit=limit, after=a)):
        by_cursor += page
        last = page[-1]
        after = await store.read(lambda c, s=last: place_of(c, EVERYTHING, s["id"], s["initiator"]["id"]))
    assert by_cursor == whole
    by_offset = [
        session
        for offset in range(0, len(whole), limit)
        for session in await store.read(lambda c, o=offset: list_sessions(c, EVERYTHING, limit=limit, offset=o))
    ]
    assert by_offset == whole


async def test_conditions_are_about_interceptions(store: Store) -> None:
    await _apply(
        store,
        *_request("a", 0, "mixed", prompt="x"),
        started("b", at=START + 5, provider="work", provider_type="openai", client="Codex"),
        described("b", at=START + 5, client_session_id="mixed", request_model="gpt"),
        ended("b", at=START + 6),
        *_request("c", 2, "other", prompt="y"),
    )
    assert await _ids(store, Selection(model="gpt")) == ["mixed"]
    assert await _ids(store, Selection(client="Claude Code")) == ["other", "mixed"]
    assert await _ids(store, Selection(provider_name="work")) == ["mixed"]
    assert await _ids(store, Selection(initiator="nobody")) == []


async def test_a_session_shows_the_threads_it_was(store: Store) -> None:
    # A prompt whose answer calls two tools at once, one of them a sub-agent that has a prompt and a loop of its own.
    await _apply(
        store,
        *_request("root", 0, "s", prompt="Fix it.")[:2],
        tool_called("root", "call-1", at=START + 1),
        tool_called("root", "call-2", at=START + 1, position=1, tool="Task"),
        thought("root"),
        ended("root", at=START + 2),
        *_request("agent", 3, "s", prompt="Look around.")[:2],
        tool_called("agent", "call-3", at=START + 4),
        ended("agent", at=START + 5),
        started("agent-2", at=START + 6),
        described(
            "agent-2", at=START + 6, client_session_id="s", correlating_tool_call_id="call-3", prompt=None, has_prompt=False
        ),
        ended("agent-2", at=START + 7),
        started("root-2", at=START + 8),
        described(
            "root-2", at=START + 8, client_session_id="s", correlating_tool_call_id="call-2", prompt=None, has_prompt=False
        ),
        ended("root-2", at=START + 9),
    )
    shown = await store.read(lambda c: show_session(c, "s"))
    assert shown is not None
    threads = [(id_, [record["id"] for record in records]) for id_, records in shown.threads]
    assert threads == [("root", ["root", "root-2"]), ("agent", ["agent", "agent-2"])]
    assert shown.summary["threads"] == 2
    assert (shown.has_earlier, shown.has_later) == (False, False)
    by_interception = await store.read(lambda c: show_session(c, "agent-2"))
    assert by_interception is not None
    assert by_interception.summary == shown.summary


async def test_threads_are_paged_both_ways(store: Store) -> None:
    await _apply(store, *(line for number in range(9) for line in _request(f"t{number}", number, "s", prompt="x")))

    async def page(**arguments: object) -> list[str]:
        shown = await store.read(lambda c: show_session(c, "s", **arguments))
        assert shown is not None
        return [id_ for id_, _ in shown.threads]

    assert await page(limit=3) == ["t0", "t1", "t2"]
    assert await page(limit=3, after_id="t2") == ["t3", "t4", "t5"]
    assert await page(limit=3, before_id="t6") == ["t3", "t4", "t5"]
    assert await page(limit=30, before_id="t2") == ["t0", "t1"]
    assert await page(after_id="t8") == []
    with pytest.raises(LookupError, match="nothing"):
        await page(after_id="nothing")


async def test_a_request_of_no_session_is_one_of_its_own(store: Store) -> None:
    await _apply(store, *life("lonely"))
    assert await _ids(store) == ["lonely"]
    assert await store.read(lambda c: place_of(c, EVERYTHING, "nothing")) is None


def test_figures_are_summed_at_any_depth_and_what_is_none_is_left_out() -> None:
    documents = [{"a": 1, "b": {"c": 2, "d": "x"}, "t": True}, {"a": 0.5, "b": {"c": 3}}]
    assert sum_of_figures(documents) == {"a": 1.5, "b.c": 5}
