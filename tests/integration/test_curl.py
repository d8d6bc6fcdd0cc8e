"""`curl` as people run it: options of the command line, environment variables, its default offer of HTTP/2."""

import json
import shutil
import subprocess

import pytest

from tests.support.daemon import Daemon, plain_environment
from tests.support.expectations import assert_matches
from tests.support.fake_provider import PLAIN_HOST, FakeProvider

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ or plain_environment(), timeout=60, check=False)


def body(model: str, **more: object) -> str:
    return json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more})


def test_a_request_by_environment_variables_is_recorded(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    environ = daemon.client_environment("bob")
    done = curl("-N", "--compressed", "-d", body(model, stream=True), "https://api.anthropic.com/v1/messages", environ=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('data: {"type":"message_stop"}\n\n')
    record = daemon.record(model)
    assert_matches(record, provider.ledger.one(model), prompt="Hi")
    assert record["initiator"]["name"] == "bob"


def test_trailers_arrive(daemon: Daemon, model: str) -> None:
    model += "+trailers=2"
    done = curl("-i", "-d", body(model), "https://api.openai.com/v1/chat/completions", environ=daemon.client_environment())
    assert done.returncode == 0, done.stderr
    # curl prints trailers behind the body when it prints headers.
    assert "X-Trailer-0: value 0" in done.stdout.rpartition("}")[2]
    assert daemon.record(model)["outcome"] == "completed"


def test_expect_100_continue_is_answered_by_the_provider(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    long = body(model, system="x" * 2_000_000)
    arguments = ["-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@-"]
    done = subprocess.run(
        ["curl", "-sS", *arguments, "https://api.anthropic.com/v1/messages"],
        input=long,
        capture_output=True,
        text=True,
        env=daemon.client_environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert provider.ledger.one(model).request_bytes == len(long)
    assert_matches(daemon.record(model), provider.ledger.one(model), prompt="Hi")


def test_credentials_in_any_order_of_proxy_authentication(relay_daemon: Daemon, model: str) -> None:
    # --proxy-anyauth sends the first CONNECT without credentials and answers the 407 on the same connection.
    done = curl(
        "-v",
        "--proxy-anyauth",
        "--proxy",
        f"http://{relay_daemon.listen}",
        "--proxy-user",
        "alice:alice-token",
        "--cacert",
        str(relay_daemon.ca_file),
        "-d",
        body(model),
        "https://api.anthropic.com/v1/messages",
    )
    assert done.returncode == 0, done.stderr
    assert 'Proxy-Authenticate: Basic realm="AI Gateway Proxy"' in done.stderr
    assert relay_daemon.record(model)["outcome"] == "completed"


def test_a_tunnel_keeps_the_origin_s_own_certificate(relay_daemon: Daemon, provider: FakeProvider) -> None:
    environ = relay_daemon.client_environment()
    url = "https://files.example.com/thing"
    own = curl("--cacert", str(provider.ca_file), "-d", "12345", url, environ=environ)
    assert json.loads(own.stdout)["received"] == 5
    replaced = curl(url, environ=environ)
    assert replaced.returncode == 60, "our CA must not have signed for a host that is not a provider's"


def test_plain_http_is_forwarded_without_what_belongs_to_the_proxy(
    relay_daemon: Daemon, provider: FakeProvider, model: str
) -> None:
    target = f"http://{PLAIN_HOST}/thing?pace={model}"
    arguments = [
        "-H",
        "Connection: X-Secret-Hop",
        "-H",
        "X-Secret-Hop: 1",
        "-H",
        "Proxy-Connection: keep-alive",
        "-H",
        "X-Kept: 1",
    ]
    done = curl("--proxy", relay_daemon.proxy_url(), "-d", "payload", *arguments, target)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["received"] == len("payload")
    entry = provider.ledger.one(model)
    assert entry.target == f"/thing?pace={model}"
    assert entry.header("host") == PLAIN_HOST
    assert entry.header("x-kept") == "1"
    for name in ("proxy-authorization", "proxy-connection", "x-secret-hop"):
        assert entry.header(name) == "", name
