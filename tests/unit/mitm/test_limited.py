import asyncio

import pytest

from aiproxyd.mitm.limited import limited

LOOPS = "both"


async def test_work_that_does_not_wait_is_done_at_once_and_not_timed(monkeypatch):
    monkeypatch.setattr(asyncio, "timeout", None)

    async def work():
        return 1

    assert await limited(work(), 0.0) == 1


async def test_a_fault_is_the_callers():
    async def at_once():
        raise ValueError("at once")

    async def later():
        await asyncio.sleep(0)
        raise ValueError("later")

    with pytest.raises(ValueError, match="at once"):
        await limited(at_once(), 10)
    with pytest.raises(ValueError, match="later"):
        await limited(later(), 10)


async def test_work_that_waits_goes_on_with_what_it_waited_for():
    loop = asyncio.get_running_loop()

    async def work():
        first = loop.create_future()
        loop.call_soon(first.set_result, 1)
        second = loop.create_future()
        loop.call_soon(second.set_exception, ValueError("two"))
        found = [await first]
        try:
            await second
        except ValueError as exc:
            found.append(str(exc))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await asyncio.sleep(0.001)
        return found, asyncio.current_task()

    assert await limited(work(), 10) == ([1, "two"], asyncio.current_task())


async def test_work_that_takes_too_long_is_cancelled():
    ended = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(TimeoutError):
        await limited(work(), 0.01)
    assert ended


async def test_who_is_cancelled_cancels_the_work_and_no_timeout_is_made_of_it():
    ended = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append(True)
            raise

    task = asyncio.get_running_loop().create_task(limited(work(), 10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_work_may_end_well_when_it_is_cancelled():
    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            return "enough"

    task = asyncio.get_running_loop().create_task(limited(work(), 10))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "enough"


async def test_who_is_dropped_closes_the_work():
    ended = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    waiting = limited(work(), 10)
    waiting.send(None)
    waiting.close()
    assert ended
