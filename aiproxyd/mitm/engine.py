"""mitmproxy as a library: its addons decide about CONNECTs, its layers carry decrypted connections that need them.

Not a proxy of its own: it has no listener (`front` accepts), resolves and dials nothing (`egress` does), and has none of mitmproxy's
default addons; those serve pages, scripts, files and credentials that a daemon must not.
"""
# mypy: disallow-untyped-calls=False

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import msgspec
from mitmproxy import connection as mitm
from mitmproxy import http
from mitmproxy.net.http.http1 import assemble_response

from aiproxyd.config.schema import Config
from aiproxyd.mitm import safe_layers
from aiproxyd.mitm.connect import AUTHORITY, VERDICT, ConnectAddon, refusal
from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection
from aiproxyd.mitm.hooks import HookTable
from aiproxyd.mitm.hop_by_hop import GOVERNANCE_HEADERS, own_headers
from aiproxyd.mitm.host import AddonHost
from aiproxyd.mitm.http_hooks import HttpHooks
from aiproxyd.mitm.layer_tls import LayerTls, LayerTlsSettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.safe_handler import HandlerSettings, Redial, SafeHandler
from aiproxyd.mitm.tap import Tap
from aiproxyd.mitm.tls import Leaves
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.head import Headers
from aiproxyd.model.verdict import Action, Verdict

log = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What is to happen with a CONNECT, and the bytes of the answer when it is refused."""

    verdict: Verdict
    response: bytes | None
    """A whole HTTP/1.1 response for REFUSE; None otherwise. The client's connection may be used again after it."""
    authority: Authority | None
    """The destination; None when the request named none."""


class EngineSettings(msgspec.Struct, frozen=True):
    """How mitmproxy's layers carry a connection. Swapped whole at a reload; `http2` and the trust are read once."""

    tls: LayerTlsSettings = LayerTlsSettings()
    handler: HandlerSettings = HandlerSettings()
    max_head_bytes: int = 65536
    """For a request or response head."""
    head_timeout_seconds: float = 30.0
    """For a head, from its first byte to its last."""
    idle_timeout_seconds: float = 3600.0
    """Without a byte in either direction."""
    own_headers: frozenset[str] = GOVERNANCE_HEADERS
    """Lower-case names of request fields that are meant for this proxy, and removed. Read once."""

    @classmethod
    def of(cls, config: Config) -> "EngineSettings":
        """Return the settings that `config` holds."""
        return cls(
            tls=LayerTlsSettings(
                http2=config.decrypt.http2, trust=config.egress.trust, trusted_ca_file=config.egress.trusted_ca_file
            ),
            handler=HandlerSettings(
                client_tls_timeout_seconds=config.decrypt.client_tls_timeout_seconds,
                upstream_tls_timeout_seconds=config.egress.tls_timeout_seconds,
            ),
            max_head_bytes=config.decrypt.max_head_bytes,
            head_timeout_seconds=config.decrypt.head_timeout_seconds,
            idle_timeout_seconds=config.decrypt.idle_timeout_seconds,
            own_headers=own_headers(config),
        )


class Engine:
    """The addons of a worker, and mitmproxy's machinery for them."""

    def __init__(
        self,
        connect: ConnectAddon,
        *,
        tap: Tap,
        leaves: Leaves,
        reporter: Reporter,
        redial: Redial | None = None,
        addons: Iterable[object] = (),
        settings: EngineSettings = EngineSettings(),
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            connect: The addon that gives a CONNECT its verdict.
            tap: Sees the requests of the connections that `serve` carries.
            leaves: Certificates for clients.
            reporter: Told of handshakes that fail.
            redial: Dials an authority again, its address checked, when a provider closed its connection between two requests.
            addons: Further mitmproxy addons, called after ours.
            settings: See there.
        """
        self._connect = connect
        self._http = HttpHooks(tap, settings.own_headers)
        self._tls = LayerTls(leaves, settings.tls, reporter)
        self._new_id = reporter.new_id
        self._redial = redial
        self._addons = tuple(addons)
        self._settings = settings
        self._host: AddonHost | None = None
        self._hooks: HookTable | None = None
        self._handlers: dict[str, SafeHandler] = {}
        self._connections: dict[str, DecryptedConnection] = {}
        self._is_closing = False

    @property
    def settings(self) -> EngineSettings:
        """The settings in use. Assign others to change them all at once, for connections that begin then."""
        return self._settings

    @settings.setter
    def settings(self, settings: EngineSettings) -> None:
        self._settings = settings
        if self._host is not None:
            self._host.options.update(**_options(settings))

    @property
    def connections(self) -> int:
        """How many connections `serve` carries right now."""
        return len(self._handlers)

    async def start(self) -> None:
        """Load the addons. Call once, on the loop that will serve."""
        safe_layers.install()
        self._host = AddonHost(self._connect, self._http, self._tls, *self._addons, **_options(self._settings))
        self._hooks = HookTable(self._host.addons)
        await self._host.running()

    def drain(self) -> None:
        """Close what is idle at once, and each other connection after its response."""
        self._is_closing = True
        self._http.is_draining = True
        for handler in list(self._handlers.values()):
            handler.drain()

    def retire(
        self,
        stays: Callable[[DecryptedConnection], bool],
        as_of_now: Callable[[DecryptedConnection], DecryptedConnection] = lambda connection: connection,
    ) -> None:
        """Close the connections of which `stays` says no, each after its response; the others are what `as_of_now` makes of them."""
        for id_, handler in list(self._handlers.items()):
            connection = self._connections[id_] = as_of_now(self._connections[id_])
            self._http.renew(id_, connection)
            if not stays(connection):
                handler.drain()

    def revoke(self, holders: Collection[str]) -> None:
        """Close every connection of these at once (see `Principal`)."""
        for id_, handler in list(self._handlers.items()):
            if self._connections[id_].principal.holder in holders:
                handler.abort()

    def sessions(self) -> set[str]:
        """Return the sessions that have a connection here."""
        return {session for id_ in self._handlers if (session := self._connections[id_].principal.session)}

    async def close(self) -> None:
        """Close every connection and tell the addons that it is over."""
        self._is_closing = True
        for handler in list(self._handlers.values()):
            handler.abort()
        if self._host is not None:
            host, self._host = self._host, None
            await host.done()

    async def decide(
        self,
        authority_text: str,
        headers: Headers,
        client: tuple[str, int],
        *,
        method: str = "CONNECT",
    ) -> Decision:
        """Return what the addons' `http_connect` hooks say about a CONNECT.

        Fails closed: when a hook raises, takes too long or leaves no verdict, the decision is to refuse with 503.

        Args:
            authority_text: The request target of a CONNECT; the authority of a plain request in absolute form.
            headers: Header fields of the request.
            client: Address and port of the client.
            method: Another method than CONNECT marks a plain `http://` request to be forwarded.
        """
        flow = _connect_flow(authority_text, headers, client, method, self._new_id)
        assert self._hooks is not None, "the engine is not started"
        try:
            pending = self._hooks.run("http_connect", flow)
            if pending is not None:
                await pending
        except Exception:
            # The hook boundary: what a policy raises is never a yes.
            log.exception("a CONNECT is refused because an addon failed")
            return self._failed(flow)
        return self._decision(flow)

    async def serve(
        self, client: socket.socket, upstream: socket.socket, connection: DecryptedConnection, *, received: bytes = b""
    ) -> None:
        """Carry a decrypted connection until it ends: TLS to both sides, HTTP/1.1 or HTTP/2, the tap fed.

        Both sockets belong to this call and are closed when it returns or is cancelled. Raises nothing.

        Args:
            client: Non-blocking; the 200 of its CONNECT was sent.
            upstream: Non-blocking and connected to an address that was checked.
            connection: Whose it is and where to; its id is not in use.
            received: What the client sent after its CONNECT and was read already.
        """
        assert self._host is not None, "the engine is not started"
        assert self._hooks is not None
        if self._is_closing:
            client.close()
            upstream.close()
            return
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        if received:
            reader.feed_data(received)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(lambda: protocol, sock=client)
        except BaseException:
            client.close()
            upstream.close()
            raise
        handler = SafeHandler(
            reader,
            asyncio.StreamWriter(transport, protocol, reader, loop),
            upstream,
            connection.authority,
            connection_id=connection.id,
            options=self._host.options,
            hooks=self._hooks,
            tls=self._tls,
            redial=self._redial,
            ended=lambda: self._http.forget(connection.id, AbortedBy.PROXY, "the proxy closed the connection"),
            settings=self._settings.handler,
        )
        self._handlers[connection.id] = handler
        self._connections[connection.id] = connection
        self._http.watch(connection.id, connection)
        self._tls.watch(connection.id, connection.authority.host, connection.provider.name)
        try:
            await handler.run()
        finally:
            self._http.forget(connection.id, AbortedBy.CLIENT, "the client left")
            self._tls.forget(connection.id)
            del self._handlers[connection.id], self._connections[connection.id]

    def _decision(self, flow: http.HTTPFlow) -> Decision:
        verdict = flow.metadata.get(VERDICT)
        authority = flow.metadata.get(AUTHORITY)
        response = flow.response
        if response is not None and not 200 <= response.status_code < 300:
            if not isinstance(verdict, Verdict) or verdict.action is not Action.REFUSE:
                verdict = Verdict(Action.REFUSE, "addon", status_code=response.status_code, message="refused by an addon")
            return Decision(verdict, assemble_response(response), authority)
        if flow.error is not None or not isinstance(verdict, Verdict) or verdict.action is Action.REFUSE or authority is None:
            # Killed by an addon, nobody's verdict, or a refusal whose answer somebody took away.
            return self._failed(flow)
        return Decision(verdict, None, authority)

    def _failed(self, flow: http.HTTPFlow) -> Decision:
        message = "this proxy met an error of its own and refuses what it cannot decide"
        verdict = Verdict(Action.REFUSE, "internal", status_code=503, message=message)
        response = assemble_response(refusal(verdict, realm=self._connect.settings.realm))
        return Decision(verdict, response, flow.metadata.get(AUTHORITY))


def _options(settings: EngineSettings) -> dict[str, object]:
    return {
        "http2": settings.tls.http2,
        "http3": False,
        # A ping a minute would keep a connection from ever being idle.
        "http2_ping_keepalive": 0,
        "rawtcp": False,
        "tcp_timeout": max(1, round(settings.idle_timeout_seconds)),
        "upstream_cert": False,
        safe_layers.MAX_HEAD_BYTES_OPTION: settings.max_head_bytes,
        safe_layers.HEAD_TIMEOUT_OPTION: max(1, round(settings.head_timeout_seconds)),
    }


# What a CONNECT's flow begins as. Copies skip mitmproxy's constructors, which look at every field and ask the kernel for three ids:
# they would be a tenth of what a CONNECT costs.
_REQUEST = http.Request(
    host="",
    port=0,
    method=b"CONNECT",
    scheme=b"",
    authority=b"",
    path=b"",
    http_version=b"HTTP/1.1",
    headers=http.Headers(),
    content=b"",
    trailers=None,
    timestamp_start=0.0,
    timestamp_end=0.0,
)
_CLIENT = mitm.Client(peername=("", 0), sockname=("", 0), timestamp_start=0.0, state=mitm.ConnectionState.OPEN)
_SERVER = mitm.Server(address=("", 0))
_FLOW = http.HTTPFlow(_CLIENT, _SERVER, live=True)


def _like[Message](prototype: Message, **changes: object) -> Message:
    """Return a copy of an object of mitmproxy's with some fields changed. What the fields hold is shared."""
    made = object.__new__(type(prototype))
    made.__dict__.update(prototype.__dict__, **changes)
    return made


def _connect_flow(
    authority_text: str, headers: Headers, client: tuple[str, int], method: str, new_id: Callable[[], str]
) -> http.HTTPFlow:
    try:
        host, port = parse_authority(authority_text, default_port=None if method == "CONNECT" else 80)
    except ValueError:
        host, port = "", 0  # the connect addon refuses it
    at = time.time()
    data = _like(
        _REQUEST.data,
        host=host,
        port=port,
        method=method.encode("latin-1", "replace"),
        authority=authority_text.encode("utf-8", "surrogateescape"),
        headers=http.Headers([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]),
        timestamp_start=at,
        timestamp_end=at,
    )
    return _like(
        _FLOW,
        id=new_id(),
        client_conn=_like(_CLIENT, id=new_id(), peername=client, timestamp_start=at),
        server_conn=_like(_SERVER, id=new_id(), address=(host, port)),
        timestamp_created=at,
        metadata={},
        request=_like(_REQUEST, data=data),
    )
