"""Twin of aiproxyd/api/counts.py."""

import asyncio

import pytest

from aiproxyd.api.counts import MAX_BELIEVED_SECONDS, TOLERATED_SECONDS, Counts
from aiproxyd.exceptions import StorageError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("took", "believed"), [(0.0, 0.0), (0.01, 0.0), (0.1, 10.0), (5.0, MAX_BELIEVED_SECONDS)])
async def test_a_count_is_believed_as_long_as_it_was_worth(took: float, believed: float) -> None:
    clock = Clock()
    counts = Counts(clock)
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        clock.now += took
        return made

    assert await counts.count("x", make) == 1
    clock.now += max(0.0, believed - 0.001)
    assert await counts.count("x", make) == (1 if believed else 2)
    assert await counts.count("another", make) == made


async def test_an_old_count_is_told_while_a_new_one_is_made_once() -> None:
    clock = Clock()
    counts = Counts(clock)
    goes_on = asyncio.Event()
    goes_on.set()
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        number = made
        clock.now += 1.0
        await goes_on.wait()
        return number

    assert await counts.count("x", make) == 1
    clock.now += MAX_BELIEVED_SECONDS + 1
    goes_on.clear()
    assert [await counts.count("x", make) for _ in range(3)] == [1, 1, 1]
    await asyncio.sleep(0)
    assert [await counts.count("x", make) for _ in range(3)] == [1, 1, 1]
    assert made == 2
    goes_on.set()
    async with asyncio.timeout(10):
        while await counts.count("x", make) == 1:
            await asyncio.sleep(0)
    assert await counts.count("x", make) == 2
    clock.now += MAX_BELIEVED_SECONDS + TOLERATED_SECONDS + 1
    assert await counts.count("x", make) == 3


async def test_a_count_that_fails_behind_the_scenes_is_made_again() -> None:
    clock = Clock()
    counts = Counts(clock)

    async def make() -> int:
        clock.now += 1.0
        return 1

    async def fail() -> int:
        raise StorageError("away")

    assert await counts.count("x", make) == 1
    clock.now += MAX_BELIEVED_SECONDS + 1
    assert await counts.count("x", fail) == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await counts.count("x", make) == 1
    clock.now += TOLERATED_SECONDS + 1
    with pytest.raises(StorageError):
        await counts.count("y", fail)
