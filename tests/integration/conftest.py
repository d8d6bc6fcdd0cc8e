"""Daemons that several stories share, one an engine; a story that needs its own makes it with `own_daemon`."""

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider
from tests.support.origins import Origin, receive_all, send_pattern

ENGINES = ("relay", "mitmproxy")

type DaemonMaker = Callable[..., Daemon]


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProvider]:
    """The fake provider of all stories, HTTP/1.1."""
    with FakeProvider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


def _echo(connection: Any) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def _answer_after_the_end(connection: Any) -> None:
    # What git and rsync do: the answer begins when the question has ended.
    size, digest = receive_all(connection)
    connection.sendall(f"{size} {digest}".encode())


def _send_what_is_asked(connection: Any) -> None:
    size = int(connection.makefile("rb").readline())
    send_pattern(connection, size)


def _speak_first(connection: Any) -> None:
    connection.sendall(b"220 welcome\r\n")
    _echo(connection)


@pytest.fixture(scope="session")
def origins() -> Iterator[dict[str, Origin]]:
    """Origins behind tunnels, by host name."""
    made = {
        "echo.example.com": Origin(_echo),
        "sink.example.com": Origin(_answer_after_the_end),
        "source.example.com": Origin(_send_what_is_asked),
        "greeter.example.com": Origin(_speak_first),
    }
    with contextlib.ExitStack() as stack:
        for origin in made.values():
            stack.enter_context(origin)
        yield made


@pytest.fixture(scope="session")
def shared_daemons(
    tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, origins: dict[str, Origin]
) -> Iterator[Callable[[str], Daemon]]:
    """Returns the shared daemon of an engine, started when it is first asked for."""
    hosts = {host: f"127.0.0.1:{origin.port}" for host, origin in origins.items()}
    started: dict[str, Daemon] = {}
    with contextlib.ExitStack() as stack:

        def daemon_of(engine: str) -> Daemon:
            if engine not in started:
                config = {"decrypt": {"engine": engine}, "egress": {"hosts": hosts}}
                daemon = Daemon(tmp_path_factory.mktemp(engine), provider, config=config)
                started[engine] = stack.enter_context(daemon)
            return started[engine]

        yield daemon_of


@pytest.fixture(params=ENGINES)
def daemon(request: pytest.FixtureRequest, shared_daemons: Callable[[str], Daemon]) -> Daemon:
    """A shared daemon, of each engine in turn: for stories about decrypted traffic."""
    return shared_daemons(request.param)


@pytest.fixture
def relay_daemon(shared_daemons: Callable[[str], Daemon]) -> Daemon:
    """The shared daemon of the default engine: for stories about tunnels and CONNECT."""
    return shared_daemons("relay")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, for stories with a daemon of their own."""
    return str(request.param)


@pytest.fixture
def own_daemon(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[DaemonMaker]:
    """Makes daemons of the test's own, started unless `start=False`, and stops them after the test."""
    with contextlib.ExitStack() as stack:

        def make(*, start: bool = True, **arguments: Any) -> Daemon:
            daemon = Daemon(tmp_path_factory.mktemp("daemon"), provider, **arguments)
            if start:
                stack.enter_context(daemon)
            else:
                stack.callback(daemon.kill_everything)
            return daemon

        yield make


_numbers = itertools.count()


@pytest.fixture
def model() -> str:
    """A model name that no other test uses; add `+key=value` for a pace script."""
    return f"fake-{uuid.uuid4().hex[:8]}-{next(_numbers)}"


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], None]:
    """Sends every tool of this process through a daemon, by environment variables alone."""

    def set_environment(daemon: Daemon) -> None:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, daemon.client_environment()[name])

    return set_environment
