"""Two streams with TLS on both: with the client by a leaf of ours, with the provider as any client of its would.

Both handshakes run at once. One with the provider that fails does not end the connection: the client is to be told, which needs its
own handshake. What is said afterwards is `relay`'s business.
"""

import socket
import ssl
from collections.abc import Callable

from aiproxyd.mitm.deadlines import Deadline, Deadlines
from aiproxyd.mitm.decrypted import DecryptedConnection
from aiproxyd.mitm.pair import Pair
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tls import UpstreamTls, client_failure, upstream_failure
from aiproxyd.model.observation import ClientTlsFailed, ConnectionSecured, UpstreamTlsFailed

# Of an OpenSSL message that goes into an observation.
_MAX_DETAIL_CHARACTERS = 200


class SecuredPair(Pair):
    """A client's stream and a provider's, with TLS on both."""

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        connection: DecryptedConnection,
        *,
        reporter: Reporter,
        settings: RelaySettings,
        deadlines: Deadlines,
        on_closed: Callable[[str], None],
    ) -> None:
        """Take over two connected, non-blocking sockets. See `Pair`."""
        super().__init__(
            client, upstream, deadlines=deadlines, idle_timeout_seconds=settings.idle_timeout_seconds, on_closed=on_closed
        )
        self.connection = connection
        """Whose it is and where it leads. Another one counts from the next request on."""
        self._reporter = reporter
        self._settings = settings
        self._upstream_tls: UpstreamTls | None = None
        self._began_at = 0.0
        """When TLS began, by the clock of durations."""
        self._is_client_secure = False
        self._is_upstream_secure = False
        self._refusal = ""
        """Why there is no TLS with the provider; a sentence."""
        self._client_deadline: Deadline | None = None
        self._upstream_deadline: Deadline | None = None

    def secure(self, client_context: ssl.SSLContext, upstream_tls: UpstreamTls) -> None:
        """Begin TLS on both sides at once, and relay when both are done."""
        host = self.connection.authority.host
        self._began_at = self._reporter.monotonic()
        self._upstream_tls = upstream_tls
        self._client_deadline = self._deadlines.start(self._settings.client_tls_timeout_seconds, self._client_too_slow)
        self._upstream_deadline = self._deadlines.start(self._settings.upstream_tls_timeout_seconds, self._upstream_too_slow)
        self.upstream.secure(
            upstream_tls.context,
            self._upstream_secured,
            server_hostname=host,
            session=upstream_tls.session(self.connection.authority),
        )
        self.client.secure(client_context, self._client_secured, server_side=True)

    def close(self, reason: str = "drained", *, reset: bool = False) -> None:
        """See `Pair.close`."""
        for deadline in (self._client_deadline, self._upstream_deadline):
            if deadline is not None:
                deadline.cancel()
        super().close(reason, reset=reset)

    def _client_secured(self, error: OSError | None) -> None:
        if self._client_deadline is not None:
            self._client_deadline.cancel()
        if error is None:
            self._is_client_secure = True
            self._start_if_secure()
            return
        self._reporter.tell(
            ClientTlsFailed(
                at=self._reporter.now(),
                host=self.connection.authority.host,
                reason=client_failure(error),
                detail=str(error)[:_MAX_DETAIL_CHARACTERS],
            )
        )
        self.close("error")

    def _upstream_secured(self, error: OSError | None) -> None:
        if self._upstream_deadline is not None:
            self._upstream_deadline.cancel()
        if error is None:
            self._is_upstream_secure = True
        else:
            reason, sentence = upstream_failure(error)
            self._refusal = f"{self.connection.authority.host} cannot be reached safely: {sentence}"
            self._reporter.tell(
                UpstreamTlsFailed(
                    at=self._reporter.now(),
                    host=self.connection.authority.host,
                    provider=self.connection.provider.name,
                    reason=reason,
                    detail=str(error)[:_MAX_DETAIL_CHARACTERS],
                )
            )
            self.upstream.close()
        self._start_if_secure()

    def _client_too_slow(self) -> None:
        self._client_secured(TimeoutError("the client did not complete TLS in time"))

    def _upstream_too_slow(self) -> None:
        self._upstream_secured(TimeoutError("the provider did not complete TLS in time"))

    def _start_if_secure(self) -> None:
        if self._is_client_secure and (self._is_upstream_secure or self._refusal):
            if not self._refusal:
                self._reporter.tell(
                    ConnectionSecured(
                        at=self._reporter.now(),
                        provider=self.connection.provider.name,
                        seconds=round(self._reporter.monotonic() - self._began_at, 6),
                    )
                )
            self.start()
