"""Through another proxy: tunnels, plain requests and decrypted traffic, and what is never asked of it."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.integration.conftest import DaemonMaker
from tests.support.clients import Wire, message
from tests.support.daemon import Daemon, eventually
from tests.support.expectations import assert_matches
from tests.support.fake_provider import PLAIN_HOST, FakeProvider
from tests.support.proxies import ScriptedProxy

REFUSED = "coder_ai_gateway_proxy_connect_refused_total"

type Maker = Callable[..., Daemon]


@pytest.fixture
def chained(own_daemon: DaemonMaker, provider: FakeProvider) -> Maker:
    """Makes daemons that know no host by themselves: all they reach, they reach through a proxy."""

    def make(url: str, *, engine: str = "relay", **egress: Any) -> Daemon:
        own = {"upstream_proxy": url, "upstream_proxy_resolves": True, "hosts": {}, "trusted_ca_file": str(provider.ca_file)}
        daemon = own_daemon(start=False, config={"decrypt": {"engine": engine}})
        daemon.config["egress"] = own | egress
        daemon.write_config()
        daemon.start()
        return daemon

    return make


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def roots(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("roots") / "upstream.pem"
    authority.cert_pem.write_to_path(file)
    return file


@pytest.fixture(params=["http", "https"])
def upstream(request: pytest.FixtureRequest, provider: FakeProvider, authority: trustme.CA) -> Iterator[ScriptedProxy]:
    """Another proxy, without and with TLS, that leads to the fake provider."""
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedProxy(provider.port, context=context) as proxy:
        yield proxy


def post(daemon: Daemon, model: str, **options: Any) -> httpx.Response:
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    with httpx.Client(proxy=daemon.proxy_url(), verify=trust, timeout=30) as client:
        return client.post("https://api.anthropic.com/v1/messages", content=message(model, "Hi", **options))


def tunnelled(daemon: Daemon, provider: FakeProvider) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=str(provider.ca_file))
    with httpx.Client(proxy=daemon.proxy_url(), verify=trust, timeout=30) as client:
        return dict(client.post("https://files.example.com/thing", content=b"12345").json())


def test_upstream_proxy_tunnelled_via_http_and_https_upstream_and_decrypted_traffic_as_well(
    chained: Maker, upstream: ScriptedProxy, roots: Path, provider: FakeProvider, model: str, engine: str
) -> None:
    daemon = chained(upstream.url("user:pass"), engine=engine, upstream_proxy_ca_file=str(roots))
    assert tunnelled(daemon, provider)["received"] == 5
    assert post(daemon, model, stream=True).status_code == 200
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")
    assert [head.split(b"\r\n")[0] for head in upstream.heads] == [
        b"CONNECT files.example.com:443 HTTP/1.1",
        b"CONNECT api.anthropic.com:443 HTTP/1.1",
    ]
    for head in upstream.heads:
        # Its own credentials, and none of the client's.
        assert head.count(b"Proxy-Authorization: ") == 1
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:pass") + b"\r\n" in head


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        ("user:", "user:"),
        (":pass", ":pass"),
        ("us%40er:p%3Ass", "us@er:p:ss"),
        ("", ""),
    ],
)
def test_upstream_proxy_header_sent_with_the_auth_formats(
    chained: Maker, provider: FakeProvider, credentials: str, sent: str
) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(upstream.url(credentials))
        assert tunnelled(daemon, provider)["received"] == 5
        (head,) = upstream.heads
        if sent:
            assert b"Proxy-Authorization: Basic " + base64.b64encode(sent.encode()) + b"\r\n" in head
        else:
            assert b"Proxy-Authorization" not in head
        assert ":pass" not in daemon.log()
        assert base64.b64encode(sent.encode()).decode() not in daemon.log() or not sent


def test_upstream_proxy_mitm_not_via_upstream_when_that_is_switched_off(
    chained: Maker, provider: FakeProvider, model: str
) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(upstream.url(), upstream_proxy_decrypted=False)
        # The provider's name cannot be resolved here, so a direct dial shows as a 502.
        with pytest.raises(httpx.ProxyError, match="502"):
            post(daemon, model)
        assert tunnelled(daemon, provider)["received"] == 5
        assert len(upstream.heads) == 1


def test_plain_requests_go_through_it_in_absolute_form(chained: Maker, provider: FakeProvider, model: str) -> None:
    with ScriptedProxy(provider.plain_port) as upstream:
        daemon = chained(upstream.url("user:pass"))
        with httpx.Client(proxy=daemon.proxy_url()) as client:
            answer = client.post(f"http://{PLAIN_HOST}/thing?pace={model}", content=b"payload")
        (head,) = upstream.heads
        assert head.startswith(f"POST http://{PLAIN_HOST}/thing?pace={model} HTTP/1.1\r\n".encode())
        assert head.count(b"Proxy-Authorization: ") == 1
        assert base64.b64encode(b"user:pass") in head
        assert answer.status_code == 200


def test_a_trace_that_the_upstream_may_repeat_has_none_of_its_credentials(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.plain_port) as upstream:
        daemon = chained(upstream.url("user:pass"))
        with httpx.Client(proxy=daemon.proxy_url()) as client:
            client.request("TRACE", f"http://{PLAIN_HOST}/thing", headers={"max-forwards": "0"})
        (head,) = upstream.heads
        assert head.startswith(b"TRACE ")
        assert b"authorization" not in head.lower()


def test_what_is_excepted_and_what_has_a_fixed_address_is_reached_directly(
    chained: Maker, provider: FakeProvider, model: str
) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(
            upstream.url(),
            upstream_proxy_except=[".anthropic.com"],
            hosts={"api.openai.com": f"127.0.0.1:{provider.port}"},
        )
        with pytest.raises(httpx.ProxyError, match="502"):  # directly, and there nobody knows the name
            post(daemon, model)
        trust = ssl.create_default_context(cafile=str(daemon.ca_file))
        with httpx.Client(proxy=daemon.proxy_url(), verify=trust) as client:
            client.post("https://api.openai.com/v1/chat/completions", json={"model": model, "messages": []})
        assert upstream.heads == []


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            "credentials",
            "407",
        ),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret", "refused", "answers 403"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "refused", "answers 503"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "protocol", "as a proxy does"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40000, "protocol", "as a proxy does"),
    ],
)
def test_an_upstream_that_does_not_connect_is_a_502_with_a_reason(
    chained: Maker, provider: FakeProvider, answer: bytes, reason: str, words: str
) -> None:
    with ScriptedProxy(provider.port, answer=answer) as upstream:
        daemon = chained(upstream.url("user:hunter2"))
        for host in ("api.anthropic.com", "files.example.com"):
            with Wire(daemon) as wire:
                refusal = wire.connect(f"{host}:443")
                assert refusal.status == 502
                assert b"secret" not in refusal.body
                assert str(upstream.port).encode() not in refusal.body
        daemon.wait_for_metric(2, REFUSED, reason=f"dial_upstream_proxy_{reason}")
        daemon.wait_for_log(words)
        assert "hunter2" not in daemon.log()


def test_a_challenge_of_the_upstream_to_a_plain_request_is_not_the_clients(chained: Maker, provider: FakeProvider) -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    with ScriptedProxy(provider.port, answer=answer) as upstream:
        daemon = chained(upstream.url())
        with httpx.Client(proxy=daemon.proxy_url()) as client:
            assert client.get(f"http://{PLAIN_HOST}/thing").status_code == 502
        daemon.wait_for_log("asks for credentials (407)")


def test_an_upstream_that_says_nothing_is_a_502_within_the_connect_timeout(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.port, answer=b"") as upstream:
        daemon = chained(upstream.url(), connect_timeout_seconds=0.5)
        with Wire(daemon) as wire:
            assert wire.connect("files.example.com:443").status == 502
        daemon.wait_for_metric(1, REFUSED, reason="dial_timeout")


def test_an_upstream_that_is_not_there_is_a_502(chained: Maker, provider: FakeProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    daemon = chained(f"http://127.0.0.1:{port}")
    with Wire(daemon) as wire:
        assert wire.connect("files.example.com:443").status == 502
    daemon.wait_for_metric(1, REFUSED, reason="dial_upstream_proxy_unreachable")


def test_an_https_upstream_whose_certificate_is_not_trusted_is_a_502(
    chained: Maker, provider: FakeProvider, authority: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedProxy(provider.port, context=context) as upstream:
        daemon = chained(upstream.url())  # without upstream_proxy_ca_file
        with Wire(daemon) as wire:
            assert wire.connect("files.example.com:443").status == 502
        daemon.wait_for_metric(1, REFUSED, reason="dial_upstream_proxy_tls")
        assert upstream.heads == []


def test_two_daemons_in_a_chain_carry_a_request_over_tls_with_each_other(
    own_daemon: DaemonMaker,
    chained: Maker,
    provider: FakeProvider,
    authority: trustme.CA,
    roots: Path,
    tmp_path: Path,
    model: str,
) -> None:
    leaf = authority.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"listen": "127.0.0.1:0", "cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    far = own_daemon(config={"listen_tls": tls, "providers": []})
    near = chained(f"https://bob:bob-token@{far.listen_tls}", upstream_proxy_ca_file=str(roots))
    assert post(near, model).status_code == 200
    assert_matches(near.record(model), provider.ledger.one(model), prompt="Hi")
    assert far.records() == []


# Private addresses


def status_of(daemon: Daemon, authority: str) -> int:
    with Wire(daemon) as wire:
        return wire.connect(authority).status


@pytest.mark.parametrize("authority_text", ["127.0.0.1:443", "[::1]:443", "169.254.169.254:80"])
def test_private_ip_blocked_ip_through_upstream(chained: Maker, provider: FakeProvider, authority_text: str) -> None:
    with ScriptedProxy(provider.port) as upstream:
        assert status_of(chained(upstream.url()), authority_text) == 403
        assert upstream.heads == []


def test_private_ip_blocked_hostname_through_upstream(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(upstream.url(), upstream_proxy_resolves=False)
        assert status_of(daemon, "localhost:443") == 403
        assert upstream.heads == []


def test_private_ip_host_invalid_is_a_502_also_through_upstream(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(upstream.url(), upstream_proxy_resolves=False)
        assert status_of(daemon, "host.invalid:443") == 502
        assert upstream.heads == []


def test_private_ip_cidr_allow_through_upstream(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.port) as upstream:
        daemon = chained(upstream.url(), upstream_proxy_resolves=False, allowed_private_cidrs=["127.0.0.0/8", "::1/128"])
        assert status_of(daemon, "127.0.0.1:443") == 200
        assert status_of(daemon, "localhost:443") == 200
        assert [head.split()[1] for head in upstream.heads] == [b"127.0.0.1:443", b"localhost:443"]


def test_private_ip_public_address_is_fine_through_upstream(chained: Maker, provider: FakeProvider) -> None:
    with ScriptedProxy(provider.port) as upstream:
        assert status_of(chained(upstream.url(), upstream_proxy_resolves=False), "8.8.8.8:443") == 200


# A proxy that others wrote


@pytest.mark.skipif(shutil.which("squid") is None, reason="squid is not installed")
def test_squid_is_a_proxy_as_any_other(
    chained: Maker, provider: FakeProvider, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("squid")
    for part in (folder, *folder.parents[:3]):
        part.chmod(0o777)  # it works as a user of its own
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\npid_filename {folder}/squid.pid\n"
        f"access_log stdio:{folder}/access.log\ncache_log {folder}/cache.log\ncoredump_dir {folder}\nshutdown_lifetime 0 seconds\n"
    )
    process = subprocess.Popen(
        ["squid", "-N", "-f", str(folder / "squid.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _listens(port), "squid")
        daemon = chained(
            f"http://127.0.0.1:{port}",
            upstream_proxy_resolves=False,
            allowed_private_cidrs=["127.0.0.0/8", "::1/128"],
            allowed_ports=[443, 80, provider.port, provider.plain_port],
        )
        trust = ssl.create_default_context(cafile=str(provider.ca_file))
        with (
            Wire(daemon) as wire,
        ):
            assert wire.connect(f"localhost:{provider.port}").status == 200
            wire.socket = trust.wrap_socket(wire.socket, server_hostname="files.example.com")
            answer = wire.request("POST", "/thing", "files.example.com", b"12345")
            assert answer is not None
            assert answer.json()["received"] == 5
        with httpx.Client(proxy=daemon.proxy_url()) as client:
            plain = client.post(f"http://localhost:{provider.plain_port}/thing", content=b"123")
        assert plain.json()["received"] == 3
        assert plain.headers["via"].endswith("(squid/5.7)") or "squid" in plain.headers["via"]
        assert f"CONNECT localhost:{provider.port}" in (folder / "access.log").read_text()
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# Construction


def refused(own_daemon: DaemonMaker, **egress: Any) -> str:
    """Return what a daemon says that does not start because of these settings."""
    daemon = own_daemon(start=False, config={"egress": egress})
    with pytest.raises(RuntimeError) as failed:
        daemon.start()
    assert "hunter2" not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1:1", "does not begin with http:// or https://"),
        ("http://", "has no usable host or port"),
        ("http://user:hunter2@:8080", "has no usable host or port"),
    ],
)
def test_construction_invalid_upstream_proxy(own_daemon: DaemonMaker, url: str, words: str) -> None:
    assert words in refused(own_daemon, upstream_proxy=url)


def test_construction_upstream_ca_file_not_found(own_daemon: DaemonMaker) -> None:
    said = refused(own_daemon, upstream_proxy="https://127.0.0.1:1", upstream_proxy_ca_file="/nowhere/ca.pem")
    assert "egress.upstream_proxy_ca_file: /nowhere/ca.pem cannot be used: No such file or directory" in said


def test_construction_upstream_credentials_both_empty(own_daemon: DaemonMaker) -> None:
    assert "neither a user nor a password" in refused(own_daemon, upstream_proxy="http://:@127.0.0.1:1")


def test_construction_invalid_allowed_cidr(own_daemon: DaemonMaker) -> None:
    assert "10.0.0.0/99" in refused(own_daemon, allowed_private_cidrs=["10.0.0.0/99"])


def test_an_exception_that_names_nothing_is_refused(own_daemon: DaemonMaker) -> None:
    assert "no host, suffix, address or network" in refused(own_daemon, upstream_proxy_except=["a b"])


def test_the_url_may_stand_in_a_file(chained: Maker, provider: FakeProvider, tmp_path: Path) -> None:
    with ScriptedProxy(provider.port) as upstream:
        (tmp_path / "url").write_text(upstream.url("user:pass") + "\n")
        daemon = chained({"file": str(tmp_path / "url")})  # type: ignore[arg-type]
        assert tunnelled(daemon, provider)["received"] == 5
    assert json.dumps(daemon.run).count("pass") == 0
