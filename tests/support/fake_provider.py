"""A provider that is not there: Anthropic's and OpenAI's wire formats over real TLS under their real host names, on loopback.

Run in a thread of a test, or by hand: `python -m tests.support.fake_provider` prints a configuration for the daemon and serves
until it is interrupted. It keeps a ledger of what it answered; `GET /ledger` on its plain port shows it.
"""

import asyncio
import contextlib
import functools
import json
import ssl
import sys
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

from tests.support import http1_server
from tests.support.application import Application
from tests.support.certificates import OTHER_HOSTS, PROVIDER_HOSTS, Certificates
from tests.support.http2_server import Http2Connection
from tests.support.ledger import Ledger
from tests.support.pace import Gate

PLAIN_HOST = "plain.example.com"
"""A host that speaks HTTP without TLS."""


class FakeProvider:
    """All fake hosts, served by one thread. A context manager; `start` returns when both ports listen."""

    def __init__(self, folder: Path, *, http2: bool = False, port: int = 0, plain_port: int = 0) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            folder: Where the CA's certificate is written.
            http2: Whether clients may choose h2.
            port: For TLS; 0 takes a free one.
            plain_port: For plain HTTP; 0 takes a free one.
        """
        self.ca_file = folder / "fake-provider-roots.pem"
        self.port = port
        self.plain_port = plain_port
        self.untrusted_port = 0
        self.certificates = Certificates()
        self._http2 = http2
        self._gates: dict[str, Gate] = {}
        self._application = Application(self.gate)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def ledger(self) -> Ledger:
        """What was answered."""
        return self._application.ledger

    def gate(self, name: str) -> Gate:
        """Return the gate `name`, made when it is first asked for."""
        assert self._loop is not None
        return self._gates.setdefault(name, Gate(self._loop))

    def hosts(self) -> dict[str, str]:
        """Return the `egress.hosts` that lead the proxy here."""
        tls = dict.fromkeys((*PROVIDER_HOSTS, *OTHER_HOSTS), f"127.0.0.1:{self.port}")
        return {**tls, "untrusted.example.com": f"127.0.0.1:{self.untrusted_port}", PLAIN_HOST: f"127.0.0.1:{self.plain_port}"}

    def start(self) -> None:
        """Write the CA's certificate and listen."""
        self.certificates.write_roots(self.ca_file)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fake-provider", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close every connection and wait for the thread."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` in the provider's loop and return its result."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as exc:
            self._failure = exc
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        trusted = self._context(self.certificates.server_context(*PROVIDER_HOSTS, *OTHER_HOSTS, http2=self._http2))
        stranger = self._context(Certificates().server_context(*PROVIDER_HOSTS, *OTHER_HOSTS))
        listen = functools.partial(
            asyncio.start_server, self._connected, "127.0.0.1", limit=http1_server.MAX_HEAD_BYTES, backlog=1024
        )
        tls = await listen(port=self.port, ssl=trusted)
        untrusted = await listen(port=0, ssl=stranger)
        plain = await listen(port=self.plain_port)
        self.port, self.untrusted_port, self.plain_port = (
            server.sockets[0].getsockname()[1] for server in (tls, untrusted, plain)
        )
        ready.set()
        await self._stop.wait()
        for server in (tls, untrusted, plain):
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        def remember(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            # Server-side SSL objects do not tell which name the client asked for.
            connection.fake_provider_sni = name

        context.sni_callback = remember
        return context

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            tls = writer.get_extra_info("ssl_object")
            if tls is not None and tls.selected_alpn_protocol() == "h2":
                await Http2Connection(self._application, reader, writer, getattr(tls, "fake_provider_sni", "")).serve()
            else:
                await http1_server.serve(self._application, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)


def main() -> None:
    """Serve until interrupted."""
    with tempfile.TemporaryDirectory(prefix="fake-provider-") as folder, FakeProvider(Path(folder)) as provider:
        configuration = {"egress": {"hosts": provider.hosts(), "trusted_ca_file": str(provider.ca_file)}}
        # JSON is YAML: this can be pasted into the daemon's configuration.
        json.dump(configuration, sys.stdout, indent=2)
        sys.stdout.write("\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
