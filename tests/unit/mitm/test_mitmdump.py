"""Verdicts carried out in mitmproxy, hook by hook; a real mitmdump is in `tests/integration/test_addons_in_mitmdump`."""

import logging

import pytest
from mitmproxy import http
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import tcp
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.config.schema import Config
from aiproxyd.mitm.connect import ConnectAddon, ConnectSettings
from aiproxyd.mitm.egress import Egress, EgressSettings
from aiproxyd.mitm.mitmdump import Connections, _connect_settings
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.observation import ConnectDecided
from tests.unit.mitm.rig import HOST, PROVIDER, ListJournal
from tests.unit.mitm.test_connect import Book, basic


@pytest.fixture
def journal():
    return ListJournal()


@pytest.fixture
def connections(journal):
    connect = ConnectAddon(Book(), ConnectSettings(providers=ProviderTable([PROVIDER])))
    egress = Egress(EgressSettings(hosts={HOST: "127.0.0.1:4433"}))
    return Connections(connect, egress, Reporter(journal), http_hooks=None, tls=None)


def connect_flow(authority: str, *, client: Client | None = None) -> http.HTTPFlow:
    flow = tflow.tflow(req=http.Request.make("GET", "http://x/", b"", {"Proxy-Authorization": basic("x:t0ken")}), err=False)
    flow.request.data.method = b"CONNECT"
    flow.request.data.authority = authority.encode()
    if client is not None:
        flow.client_conn = client
    return flow


async def decide(connections: Connections, flow: http.HTTPFlow) -> http.HTTPFlow:
    await connections._connect.http_connect(flow)
    connections.http_connect(flow)
    return flow


def next_layer(client: Client) -> NextLayer:
    return NextLayer(Context(client, Options()))


async def test_a_tunnel_is_left_alone(connections):
    flow = await decide(connections, connect_flow("example.com:443"))
    layer = next_layer(flow.client_conn)
    connections.next_layer(layer)
    assert isinstance(layer.layer, tcp.TCPLayer)
    assert layer.layer.flow is None


async def test_a_connection_without_a_verdict_is_nobodys_tunnel(connections):
    layer = next_layer(tflow.tflow().client_conn)
    connections.next_layer(layer)
    assert layer.layer is None


async def test_a_connect_that_nobody_decided_about_is_killed(connections):
    flow = connect_flow("example.com:443")
    flow.live = True
    connections.http_connect(flow)
    assert flow.error is not None
    assert flow.error.msg == flow.error.KILLED_MESSAGE


async def test_a_refusal_is_told_and_stays(connections, journal):
    flow = await decide(connections, connect_flow("example.com:22"))
    connections.http_connect_error(flow)
    assert flow.response is not None
    assert flow.response.status_code == 403
    assert [(each.reason, each.status_code) for each in journal.all(ConnectDecided)] == [("port", 403)]


async def test_a_connection_whose_upstream_failed_is_decided_about_anew(connections, journal):
    flow = await decide(connections, connect_flow("example.com:443"))
    flow.response = http.Response.make(502, b"[Errno 111] Connect call failed ('10.0.0.1', 443)")
    connections.http_connect_error(flow)
    assert b"10.0.0.1" not in flow.response.content
    plain = tflow.tflow(req=http.Request.make("GET", "http://example.com:22/"))
    plain.client_conn = flow.client_conn
    await connections.requestheaders(plain)
    assert plain.response is not None
    assert plain.response.status_code == 403


async def test_a_provider_is_dialled_where_the_configuration_says(connections):
    flow = await decide(connections, connect_flow(f"{HOST}:443"))
    data = ServerConnectionHookData(server=Server(address=(HOST, 443)), client=flow.client_conn)
    await connections.server_connect(data)
    assert data.server.error is None
    assert data.server.address == ("127.0.0.1", 4433)
    assert data.server.sni == HOST


async def test_a_private_address_is_not_dialled(connections):
    flow = await decide(connections, connect_flow("127.0.0.1:443"))
    data = ServerConnectionHookData(server=Server(address=("127.0.0.1", 443)), client=flow.client_conn)
    await connections.server_connect(data)
    assert data.server.error


async def test_what_cannot_be_checked_is_not_dialled(connections, monkeypatch, caplog):
    async def fail(*_: object, **__: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr(connections._egress, "candidates", fail)
    data = ServerConnectionHookData(server=Server(address=("example.com", 443)), client=tflow.tflow().client_conn)
    with caplog.at_level(logging.CRITICAL):
        await connections.server_connect(data)
    assert data.server.error == "the destination could not be checked"


async def test_what_is_known_of_a_connection_ends_with_it(connections):
    flow = await decide(connections, connect_flow("example.com:443"))
    connections.client_disconnected(flow.client_conn)
    assert connections._known == {}


@pytest.mark.parametrize(
    "more", [{"keys": ["k"]}, {"byok": False}, {"breaker": {"enabled": True}}, {"target": "https://gateway.example.com"}]
)
def test_an_entry_whose_requests_would_need_another_head_is_not_in_use(more):
    entries = [{"name": "a", "type": "anthropic", **more}, {"name": "b", "type": "openai"}]
    providers = _connect_settings(Config.model_validate({"providers": entries})).providers
    changed, plain = providers.by_name("a"), providers.by_name("b")
    assert changed.status is ProviderStatus.ERROR
    assert "aiproxyd run" in changed.reason
    assert plain.status is ProviderStatus.ENABLED
