"""The beat to which everything looks that looks now and then, so that those whose turn it is wake together.

A process that has slept pays for each waking, with caches that others filled meanwhile: 0.2 to 0.5 ms of CPU, whatever there was to do
then. Not a scheduler: whoever looks has a loop of its own, and only its waiting is here.
"""

import asyncio

# Of a period: who is done less than this before a beat waits for the one after, or the slow would look all the time.
_SHORTEST_WAIT = 0.25


async def next_beat(period_seconds: float) -> None:
    """Wait until a multiple of a period has passed on the loop's clock: a quarter of the period at least, and five quarters at most.

    Args:
        period_seconds: Those that are halves of each other, as 2, 1, 0.5 …, meet.
    """
    now = asyncio.get_running_loop().time()
    earliest = now + period_seconds * _SHORTEST_WAIT
    await asyncio.sleep(earliest // period_seconds * period_seconds + period_seconds - now)
