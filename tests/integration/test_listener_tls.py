"""`https://` proxy URLs: clients that speak TLS with the proxy itself, around tunnels and around decrypted traffic."""

import contextlib
import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
import trustme

from tests.integration.conftest import ENGINES, DaemonMaker
from tests.integration.test_curl import body, curl
from tests.support.clients import message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import PLAIN_HOST, FakeProvider
from tests.support.origins import Origin

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

NAMES = ("127.0.0.1", "::1", "localhost")


class Front:
    """A daemon with a TLS listener, and the files of its certificate."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "proxy-roots.pem"
        self.cert_file = folder / "proxy.pem"
        self.key_file = folder / "proxy.key"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.renew()

    daemon: Daemon

    def renew(self) -> None:
        """Write another certificate."""
        leaf = self.authority.issue_cert(*NAMES)
        self.cert_file.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        self.key_file.write_bytes(leaf.private_key_pem.bytes())

    @property
    def config(self) -> dict[str, object]:
        return {
            "listen_tls": {"listen": ["127.0.0.1:0"], "cert_file": str(self.cert_file), "key_file": str(self.key_file)},
            "decrypt": {"client_tls_timeout_seconds": 5},
        }

    def proxy_url(self, user: str = "alice") -> str:
        return f"https://{user}:{user}-token@{self.daemon.listen_tls}"

    def curl_arguments(self) -> list[str]:
        return ["--proxy", self.proxy_url(), "--proxy-cacert", str(self.ca_file)]

    def connect(self) -> ssl.SSLSocket:
        """Return a connection with TLS and nothing said in it."""
        host, _, port = self.daemon.listen_tls.rpartition(":")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return context.wrap_socket(socket.create_connection((host, int(port)), timeout=30), server_hostname=host)


@pytest.fixture(scope="module", params=ENGINES)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, origins: dict[str, Origin]
) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("tls")
    front = Front(folder)
    config = front.config
    config["decrypt"] = {"engine": request.param, "client_tls_timeout_seconds": 2}
    config["egress"] = {"hosts": {host: f"127.0.0.1:{origin.port}" for host, origin in origins.items()}}
    with Daemon(folder / "daemon", provider, config=config) as front.daemon:
        yield front


@needs_curl
def test_listener_tls_works_for_tunnel_and_mitm(front: Front, provider: FakeProvider, model: str) -> None:
    tunnelled = curl(
        *front.curl_arguments(), "--cacert", str(provider.ca_file), "-d", "12345", "https://files.example.com/thing"
    )
    assert tunnelled.returncode == 0, tunnelled.stderr
    assert json.loads(tunnelled.stdout)["received"] == 5
    decrypted = curl(
        *front.curl_arguments(),
        *("--cacert", str(front.daemon.ca_file), "-N", "--compressed", "-d", body(model, stream=True)),
        "https://api.anthropic.com/v1/messages",
    )
    assert decrypted.returncode == 0, decrypted.stderr
    assert decrypted.stdout.endswith('data: {"type":"message_stop"}\n\n')
    assert_matches(front.daemon.record(model), provider.ledger.one(model), prompt="Hi")


@needs_curl
def test_plain_http_is_forwarded_for_clients_that_speak_tls_with_the_proxy(
    front: Front, provider: FakeProvider, model: str
) -> None:
    done = curl(*front.curl_arguments(), "-d", "payload", f"http://{PLAIN_HOST}/thing?pace={model}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["received"] == len("payload")


@pytest.mark.parametrize("stream", [False, True])
def test_httpx_speaks_tls_in_tls(front: Front, provider: FakeProvider, model: str, stream: bool) -> None:
    proxy = httpx.Proxy(front.proxy_url(), ssl_context=ssl.create_default_context(cafile=str(front.ca_file)))
    trust = ssl.create_default_context(cafile=str(front.daemon.ca_file))
    with httpx.Client(proxy=proxy, verify=trust) as client:
        for number in range(3):
            content = message(f"{model}-{number}", "Hi", stream=stream)
            assert client.post("https://api.anthropic.com/v1/messages", content=content).status_code == 200
    assert len({entry.connection for entry in provider.ledger.entries(model)}) == 1
    for record, entry in zip(front.daemon.records(model, count=3), provider.ledger.entries(model), strict=True):
        assert_matches(record, entry, prompt="Hi")


def test_requests_speaks_tls_in_tls(front: Front, provider: FakeProvider, model: str, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(front.ca_file.read_bytes() + front.daemon.ca_file.read_bytes())
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"https": front.proxy_url("bob")}
        session.verify = str(both)
        answer = session.post("https://api.anthropic.com/v1/messages", data=message(model, "Hi"), timeout=30)
    assert answer.status_code == 200
    record = front.daemon.record(model)
    assert record["initiator"]["name"] == "bob"
    assert_matches(record, provider.ledger.one(model), prompt="Hi")


def test_a_large_body_and_a_large_answer_pass_unchanged(front: Front, provider: FakeProvider, model: str) -> None:
    proxy = httpx.Proxy(front.proxy_url(), ssl_context=ssl.create_default_context(cafile=str(front.ca_file)))
    trust = ssl.create_default_context(cafile=str(front.daemon.ca_file))
    content = message(model, "x" * 8_000_000)
    with httpx.Client(proxy=proxy, verify=trust, timeout=60) as client:
        assert client.post("https://api.anthropic.com/v1/messages", content=content).status_code == 200
    assert provider.ledger.one(model).request_bytes == len(content)


def test_a_tunnel_carries_bytes_both_ways_at_once(front: Front) -> None:
    piece = bytes(range(256)) * 4096
    with front.connect() as wire:
        wire.sendall(
            b"CONNECT echo.example.com:443 HTTP/1.1\r\nHost: echo.example.com\r\n"
            b"Proxy-Authorization: Basic YWxpY2U6YWxpY2UtdG9rZW4=\r\n\r\n"
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += wire.recv(1)
        assert answer.startswith(b"HTTP/1.1 200")
        for _ in range(8):
            wire.sendall(piece[:65536])
            received = b""
            while len(received) < 65536:
                received += wire.recv(65536)
            assert received == piece[:65536]


def test_credentials_are_asked_for_inside_of_tls(front: Front) -> None:
    with front.connect() as wire:
        wire.sendall(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 407 ")


def test_the_listener_without_tls_stands_beside_it(front: Front, model: str) -> None:
    trust = ssl.create_default_context(cafile=str(front.daemon.ca_file))
    with httpx.Client(proxy=front.daemon.proxy_url(), verify=trust) as client:
        assert client.post("https://api.anthropic.com/v1/messages", content=message(model)).status_code == 200


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01", b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n\r\n"])
def test_a_client_that_does_not_complete_tls_is_closed(front: Front, first: bytes) -> None:
    host, _, port = front.daemon.listen_tls.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall(first)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in wire.recv(65536)


@needs_curl
def test_the_certificate_is_read_again_at_a_reload_and_a_bad_one_is_not_used(
    own_daemon: DaemonMaker, tmp_path: Path, provider: FakeProvider, model: str
) -> None:
    front = Front(tmp_path)
    front.daemon = own_daemon(config=front.config)
    with front.connect() as standing:
        first = standing.getpeercert(binary_form=True)

        def shown() -> bytes | None:
            with front.connect() as wire:
                return wire.getpeercert(binary_form=True)

        assert shown() == first
        front.renew()  # the daemon notices by itself
        eventually(lambda: shown() != first, "the new certificate")
        second = shown()
        front.key_file.write_bytes(b"nonsense")
        front.daemon.reload()
        front.daemon.wait_for_log("configuration not reloaded")
        assert shown() == second
        standing.sendall(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert standing.recv(65536).startswith(b"HTTP/1.1 407 ")


def test_the_proxy_may_listen_with_tls_alone(own_daemon: DaemonMaker, tmp_path: Path, model: str) -> None:
    front = Front(tmp_path)
    front.daemon = own_daemon(config={"listen": [], **front.config})
    assert front.daemon.command("env", "--user", "alice", "--token", "alice-token", "--shell", "json").stdout.count(
        "https://alice"
    )


@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_construction_tls_cert_without_key_key_without_cert(own_daemon: DaemonMaker, tmp_path: Path, missing: str) -> None:
    front = Front(tmp_path)
    config = front.config
    del config["listen_tls"][missing]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="cert_file and key_file go together"):
        own_daemon(config=config, start=False).start()


def test_construction_invalid_listener_tls_files(own_daemon: DaemonMaker, tmp_path: Path) -> None:
    front = Front(tmp_path)
    front.cert_file.write_text("no certificate")
    daemon = own_daemon(config=front.config, start=False)
    with pytest.raises(RuntimeError, match=r"listen_tls: .*proxy\.pem and .* cannot be used"):
        daemon.start()
    assert "FAILED" in daemon.command("check", check=False).stdout.upper()
