"""Where clients arrive, from inherited sockets, and everybody who is connected, until the last one left.

One connection's way from its head to a tunnel, a relay or a refusal is in `inbound`. Not a place of decisions: verdicts come from
the engine's addons, addresses are checked by `egress`.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Protocol

import msgspec

from aiproxyd.classify import ProviderStatus, ProviderTable
from aiproxyd.config.schema import Config
from aiproxyd.mitm.bridge import Bridge
from aiproxyd.mitm.courier import Courier
from aiproxyd.mitm.deadlines import Deadlines
from aiproxyd.mitm.decrypted import DecryptedConnection, Tap
from aiproxyd.mitm.egress import Egress
from aiproxyd.mitm.gateway_router import Authenticator, GatewayRouter
from aiproxyd.mitm.inbound import Inbound
from aiproxyd.mitm.listener import Listener
from aiproxyd.mitm.pair import Pair
from aiproxyd.mitm.refusals import RefusalLog
from aiproxyd.mitm.relay import Relay
from aiproxyd.mitm.relay_settings import RelaySettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.route import Router
from aiproxyd.mitm.routers import ConnectRouter
from aiproxyd.mitm.tls import ClientContexts, UpstreamTls, client_failure
from aiproxyd.mitm.tunnel import PipePool, Tunnel
from aiproxyd.mitm.turns import Turns
from aiproxyd.model.authority import Authority
from aiproxyd.model.head import Headers
from aiproxyd.model.observation import TunnelClosed
from aiproxyd.model.principal import is_session
from aiproxyd.model.verdict import Verdict
from aiproxyd.upstream import Upstreams

log = logging.getLogger(__name__)

# Of which it is known whom they were about. More within the time of one dial end connections of others that are just beginning.
_REMEMBERED_REVOCATIONS = 256


class Decision(Protocol):
    """What is to happen with a CONNECT: `engine.Decision` has it."""

    @property
    def verdict(self) -> Verdict: ...
    @property
    def response(self) -> bytes | None: ...
    @property
    def authority(self) -> Authority | None: ...


class Decider(Protocol):
    """Who decides, and carries what the relay does not: `engine.Engine` does."""

    async def decide(
        self, authority_text: str, headers: Headers, client: tuple[str, int], *, method: str = "CONNECT"
    ) -> Decision: ...

    async def serve(self, client: socket.socket, upstream: socket.socket, connection: DecryptedConnection) -> None: ...


class FrontSettings(msgspec.Struct, frozen=True):
    """What a connection depends on besides its verdict. Swapped whole at a reload."""

    max_head_bytes: int = 65536
    head_timeout_seconds: float = 30.0
    """From the connection, or the last answer, to the end of a head."""
    tunnel_idle_timeout_seconds: float = 3600.0
    relay: RelaySettings = RelaySettings()
    uses_mitmproxy: bool = False
    """Whether decrypted connections are carried by mitmproxy's layers: because `decrypt.engine` says so, or for HTTP/2."""

    @classmethod
    def of(cls, config: Config) -> "FrontSettings":
        """Return the settings that `config` holds."""
        return cls(
            max_head_bytes=config.decrypt.max_head_bytes,
            head_timeout_seconds=config.decrypt.head_timeout_seconds,
            tunnel_idle_timeout_seconds=config.egress.tunnel_idle_timeout_seconds,
            relay=RelaySettings.of(config),
            uses_mitmproxy=config.decrypt.engine == "mitmproxy" or config.decrypt.http2,
        )


class Front:
    """A worker's listeners and connections. Belongs to the running loop."""

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        *,
        tls_sockets: Iterable[socket.socket] = (),
        listener_context: ssl.SSLContext | None = None,
        engine: Decider,
        egress: Egress,
        reporter: Reporter,
        tap: Tap,
        client_contexts: ClientContexts,
        upstream_tls: UpstreamTls,
        providers: ProviderTable,
        settings: FrontSettings,
        upstreams: Upstreams | None = None,
        gateway_sockets: Iterable[socket.socket] = (),
        authenticator: Authenticator | None = None,
        is_refusing: Callable[[], bool] = lambda: False,
        tick_seconds: float = 1.0,
    ) -> None:
        """Prepare; nothing is accepted before `start`.

        Args:
            sockets: Bound and listening; they are made non-blocking, and are left open at the end: others may share them.
            tls_sockets: The same, for clients that speak TLS with the proxy itself.
            listener_context: For these. Assign another at a reload.
            engine: Decides about each CONNECT.
            egress: Dials.
            reporter: Is told of verdicts and ends.
            tap: Looks at decrypted requests.
            client_contexts: TLS towards clients.
            upstream_tls: TLS towards providers.
            providers: By the names that verdicts say. See `replace_providers`.
            settings: Limits. Assign others at a reload; connections that stand keep theirs.
            upstreams: What is done with requests to each provider besides forwarding them.
            gateway_sockets: As `sockets`, for clients that are given a base URL.
            authenticator: Knows these clients; None where nobody is asked for credentials. Assign another at a reload.
            is_refusing: Whether their requests are refused now, because they could not be recorded.
            tick_seconds: How exact timeouts are.
        """
        self.engine = engine
        self.egress = egress
        self.reporter = reporter
        self.tap = tap
        self.client_contexts = client_contexts
        self.upstream_tls = upstream_tls
        self.providers = providers
        self.settings = settings
        self.upstreams = upstreams or Upstreams()
        self.listener_context = listener_context
        self.authenticator = authenticator
        self.is_refusing = is_refusing
        self.deadlines = Deadlines(tick_seconds=tick_seconds)
        self.turns = Turns(reporter)
        self.is_draining = False
        self.refusals = RefusalLog()
        self._pipes = PipePool()
        self.loop = asyncio.get_running_loop()
        self._listeners = [
            *(Listener(listening, self.admit, self.loop) for listening in sockets),
            *(Listener(listening, self._admit_over_tls, self.loop) for listening in tls_sockets),
            *(Listener(listening, self._admit_to_gateway, self.loop) for listening in gateway_sockets),
        ]
        self._inbounds: set[Inbound] = set()
        # With the id of whose they are; empty where each request says it anew, or nobody does.
        self._pairs: dict[Pair | Tunnel | Courier, str] = {}
        self.revocations = 0
        """How often `revoke` was called."""
        self._revoked: deque[Collection[str]] = deque(maxlen=_REMEMBERED_REVOCATIONS)
        """How often somebody was revoked; who decides before one and connects after it decides again."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._stopped = asyncio.Event()

    def __len__(self) -> int:
        """Return how many clients are connected."""
        return len(self._inbounds) + len(self._pairs) + len(self._tasks)

    # Life

    def start(self) -> None:
        """Begin to accept."""
        for listener in self._listeners:
            listener.start()

    async def serve(self) -> None:
        """Accept until `drain` or `close`."""
        self.start()
        await self._stopped.wait()

    def drain(self) -> None:
        """Accept no more. Connections without a request close at once, the others after their answer; tunnels go on."""
        if self.is_draining:
            return
        self.is_draining = True
        for listener in self._listeners:
            listener.stop()
        self._stopped.set()
        for inbound in tuple(self._inbounds):
            inbound.drain()
        for pair in tuple(self._pairs):
            if isinstance(pair, Relay | Courier):
                pair.drain()
        self._note_if_empty()

    @property
    def own_headers(self) -> frozenset[str]:
        """Lower-case names of request fields that are meant for this proxy."""
        return self.settings.relay.own_headers

    def replace_providers(self, providers: ProviderTable) -> None:
        """Use another table, and the rules that `upstreams` has now.

        Connections whose provider is none in use any more end after the answers that are open; so do those that were carried as
        they came where something is to be changed from now on. Where a host whose bytes go on as they came has another provider
        now, as after a change of its name, further requests are that one's, and nobody is interrupted.
        """
        self.providers = providers
        for pair in tuple(self._pairs):
            if isinstance(pair, Relay):
                pair.connection = self.as_of_now(pair.connection)
                if not self.forwards(pair.connection):
                    pair.drain()
            elif (
                isinstance(pair, Courier)
                and isinstance(pair.router, ConnectRouter)
                and not self._serves(pair.router.connection)
            ):
                pair.drain()

    def forwards(self, connection: DecryptedConnection) -> bool:
        """Return whether a connection would be decrypted for the same provider again, and its bytes go on as they came."""
        return self._serves(connection) and self.upstreams.of(connection.provider.name).rules.is_plain

    def as_of_now(self, connection: DecryptedConnection) -> DecryptedConnection:
        """Return a connection with the provider that is in use for its host now; as it is when there is none."""
        provider = self.providers.claimant(connection.authority)
        if provider is None or provider.status is not ProviderStatus.ENABLED or provider.name == connection.provider.name:
            return connection
        return msgspec.structs.replace(connection, provider=provider)

    def _serves(self, connection: DecryptedConnection) -> bool:
        """Return whether a connection would be decrypted for the same provider again."""
        return self.providers.serves(connection.authority, connection.provider.name)

    def end_decrypted(self) -> None:
        """Let every decrypted connection end after the answers that are open."""
        for pair in tuple(self._pairs):
            if isinstance(pair, Relay | Courier):
                pair.drain()

    def revoke(self, holders: Collection[str]) -> None:
        """Close every connection of these at once (see `Principal`). Their open requests end as interrupted by the proxy."""
        self.revocations += 1
        self._revoked.append(holders)
        for pair, holder in tuple(self._pairs.items()):
            if self._holder_of(pair, holder) in holders:
                pair.close("revoked", reset=True)

    def was_revoked(self, holder: str, *, since: int) -> bool:
        """Return whether connections of `holder` were closed since `revocations` was `since`; True when nobody knows any more."""
        recent = self.revocations - since
        if recent > len(self._revoked):
            return True
        return any(holder in self._revoked[-number] for number in range(1, recent + 1))

    def sessions(self) -> set[str]:
        """Return the sessions that have something open here."""
        return {whose for pair, holder in self._pairs.items() if is_session(whose := self._holder_of(pair, holder))}

    @staticmethod
    def _holder_of(pair: Pair | Tunnel | Courier, holder: str) -> str:
        # On the reverse listener each request says whose it is.
        return pair.holder if isinstance(pair, Courier) and not holder else holder

    async def wait(self, timeout_seconds: float) -> bool:
        """Return whether everybody left within `timeout_seconds` after `drain`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close what is left. Requests that are open end as interrupted by the proxy."""
        self.drain()
        for inbound in tuple(self._inbounds):
            inbound.close()
        for pair in tuple(self._pairs):
            pair.close("drained", reset=True)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.deadlines.close()
        self._pipes.close()

    # Who is here

    def admit(self, connection: socket.socket, client: tuple[str, int], received: bytes = b"") -> None:
        """Await a request on a client's connection.

        Args:
            connection: Non-blocking.
            client: Its address and port.
            received: What was read from it already.
        """
        if self.is_draining:
            connection.close()
            return
        inbound = Inbound(connection, client, self)
        self._inbounds.add(inbound)
        inbound.begin(received)

    def _admit_over_tls(self, connection: socket.socket, client: tuple[str, int]) -> None:
        """Begin TLS with a client, and await a request in it."""
        if self.is_draining or self.listener_context is None:
            connection.close()
            return

        def closed(_reason: str) -> None:
            self.leave(bridge)

        def secured(error: OSError | None) -> None:
            if error is None:
                self.admit(bridge.end, client)
            else:
                reason = f"listener_tls_{client_failure(error)}"
                self.refusals.note(client[0], reason, "the proxy itself", self.reporter.monotonic())

        bridge = Bridge(connection, deadlines=self.deadlines, on_closed=closed)
        self.keep(bridge)
        bridge.secure(self.listener_context, secured, timeout_seconds=self.settings.relay.client_tls_timeout_seconds)

    def _admit_to_gateway(self, connection: socket.socket, _client: tuple[str, int]) -> None:
        """Serve a client that was given a base URL."""
        if self.is_draining:
            connection.close()
            return
        self.courier(connection, GatewayRouter(self)).start()

    def courier(self, client: socket.socket, router: Router, holder: str = "") -> Courier:
        """Return a courier for a client's connection, which is counted among the connected until it closed.

        Args:
            client: Connected and non-blocking.
            router: Finds the route of each request.
            holder: Whose connection it is (see `Principal`); empty where each request says whose it is.
        """

        def closed(_reason: str) -> None:
            self.leave(courier)

        courier = Courier(
            client,
            router,
            tap=self.tap,
            reporter=self.reporter,
            egress=self.egress,
            upstream_tls=self.upstream_tls,
            settings=self.settings.relay,
            deadlines=self.deadlines,
            on_closed=closed,
        )
        self.keep(courier, holder)
        return courier

    def forget(self, inbound: Inbound) -> None:
        """A client's connection closed, or became a tunnel or a relay."""
        self._inbounds.discard(inbound)
        self._note_if_empty()

    def supervise(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` as a task that is kept until it ends and cancelled at `close`."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a connection was closed because its handling failed", exc_info=fault)
        self._note_if_empty()

    def keep(self, pair: Pair | Tunnel | Courier, holder: str = "") -> None:
        """Count `pair` among the connected until `leave`.

        Args:
            pair: What carries the connection.
            holder: Whose it is (see `Principal`).
        """
        self._pairs[pair] = holder

    def leave(self, pair: Pair | Tunnel | Courier) -> None:
        """`pair` closed."""
        self._pairs.pop(pair, None)
        self._note_if_empty()

    def open_tunnel(self, client: socket.socket, upstream: socket.socket, authority: Authority, holder: str = "") -> None:
        """Let the kernel move bytes between two sockets until both are done."""
        started = self.reporter.monotonic()

        def closed(reason: str) -> None:
            self.leave(tunnel)
            self.tell_tunnel_closed(tunnel, authority, reason, started)

        tunnel = Tunnel(
            client,
            upstream,
            pipes=self._pipes,
            deadlines=self.deadlines,
            idle_timeout_seconds=self.settings.tunnel_idle_timeout_seconds,
            on_closed=closed,
        )
        self.keep(tunnel, holder)

    def tell_tunnel_closed(self, pair: Pair | Tunnel, authority: Authority, reason: str, started: float) -> None:
        """Report the end of what was tunnelled.

        Args:
            pair: With the counts.
            authority: Where it led.
            reason: `eof`, `idle`, `error`, `drained` or `revoked`.
            started: By the reporter's monotonic clock.
        """
        reporter = self.reporter
        reporter.tell(
            TunnelClosed(
                at=reporter.now(),
                host=authority.host,
                port=authority.port,
                reason=reason,
                bytes_to_upstream=pair.bytes_to_upstream,
                bytes_to_client=pair.bytes_to_client,
                duration_seconds=reporter.monotonic() - started,
            )
        )

    def _note_if_empty(self) -> None:
        if self.is_draining and not len(self):
            self._emptied.set()
