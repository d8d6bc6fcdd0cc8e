"""What this package relies on inside mitmproxy, symbol by symbol: a change of any of them fails here, by name.

A failure means: read what changed, check the place that is named, then write the new digest down. The behaviour itself is tested in
`test_safe_layers`, `test_safe_handler` and `test_http2`; a digest tells about what those cannot see.
"""

import hashlib
import importlib
import importlib.metadata
import inspect
import textwrap
import warnings

import pytest
from mitmproxy.options import Options
from mitmproxy.proxy.layers import http as http_layers
from OpenSSL import SSL

from aiproxyd.mitm import safe_layers
from aiproxyd.mitm.host import LAYER_OPTIONS

# (module, symbol, start of the SHA-256 of its source, what of ours relies on it)
CONTRACT = [
    ("mitmproxy.addonmanager", "AddonManager.register", "42f09666acd54c93", "hosts our addons"),
    ("mitmproxy.addonmanager", "AddonManager._iter_hooks", "5058c0c67a3faf2e", "HookTable finds hooks as it does"),
    (
        "mitmproxy.addonmanager",
        "AddonManager.trigger_event",
        "58789e378391cb37",
        "HookTable replaces it: the same order and AddonHalt, but no forgiveness",
    ),
    ("mitmproxy.addonmanager", "traverse", "bad3d9f88bdf9269", "HookTable goes through sub-addons with it"),
    ("mitmproxy.proxy.server", "TimeoutWatchdog", "95c9f187c70d4d09", "is the idle timeout"),
    ("mitmproxy.proxy.server", "ConnectionIO", "f498a46ab1b0f40f", "holds our gated readers"),
    (
        "mitmproxy.proxy.server",
        "ConnectionHandler.__init__",
        "d3c0f7253517568f",
        "SafeHandler replaces its layer and transports",
    ),
    (
        "mitmproxy.proxy.server",
        "ConnectionHandler.handle_client",
        "8b7e65bb29baac16",
        "SafeHandler.run awaits it and relies on its order of hooks and its clean-up",
    ),
    ("mitmproxy.proxy.server", "ConnectionHandler.open_connection", "105afa3ddde4c059", "SafeHandler replaces it"),
    ("mitmproxy.proxy.server", "ConnectionHandler.wakeup", "9d9722ddd30f6158", "SafeHandler starts it as a task"),
    (
        "mitmproxy.proxy.server",
        "ConnectionHandler.handle_connection",
        "2cd24c42884752ac",
        "reads through our gate; closing is cancelling it",
    ),
    ("mitmproxy.proxy.server", "ConnectionHandler.drain_writers", "e7d7a0d4bdd7ddf8", "is the backpressure of HTTP/1.1"),
    ("mitmproxy.proxy.server", "ConnectionHandler.on_timeout", "9d8b0d2ed237e23b", "SafeHandler replaces it"),
    (
        "mitmproxy.proxy.server",
        "ConnectionHandler.server_event",
        "a9aa2c5307ef8e15",
        "SafeHandler replaces it: the same commands",
    ),
    ("mitmproxy.proxy.server", "ConnectionHandler.close_connection", "9ec60a685e608fd3", "SafeHandler calls it"),
    ("mitmproxy.proxy.server", "ConnectionHandler.log", "74a35bd8af54b361", "SafeHandler replaces it"),
    ("mitmproxy.proxy.server", "LiveConnectionHandler.__init__", "f387063305cb2cb0", "SafeHandler calls it"),
    ("mitmproxy.proxy.layer", "Layer.handle_event", "1dd2c9090fd69965", "blocking commands pause a layer"),
    ("mitmproxy.proxy.tunnel", "TunnelLayer", "a0a2a31af17dfacb", "child layers wait for a handshake"),
    ("mitmproxy.proxy.layers.tls", "TLSLayer.start_tls", "c5c78141137e78b7", "LayerTls sets ssl_conn in its hooks"),
    (
        "mitmproxy.proxy.layers.tls",
        "TLSLayer.receive_handshake_data",
        "40764c57991afe05",
        "its error messages become reasons in LayerTls",
    ),
    ("mitmproxy.proxy.layers.tls", "TLSLayer.on_handshake_error", "a82ed41eafca524a", "LayerTls reads the error in its hooks"),
    (
        "mitmproxy.proxy.layers.tls",
        "ServerTLSLayer.start_handshake",
        "97e2a470e3948f0a",
        "a handler makes the two TLS layers itself",
    ),
    (
        "mitmproxy.proxy.layers.tls",
        "ServerTLSLayer.event_to_child",
        "fafb4bf6c28fc858",
        "swallows the OpenConnection of an open connection",
    ),
    (
        "mitmproxy.proxy.layers.tls",
        "ClientTLSLayer.receive_handshake_data",
        "02f3022981671017",
        "asks for the provider's handshake first",
    ),
    (
        "mitmproxy.proxy.layers.tls",
        "ClientTLSLayer.on_handshake_error",
        "c3d9cdc49c5d23df",
        "its messages become reasons in LayerTls",
    ),
    (
        "mitmproxy.proxy.layers.tls",
        "ClientTLSLayer.start_server_tls",
        "411fb6669dc1d1f4",
        "opens the provider's connection through SafeHandler.open_connection",
    ),
    ("mitmproxy.proxy.layers.tcp", "TCPLayer", "5e842b94cd4425b0", "carries upgraded connections"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpLayer",
        "8da4a8a48e637b88",
        "looks up Http1Server and HttpStream by name; streams and connections tell whether it is idle",
    ),
    ("mitmproxy.proxy.layers.http", "HttpClient._handle_event", "db8e70c4d8ef65c6", "looks up Http1Client by name"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.state_wait_for_request_headers",
        "85b959d19c359321",
        "the requestheaders hook comes before anything is sent",
    ),
    ("mitmproxy.proxy.layers.http", "HttpStream.start_request_stream", "52a8ea61f3518baf", "SafeHttpStream guards it"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.state_stream_request_body",
        "58e191338cc74c0d",
        "calls the stream function of HttpHooks",
    ),
    ("mitmproxy.proxy.layers.http", "HttpStream.state_consume_request_body", "e3ee3fd9f617f517", "SafeHttpStream guards it"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.state_wait_for_response_headers",
        "daa3d7cf45df38f3",
        "SafeHttpStream guards it",
    ),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.state_stream_response_body",
        "0e64215c8fe9567c",
        "calls the stream function of HttpHooks",
    ),
    ("mitmproxy.proxy.layers.http", "HttpStream.send_response", "c2af2f99548c24e1", "SafeHttpStream extends it"),
    ("mitmproxy.proxy.layers.http", "HttpStream.flow_done", "f04929d962deba7b", "SafeHttpStream replaces it for upgrades"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.check_invalid",
        "2cc8ddcbbd199bd8",
        "a refused head has its error before requestheaders",
    ),
    ("mitmproxy.proxy.layers.http", "HttpStream.check_killed", "4cec665b2f0dc0f0", "SafeHttpStream extends it"),
    ("mitmproxy.proxy.layers.http", "HttpStream.handle_protocol_error", "0dbef15c4f5bfb6c", "SafeHttpStream extends it"),
    ("mitmproxy.proxy.layers.http", "HttpStream.passthrough", "bb9cf66dca902e10", "carries upgraded connections"),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.handle_connect",
        "358403d78ff55c78",
        "the http_connect hook may refuse in mitmdump",
    ),
    (
        "mitmproxy.proxy.layers.http",
        "HttpStream.handle_connect_finish",
        "c3212b251fe1ac98",
        "a refusal keeps the connection in mitmdump",
    ),
    ("mitmproxy.proxy.layers.http._events", "ErrorCode", "b0ab2fe20d6fbbb7", "decides the status of an error page"),
    (
        "mitmproxy.proxy.layers.http._http1",
        "Http1Connection",
        "c0675638b0756013",
        "SafeHttp1Server and SafeHttp1Client extend it",
    ),
    ("mitmproxy.proxy.layers.http._http1", "Http1Server", "cc8428d0bb6f79a5", "SafeHttp1Server extends it"),
    ("mitmproxy.proxy.layers.http._http1", "Http1Client", "706b7a68f2809929", "SafeHttp1Client extends it"),
    ("mitmproxy.proxy.layers.http._http1", "make_error_response", "03ce75ab62e8e78b", "error_response replaces it"),
    (
        "mitmproxy.proxy.layers.http._http2",
        "Http2Connection.handle_h2_event",
        "a2463afad6ddeedc",
        "documents what a GOAWAY does",
    ),
    (
        "mitmproxy.proxy.layers.http._http_h2",
        "BufferedH2Connection",
        "f983b7220f47b60a",
        "SafeHandler bounds its stream_buffers",
    ),
    ("mitmproxy.net.http.http1.assemble", "assemble_response", "9755d0fe9526ce96", "makes the bytes of refusals"),
    ("mitmproxy.net.http.http1.assemble", "assemble_response_head", "ce2b0b0a77f3d7e0", "makes the bytes of interim responses"),
    ("mitmproxy.net.http.http1.read", "expected_http_body_size", "bf258f07286cf770", "decides how a body is framed"),
    (
        "mitmproxy.addons.tlsconfig",
        "TlsConfig.tls_start_client",
        "5a4450541a6971d7",
        "leaves a connection alone whose ssl_conn is set (mitmdump)",
    ),
    (
        "mitmproxy.addons.tlsconfig",
        "TlsConfig.tls_start_server",
        "f50195b910bd7a25",
        "leaves a connection alone whose ssl_conn is set (mitmdump)",
    ),
    ("mitmproxy.addons.next_layer", "NextLayer.next_layer", "ef0abaf5cb153546", "leaves a layer alone that is set (mitmdump)"),
    ("h11._readers", "ChunkedReader", "4d2629eeaaf366b6", "reads chunks and trailers"),
    ("h11._receivebuffer", "ReceiveBuffer", "108c4355eb3b1717", "is what heads are bounded in"),
]


@pytest.mark.parametrize(("module", "symbol", "digest", "reliance"), CONTRACT, ids=[f"{row[0]}.{row[1]}" for row in CONTRACT])
def test_a_symbol_we_rely_on_is_as_it_was_read(module, symbol, digest, reliance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mitmproxy's addons use deprecated names of pyparsing
        found = importlib.import_module(module)
    for name in symbol.split("."):
        found = getattr(found, name)
        if getattr(found, "__module__", "") == safe_layers.__name__:
            found = found.__mro__[1]  # `install` has replaced it in this process
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(found)))
    assert hashlib.sha256(source.encode()).hexdigest().startswith(digest), f"{module}.{symbol} changed; it {reliance}"


def test_the_pinned_version_is_installed():
    # 12.3.x signs leaves with the key of a public CA when an option is set.
    assert importlib.metadata.version("mitmproxy") == "12.2.3"


def test_no_option_gives_away_a_key_of_a_public_ca():
    assert not [name for name in Options().keys() if "emudhra" in name]  # noqa: SIM118  (no dict)


def test_our_options_for_layers_are_those_that_mitmproxy_registers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mitmproxy.addons.proxyserver import Proxyserver

    registered = {}

    class Loader:
        def add_option(self, name, typespec, default, *_, **__):
            registered[name] = (typespec, default)

    Proxyserver().load(Loader())
    assert {name: registered[name] for name, _, _ in LAYER_OPTIONS} == {
        name: (kind, default) for name, kind, default in LAYER_OPTIONS
    }
    # The one that layers do not read.
    assert registered.keys() - {name for name, _, _ in LAYER_OPTIONS} == {"connect_addr"}


def test_the_names_we_replace_are_those_that_layers_look_up():
    safe_layers.install()
    names = http_layers.HttpLayer._handle_event.__code__.co_names
    assert "Http1Server" in names
    assert "HttpStream" in http_layers.HttpLayer.make_stream.__code__.co_names
    client = inspect.unwrap(http_layers.HttpClient._handle_event)
    assert "Http1Client" in client.__code__.co_names
    assert http_layers.HttpLayer._handle_event.__globals__["Http1Server"] is safe_layers.SafeHttp1Server
    assert client.__globals__["Http1Client"] is safe_layers.SafeHttp1Client
    assert http_layers.HttpLayer.make_stream.__globals__["HttpStream"] is safe_layers.SafeHttpStream


@pytest.mark.parametrize(
    "name",
    [
        "SSL_get0_param",
        "X509_VERIFY_PARAM_set_hostflags",
        "X509_VERIFY_PARAM_set1_host",
        "X509_VERIFY_PARAM_set1_ip",
        "X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS",
        "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT",
    ],
)
def test_pyopenssl_still_has_the_calls_that_check_a_host_name(name):
    assert hasattr(SSL._lib, name)
