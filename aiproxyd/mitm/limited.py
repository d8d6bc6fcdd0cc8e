"""A time limit for work that seldom waits: nothing is timed until it does.

`asyncio.timeout` takes a timer and two steps of its own, which for a verdict from memory is as much as the verdict.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


async def limited[Result](work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """Return what `work` returns, which runs in the task of whoever awaits this: work that never waits lets no other task run.

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
        return await _Begun(work, waits_for)


class _Begun[Result](Generator[Any, Any, Result]):
    """Work that has begun and waits, awaited as what has not."""

    def __init__(self, work: Coroutine[Any, Any, Result], waits_for: Any) -> None:
        self._work = work
        self._first = [waits_for]

    def __await__(self) -> Generator[Any, Any, Result]:
        return self

    def send(self, value: Any) -> Any:
        return self._first.pop() if self._first else self._work.send(value)

    def throw(self, *fault: Any) -> Any:
        return self._work.throw(*fault)
