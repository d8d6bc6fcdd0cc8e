"""`httpx` through the proxy, over HTTP/1.1 and, with `decrypt.http2`, over HTTP/2."""

import asyncio
import hashlib
import ssl

import httpx
import pytest

from tests.support.coding import CODINGS
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches
from tests.support.fake_provider import FakeProvider

URL = "https://api.anthropic.com/v1/messages"


def body(model: str, *, stream: bool = True) -> dict[str, object]:
    return {"model": model, "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}


def trust(daemon: Daemon) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(daemon.ca_file))


@pytest.mark.parametrize("coding", CODINGS)
def test_raw_bytes_are_those_the_provider_sent(daemon: Daemon, provider: FakeProvider, model: str, coding: str) -> None:
    model += f"+coding={coding}"
    with (
        httpx.Client(proxy=daemon.proxy_url(), verify=trust(daemon)) as client,
        client.stream("POST", URL, json=body(model), headers={"Accept-Encoding": coding}) as response,
    ):
        raw = b"".join(response.iter_raw())
    record = daemon.record(model)
    entry = provider.ledger.one(model)
    assert response.http_version == "HTTP/1.1"
    assert hashlib.sha256(raw).hexdigest() == entry.response_sha256
    assert_matches(record, entry, prompt="Hi")


def test_a_kept_connection_carries_many_requests(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    with httpx.Client(proxy=daemon.proxy_url(), verify=trust(daemon)) as client:
        for number in range(20):
            assert client.post(URL, json=body(f"{model}-{number:02}", stream=False)).status_code == 200
    entries = provider.ledger.entries(model)
    assert len({entry.connection for entry in entries}) == 1
    records = daemon.records(model, count=20)
    for record, entry in zip(records, entries, strict=True):
        assert_matches(record, entry, prompt="Hi")


@pytest.fixture(scope="module")
def http2_provider(tmp_path_factory: pytest.TempPathFactory):
    with FakeProvider(tmp_path_factory.mktemp("h2provider"), http2=True) as provider:
        yield provider


@pytest.fixture(scope="module", params=["relay", "mitmproxy"])
def http2_daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, http2_provider: FakeProvider):
    config = {"decrypt": {"engine": request.param, "http2": True}}
    with Daemon(tmp_path_factory.mktemp("h2"), http2_provider, config=config) as daemon:
        yield daemon


def test_http2_streams_run_side_by_side_and_are_recorded(
    http2_daemon: Daemon, http2_provider: FakeProvider, model: str
) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            http2=True, proxy=http2_daemon.proxy_url(), verify=trust(http2_daemon), timeout=30
        ) as client:
            # The first one makes the connection that the others share.
            answers = [await client.post(URL, json=body(f"{model}-00"))]
            more = (client.post(URL, json=body(f"{model}-{number:02}", stream=number % 2 == 0)) for number in range(1, 12))
            return answers + await asyncio.gather(*more)

    answers = asyncio.run(ask())
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert all(answer.status_code == 200 for answer in answers)
    records = {record["model"]: record for record in http2_daemon.records(model, count=12)}
    for entry in http2_provider.ledger.entries(model):
        assert_matches(records[entry.model], entry, prompt="Hi")


def test_a_client_without_http2_gets_http1_where_the_switch_is_on(
    http2_daemon: Daemon, http2_provider: FakeProvider, model: str
) -> None:
    with httpx.Client(proxy=http2_daemon.proxy_url(), verify=trust(http2_daemon)) as client:
        answer = client.post(URL, json=body(model))
    assert answer.http_version == "HTTP/1.1"
    assert_matches(http2_daemon.record(model), http2_provider.ledger.one(model), prompt="Hi")


def test_a_client_that_offers_http2_gets_http1_where_the_switch_is_off(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(http2=True, proxy=daemon.proxy_url(), verify=trust(daemon)) as client:
            return await client.post(URL, json=body(model))

    assert asyncio.run(ask()).http_version == "HTTP/1.1"
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")
