"""TLS contexts, kept sessions, and the words for failures."""

import socket
import ssl
import threading
from pathlib import Path

import certifi
import pytest
import trustme

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore
from aiproxyd.mitm import tls
from aiproxyd.mitm.tls import ClientContexts, UpstreamTls, client_failure, upstream_failure


class Leaves:
    """Leaves that a test renews."""

    def __init__(self):
        self._ca = trustme.CA()
        self.asked = []
        self.pem = {}
        self.key_pem = b""

    def pem_chain(self, host):
        self.asked.append(host)
        if host not in self.pem:
            leaf = self._ca.issue_cert(host)
            self.key_pem = leaf.private_key_pem.bytes()
            self.pem[host] = leaf.cert_chain_pems[0].bytes()
        return self.pem[host]


def test_a_context_is_kept_until_its_leaf_is_renewed():
    leaves = Leaves()
    contexts = ClientContexts(leaves)
    first = contexts.context("a.example.com")
    assert contexts.context("a.example.com") is first
    del leaves.pem["a.example.com"]
    assert contexts.context("a.example.com") is not first


def test_the_oldest_context_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(tls, "MAX_CONTEXTS", 2)
    ca_leaves = Leaves()
    contexts = ClientContexts(ca_leaves)
    # One key for all, as a LeafStore has it.
    a = contexts.context("a.example.com")
    contexts.context("b.example.com")
    assert contexts.context("a.example.com") is a
    contexts.context("c.example.com")
    assert contexts.context("a.example.com") is a
    assert list(contexts._contexts) == ["c.example.com", "a.example.com"]


def test_a_key_passes_through_memory_alone(tmp_path, monkeypatch):
    loaded = []
    load = ssl.SSLContext.load_cert_chain
    monkeypatch.setattr(
        ssl.SSLContext, "load_cert_chain", lambda self, path: loaded.append(str(Path(path).readlink())) or load(self, path)
    )
    leaves = LeafStore(CertificateAuthority.create(tmp_path / "ca"), 7)
    before = len(list(Path("/proc/self/fd").iterdir()))
    ClientContexts(leaves).context("a.example.com")
    (where,) = loaded
    assert where.startswith("/memfd:")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_oldest_protocol_is_tls_1_2_on_both_sides():
    contexts = (ClientContexts(Leaves()).context("a.example.com"), UpstreamTls().context)
    assert [context.minimum_version for context in contexts] == [ssl.TLSVersion.TLSv1_2] * 2


def test_providers_are_always_verified():
    context = UpstreamTls().context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_roots_are_certifis_or_the_systems_and_a_file_besides(tmp_path):
    extra = tmp_path / "extra.pem"
    trustme.CA().cert_pem.write_to_path(extra)
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.load_verify_locations(certifi.where())
    known = plain.cert_store_stats()["x509_ca"]
    assert UpstreamTls().context.cert_store_stats()["x509_ca"] == known
    assert UpstreamTls(trusted_ca_file=extra).context.cert_store_stats()["x509_ca"] == known + 1
    assert UpstreamTls(trust="system", trusted_ca_file=extra).context.cert_store_stats()["x509_ca"] >= 1


def handshaken(upstream, authority, server_context):
    """Return a connection to a server that says one byte."""
    left, right = socket.socketpair()

    def serve():
        with right, server_context.wrap_socket(right, server_side=True) as server:
            server.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    connection = upstream.context.wrap_socket(left, server_hostname=authority[0], session=upstream.session(authority))
    assert connection.recv(1) == b"x"
    upstream.remember(authority, connection)
    thread.join()
    return connection


def test_a_session_is_kept_for_its_authority_alone_and_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "MAX_SESSIONS", 2)
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("a.example.com").configure_cert(context)
    roots = tmp_path / "roots.pem"
    ca.cert_pem.write_to_path(roots)
    upstream = UpstreamTls(trusted_ca_file=roots)
    first, other = ("a.example.com", 443), ("a.example.com", 444)
    assert upstream.session(first) is None
    with handshaken(upstream, first, context) as connection:
        assert not connection.session_reused
    with handshaken(upstream, first, context) as connection:
        assert connection.session_reused
    with handshaken(upstream, other, context) as connection:
        assert not connection.session_reused
    handshaken(upstream, ("a.example.com", 445), context).close()
    assert upstream.session(first) is None
    assert upstream.session(other) is not None


def test_a_connection_without_a_ticket_leaves_nothing(tmp_path):
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    ca.issue_cert("a.example.com").configure_cert(context)
    roots = tmp_path / "roots.pem"
    ca.cert_pem.write_to_path(roots)
    upstream = UpstreamTls(trusted_ca_file=roots)
    handshaken(upstream, ("a.example.com", 443), context).close()
    assert upstream.session(("a.example.com", 443)) is None


def tls_error(reason):
    error = ssl.SSLError(1, f"[SSL: {reason}] text")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "closed"),
        (ssl.SSLEOFError(8, "eof"), "closed"),
        (ssl.SSLZeroReturnError(6, "closed"), "closed"),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "unknown_ca"),
        (tls_error("SSLV3_ALERT_CERTIFICATE_UNKNOWN"), "bad_certificate"),
        (tls_error("SSLV3_ALERT_BAD_CERTIFICATE"), "bad_certificate"),
        (tls_error("HTTP_REQUEST"), "protocol"),
        (tls_error(None), "protocol"),
    ],
)
def test_what_went_wrong_with_a_client(error, word):
    assert client_failure(error) == word


def verification_error(code):
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] text")
    error.verify_code = code
    error.verify_message = "the message"
    return error


@pytest.mark.parametrize(
    ("error", "word", "sentence"),
    [
        (TimeoutError(), "timeout", "in time"),
        (ConnectionResetError(), "closed", "closed the connection"),
        (ssl.SSLEOFError(8, "eof"), "closed", "closed the connection"),
        (verification_error(10), "expired", "not valid at this time"),
        (verification_error(62), "hostname", "another name"),
        (verification_error(20), "untrusted", "the message"),
        (verification_error(26), "other", "the message"),
        (tls_error("WRONG_VERSION_NUMBER"), "other", "WRONG_VERSION_NUMBER"),
    ],
)
def test_what_went_wrong_with_a_provider(error, word, sentence):
    reason, text = upstream_failure(error)
    assert reason == word
    assert sentence in text
