"""Twin of aiproxyd/storage/lineage.py."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.storage.lineage import roots_of
from aiproxyd.storage.queries import InterceptionFilter
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, life, of_worker, started, tool_called


async def _threads(store: Store) -> dict[str, tuple[str | None, str | None, str]]:
    records = await store.interceptions(InterceptionFilter(limit=1000))
    return {each["id"]: (each["thread_parent_id"], each["thread_root_id"], each["session_id"]) for each in records}


async def _apply(store: Store, *batches: list) -> None:
    for batch in batches:
        position = (await store.positions()).get("w-00000001.jsonl", 0) + 1
        await store.apply(of_worker("w", *batch), {"w-00000001.jsonl": position})


async def test_a_request_that_answers_a_tool_call_belongs_to_its_thread(store: Store) -> None:
    a, b, c = "a", "b", "c"
    await _apply(
        store,
        [*life(a, calls="t1"), *life(b, at=START + 5, answers="t1", calls="t2")],
        life(c, at=START + 10, answers="t2"),
    )
    assert await _threads(store) == {a: (None, None, a), b: (a, a, a), c: (b, a, a)}


async def test_the_clients_session_wins_over_the_thread(store: Store) -> None:
    answer = [started("b", at=START + 5), described("b", at=START + 5, correlating_tool_call_id="t1", client_session_id="s")]
    await _apply(store, life("a", calls="t1"), answer)
    assert await _threads(store) == {"a": (None, None, "a"), "b": ("a", "a", "s")}


async def test_a_call_that_nobody_is_known_to_have_made_begins_a_thread(store: Store) -> None:
    await _apply(store, life("a", answers="unknown"))
    assert await _threads(store) == {"a": (None, None, "a")}


async def test_the_newest_of_calls_with_the_same_id_is_the_parent(store: Store) -> None:
    await _apply(
        store,
        life("old", calls="call_0"),
        life("new", at=START + 10, calls="call_0"),
        life("child", at=START + 20, answers="call_0"),
    )
    assert (await _threads(store))["child"] == ("new", "new", "new")


async def test_a_backlog_gives_the_same_threads_as_the_day_did(store: Store) -> None:
    """Ids that count from `call_0` in every conversation, all in one batch: the calls of later ones do not attract earlier answers."""
    lines = []
    for number in range(4):
        at = START + 100 * number
        lines += life(f"first-{number}", at=at, calls="call_0")
        lines += life(f"second-{number}", at=at + 10, answers="call_0", calls="call_1")
        lines += life(f"third-{number}", at=at + 20, answers="call_1")
    await _apply(store, lines)
    threads = await _threads(store)
    for number in range(4):
        assert threads[f"second-{number}"][0] == f"first-{number}"
        assert threads[f"third-{number}"] == (f"second-{number}", f"first-{number}", f"first-{number}")


async def test_strangers_are_not_joined_by_a_call_id_that_is_not_unique(store: Store) -> None:
    await _apply(
        store,
        life("of-alice", calls="call_0", user="alice"),
        life("of-bob", at=START + 10, calls="call_0", user="bob"),
        life("answer-of-alice", at=START + 20, answers="call_0", user="alice"),
    )
    assert (await _threads(store))["answer-of-alice"][0] == "of-alice"


async def test_an_interception_is_not_its_own_parent(store: Store) -> None:
    await _apply(
        store, [started("a"), described("a", at=START + 5, correlating_tool_call_id="t"), tool_called("a", "t"), ended("a")]
    )
    assert await _threads(store) == {"a": (None, None, "a")}


async def test_an_answer_that_is_read_before_its_call_is_linked_when_the_call_comes(store: Store) -> None:
    """Between workers there is no order, least of all while a backlog is read."""
    await _apply(
        store,
        life("c", at=START + 20, answers="t2", calls="t3"),
        life("d", at=START + 30, answers="t3"),
        life("b", at=START + 10, answers="t1", calls="t2"),
    )
    assert await _threads(store) == {"b": (None, None, "b"), "c": ("b", "b", "b"), "d": ("c", "b", "b")}
    await _apply(store, life("a", calls="t1"))
    assert await _threads(store) == {"a": (None, None, "a"), "b": ("a", "a", "a"), "c": ("b", "a", "a"), "d": ("c", "a", "a")}


async def test_threads_do_not_depend_on_the_order_or_the_batches(store: Store) -> None:
    rng = random.Random(7)
    expected = {}
    for round_ in range(6):
        lives = []
        root = None
        for number in range(8):
            id_, parent = f"{round_}-{number}", f"{round_}-{number - 1}"
            root = root or id_
            answers = f"t{round_}-{number - 1}" if number else ""
            lives.append(life(id_, at=START + 10 * number, answers=answers, calls=f"t{round_}-{number}"))
            expected[id_] = (parent, root, root) if number else (None, None, id_)
        rng.shuffle(lives)
        while lives:
            size = rng.randint(1, 3)
            await _apply(store, [line for each in lives[:size] for line in each])
            del lives[:size]
    assert await _threads(store) == expected


@pytest.mark.parametrize("length", [2000])
async def test_a_long_thread_in_one_batch_has_one_root(store: Store, length: int) -> None:
    lines = []
    for number in range(length):
        lines += life(str(number), at=START + 10 * number, answers=f"t{number - 1}" if number else "", calls=f"t{number}")
    await _apply(store, lines)
    records = await store.interceptions(InterceptionFilter(limit=1000))
    assert {record["thread_root_id"] for record in records} == {"0"}


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")),
    st.dictionaries(st.sampled_from("abcdefgh"), st.just("z")),
)
def test_roots_are_found_for_all_but_rings(parents: dict[str, str], stored: dict[str, str]) -> None:
    def root_of(child: str) -> str | None:
        at, seen = child, set()
        while at not in seen:
            seen.add(at)
            above = parents.get(at) or stored.get(at)
            if above is None:
                return at
            at = above
        return None

    assert roots_of(parents, stored) == {child: root for child in parents if (root := root_of(child)) is not None}
