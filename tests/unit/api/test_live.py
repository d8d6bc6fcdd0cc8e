"""Twin of aiproxyd/api/live.py."""

import asyncio

from aiproxyd.api.live import MAX_CONTENT_CHARACTERS, MAX_ONLOOKERS, MAX_QUEUED_EVENTS, MAX_RECENT_EVENTS, LiveFeed
from aiproxyd.model.observation import ConnectDecided
from aiproxyd.model.verdict import Action
from tests.support.observations import described, ended, started, thought, tool_called


def _life(feed: LiveFeed, id_: str, prompt: str = "Fix it.") -> None:
    for observation in (
        started(id_),
        described(id_, prompt=prompt),
        tool_called(id_, "c"),
        thought(id_),
        ended(id_, error_message="quoted"),
    ):
        feed.observe("w", observation)


async def test_an_onlooker_sees_what_happened_lately_and_what_happens() -> None:
    feed = LiveFeed()
    _life(feed, "a")
    onlooker = feed.join()
    assert onlooker is not None
    before = await onlooker.next()
    assert [event.kind for event in before] == ["started", "described", "tool", "thought", "ended"]
    assert before[-1].facts["user"] == "alice"
    assert before[2].facts["model"] == "claude-sonnet-4-5"
    waiting = asyncio.ensure_future(onlooker.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.observe("w", started("b"))
    assert [event.facts["interception_id"] for event in await waiting] == ["b"]


async def test_an_event_says_what_was_known_when_it_came() -> None:
    feed = LiveFeed()
    feed.observe("w", started("a"))
    feed.observe("w", described("a", request_model="first"))
    feed.observe("w", described("a", request_model="second"))
    feed.observe("w", ended("a"))
    feed.observe("w", thought("a"))
    feed.observe("w", ended("never started"))
    onlooker = feed.join()
    assert onlooker is not None
    shown = [event.shown(with_content=True) for event in await onlooker.next()]
    assert [event.get("model") for event in shown] == ["", "first", "second", "second", None, None]
    assert [event.get("user") for event in shown] == ["alice"] * 4 + [None] * 2
    assert shown[3] == {
        "number": 4,
        "kind": "ended",
        "at": "2026-01-31T08:00:02.000Z",
        "interception_id": "a",
        "user": "alice",
        "provider": "anthropic",
        "client": "Claude Code",
        "route": "/v1/messages",
        "model": "second",
        "outcome": "completed",
        "status_code": 200,
        "error_type": None,
        "error_message": "",
        "input_tokens": 3,
        "output_tokens": 300,
        "cache_read_input_tokens": 12_345,
        "cache_write_input_tokens": 0,
        "duration_seconds": shown[3]["duration_seconds"],
    }


def test_no_content_is_kept_whole() -> None:
    feed = LiveFeed()
    long = "x" * 10 * MAX_CONTENT_CHARACTERS
    for observation in (
        started("a"),
        described("a", prompt=long),
        tool_called("a", "c", arguments=long),
        thought("a", content=long),
        ended("a", error_message=long),
    ):
        feed.observe("w", observation)
    onlooker = feed.join()
    assert onlooker is not None
    for event, content in zip(list(onlooker._events)[1:], ("prompt", "input", "content", "error_message"), strict=True):
        assert len(event.facts[content]) == MAX_CONTENT_CHARACTERS
        assert event.facts[content].endswith("x…")
        assert len(str(event.observation)) < 2 * MAX_CONTENT_CHARACTERS


async def test_figures_hold_no_content() -> None:
    feed = LiveFeed()
    _life(feed, "a", prompt="a secret plan")
    onlooker = feed.join()
    assert onlooker is not None
    events = await onlooker.next()
    whole = str([event.shown(with_content=True) for event in events])
    figures = str([event.shown(with_content=False) for event in events])
    for content in ("a secret plan", '{"command":"ls"}', "Hm.", "quoted"):
        assert content in whole
        assert content not in figures


async def test_who_does_not_keep_up_loses_the_oldest_and_nobody_waits() -> None:
    feed = LiveFeed()
    onlooker = feed.join()
    assert onlooker is not None
    for number in range(MAX_QUEUED_EVENTS + 7):
        feed.observe("w", started(f"i{number}"))
    assert onlooker.dropped == 7
    assert (await onlooker.next())[0].facts["interception_id"] == "i7"


def test_what_is_kept_is_bounded() -> None:
    feed = LiveFeed()
    for number in range(MAX_RECENT_EVENTS * 2):
        feed.observe("w", described(f"i{number}", prompt="x" * 10 * MAX_CONTENT_CHARACTERS))
    onlooker = feed.join()
    assert onlooker is not None
    assert len(onlooker._events) == MAX_RECENT_EVENTS
    assert len(onlooker._events[0].facts["prompt"]) == MAX_CONTENT_CHARACTERS


async def test_who_comes_back_sees_only_what_was_missed() -> None:
    feed = LiveFeed()
    _life(feed, "a")
    onlooker = feed.join(after=3)
    assert onlooker is not None
    assert [event.number for event in await onlooker.next()] == [4, 5]
    of_an_earlier_start = feed.join(after=1_000_000)
    assert of_an_earlier_start is not None
    assert len(await of_an_earlier_start.next()) == 5


async def test_there_are_no_more_onlookers_than_that_and_none_after_the_end() -> None:
    feed = LiveFeed()
    onlookers = [feed.join() for _ in range(MAX_ONLOOKERS)]
    assert None not in onlookers
    assert feed.join() is None
    feed.leave(onlookers[0])  # type: ignore[arg-type]
    assert feed.onlookers == MAX_ONLOOKERS - 1
    feed.close()
    assert await onlookers[1].next() == []  # type: ignore[union-attr]
    assert await onlookers[1].next() == []  # type: ignore[union-attr]
    assert feed.join() is None


async def test_refusals_are_shown_and_nonsense_times_do_no_harm() -> None:
    feed = LiveFeed()
    feed.observe("w", ConnectDecided(at=1e300, action=Action.REFUSE, reason="port", status_code=403, host="evil.example"))
    feed.observe("w", ConnectDecided(at=1, action=Action.TUNNEL, reason="", status_code=200, host="fine.example"))
    feed.worker_lost("w")
    onlooker = feed.join()
    assert onlooker is not None
    (event,) = await onlooker.next()
    assert (event.kind, event.facts["host"], event.shown(with_content=True)["at"]) == ("refused", "evil.example", "")


async def test_what_could_not_be_connected_is_shown_as_refused() -> None:
    feed = LiveFeed()
    for number, reason, status in ((1, "dial_resolve", 502), (2, "address", 403)):
        feed.observe(
            "w",
            ConnectDecided(
                at=number,
                action=Action.DECRYPT,
                reason=reason,
                status_code=status,
                host="h",
                provider="p",
                principal_name="ada",
            ),
        )
    feed.observe("w", ConnectDecided(at=3, action=Action.DECRYPT, reason="provider", status_code=200, host="h", provider="p"))
    onlooker = feed.join()
    assert onlooker is not None
    events = await onlooker.next()
    assert [(event.kind, event.facts["user"], event.facts["reason"]) for event in events] == [
        ("refused", "ada", "dial_resolve"),
        ("refused", "ada", "address"),
    ]
