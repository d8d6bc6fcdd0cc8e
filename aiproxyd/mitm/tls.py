"""TLS contexts and the words for what goes wrong with them. Bytes are moved by `stream`, leaves are made in `ca.leaves`.

Client side: one context a host with the leaf of the CONNECT's host, whatever the SNI: the client asked for that host, and the
leaf of another one would let a client reach a provider under a name that was never decided about.
Upstream side: one context for all hosts. Verification is always on; there is no switch.
"""

import os
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import certifi

from aiproxyd.exceptions import CertificateError

# An SSL_CTX with its leaf is about 50 KiB, so the cache stays below 13 MiB.
MAX_CONTEXTS = 256

# A session is about 4 KiB with the certificate chain it keeps.
MAX_SESSIONS = 512


class Leaves(Protocol):
    """Where leaves come from: `ca.leaves.LeafStore` has it."""

    key_pem: bytes

    def pem_chain(self, host: str) -> bytes:
        """Return the leaf of `host` and its chain; the same object until it is renewed."""


class ClientContexts:
    """Server-side contexts that show the leaves of decrypted hosts to clients."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._contexts: OrderedDict[str, tuple[bytes, ssl.SSLContext]] = OrderedDict()

    def context(self, host: str) -> ssl.SSLContext:
        """Return the context for clients that asked for `host`.

        Raises:
            CertificateError: The CA cannot sign for this host.
        """
        pem_chain = self._leaves.pem_chain(host)
        known = self._contexts.get(host)
        if known is not None and known[0] is pem_chain:
            self._contexts.move_to_end(host)
            return known[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # Tickets stay on, so that a client's next connection is resumed. One suffices: each connection brings the next.
        context.num_tickets = 1
        _load(context, self._leaves.key_pem + pem_chain)
        self._contexts[host] = (pem_chain, context)
        self._contexts.move_to_end(host)
        if len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context


def listener_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return the server-side context of listeners that speak TLS themselves.

    Raises:
        CertificateError: The files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1
    try:
        # An empty password, or OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as exc:
        why = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
        raise CertificateError(f"listen_tls: {cert_file} and {key_file} cannot be used: {why}") from exc
    return context


def proxy_context(trust: str, ca_file: Path | None) -> ssl.SSLContext:
    """Return the client-side context for an upstream proxy.

    Args:
        trust: See `UpstreamTls`.
        ca_file: PEM of further roots.

    Raises:
        CertificateError: The file cannot be used.
    """
    try:
        return _trusting_context(trust, ca_file)
    except (OSError, ValueError) as exc:
        why = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
        raise CertificateError(f"egress.upstream_proxy_ca_file: {ca_file} cannot be used: {why}") from exc


def _trusting_context(trust: str, ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an operator may trust an intermediate
    context.set_alpn_protocols(["http/1.1"])
    if trust == "system":
        context.load_default_certs()
    else:
        context.load_verify_locations(certifi.where())
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class UpstreamTls:
    """The client-side context for providers, and the sessions that were agreed on with them."""

    def __init__(self, *, trust: str = "certifi", trusted_ca_file: Path | None = None) -> None:
        """Load the roots.

        Args:
            trust: `certifi`, or `system` for the operating system's roots.
            trusted_ca_file: PEM of further roots.
        """
        self.context = _trusting_context(trust, trusted_ca_file)
        self._sessions: OrderedDict[tuple[str, int], ssl.SSLSession] = OrderedDict()

    def session(self, authority: tuple[str, int]) -> ssl.SSLSession | None:
        """Return a session to resume with `authority`, or None. OpenSSL itself leaves out one that is too old."""
        return self._sessions.get(authority)

    def remember(self, authority: tuple[str, int], connection: ssl.SSLSocket) -> None:
        """Keep the session of `connection`. Call it after data arrived: TLS 1.3 sends tickets after the handshake.

        A session that was resumed is kept as it is: to take a new one out of OpenSSL is a round trip through DER (0.15 ms), and a
        server that takes each ticket once says so by not resuming.
        """
        if connection.session_reused:
            return
        session = connection.session
        if session is None or not session.has_ticket:
            return
        self._sessions[authority] = session
        self._sessions.move_to_end(authority)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)


def client_failure(error: OSError) -> str:
    """Return the bounded word for a handshake that a client did not complete."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed"
    reason = error.reason or ""
    if "UNKNOWN_CA" in reason:
        return "unknown_ca"
    if "ALERT" in reason and "CERTIFICATE" in reason:
        return "bad_certificate"
    return "protocol"


# OpenSSL's X509_V_ERR_…: what is wrong with a chain that it cannot follow to a root we trust.
_UNTRUSTED = frozenset({2, 18, 19, 20, 21, 24, 27})
_EXPIRED = frozenset({9, 10})
_HOSTNAME = frozenset({62, 64})


def upstream_failure(error: OSError) -> tuple[str, str]:
    """Return the bounded word for a handshake with a provider that failed, and a sentence for the client."""
    if isinstance(error, TimeoutError):
        return "timeout", "it did not complete TLS in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _EXPIRED:
            return "expired", "its certificate is not valid at this time"
        if error.verify_code in _HOSTNAME:
            return "hostname", "its certificate is for another name"
        word = "untrusted" if error.verify_code in _UNTRUSTED else "other"
        return word, f"its certificate is not trusted ({error.verify_message})"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed", "it closed the connection during TLS"
    return "other", f"TLS failed ({error.reason or 'unknown reason'})"


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    # The ssl module loads from paths alone; a file in memory keeps the key off every disk.
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
