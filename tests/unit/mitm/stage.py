"""A whole front on loopback, with an upstream over TLS and everything that was told: for tests that need real sockets.

Stands in for the verdict alone; addresses, TLS, relay and tunnel are the real ones.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore
from aiproxyd.classify import Provider, ProviderTable
from aiproxyd.mitm.decrypted import AbortedBy, DecryptedConnection
from aiproxyd.mitm.egress import Egress, EgressSettings
from aiproxyd.mitm.front import Front, FrontSettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tls import ClientContexts, UpstreamTls
from aiproxyd.model.authority import Authority, parse_authority
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.principal import ANONYMOUS
from aiproxyd.model.verdict import Action, Verdict
from aiproxyd.upstream import UpstreamRules, Upstreams

PROVIDER_HOST = "api.anthropic.com"
TUNNEL_HOST = "files.example.com"
REFUSED_HOST = "refused.example.com"

PROVIDER = Provider(
    name="anthropic",
    type="anthropic",
    authorities=((PROVIDER_HOST, 443),),
    endpoints=(
        Endpoint(route="/v1/messages", api="anthropic.messages"),
        Endpoint(route="/v1/models", methods=("GET",)),
        Endpoint(route="/v1/any", methods=("*",), key=True),
    ),
)

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Memory:
    """A journal that keeps observations, and can be waited on."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.flushed = 0
        self._more = asyncio.Condition()

    def append(self, observation: Any) -> None:
        self.told.append(observation)

    def flush(self) -> None:
        self.flushed = len(self.told)

    def of(self, kind: type) -> list[Any]:
        return [observation for observation in self.told if isinstance(observation, kind)]

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        """Wait for `count` observations of a kind."""
        return await until(lambda: found if len(found := self.of(kind)) >= count else None)


async def until[T](look: Callable[[], T | None], seconds: float = 10.0) -> T:
    """Return what `look` finds; it is asked at every turn of the loop."""
    async with asyncio.timeout(seconds):
        while not (found := look()):
            await asyncio.sleep(0.002)
    return found


class SeenRequest:
    """A tap's request, as a list of what it was told."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.calls: list[str] = []
        self.request = b""
        self.response = b""
        self.response_heads: list[ResponseHead] = []
        self.aborted: AbortedBy | None = None
        self.detail = ""
        self.is_over = False
        self.is_upgraded = False
        self.is_midstream = False
        self.status_code = 0
        self.carried_as: tuple[int, str, str] | None = None
        self.key_hint: str | None = None
        self.held_seconds: list[float] = []
        self.connection: DecryptedConnection | None = None

    def held(self, seconds: float) -> None:
        self.held_seconds.append(seconds)

    def _note(self, call: str) -> None:
        if not self.calls or self.calls[-1] != call:
            self.calls.append(call)

    def request_data(self, data: bytes) -> None:
        self._note("request_data")
        self.request += data

    def request_end(self) -> None:
        self._note("request_end")

    def response_head(self, head: ResponseHead, at: float | None = None) -> None:
        self._note("response_head")
        self.response_heads.append(head)

    def response_data(self, data: bytes, at: float | None = None) -> None:
        self._note("response_data")
        self.response += data

    def response_end(self, at: float | None = None) -> None:
        if not self.is_over:
            self._note("response_end")
        self.is_over = True

    def abort(self, by: AbortedBy, detail: str = "", *, status_code: int = 0) -> None:
        if not self.is_over:
            self._note("abort")
            self.aborted = by
            self.detail = detail
            self.status_code = status_code
        self.is_over = True

    @property
    def request_model(self) -> str:
        return str(json.loads(self.request).get("model", "")) if self.request.startswith(b"{") else ""

    def carried(self, attempts: int, credential_hint: str, remark: str = "") -> None:
        self.carried_as = (attempts, credential_hint, remark)

    def upgraded_request_data(self, data: bytes) -> None:
        pass

    def upgraded_response_data(self, data: bytes) -> None:
        pass

    def upgraded_end(self, by: AbortedBy, detail: str = "") -> None:
        pass

    def lose_sight(self, anomaly: str) -> None:
        if not self.is_over:
            self._note("lose_sight")
            self.detail = anomaly
        self.is_over = True


class SeeingTap:
    def __init__(self, *, is_midstream: bool = False) -> None:
        self.is_midstream = is_midstream
        self.requests: list[SeenRequest] = []
        self.on_open: Callable[[RequestHead], None] = lambda head: None

    def open(self, connection: DecryptedConnection, head: RequestHead, at: float | None = None) -> SeenRequest:
        self.on_open(head)
        seen = SeenRequest(head)
        seen.is_midstream = self.is_midstream
        seen.key_hint = connection.key_hint
        seen.connection = connection
        self.requests.append(seen)
        return seen


class Decision(NamedTuple):
    verdict: Verdict
    response: bytes | None
    authority: Authority | None


CHALLENGE = (
    b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="AI Gateway Proxy"\r\n'
    b"Content-Length: 5\r\n\r\nwho?\n"
)


class Decider:
    """Verdicts by host; asks for credentials when told to."""

    def __init__(self) -> None:
        self.needs_credentials = False
        self.asked: list[tuple[str, str]] = []

    async def decide(
        self, authority_text: str, headers: Headers, client: tuple[str, int], *, method: str = "CONNECT"
    ) -> Decision:
        self.asked.append((method, authority_text))
        authority = parse_authority(authority_text, default_port=None if method == "CONNECT" else 80)
        if self.needs_credentials and headers.first("proxy-authorization") is None:
            return Decision(Verdict(Action.REFUSE, "missing_credentials", status_code=407), CHALLENGE, authority)
        if authority.host == REFUSED_HOST:
            answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n"
            return Decision(Verdict(Action.REFUSE, "port", status_code=403), answer, authority)
        if authority.host == PROVIDER_HOST:
            return Decision(Verdict(Action.DECRYPT, "provider", principal=ANONYMOUS, provider="anthropic"), None, authority)
        return Decision(Verdict(Action.TUNNEL, "no_provider"), None, authority)

    async def serve(self, client: socket.socket, upstream: socket.socket, connection: DecryptedConnection) -> None:
        client.close()
        upstream.close()


class Stage:
    """The front and all around it."""

    def __init__(
        self,
        front: Front,
        port: int,
        gateway_port: int,
        memory: Memory,
        tap: SeeingTap,
        decider: Decider,
        ca: CertificateAuthority,
        leaves: LeafStore,
    ) -> None:
        self.front = front
        self.port = port
        self.gateway_port = gateway_port
        self.memory = memory
        self.tap = tap
        self.decider = decider
        self.leaves = leaves
        self.client_context = ssl.create_default_context(cadata=ca.trust_pem.decode())
        self.client_context.set_alpn_protocols(["http/1.1"])

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def connect(self, target: str, *, headers: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """CONNECT and expect 200."""
        reader, writer = await self.open()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return reader, writer

    async def decrypt(
        self, host: str = PROVIDER_HOST, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """CONNECT to a provider and begin TLS."""
        reader, writer = await self.connect(f"{host}:443")
        await writer.start_tls(context or self.client_context, server_hostname=host)
        return reader, writer


@contextlib.asynccontextmanager
async def stage(
    tmp_path: Path,
    handler: Handler,
    *,
    plain_handler: Handler | None = None,
    upstream_host: str = PROVIDER_HOST,
    settings: FrontSettings = FrontSettings(),
    trusted: bool = True,
    hosts: dict[str, str] | None = None,
    allowed_private_cidrs: tuple[str, ...] = (),
    tick_seconds: float = 0.02,
    tap: Any = None,
    rules: UpstreamRules | None = None,
    authenticator: Any = None,
) -> AsyncIterator[Stage]:
    """Run an upstream over TLS, one without, and a front before them."""
    handlers: set[asyncio.Task[Any]] = set()
    issuer = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(upstream_host).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    roots = tmp_path / "roots.pem"
    (issuer if trusted else trustme.CA()).cert_pem.write_to_path(roots)
    ca = CertificateAuthority.create(tmp_path / "ca")
    leaves = LeafStore(ca, 7)
    memory = Memory()
    seeing = tap if tap is not None else SeeingTap()
    decider = Decider()
    over_tls = await asyncio.start_server(_tracked(handler, handlers), "127.0.0.1", 0, ssl=context)
    plain = await asyncio.start_server(_tracked(plain_handler or handler, handlers), "127.0.0.1", 0)
    tls_port, plain_port = over_tls.sockets[0].getsockname()[1], plain.sockets[0].getsockname()[1]
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    gateway = socket.create_server(("127.0.0.1", 0), backlog=128)
    front = Front(
        [listener],
        engine=decider,
        egress=Egress(
            EgressSettings(
                connect_timeout_seconds=5,
                allowed_private_cidrs=allowed_private_cidrs,
                hosts={PROVIDER_HOST: f"127.0.0.1:{tls_port}", TUNNEL_HOST: f"127.0.0.1:{plain_port}"} | (hosts or {}),
            )
        ),
        reporter=Reporter(memory),
        tap=seeing,
        client_contexts=ClientContexts(leaves),
        upstream_tls=UpstreamTls(trusted_ca_file=roots),
        providers=ProviderTable([PROVIDER]),
        settings=settings,
        gateway_sockets=[gateway],
        authenticator=authenticator,
        upstreams=Upstreams({"anthropic": rules} if rules is not None else None),
        tick_seconds=tick_seconds,
    )
    front.start()
    try:
        yield Stage(front, listener.getsockname()[1], gateway.getsockname()[1], memory, seeing, decider, ca, leaves)
    finally:
        await front.close()
        assert len(front) == 0
        listener.close()
        gateway.close()
        for server in (over_tls, plain):
            server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def _tracked(handler: Handler, handlers: set[asyncio.Task[Any]]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        handlers.add(task)
        try:
            await handler(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the proxy left, or the test is over
        finally:
            handlers.discard(task)
            writer.close()

    return handle


async def read_response(reader: asyncio.StreamReader) -> bytes:
    """Return one response with Content-Length, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that answers each request with its own path and body."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        text = head.split(b" ")[1] + b"|" + body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close as a process that dies does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    for end in (far, near):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return far, near
