"""A WebSocket through a decrypted connection: upgraded, unchanged, not kept, ended."""

import ssl

import pytest
from websockets.sync.client import connect

from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_pass_both_ways(daemon: Daemon, provider: FakeProvider, model: str, compression: str | None) -> None:
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    url = f"wss://api.openai.com/v1/responses?pace={model}"
    with connect(url, ssl=trust, proxy=daemon.proxy_url(), compression=compression, max_size=None) as websocket:
        for text in ("hello", "Ünïcode 🦊", "x" * 200_000):
            websocket.send(text)
            assert websocket.recv() == text
        websocket.send(bytes(range(256)) * 100)
        assert websocket.recv() == bytes(range(256)) * 100
        assert websocket.ping().wait(10)
    entry = provider.ledger.one(model)
    assert entry.header("proxy-authorization") == ""
    provider.ledger.wait_for(lambda _: entry.end == "complete")


def test_a_websocket_returns_the_gauges_to_zero(own_daemon, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    with connect(f"wss://api.openai.com/v1/responses?pace={model}", ssl=trust, proxy=daemon.proxy_url()) as websocket:
        websocket.send("hello")
        websocket.recv()
    daemon.wait_for_metric(0, "coder_ai_gateway_proxy_inflight_mitm_requests")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_responses_total", code="101") == 1
