"""CONNECT: who may go where, and what a person or an agent reads when it may not."""

import json
import socket
import time

import pytest

from tests.support.clients import Answer, Wire, credentials, message
from tests.support.daemon import Daemon
from tests.support.fake_provider import PLAIN_HOST, FakeProvider

pytestmark = pytest.mark.usefixtures("origins")

REFUSED = "coder_ai_gateway_proxy_connect_refused_total"


def connect(daemon: Daemon, authority: str, **options) -> Answer:
    with Wire(daemon) as wire:
        return wire.connect(authority, **options)


def assert_readable(answer: Answer, *words: str) -> None:
    """A refusal is short plain text with the facts a reader needs."""
    text = answer.body.decode()
    assert answer.header("content-type").startswith("text/plain")
    assert 0 < len(text) < 1000
    for word in words:
        assert word in text, text


def test_the_first_connect_without_credentials_succeeds_with_them_on_the_same_connection(
    relay_daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    with Wire(relay_daemon) as wire:
        first = wire.connect("api.anthropic.com:443", user=None)
        assert first.status == 407
        assert first.header("proxy-authenticate") == 'Basic realm="AI Gateway Proxy"'
        assert_readable(first)
        wrong = wire.connect("api.anthropic.com:443", token="wrong")
        assert wrong.status == 407
        assert wire.connect("api.anthropic.com:443").status == 200
        wire.start_tls("api.anthropic.com", relay_daemon.ca_file)
        answer = wire.request("POST", "/v1/messages", "api.anthropic.com", message(model))
        assert answer is not None
        assert answer.status == 200
    assert relay_daemon.record(model)["initiator"]["name"] == "alice"


def test_auth_valid_passes(relay_daemon: Daemon) -> None:
    for host in ("api.anthropic.com", "echo.example.com"):
        assert connect(relay_daemon, f"{host}:443", user="alice", token="alice-token").status == 200


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("", id="missing"),
        pytest.param("Proxy-Authorization: Basic !!!not-base64\r\n", id="invalid base64"),
        pytest.param("Proxy-Authorization: Basic YWxpY2U6\r\n", id="empty token"),
    ],
)
@pytest.mark.parametrize("host", ["api.anthropic.com", "echo.example.com"])
def test_auth_missing_invalid_base64_and_empty_token_get_407_with_realm_and_body(
    relay_daemon: Daemon, host: str, field: str
) -> None:
    with Wire(relay_daemon) as wire:
        wire.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{field}\r\n".encode())
        answer = wire.read_answer()
    assert answer.status == 407
    assert answer.header("proxy-authenticate") == 'Basic realm="AI Gateway Proxy"'
    assert_readable(answer)


@pytest.mark.parametrize(
    "proof",
    [
        "Basic",
        "Basic !!!",
        "Basic YWxpY2U=",
        "Bearer wrong-token",
        "Basic " + "A" * 20000,
        credentials("alice", "ALICE-TOKEN"),
        credentials("alice", "wrong:colon"),
    ],
)
def test_wrong_credentials_get_407(relay_daemon: Daemon, proof: str) -> None:
    with Wire(relay_daemon) as wire:
        wire.send(f"CONNECT api.anthropic.com:443 HTTP/1.1\r\nProxy-Authorization: {proof}\r\n\r\n".encode())
        assert wire.read_head().split(b" ", 2)[1] == b"407"


def test_the_user_part_is_not_the_identity(relay_daemon: Daemon, model: str) -> None:
    with Wire(relay_daemon) as wire:
        assert wire.connect("api.anthropic.com:443", user="somebody", token="bob-token").status == 200
        wire.start_tls("api.anthropic.com", relay_daemon.ca_file)
        wire.request("POST", "/v1/messages", "api.anthropic.com", message(model))
    assert relay_daemon.record(model)["initiator"]["name"] == "bob"


def test_a_tunnel_needs_credentials_too(relay_daemon: Daemon) -> None:
    assert connect(relay_daemon, "echo.example.com:443", user=None).status == 407


@pytest.mark.parametrize("port", [443, 8443])
def test_ports_allowed_port_works(own_daemon, origins, port: int) -> None:
    place = f"127.0.0.1:{origins['echo.example.com'].port}"
    daemon = own_daemon(config={"egress": {"allowed_ports": [443, 8443], "hosts": {"echo.example.com": place}}})
    with Wire(daemon) as wire:
        assert wire.connect(f"echo.example.com:{port}").status == 200
        wire.send(b"hello")
        assert wire.read_exactly(5) == b"hello"


@pytest.mark.parametrize("port", [22, 25, 8443, 65535])
def test_ports_disallowed_port_is_refused(relay_daemon: Daemon, port: int) -> None:
    answer = connect(relay_daemon, f"example.com:{port}")
    assert answer.status == 403
    assert_readable(answer, str(port), "allowed_ports")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[64:ff9b::7f00:1]",
    ],
)
def test_private_ip_blocked_ip(relay_daemon: Daemon, host: str) -> None:
    answer = connect(relay_daemon, f"{host}:443")
    assert answer.status == 403
    assert_readable(answer, "private")


def test_private_ip_blocked_hostname(relay_daemon: Daemon) -> None:
    answer = connect(relay_daemon, "localhost:443")
    assert answer.status == 403
    assert_readable(answer, "private")
    # What a name resolves to is not the client's business.
    assert "127.0.0.1" not in answer.body.decode()


def test_private_ip_cidr_allow(own_daemon, origins) -> None:
    config = {"egress": {"allowed_private_cidrs": ["127.0.0.0/8"], "allowed_ports": [443, origins["echo.example.com"].port]}}
    daemon = own_daemon(config=config)
    with Wire(daemon) as wire:
        assert wire.connect(f"127.0.0.1:{origins['echo.example.com'].port}").status == 200
        wire.send(b"hello")
        assert wire.read_exactly(5) == b"hello"


def test_private_ip_host_invalid_is_a_502(relay_daemon: Daemon) -> None:
    started = time.monotonic()
    answer = connect(relay_daemon, "host.invalid:443")
    assert answer.status == 502
    assert_readable(answer, "host.invalid")
    assert time.monotonic() - started < 15


def test_an_origin_that_does_not_listen_gets_502_before_any_200(own_daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    daemon = own_daemon(
        config={"egress": {"hosts": {"closed.example.com": f"127.0.0.1:{port}", "api.openai.com": f"127.0.0.1:{port}"}}}
    )
    for host in ("closed.example.com", "api.openai.com"):
        answer = connect(daemon, f"{host}:443")
        assert answer.status == 502
        assert_readable(answer, host)
        assert str(port) not in answer.body.decode()
    shown = [json.loads(line) for line in daemon.command("tail", "--lines", "2", "--output", "jsonl").stdout.splitlines()]
    assert [(event["kind"], event["host"], event["reason"], event["user"]) for event in shown] == [
        ("refused", "closed.example.com", "dial_refused", "alice"),
        ("refused", "api.openai.com", "dial_refused", "alice"),
    ]
    daemon.wait_for_log("a provider cannot be reached")
    daemon.wait_for_log("refused 127.0.0.1 to 'closed.example.com:443': dial_refused")


@pytest.mark.parametrize(
    "line",
    [
        b"CONNECT  HTTP/1.1",
        b"CONNECT api.anthropic.com HTTP/1.1",
        b"CONNECT api.anthropic.com:0 HTTP/1.1",
        b"CONNECT api.anthropic.com:99999 HTTP/1.1",
        b"CONNECT api.anthropic.com:443:443 HTTP/1.1",
        b"CONNECT [::1:443 HTTP/1.1",
        b"CONNECT https://api.anthropic.com:443 HTTP/1.1",
        b"CONNECT api.anthropic.com:443",
        b"CONNECT a\x00b:443 HTTP/1.1",
        b"GET / HTTP/1.1",
        b"NONSENSE",
        b"\xff\xfe\xfd",
    ],
)
def test_a_malformed_request_gets_400_and_harms_nobody(relay_daemon: Daemon, line: bytes) -> None:
    with Wire(relay_daemon) as wire:
        wire.send(line + f"\r\nHost: x\r\nProxy-Authorization: {credentials()}\r\n\r\n".encode())
        head = wire.read_head()
        assert head.split(b" ", 2)[1] == b"400", head
    assert connect(relay_daemon, "echo.example.com:443").status == 200


def test_a_head_of_10_mb_is_refused_early_and_not_kept(relay_daemon: Daemon) -> None:
    with Wire(relay_daemon) as wire:
        wire.send(b"CONNECT echo.example.com:443 HTTP/1.1\r\nX-Long: ")
        sent = 0
        try:
            while sent < 10 << 20:
                wire.send(b"x" * 65536)
                sent += 65536
            answer = wire.receive()
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.split(b" ", 2)[1] in {b"400", b"431"}
    assert connect(relay_daemon, "echo.example.com:443").status == 200


def test_a_head_that_drips_is_cut_off_in_time(own_daemon) -> None:
    daemon = own_daemon(config={"decrypt": {"head_timeout_seconds": 1}})
    with Wire(daemon) as wire:
        wire.send(b"CONNECT echo.example.com:443 HTTP/1.1\r\n")
        deadline = time.monotonic() + 15
        ended = False
        while not ended and time.monotonic() < deadline:
            try:
                wire.send(b"X")
                wire.socket.settimeout(0.2)
                ended = wire.socket.recv(1000) == b"" or ended
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
    assert ended


def test_rubbish_instead_of_tls_closes_the_connection_and_is_counted(
    daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    name = "coder_ai_gateway_proxy_client_tls_failures_total"
    before = daemon.metrics().total(name)
    with Wire(daemon) as wire:
        assert wire.connect("api.anthropic.com:443").status == 200
        wire.send(b"GET / HTTP/1.1\r\nHost: this is not TLS\r\n\r\n" + bytes(range(256)) * 40)
        try:
            while wire.receive():
                pass
        except ConnectionError:
            pass
    daemon.wait_for_metric(before + 1, name)


def test_a_client_that_says_nothing_after_the_200_is_closed_in_time(own_daemon, engine: str) -> None:
    daemon = own_daemon(config={"decrypt": {"engine": engine, "client_tls_timeout_seconds": 1}})
    with Wire(daemon) as wire:
        assert wire.connect("api.anthropic.com:443").status == 200
        assert wire.receive() == b""


def test_every_provider_host_is_decrypted_and_no_other(relay_daemon: Daemon, provider: FakeProvider) -> None:
    for host in (
        "api.anthropic.com",
        "api.openai.com",
        "chatgpt.com",
        "api.individual.githubcopilot.com",
        "generativelanguage.googleapis.com",
    ):
        with Wire(relay_daemon) as wire:
            assert wire.connect(f"{host}:443").status == 200
            wire.start_tls(host, relay_daemon.ca_file)
            assert wire.socket.getpeercert()["subjectAltName"] == (("DNS", host),)  # type: ignore[attr-defined]
    with Wire(relay_daemon) as wire:
        assert wire.connect("files.example.com:443").status == 200
        wire.start_tls("files.example.com", provider.ca_file)


@pytest.mark.parametrize(("when_disabled", "status"), [("refuse", 403), ("tunnel", 200)])
def test_a_disabled_provider_is_refused_or_tunnelled_as_configured(
    own_daemon, provider: FakeProvider, when_disabled: str, status: int
) -> None:
    entry = {"name": "anthropic", "type": "anthropic", "enabled": False, "when_disabled": when_disabled}
    daemon = own_daemon(config={"providers": [entry]})
    with Wire(daemon) as wire:
        answer = wire.connect("api.anthropic.com:443")
        assert answer.status == status
        if status == 403:
            assert_readable(answer, "anthropic", "disabled")
        else:
            wire.start_tls("api.anthropic.com", provider.ca_file)


@pytest.mark.parametrize(("mode", "provider_status", "other_status"), [("decrypted", 407, 200), ("off", 200, 200)])
def test_authentication_may_be_asked_of_less(
    own_daemon, origins, mode: str, provider_status: int, other_status: int, model: str
) -> None:
    hosts = {"echo.example.com": f"127.0.0.1:{origins['echo.example.com'].port}"}
    daemon = own_daemon(config={"auth": {"mode": mode}, "egress": {"hosts": hosts}})
    assert connect(daemon, "api.anthropic.com:443", user=None).status == provider_status
    assert connect(daemon, "echo.example.com:443", user=None).status == other_status
    if mode == "off":
        with Wire(daemon) as wire:
            wire.connect("api.anthropic.com:443", user=None)
            wire.start_tls("api.anthropic.com", daemon.ca_file)
            wire.request("POST", "/v1/messages", "api.anthropic.com", message(model))
        assert daemon.record(model)["initiator"]["name"] == "anonymous"


def test_plain_http_follows_the_same_rules(relay_daemon: Daemon, provider: FakeProvider, model: str) -> None:
    def ask(url: str, proof: str | None = credentials()) -> Answer:
        with Wire(relay_daemon) as wire:
            fields = f"Proxy-Authorization: {proof}\r\n" if proof else ""
            wire.send(f"GET {url} HTTP/1.1\r\nHost: ignored.example\r\n{fields}\r\n".encode())
            return wire.read_answer()

    answer = ask(f"http://{PLAIN_HOST}/blob?pace={model}+length=100000+coding=identity")
    assert answer.status == 200
    assert len(answer.body) == 100_000
    entry = provider.ledger.one(model)
    assert entry.header("host") == PLAIN_HOST
    assert entry.header("proxy-authorization") == ""
    assert ask(f"http://{PLAIN_HOST}/", None).status == 407
    assert ask(f"http://{PLAIN_HOST}/", credentials(token="x")).status == 407
    assert ask("http://127.0.0.1/").status == 403
    assert ask(f"http://{PLAIN_HOST}:22/").status == 403
    assert ask("http://no-such-host.invalid/").status == 502
