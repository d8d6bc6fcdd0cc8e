"""The coarse timer: never early, soon after, cheap."""

import asyncio

from aiproxyd.mitm.deadlines import Deadlines

TICK = 0.01


async def test_a_deadline_passes_after_its_time_and_not_before():
    deadlines = Deadlines(tick_seconds=TICK)
    loop = asyncio.get_running_loop()
    passed = asyncio.Event()
    started = loop.time()
    deadlines.start(0.05, passed.set)
    await passed.wait()
    assert loop.time() - started >= 0.05
    deadlines.close()


async def test_a_touched_deadline_waits_again():
    deadlines = Deadlines(tick_seconds=TICK)
    loop = asyncio.get_running_loop()
    passed = asyncio.Event()
    deadline = deadlines.start(0.05, passed.set)
    while loop.time() < deadline.touched + 0.03:
        await asyncio.sleep(TICK)
    deadline.touched = deadlines.now
    touched = deadlines.now
    await passed.wait()
    assert loop.time() - touched >= 0.05
    deadlines.close()


async def test_a_cancelled_deadline_never_passes():
    deadlines = Deadlines(tick_seconds=TICK)
    passed = asyncio.Event()
    cancelled = deadlines.start(0.02, lambda: 1 / 0)
    cancelled.cancel()
    cancelled.cancel()
    deadlines.start(0.05, passed.set)
    await passed.wait()
    deadlines.close()


async def test_a_callback_may_cancel_and_start_others_of_the_same_moment():
    deadlines = Deadlines(tick_seconds=TICK)
    passed = asyncio.Event()
    others = []

    def first():
        for other in others:
            other.cancel()
        deadlines.start(0.01, passed.set)

    deadlines.start(0.02, first)
    others += [deadlines.start(0.02, lambda: 1 / 0) for _ in range(10)]
    await passed.wait()
    deadlines.close()


async def test_far_deadlines_are_looked_at_now_and_then_and_kept():
    deadlines = Deadlines(tick_seconds=TICK)
    far = deadlines.start(10_000, lambda: 1 / 0)
    assert far.bucket is not None
    # A look a minute, not one at the end: a cancelled one is not kept for hours.
    assert max(deadlines._buckets) * TICK <= deadlines.now + 60 + 2 * TICK
    far.cancel()
    assert not any(deadlines._buckets.values())
    deadlines.close()


async def test_the_timer_rests_when_there_is_nothing_to_wait_for():
    deadlines = Deadlines(tick_seconds=TICK)
    passed = asyncio.Event()
    deadlines.start(0.0, passed.set)
    await passed.wait()
    while deadlines._timer is not None:
        await asyncio.sleep(TICK)
    again = asyncio.Event()
    deadlines.start(0.0, again.set)
    await again.wait()
    deadlines.close()
    deadlines.close()
