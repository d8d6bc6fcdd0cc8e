"""Modules that say `LOOPS = "both"` run their tests on asyncio's loop and on uvloop; the others on asyncio's."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if getattr(getattr(item, "module", None), "LOOPS", "") == "both":
        factories["uvloop"] = uvloop.new_event_loop
    return factories
