"""Twin of aiproxyd/telemetry/push.py, against the real Pushgateway."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from aiproxyd.telemetry.push import Pusher
from aiproxyd.telemetry.settings import PushSettings
from tests.support.pushgateway import needs_pushgateway, pushgateway


def pusher(url: str, results: list[str], **more: Any) -> tuple[Pusher, Counter]:
    registry = CollectorRegistry()
    counter = Counter("things_total", "Things.", registry=registry)
    settings = PushSettings(url=url, **({"interval_seconds": 0.01, "job": "a job", "instance": "here"} | more))
    return Pusher(registry, settings, count=results.append), counter


@needs_pushgateway
async def test_the_gateway_has_the_last_values_by_job_and_instance(tmp_path: Path) -> None:
    results: list[str] = []
    with pushgateway(tmp_path) as gateway:
        pushing, counter = pusher(gateway.url + "/", results)
        counter.inc()
        running = asyncio.ensure_future(pushing.run())
        async with asyncio.timeout(30):
            while len(results) < 3:
                await asyncio.sleep(0.01)
        running.cancel()
        counter.inc(41)
        await pushing.close()
        metrics = gateway.metrics()
    assert metrics.series("things_total") == [{"job": "a job", "instance": "here"}]
    assert metrics.total("things_total") == 42
    assert set(results) == {"succeeded"}


@needs_pushgateway
@pytest.mark.parametrize(("password", "result"), [("secret", "succeeded"), ("wrong", "failed")])
async def test_a_gateway_may_want_a_password(tmp_path: Path, password: str, result: str) -> None:
    results: list[str] = []
    with pushgateway(tmp_path, is_locked=True) as gateway:
        pushing, _ = pusher(gateway.url, results, basic_user="pusher", basic_password=password)
        with capture_logs() as logs:
            await pushing.close()
        assert bool(gateway.metrics().series("things_total")) is (result == "succeeded")
    assert results == [result]
    assert password not in str(logs)


@needs_pushgateway
async def test_a_gateway_that_is_away_is_logged_once_and_found_when_it_is_back(tmp_path: Path) -> None:
    results: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pushing, _ = pusher(f"http://127.0.0.1:{port}", results)
    with capture_logs() as logs:
        await pushing.push(5)
        await pushing.push(5)
        with pushgateway(tmp_path, port=port):
            await pushing.push(5)
            await pushing.close()
    assert results == ["failed", "failed", "succeeded", "succeeded"]
    assert [log["log_level"] for log in logs] == ["warning", "info"]


async def test_a_gateway_that_never_answers_is_given_up_in_time() -> None:
    results: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pushing, _ = pusher(f"http://127.0.0.1:{silent.getsockname()[1]}", results)
        await pushing.push(0.05)
        assert results == ["failed"]
