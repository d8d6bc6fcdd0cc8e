"""Twin of aiproxyd/beat.py."""

import asyncio
import itertools

import pytest

from aiproxyd.beat import next_beat


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loop's clock, which waiting moves and nothing else; its first element is the time."""
    at = [0.0]

    async def sleep(seconds: float) -> None:
        at[0] += seconds

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: at[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return at


@pytest.mark.parametrize(
    ("now", "period", "then"),
    [
        (100.0, 0.5, 100.5),
        (100.01, 0.5, 100.5),
        (100.3, 0.5, 100.5),
        (100.4, 0.5, 101.0),
        (100.499, 0.5, 101.0),
        (99.3, 2.0, 100.0),
    ],
)
async def test_the_next_multiple_is_waited_for_that_is_not_too_near(clock, now, period, then):
    clock[0] = now
    await next_beat(period)
    assert clock[0] == pytest.approx(then)


async def test_periods_that_are_halves_of_each_other_meet_whenever_they_began(clock):
    beats = []
    for period, began in ((2.0, 10.1), (1.0, 11.7), (0.5, 13.3), (0.25, 14.05)):
        clock[0] = began
        seen = set()
        while clock[0] < 30:
            await next_beat(period)
            seen.add(round(clock[0], 6))
        beats.append(seen)
    for slower, faster in itertools.pairwise(beats):
        assert {at for at in slower if 15 < at < 30} <= faster
