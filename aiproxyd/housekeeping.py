"""What the store needs now and then, whatever flows: statistics for its planner, and the deletion of what is too old."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping

import structlog

from aiproxyd.exceptions import StorageError
from aiproxyd.storage.pruning import Pruning
from aiproxyd.storage.retention import Retention
from aiproxyd.storage.store import Store

log = structlog.get_logger("aiproxyd.housekeeping")

# How often the store learns how it is filled; what is asked of it changes slower.
STATISTICS_INTERVAL_SECONDS = 3600.0

# How often old records are looked for.
PRUNE_INTERVAL_SECONDS = 600.0


async def keep_statistics(store: Store) -> None:
    """Let the store know how it is filled, now and then; never returns."""
    while True:
        try:
            await store.refresh_statistics()
        except StorageError as exc:
            log.debug("the store's statistics are as they were", error=str(exc))
        await asyncio.sleep(STATISTICS_INTERVAL_SECONDS)


async def prune(store: Store, ages: Callable[[], Mapping[str, float]]) -> None:
    """Delete what is older than it is to be kept, now and every few minutes; never returns.

    Args:
        store: From which it goes.
        ages: Returns the arguments of `Retention.by_age`; asked each time, because a reload changes them.
    """
    while True:
        now = dt.datetime.now(dt.UTC)
        try:
            done = await Pruning(store).run(Retention.by_age(now, **ages()), now)
        except StorageError as exc:
            log.warning("old records are still there; the next run tries again", error=str(exc))
        else:
            if done:
                log.info("old records deleted", **dataclasses.asdict(done))
        await asyncio.sleep(PRUNE_INTERVAL_SECONDS)
