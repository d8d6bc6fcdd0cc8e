"""Each file of `addons/` in a real mitmdump, with a client before it and the fake provider behind it."""

import contextlib
import hashlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from tests.support.clients import credentials
from tests.support.daemon import ROOT, eventually, plain_environment
from tests.support.fake_provider import PLAIN_HOST, FakeProvider
from tests.support.origins import Origin

URL = "https://api.openai.com/v1/chat/completions"
TOKEN = "alice-token"


class Mitmdump:
    """A mitmdump with one of our scripts. A context manager."""

    def __init__(self, script: str, folder: Path, provider: FakeProvider, hosts: dict[str, str], **config: Any) -> None:
        self.folder = folder
        self.ca_file = folder / "data" / "ca" / "ca-cert.pem"
        self.port = 0
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        self._config = folder / "config.yaml"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "data_dir": str(folder / "data"),
                    "auth": {"users": [{"name": "alice", "token_sha256": digest}]},
                    "egress": {"hosts": provider.hosts() | hosts, "trusted_ca_file": str(provider.ca_file)},
                    **config,
                }
            )
        )
        self._script = script
        self._log = (folder / "mitmdump.log").open("w+")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("mitmdump")),
                *("--listen-host", "127.0.0.1", "-p", "0", "--set", f"confdir={self.folder / 'mitmproxy'}"),
                *("-s", str(ROOT / "addons" / self._script)),
            ],
            env=plain_environment(AIPROXYD_CONFIG=str(self._config), PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore"),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        listening = eventually(
            lambda: re.search(r"listening at 127\.0\.0\.1:(\d+)", self.output) or self._process.poll() is not None,
            "mitmdump to listen",
            60,
        )
        assert listening is not True, self.output
        self.port = int(listening[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()

    def stop(self) -> None:
        """Interrupt it and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    @property
    def output(self) -> str:
        """All that it printed."""
        return Path(self._log.name).read_text()

    def url(self, user: str | None = "alice") -> str:
        """Return what a client sets as its proxy."""
        return f"http://{user + ':' + TOKEN + '@' if user else ''}127.0.0.1:{self.port}"

    def client(self, user: str | None = "alice", *, ca_file: Path | None = None) -> httpx.Client:
        """Return a client that goes through it."""
        trust = ssl.create_default_context(cafile=str(ca_file or self.ca_file))
        return httpx.Client(proxy=self.url(user), verify=trust, timeout=30)

    def connect(self, authority: str, headers: str = "") -> tuple[socket.socket, bytes]:
        """Return a connection and the head of the answer to its CONNECT."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n".encode())
        return connection, _head(connection)

    def journal(self) -> list[dict[str, Any]]:
        """Return the observations so far."""
        files = sorted((self.folder / "data" / "journal").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines() if line]

    def observed(self, kind: str) -> dict[str, Any]:
        """Return the first observation of a kind, waiting for it."""
        found: dict[str, Any] = eventually(lambda: next((o for o in self.journal() if o["o"] == kind), None), kind)
        return found


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(1)
        if not data:
            break
        head += data
    return head


def _body(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hi"}],
    }


@pytest.fixture(scope="module")
def hosts(origins: dict[str, Origin]) -> dict[str, str]:
    return {host: f"127.0.0.1:{origin.port}" for host, origin in origins.items()}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, hosts: dict[str, str]) -> Iterator[Mitmdump]:
    with Mitmdump("full.py", tmp_path_factory.mktemp("full"), provider, hosts) as mitmdump:
        yield mitmdump


@pytest.fixture(scope="module")
def observe(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, hosts: dict[str, str]) -> Iterator[Mitmdump]:
    providers = [{"name": "openai", "type": "openai"}, {"name": "off", "type": "anthropic", "enabled": False}]
    with Mitmdump("observe.py", tmp_path_factory.mktemp("observe"), provider, hosts, providers=providers) as mitmdump:
        yield mitmdump


@pytest.fixture(scope="module")
def enforce(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, hosts: dict[str, str]) -> Iterator[Mitmdump]:
    with Mitmdump("enforce.py", tmp_path_factory.mktemp("enforce"), provider, hosts) as mitmdump:
        yield mitmdump


# full.py


def test_full_decrypts_streams_and_records_a_request(full: Mitmdump, provider: FakeProvider, model: str) -> None:
    with full.client() as client, client.stream("POST", URL, json=_body(model)) as response:
        raw = b"".join(response.iter_raw())
    entry = provider.ledger.one(model)
    assert hashlib.sha256(raw).hexdigest() == entry.response_sha256
    started = full.observed("interception_started")
    assert (started["principal_name"], started["provider"], started["host"]) == ("alice", "openai", "api.openai.com")
    assert full.observed("interception_described")["prompt"] == "Hi"
    assert full.observed("interception_ended")["outcome"] == "completed"
    decided = next(each for each in full.journal() if each["o"] == "connect_decided" and each["action"] == "decrypt")
    assert (decided["status_code"], decided["host"]) == (200, "api.openai.com")
    assert TOKEN not in json.dumps(full.journal())


def test_full_asks_for_credentials_and_keeps_the_connection(full: Mitmdump) -> None:
    connection, head = full.connect("api.openai.com:443")
    with connection:
        assert head.startswith(b"HTTP/1.1 407 ")
        assert b'proxy-authenticate: Basic realm="AI Gateway Proxy"'.lower() in head.lower()
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        assert b"aiproxyd" in connection.recv(length, socket.MSG_WAITALL)
        connection.sendall(
            b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n" % credentials("alice").encode()
        )
        assert _head(connection).startswith(b"HTTP/1.1 200 ")


def test_full_refuses_a_port_and_tells_of_it(full: Mitmdump) -> None:
    connection, head = full.connect("example.com:22", f"Proxy-Authorization: {credentials('alice')}\r\n")
    connection.close()
    assert head.startswith(b"HTTP/1.1 403 ")
    eventually(lambda: [o for o in full.journal() if o["o"] == "connect_decided" and o["reason"] == "port"], "the refusal")


def test_full_tunnels_what_no_provider_claims(full: Mitmdump) -> None:
    connection, head = full.connect("greeter.example.com:443", f"Proxy-Authorization: {credentials('alice')}\r\n")
    with connection:
        assert head.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\x16\x03\x01anything at all")
        assert connection.recv(13, socket.MSG_WAITALL) == b"220 welcome\r\n"
        assert connection.recv(18, socket.MSG_WAITALL) == b"\x16\x03\x01anything at all"


def test_full_blocks_private_addresses_without_showing_them(full: Mitmdump) -> None:
    connection, head = full.connect("127.0.0.1:443", f"Proxy-Authorization: {credentials('alice')}\r\n")
    with connection:
        assert head.startswith(b"HTTP/1.1 502 ")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        assert connection.recv(length, socket.MSG_WAITALL) == b"aiproxyd: 127.0.0.1 cannot be reached from this proxy\n"
        # And what was decided about it holds for nothing that follows on this connection.
        connection.sendall(b"GET http://example.com:22/ HTTP/1.1\r\nHost: example.com:22\r\n\r\n")
        assert _head(connection).startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 407 "))


def test_full_does_not_talk_to_a_provider_that_cannot_prove_itself(full: Mitmdump, provider: FakeProvider, model: str) -> None:
    with contextlib.ExitStack() as stack:
        folder = full.folder / "untrusted"
        folder.mkdir()
        hosts = {"api.openai.com": provider.hosts()["untrusted.example.com"]}
        mitmdump = stack.enter_context(Mitmdump("full.py", folder, provider, hosts))
        with mitmdump.client() as client:
            response = client.post(URL, json=_body(model))
        assert response.status_code == 502
        assert mitmdump.observed("upstream_tls_failed")["reason"] == "untrusted"
        assert mitmdump.observed("interception_ended")["outcome"] == "upstream_error"
    assert not provider.ledger.entries(model)


def test_full_has_the_rules_of_a_tunnel_for_plain_requests(full: Mitmdump) -> None:
    url = f"http://{PLAIN_HOST}/"
    with full.client() as client:
        assert client.get(url).status_code != 407
        assert client.get("http://example.com:22/").status_code == 403
        assert client.get("http://api.openai.com:443/").status_code == 403
    with full.client(user=None) as client:
        response = client.get(url)
        assert response.status_code == 407
        assert "aiproxyd" in response.text


def test_full_passes_trailers(full: Mitmdump, model: str) -> None:
    # mitmproxy by itself would leave the client waiting.
    body = json.dumps(_body(model + "+trailers=1")).encode()
    connection, _ = full.connect("api.openai.com:443", f"Proxy-Authorization: {credentials('alice')}\r\n")
    context = ssl.create_default_context(cafile=str(full.ca_file))
    with context.wrap_socket(connection, server_hostname="api.openai.com") as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        received = b""
        while b"\r\n0\r\n" not in received or not received.endswith(b"\r\n\r\n"):
            data = client.recv(65536)
            assert data, received[-200:]
            received += data
    assert received.endswith(b"0\r\nX-Trailer-0: value 0\r\n\r\n")


# observe.py


def test_observe_records_without_credentials(observe: Mitmdump, provider: FakeProvider, model: str) -> None:
    with observe.client(user=None) as client:
        assert client.post(URL, json=_body(model)).status_code == 200
    started = observe.observed("interception_started")
    assert started["principal_name"] == "anonymous"
    assert observe.observed("interception_ended")["outcome"] == "completed"


def test_observe_refuses_nothing(observe: Mitmdump, origins: dict[str, Origin], provider: FakeProvider) -> None:
    port = origins["echo.example.com"].port
    connection, head = observe.connect(f"127.0.0.1:{port}")
    with connection:
        assert head.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
    # A provider that is switched off is a host like any other here: its own certificate is seen.
    with observe.client(user=None, ca_file=provider.ca_file) as client:
        assert client.get("https://api.anthropic.com/").status_code < 500


# enforce.py


def test_enforce_decides_and_decrypts_nothing(enforce: Mitmdump, provider: FakeProvider, model: str) -> None:
    with enforce.client(ca_file=provider.ca_file) as client:
        assert client.post(URL, json=_body(model)).status_code == 200
    assert provider.ledger.one(model)
    assert not (enforce.folder / "data").exists()


@pytest.mark.parametrize(
    ("authority", "user", "status"),
    [("api.openai.com:443", None, 407), ("example.com:22", "alice", 403), ("127.0.0.1:443", "alice", 502)],
)
def test_enforce_refuses(enforce: Mitmdump, authority: str, user: str | None, status: int) -> None:
    connection, head = enforce.connect(authority, f"Proxy-Authorization: {credentials(user)}\r\n" if user else "")
    connection.close()
    assert head.startswith(b"HTTP/1.1 %d " % status)


# show_events.py


def test_show_events_prints_what_the_provider_says(
    tmp_path: Path, provider: FakeProvider, hosts: dict[str, str], model: str
) -> None:
    with Mitmdump("show_events.py", tmp_path, provider, hosts) as mitmdump:
        with mitmdump.client(user=None) as client:
            assert client.post(URL, json=_body(model)).status_code == 200
        eventually(lambda: "openai.chat_completions  end:" in mitmdump.output, "the end of the response")
        assert re.search(r"openai\.chat_completions  text, \d+ characters", mitmdump.output)
        assert "openai.chat_completions  usage:" in mitmdump.output
    assert not list((tmp_path / "data").glob("journal/*"))


# All of them


@pytest.mark.parametrize("script", ["full.py", "observe.py", "enforce.py", "show_events.py"])
def test_a_broken_configuration_ends_mitmdump_instead_of_leaving_an_open_proxy(script: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("auth: {mode: maybe}\n")
    process = subprocess.run(
        [
            str(Path(sys.executable).with_name("mitmdump")),
            "-p",
            "0",
            "--set",
            f"confdir={tmp_path}",
            "-s",
            str(ROOT / "addons" / script),
        ],
        env=plain_environment(AIPROXYD_CONFIG=str(config)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode != 0
    assert "auth.mode" in process.stdout + process.stderr


@pytest.mark.parametrize("script", sorted((ROOT / "addons").glob("*.py")), ids=lambda path: path.name)
def test_an_addon_file_is_a_short_composition(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) < 40
    assert f"-s addons/{script.name}" in text
    assert "class " not in text
