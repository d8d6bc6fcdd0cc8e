"""The addon alone; its handshakes between real sockets are in `test_safe_handler`."""

import datetime as dt

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from aiproxyd.ca.leaves import LeafStore
from aiproxyd.mitm import layer_tls
from aiproxyd.mitm.layer_tls import MAX_DETAIL_CHARACTERS, LayerTls, LayerTlsSettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.model.observation import ClientTlsFailed, ConnectionSecured, UpstreamTlsFailed
from tests.unit.mitm.rig import HOST, ListJournal, own_ca


@pytest.fixture
def journal():
    return ListJournal()


@pytest.fixture
def tls(journal):
    return LayerTls(LeafStore(own_ca(), 7), LayerTlsSettings(http2=True), Reporter(journal))


@pytest.fixture
def context():
    context = Context(Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2)), Options())
    context.server = Server(address=(HOST, 443))
    return context


def client_side(context: Context) -> TlsData:
    return TlsData(context.client, context)


def server_side(context: Context) -> TlsData:
    return TlsData(context.server, context)


def test_a_connection_that_is_not_watched_is_left_to_others(tls, context):
    for data, start in ((client_side(context), tls.tls_start_client), (server_side(context), tls.tls_start_server)):
        start(data)
        assert data.ssl_conn is None


def test_a_connection_that_has_its_tls_already_keeps_it(tls, context):
    tls.watch(context.client.id, HOST, "openai")
    theirs = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    for data, start in ((client_side(context), tls.tls_start_client), (server_side(context), tls.tls_start_server)):
        data.ssl_conn = theirs
        start(data)
        assert data.ssl_conn is theirs


def test_a_context_is_made_once_a_host_and_again_when_its_leaf_is_renewed(context):
    at = dt.datetime.now(dt.UTC)
    tls = LayerTls(LeafStore(own_ca(), 7, clock=lambda: at), LayerTlsSettings(), Reporter(ListJournal()))

    def start() -> SSL.Context:
        data = client_side(context)
        tls.watch(context.client.id, HOST, "openai")
        tls.tls_start_client(data)
        assert data.ssl_conn is not None
        return data.ssl_conn.get_context()

    first = start()
    assert start() is first
    at += dt.timedelta(days=6)
    assert start() is not first


def test_contexts_of_many_hosts_are_bounded(tls, context, monkeypatch):
    monkeypatch.setattr(layer_tls, "MAX_CLIENT_CONTEXTS", 2)
    for number in range(5):
        tls.watch(context.client.id, f"host{number}.example", "openai")
        tls.tls_start_client(client_side(context))
    assert list(tls._client_contexts) == ["host3.example", "host4.example"]


def test_the_provider_is_asked_for_the_name_of_the_connect(tls, context):
    context.client.sni = "other.example"
    tls.watch(context.client.id, HOST, "openai")
    data = server_side(context)
    tls.tls_start_server(data)
    assert data.ssl_conn is not None
    assert data.ssl_conn.get_servername() == HOST.encode()
    assert context.server.sni == HOST


def test_an_address_is_verified_but_not_sent_as_a_name(tls, context):
    context.server = Server(address=("127.0.0.1", 443))
    tls.watch(context.client.id, "127.0.0.1", "local")
    data = server_side(context)
    tls.tls_start_server(data)
    assert data.ssl_conn is not None
    assert data.ssl_conn.get_servername() is None


@pytest.mark.parametrize(
    ("offers", "asked"), [([b"h2", b"http/1.1"], [b"h2", b"http/1.1"]), ([b"http/1.1"], [b"http/1.1"]), ([], [b"http/1.1"])]
)
def test_http2_is_asked_for_when_the_client_offers_it(tls, context, offers, asked):
    context.client.alpn_offers = offers
    tls.watch(context.client.id, HOST, "openai")
    tls.tls_start_server(server_side(context))
    assert list(context.server.alpn_offers) == asked


@pytest.mark.parametrize(
    ("http2", "upstream", "offers", "selected"),
    [
        (True, b"h2", [b"h2", b"http/1.1"], b"h2"),
        (True, b"http/1.1", [b"h2", b"http/1.1"], b"http/1.1"),
        (True, None, [b"h2", b"http/1.1"], b"http/1.1"),
        (False, b"h2", [b"h2", b"http/1.1"], b"http/1.1"),
        (False, None, [b"h2"], SSL.NO_OVERLAPPING_PROTOCOLS),
    ],
)
def test_the_client_gets_the_protocol_of_the_provider(journal, http2, upstream, offers, selected):
    tls = LayerTls(LeafStore(own_ca(), 7), LayerTlsSettings(http2=http2), Reporter(journal))
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_app_data(upstream)
    assert tls._select_alpn(connection, offers) == selected


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("The client does not trust the proxy's certificate for x (ssl/tls alert unknown ca)", "unknown_ca"),
        ("The client does not trust the proxy's certificate for x (sslv3 alert bad certificate)", "bad_certificate"),
        ("OpenSSL Error([('SSL routines', '', 'ssl/tls alert certificate unknown')])", "bad_certificate"),
        ("The client disconnected during the handshake. If this happens …", "closed"),
        ("connection closed", "closed"),
        ("Cannot parse ClientHello: 4745", "protocol"),
        ("Client and mitmproxy cannot agree on a TLS version to use.", "protocol"),
        ("OpenSSL Error([('SSL routines', '', 'no shared cipher')])", "protocol"),
        ("something else", "other"),
        (None, "other"),
    ],
)
def test_a_client_that_fails_is_told_of_with_a_bounded_word(tls, context, journal, error, reason):
    tls.watch(context.client.id, HOST, "openai")
    context.client.error = error
    tls.tls_failed_client(client_side(context))
    (failed,) = journal.all(ClientTlsFailed)
    assert (failed.host, failed.reason) == (HOST, reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("Certificate verify failed: hostname mismatch", "hostname"),
        ("Certificate verify failed: IP address mismatch", "hostname"),
        ("Certificate verify failed: certificate has expired", "expired"),
        ("Certificate verify failed: self-signed certificate", "untrusted"),
        ("connection closed", "closed"),
        ("The remote server does not speak TLS.", "other"),
    ],
)
def test_a_provider_that_fails_is_told_of_with_a_bounded_word(tls, context, journal, error, reason):
    tls.watch(context.client.id, HOST, "openai")
    context.server.error = error
    tls.tls_failed_server(server_side(context))
    (failed,) = journal.all(UpstreamTlsFailed)
    assert (failed.host, failed.provider, failed.reason) == (HOST, "openai", reason)


def test_both_handshakes_done_are_told_with_their_time(tls, context, journal):
    tls.watch(context.client.id, HOST, "openai")
    # The provider failed, and the client is about to hear of it.
    tls.tls_established_client(client_side(context))
    assert journal.observations == []
    context.server.timestamp_tls_setup = 1.0
    tls.tls_established_client(client_side(context))
    (secured,) = journal.all(ConnectionSecured)
    assert secured.provider == "openai"
    assert 0 <= secured.seconds < 60


def test_a_handshake_that_was_ended_for_its_time_says_so_once(tls, context, journal):
    tls.watch(context.client.id, HOST, "openai")
    tls.late |= {context.client.id, context.server.id}
    tls.tls_failed_client(client_side(context))
    tls.tls_failed_server(server_side(context))
    tls.server_disconnected(ServerConnectionHookData(server=context.server, client=context.client))
    tls.client_disconnected(context.client)
    assert [each.reason for each in journal.observations] == ["timeout", "timeout"]
    assert tls.late == set()


def test_what_is_told_is_bounded(tls, context, journal):
    tls.watch(context.client.id, HOST, "openai")
    context.client.error = "x" * 5000
    tls.tls_failed_client(client_side(context))
    assert len(journal.all(ClientTlsFailed)[0].detail) == MAX_DETAIL_CHARACTERS


def test_connections_of_others_are_not_told_of(tls, context, journal):
    tls.tls_failed_client(client_side(context))
    tls.tls_failed_server(server_side(context))
    context.server.timestamp_tls_setup = 1.0
    tls.tls_established_client(client_side(context))
    assert journal.observations == []


@pytest.mark.parametrize("trust", ["certifi", "system"])
def test_verification_is_always_on(journal, trust):
    tls = LayerTls(LeafStore(own_ca(), 7), LayerTlsSettings(trust=trust), Reporter(journal))
    assert tls._upstream_context().get_verify_mode() == SSL.VERIFY_PEER
