"""Pushes the metrics to a Prometheus Pushgateway, for networks in which nobody can reach the daemon to scrape it. Counts nothing itself.

Each push replaces what the gateway has of this job and instance. A gateway that is away is tried again at the next interval;
nobody waits for it.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import httpx
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from aiproxyd.telemetry.settings import PushSettings

_log = structlog.get_logger(__name__)

PUSH_TIMEOUT_SECONDS = 10.0

CLOSE_SECONDS = 2.0
"""For the last push, when the daemon stops."""


class Pusher:
    """Pushes one registry again and again."""

    def __init__(
        self, registry: CollectorRegistry, settings: PushSettings, *, count: Callable[[str], None] = lambda _result: None
    ) -> None:
        """Push nothing yet.

        Args:
            registry: What is pushed.
            settings: Where to, and how often.
            count: Called with `succeeded` or `failed` after each push.
        """
        self._registry = registry
        self._interval_seconds = settings.interval_seconds
        self._count = count
        # An empty value, or one with a slash, could not be said in the plain form; the configuration has neither.
        group = f"job/{quote(settings.job, safe='')}/instance/{quote(settings.instance, safe='')}"
        self._url = f"{settings.url.rstrip('/')}/metrics/{group}"
        auth = (settings.basic_user, settings.basic_password) if settings.basic_user else None
        # The proxy variables of the environment may well name this very proxy.
        self._client = httpx.AsyncClient(auth=auth, trust_env=False)
        self._trouble = ""

    async def run(self) -> None:
        """Push at every interval, until cancelled."""
        while True:
            await self.push(PUSH_TIMEOUT_SECONDS)
            await asyncio.sleep(self._interval_seconds)

    async def close(self) -> None:
        """Push what was counted last, and let go of the gateway."""
        await self.push(CLOSE_SECONDS)
        await self._client.aclose()

    async def push(self, timeout_seconds: float) -> None:
        """Push once. Raises nothing: what went wrong is logged when it begins, and counted each time."""
        # Thousands of series take a while, and the loop has the channels to the workers to serve.
        body = await asyncio.to_thread(generate_latest, self._registry)
        try:
            answer = await self._client.put(
                self._url, content=body, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4}, timeout=timeout_seconds
            )
        except httpx.HTTPError as exc:
            trouble = str(exc) or type(exc).__name__
        else:
            trouble = "" if answer.is_success else f"status {answer.status_code}: {answer.text[:200]}"
        if trouble and not self._trouble:
            _log.warning("metrics cannot be pushed", error=trouble)
        elif self._trouble and not trouble:
            _log.info("metrics are pushed again")
        self._trouble = trouble
        self._count("failed" if trouble else "succeeded")
