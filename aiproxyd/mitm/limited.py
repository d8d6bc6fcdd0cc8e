"""A time limit for work that seldom waits: nothing is timed until it does.

`asyncio.timeout` takes a timer and two steps of its own, which for a verdict from memory is as much as the verdict.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


async def limited[Result](work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """Return what `work` returns. Its first step is taken at once, and no other task runs before the second.

    Args:
        work: Was not begun.
        seconds: How long it may take from the moment when it waits.

    Raises:
        TimeoutError: It took longer, and was cancelled.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _rest_of(work, waits_for)


@types.coroutine
def _rest_of[Result](work: Coroutine[Any, Any, Result], waits_for: Any) -> Generator[Any, Any, Result]:
    """Await what has begun and waits, as `await` does with what has not (PEP 380)."""
    try:
        while True:
            try:
                answer = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as exc:
                waits_for = work.throw(exc)
            else:
                waits_for = work.send(answer)
    except StopIteration as done:
        result: Result = done.value
        return result
