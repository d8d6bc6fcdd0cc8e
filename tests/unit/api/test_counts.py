"""Twin of aiproxyd/api/counts.py."""

import pytest

from aiproxyd.api.counts import MAX_BELIEVED_SECONDS, Counts


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
    clock.now += 0.002
    assert await counts.count("x", make) == made
    assert made >= 3
