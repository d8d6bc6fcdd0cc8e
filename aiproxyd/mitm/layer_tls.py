"""TLS for mitmproxy's layers, as an addon: our leaves to clients, strict verification to providers.

The relay has `tls.py`; this is the same for pyOpenSSL, which mitmproxy's layers speak.

Facts about mitmproxy 12.2.3: its own `TlsConfig` uses the CA's private key as the key of every leaf, imports key and certificate for
every connection, and never resumes a session with a server. It leaves a connection alone whose `ssl_conn` is set, which is what
happens here; so this addon works before or without it.

Fails closed: verification of a provider's certificate cannot be turned off, and a context that cannot be made fails the connection.
"""
# mypy: disallow-untyped-calls=False

import ipaddress
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import certifi
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy import connection as mitm
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData, TlsData
from OpenSSL import SSL, crypto

from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tls import Leaves
from aiproxyd.model.observation import ClientTlsFailed, ConnectionSecured, UpstreamTlsFailed

# A context is about 60 KiB; some tens of hosts are decrypted, patterns may match more.
MAX_CLIENT_CONTEXTS = 256

# A session is a few KiB; one a provider host and protocol offer is kept.
MAX_SESSIONS = 256

# What a failed handshake's message is cut to.
MAX_DETAIL_CHARACTERS = 200

type _SessionKey = tuple[str, int, bool]
"""Host, port, and whether HTTP/2 was offered."""

_HTTP1 = b"http/1.1"
_HTTP2 = b"h2"

# Words that OpenSSL's messages hold, most telling first; see the `reason` of the observations.
_CLIENT_REASONS = (
    ("unknown ca", "unknown_ca"),
    ("certificate unknown", "bad_certificate"),
    ("bad certificate", "bad_certificate"),
    ("connection closed", "closed"),
    ("disconnected during", "closed"),
    ("Cannot parse ClientHello", "protocol"),
    ("version", "protocol"),
    ("cipher", "protocol"),
    ("wrong", "protocol"),
)
_UPSTREAM_REASONS = (
    ("hostname mismatch", "hostname"),
    ("IP address mismatch", "hostname"),
    ("certificate has expired", "expired"),
    ("Certificate verify failed", "untrusted"),
    ("connection closed", "closed"),
)


class LayerTlsSettings(msgspec.Struct, frozen=True):
    """What the TLS contexts are made from. Read once."""

    http2: bool = False
    """Whether HTTP/2 may be negotiated."""
    trust: str = "certifi"
    """Roots that a provider's certificate must lead to: `certifi` or `system`."""
    trusted_ca_file: Path | None = None
    """PEM of further roots."""


class _Watched(NamedTuple):
    """A client connection that is decrypted."""

    host: str
    """Of its CONNECT."""
    provider: str
    since: float
    """By the clock of durations."""


class LayerTls:
    """Gives mitmproxy's TLS layers their OpenSSL connections, and tells of failed handshakes."""

    name = "aiproxyd_tls"

    def __init__(self, leaves: Leaves, settings: LayerTlsSettings, reporter: Reporter) -> None:
        self.late: set[str] = set()
        """Ids of connections whose handshake was ended because it took too long."""
        self._watched: dict[str, _Watched] = {}
        self._leaves = leaves
        self._settings = settings
        self._reporter = reporter
        self._client_contexts: OrderedDict[str, tuple[bytes, SSL.Context]] = OrderedDict()
        self._server_context: SSL.Context | None = None
        self._sessions: OrderedDict[_SessionKey, SSL.Session] = OrderedDict()
        self._open: dict[str, tuple[_SessionKey, SSL.Connection]] = {}

    def watch(self, client_id: str, host: str, provider: str) -> None:
        """Speak TLS for a client connection until it ends.

        Args:
            client_id: mitmproxy's id of the client connection.
            host: What its CONNECT named: the name of our leaf and of the provider's certificate, whatever the SNI.
            provider: Name of the provider, for observations.
        """
        self._watched[client_id] = _Watched(host, provider, self._reporter.monotonic())

    def forget(self, client_id: str) -> None:
        """Drop what is known of a client connection."""
        self.late.discard(client_id)
        self._watched.pop(client_id, None)

    def client_disconnected(self, client: mitm.Client) -> None:
        """Drop what is known of a client connection."""
        self.forget(client.id)

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Have the provider's handshake done first: its protocol is offered to the client, and its failure known in time."""
        if data.context.client.id in self._watched:
            data.establish_server_tls_first = True

    def tls_start_client(self, data: TlsData) -> None:
        """Present a leaf of the host that was asked for in the CONNECT, whatever the SNI."""
        watched = self._watched.get(data.context.client.id)
        if data.ssl_conn is not None or watched is None:
            return
        connection = SSL.Connection(self._client_context(watched.host), None)
        connection.set_app_data(data.context.server.alpn)
        connection.set_accept_state()
        data.ssl_conn = connection

    def tls_start_server(self, data: TlsData) -> None:
        """Ask for the certificate of the host that was asked for in the CONNECT."""
        assert isinstance(data.conn, mitm.Server)
        watched = self._watched.get(data.context.client.id)
        if data.ssl_conn is not None or watched is None or data.conn.address is None:
            return
        connection = SSL.Connection(self._upstream_context(), None)
        data.conn.sni = watched.host
        _expect_host(connection, watched.host)
        offers_http2 = self._settings.http2 and _HTTP2 in data.context.client.alpn_offers
        data.conn.alpn_offers = [_HTTP2, _HTTP1] if offers_http2 else [_HTTP1]
        connection.set_alpn_protos(list(data.conn.alpn_offers))
        connection.set_connect_state()
        session = self._sessions.get((watched.host, data.conn.address[1], offers_http2))
        if session is not None:
            connection.set_session(session)
        data.ssl_conn = connection

    def tls_established_server(self, data: TlsData) -> None:
        """Remember the connection: TLS 1.3 gives the session that may be resumed only after the handshake."""
        assert isinstance(data.conn, mitm.Server)
        if data.ssl_conn is not None and data.conn.address is not None and data.context.client.id in self._watched:
            key = (data.conn.sni or "", data.conn.address[1], _HTTP2 in data.conn.alpn_offers)
            self._open[data.conn.id] = (key, data.ssl_conn)

    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """Keep the session for the next connection."""
        self.late.discard(data.server.id)
        key, connection = self._open.pop(data.server.id, (None, None))
        if key is None or connection is None:
            return
        session = connection.get_session()
        # OpenSSL spoils the session of a connection that it frees while it takes it for open.
        connection.set_shutdown(SSL.SENT_SHUTDOWN)
        if session is not None:
            self._sessions[key] = session
            self._sessions.move_to_end(key)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def tls_established_client(self, data: TlsData) -> None:
        """Tell that both sides speak TLS; the provider's handshake was first."""
        watched = self._watched.get(data.context.client.id)
        if watched is not None and data.context.server.tls_established:
            self._reporter.tell(
                ConnectionSecured(
                    at=self._reporter.now(),
                    provider=watched.provider,
                    seconds=round(self._reporter.monotonic() - watched.since, 6),
                )
            )

    def tls_failed_client(self, data: TlsData) -> None:
        """Tell that a client did not complete TLS with us."""
        watched = self._watched.get(data.context.client.id)
        if watched is None:
            return
        reason = "timeout" if data.conn.id in self.late else _reason(data.conn.error, _CLIENT_REASONS)
        self._reporter.tell(
            ClientTlsFailed(
                at=self._reporter.now(),
                host=watched.host,
                reason=reason,
                detail=(data.conn.error or "")[:MAX_DETAIL_CHARACTERS],
            )
        )

    def tls_failed_server(self, data: TlsData) -> None:
        """Tell that a provider's certificate was not accepted, or that TLS with it failed."""
        watched = self._watched.get(data.context.client.id)
        if watched is None:
            return
        self._reporter.tell(
            UpstreamTlsFailed(
                at=self._reporter.now(),
                host=watched.host,
                provider=watched.provider,
                reason="timeout" if data.conn.id in self.late else _reason(data.conn.error, _UPSTREAM_REASONS),
                detail=(data.conn.error or "")[:MAX_DETAIL_CHARACTERS],
            )
        )

    def _client_context(self, host: str) -> SSL.Context:
        chain = self._leaves.pem_chain(host)
        kept = self._client_contexts.get(host)
        if kept is not None and kept[0] is chain:
            self._client_contexts.move_to_end(host)
            return kept[1]
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        leaf, *issuers = x509.load_pem_x509_certificates(chain)
        key = serialization.load_pem_private_key(self._leaves.key_pem, None)
        context.use_certificate(leaf)
        for issuer in issuers:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(key)  # type: ignore[arg-type]  # the kinds of keys a leaf can have are among the accepted
        context.set_session_id(host.encode()[:32])
        context.set_alpn_select_callback(self._select_alpn)
        self._client_contexts[host] = (chain, context)
        if len(self._client_contexts) > MAX_CLIENT_CONTEXTS:
            self._client_contexts.popitem(last=False)
        return context

    def _select_alpn(self, connection: SSL.Connection, offers: list[bytes]) -> Any:
        # The same protocol on both sides: what mitmproxy translates between them is where its faults are.
        if self._settings.http2 and connection.get_app_data() == _HTTP2 and _HTTP2 in offers:
            return _HTTP2
        return _HTTP1 if _HTTP1 in offers else SSL.NO_OVERLAPPING_PROTOCOLS

    def _upstream_context(self) -> SSL.Context:
        if self._server_context is None:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_min_proto_version(SSL.TLS1_2_VERSION)
            context.set_options(SSL.OP_NO_RENEGOTIATION)
            context.set_verify(SSL.VERIFY_PEER)
            # Sessions are kept here, by host and offer, not in the context.
            context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT | SSL.SESS_CACHE_NO_INTERNAL)
            if self._settings.trust == "system":
                context.set_default_verify_paths()
            else:
                context.load_verify_locations(certifi.where())
            if self._settings.trusted_ca_file is not None:
                context.load_verify_locations(str(self._settings.trusted_ca_file))
            store = context.get_cert_store()
            assert store is not None
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an operator may trust an intermediate
            self._server_context = context
        return self._server_context


def _expect_host(connection: SSL.Connection, host: str) -> None:
    # pyOpenSSL has no public way to name the expected host; mitmproxy uses the same calls.
    lib: Any = SSL._lib  # type: ignore[attr-defined]  # noqa: SLF001
    parameters = lib.SSL_get0_param(connection._ssl)  # noqa: SLF001
    lib.X509_VERIFY_PARAM_set_hostflags(
        parameters, lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
    )
    try:
        address = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("ascii")
        connection.set_tlsext_host_name(name)
        done = lib.X509_VERIFY_PARAM_set1_host(parameters, name, len(name))
    else:
        # RFC 6066 §3: an address is no host name, so there is no SNI.
        done = lib.X509_VERIFY_PARAM_set1_ip(parameters, address, len(address))
    if done != 1:
        raise crypto.Error("the expected host cannot be set")


def _reason(message: str | None, words: tuple[tuple[str, str], ...]) -> str:
    return next((reason for word, reason in words if word in (message or "")), "other")
