"""A provider that does as it is told byte by byte, an engine, and clients whose connections it serves. No front, no daemon."""

import asyncio
import contextlib
import functools
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trustme

from aiproxyd.ca.authority import CertificateAuthority
from aiproxyd.ca.leaves import LeafStore
from aiproxyd.classify import Provider, ProviderTable
from aiproxyd.mitm.connect import ConnectAddon, ConnectSettings
from aiproxyd.mitm.decrypted import DecryptedConnection, TapSettings
from aiproxyd.mitm.engine import Engine, EngineSettings
from aiproxyd.mitm.layer_tls import LayerTlsSettings
from aiproxyd.mitm.report import Reporter
from aiproxyd.mitm.tap import Tap
from aiproxyd.model.authority import Authority
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.observation import Observation
from aiproxyd.model.principal import Principal, id_of_name

HOST = "api.openai.com"
ADA = Principal(id=id_of_name("ada"), name="ada")
PROVIDER = Provider(
    name="openai",
    type="openai",
    authorities=((HOST, 443),),
    endpoints=(Endpoint(route="/v1/chat/completions", api="openai.chat_completions"),),
)

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Long enough for a busy machine, short enough to fail in good time. Nothing passes because of it.
PATIENCE_SECONDS = 20


@functools.cache
def own_ca() -> CertificateAuthority:
    return CertificateAuthority.create(Path(tempfile.mkdtemp(prefix="aiproxyd-ca-")))


@functools.cache
def provider_ca() -> trustme.CA:
    return trustme.CA()


class ListJournal:
    """Keeps observations in memory and lets a test wait for one."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self._arrived = asyncio.Event()

    def append(self, observation: Observation) -> None:
        self.observations.append(observation)
        self._arrived.set()

    def flush(self) -> None:
        pass

    async def wait_for[T](self, kind: type[T]) -> T:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := self.all(kind)):
                self._arrived.clear()
                await self._arrived.wait()
        return found[0]

    def all[T](self, kind: type[T]) -> list[T]:
        return [observation for observation in self.observations if isinstance(observation, kind)]


class Rig:
    """One engine between clients of our CA and a scripted provider."""

    def __init__(self, engine: Engine, journal: ListJournal, port: int) -> None:
        self.engine = engine
        self.journal = journal
        self.dialled = 0
        self.served: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self._port = port

    async def dial(self, authority: Authority) -> socket.socket:
        assert authority == (HOST, 443)
        self.dialled += 1
        upstream = socket.socket()
        upstream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(upstream, ("127.0.0.1", self._port))
        return upstream

    async def raw_client(
        self, *, received: bytes = b"", upstream: socket.socket | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the client's end of a connection that the engine serves from now on; TLS is up to the test."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            accepted, _ = await loop.sock_accept(listener)
        self.writers.append(writer)
        connection = DecryptedConnection(
            id=f"connection-{len(self.served)}", authority=Authority(HOST, 443), provider=PROVIDER, principal=ADA
        )
        upstream = upstream or await self.dial(connection.authority)
        self.served.append(loop.create_task(self.engine.serve(accepted, upstream, connection, received=received)))
        return reader, writer

    async def client(self, *alpn: str, trusting: bool = True) -> "Client":
        """Return a client that completed TLS with our leaf."""
        context = ssl.create_default_context(cadata=own_ca().trust_pem.decode() if trusting else None)
        context.set_alpn_protocols(list(alpn or ("http/1.1",)))
        reader, writer = await self.raw_client()
        await writer.start_tls(context, server_hostname=HOST)
        return Client(reader, writer)

    async def all_served(self) -> None:
        """Wait until every connection has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*self.served)


class Client:
    """A client's connection in plain text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def tls(self) -> ssl.SSLObject:
        return self.writer.get_extra_info("ssl_object")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Return everything until the connection ends, however it ends."""
        parts = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(OSError, ssl.SSLError):
                while data := await self.reader.read(65536):
                    parts.append(data)
        return b"".join(parts)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def rig(
    script: Script,
    *,
    addons: tuple[object, ...] = (),
    alpn: tuple[str, ...] = ("http/1.1",),
    settings: EngineSettings | None = None,
    http2: bool = False,
    trusted: bool = True,
    provider_name: str = HOST,
) -> AsyncIterator[Rig]:
    """Run an engine in front of a provider that speaks TLS and does what `script` says for each connection."""
    scripts: set[asyncio.Task[None]] = set()

    async def run_script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        scripts.add(task)
        try:
            # A proxy that is told to close may do so in the middle of anything.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await script(reader, writer)
        finally:
            writer.close()
            scripts.discard(task)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    provider_ca().issue_cert(provider_name).configure_cert(context)
    context.set_alpn_protocols(list(alpn))
    server = await asyncio.start_server(run_script, "127.0.0.1", 0, ssl=context)
    journal = ListJournal()
    reporter = Reporter(journal)
    with tempfile.TemporaryDirectory() as folder:
        roots = Path(folder) / "roots.pem"
        provider_ca().cert_pem.write_to_path(str(roots))
        tls = LayerTlsSettings(http2=http2, trusted_ca_file=roots if trusted else None)
        settings = settings or EngineSettings()
        settings = EngineSettings(
            tls=tls,
            handler=settings.handler,
            max_head_bytes=settings.max_head_bytes,
            head_timeout_seconds=settings.head_timeout_seconds,
            idle_timeout_seconds=settings.idle_timeout_seconds,
        )

        async def redial(authority: Authority) -> socket.socket:
            return await running.dial(authority)

        engine = Engine(
            ConnectAddon(Nobody(), ConnectSettings(providers=ProviderTable([PROVIDER]), auth_mode="off")),
            tap=Tap(reporter, TapSettings()),
            leaves=LeafStore(own_ca(), 7),
            reporter=reporter,
            redial=redial,
            addons=addons,
            settings=settings,
        )
        await engine.start()
        running = Rig(engine, journal, server.sockets[0].getsockname()[1])
        try:
            yield running
        finally:
            await engine.close()
            await asyncio.wait_for(asyncio.gather(*running.served, return_exceptions=True), PATIENCE_SECONDS)
            for writer in running.writers:
                writer.transport.abort()
            server.close()
            for task in list(scripts):
                task.cancel()
            await asyncio.gather(*scripts, return_exceptions=True)
            await server.wait_closed()


class Nobody:
    async def authenticate(self, credential: str) -> None:
        return None
