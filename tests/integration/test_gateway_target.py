"""`providers[].target`: decrypted requests go to a Coder AI Gateway instead of the provider. Coder's own cases, by their lines."""

import json
import ssl
import uuid
from typing import Any

import httpx
import pytest

from tests.integration.conftest import DaemonMaker
from tests.support.clients import Wire
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches
from tests.support.fake_provider import PLAIN_HOST, FakeProvider
from tests.support.ledger import Entry

GATEWAY = f"http://{PLAIN_HOST}"

PATHS = {
    "anthropic": ("api.anthropic.com", "/v1/messages"),
    "openai": ("api.openai.com", "/v1/chat/completions"),
}


def targeted(gateway: str = GATEWAY, **more: Any) -> dict[str, Any]:
    providers = [{"name": name, "type": name, "target": gateway} for name in PATHS]
    return {"providers": providers, "egress": {"allowed_ports": [443, 8443]}, **more}


def ask(daemon: Daemon, model: str, name: str = "anthropic", *, port: int = 443, **headers: str) -> httpx.Response:
    host, path = PATHS[name]
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(proxy=daemon.proxy_url(), verify=trust, trust_env=False, timeout=60) as client:
        return client.post(f"https://{host}:{port}{path}?a=b%20c&pace=x", headers=headers, json=body)


def asked(daemon: Daemon, provider: FakeProvider, model: str, **arguments: Any) -> Entry:
    """Ask, and return what the gateway got."""
    assert ask(daemon, model, **arguments).status_code == 200
    entry = provider.ledger.one(model)
    assert entry.sni == ""
    return entry


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Any:
    with Daemon(tmp_path_factory.mktemp("targeted"), provider, config=targeted()) as daemon:
        yield daemon


def test_construction_missing_empty_and_invalid_gateway_url_and_one_with_a_query(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    wrong = {
        "empty": ("", "does not begin with https:// or http://"),
        "no-scheme": ("gateway.example.com", "does not begin with https:// or http://"),
        "other-scheme": ("ftp://gateway.example.com", "does not begin with https:// or http://"),
        "no-host": ("https://", "has no host"),
        "no-port": ("https://gateway.example.com:99999", "has no usable host or port"),
        "credentials": ("https://me:hunter2@gateway.example.com", "holds credentials"),
        "query": ("https://gateway.example.com/?token=hunter2", "has a query or a fragment"),
    }
    providers = [
        {"name": name, "type": "openai-compat", "base_url": f"https://{name}.example.com", "target": target}
        for name, (target, _) in wrong.items()
    ]
    # Without a target there is no gateway, and requests go to the provider.
    daemon = own_daemon(config={"providers": [{"name": "missing", "type": "anthropic"}, *providers]})
    assert ask(daemon, model).status_code == 200
    assert provider.ledger.one(model).sni == "api.anthropic.com"
    listed = daemon.command("providers", "list", "--output", "json").stdout
    found = {entry["name"]: (entry["status"], entry["reason"]) for entry in json.loads(listed)}
    assert found.pop("missing") == ("enabled", "")
    for name, (_, words) in wrong.items():
        status, reason = found.pop(name)
        assert status == "error"
        assert words in reason
        with Wire(daemon) as wire:
            assert wire.connect(f"{name}.example.com:443").status == 403
    assert not found
    assert "hunter2" not in listed + daemon.log()


def test_construction_default_port_of_the_gateway_is_not_appended_and_an_explicit_one_is_kept(
    daemon: Daemon, own_daemon: DaemonMaker, provider: FakeProvider, model: str
) -> None:
    targets = {"anthropic": "https://llm.example.net", "openai": "https://llm.example.net:8443"}
    over_tls = own_daemon(
        config=targeted() | {"providers": [{"name": name, "type": name, "target": at} for name, at in targets.items()]}
    )
    for asking, name, host in (
        (daemon, "anthropic", PLAIN_HOST),
        (over_tls, "anthropic", "llm.example.net"),
        (over_tls, "openai", "llm.example.net:8443"),
    ):
        assert ask(asking, f"{model}-{host}", name).status_code == 200
        assert provider.ledger.one(f"{model}-{host}").header("host") == host


@pytest.mark.parametrize("port", [443, 8443])
@pytest.mark.parametrize("name", PATHS)
def test_mitm_anthropic_and_openai_on_the_default_port_and_on_8443(
    daemon: Daemon, provider: FakeProvider, model: str, name: str, port: int
) -> None:
    entry = asked(daemon, provider, model, name=name, port=port)
    assert entry.target == f"/{name}{PATHS[name][1]}?a=b%20c&pace=x"
    assert entry.header("host") == PLAIN_HOST
    record = daemon.record(model)
    assert_matches(record, entry, prompt="hello")
    assert record["provider_name"] == name


def test_mitm_custom_gateway(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=targeted("https://llm.example.net:8443"))
    assert ask(daemon, model).status_code == 200
    entry = provider.ledger.one(model)
    assert (entry.sni, entry.header("host")) == ("llm.example.net", "llm.example.net:8443")


def test_mitm_gateway_with_a_path_prefix(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=targeted(f"{GATEWAY}/api/v2/ai-gateway"))
    entry = asked(daemon, provider, model)
    assert entry.target.startswith("/api/v2/ai-gateway/anthropic/v1/messages?")


def test_mitm_the_user_s_llm_authorization_is_forwarded(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    assert asked(daemon, provider, model, authorization="Bearer sk-mine").header("authorization") == "Bearer sk-mine"


def test_mitm_the_governance_token_header_is_injected(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    entry = asked(daemon, provider, model)
    assert entry.header("x-coder-ai-governance-token") == "alice-token"
    assert entry.header("proxy-authorization") == ""


def test_mitm_the_request_id_is_a_uuid(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    headers = {"x-coder-ai-governance-request-id": "mine"}
    entry = asked(daemon, provider, model, **headers)
    ids = [value for name, value in entry.headers if name.lower() == "x-coder-ai-governance-request-id"]
    assert [str(uuid.UUID(value)) for value in ids] == ids
    assert len(ids) == 1


def test_mitm_metrics_after_one_request(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=targeted())
    asked(daemon, provider, model)
    daemon.wait_for_metric(1, "coder_ai_gateway_proxy_mitm_responses_total", code="200", provider="anthropic")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_connect_sessions_total", type="mitm") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total", provider="anthropic") == 1
    assert metrics.total("coder_ai_gateway_proxy_inflight_mitm_requests") == 0
    assert {"type": "tunneled"} not in metrics.series("coder_ai_gateway_proxy_connect_sessions_total")


def test_mitm_an_unknown_host_is_tunnelled_and_counts_as_tunneled_alone(
    own_daemon: DaemonMaker, provider: FakeProvider
) -> None:
    daemon = own_daemon(config=targeted())
    with Wire(daemon) as wire:
        assert wire.connect("files.example.com:443").status == 200
        wire.start_tls("files.example.com", provider.ca_file)
        answer = wire.request("GET", "/blob?pace=length=9", "files.example.com")
        assert answer is not None
        assert answer.status == 200
    daemon.wait_for_metric(1, "coder_ai_gateway_proxy_connect_sessions_total", type="tunneled")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_connect_sessions_total") == 1
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == 0


def test_byok_injection_header_absent_and_a_foreign_bearer_is_set(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    entry = asked(daemon, provider, model, authorization="Bearer sk-mine")
    assert entry.header("x-coder-ai-governance-token") == "alice-token"


def test_byok_injection_bearer_equals_the_coder_token_is_not_set(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    entry = asked(daemon, provider, model, authorization="Bearer alice-token")
    assert entry.header("x-coder-ai-governance-token") == ""
    assert entry.header("authorization") == "Bearer alice-token"


def test_byok_injection_header_already_there_is_left(daemon: Daemon, provider: FakeProvider, model: str) -> None:
    entry = asked(daemon, provider, model, **{"authorization": "Bearer sk-mine", "x-coder-ai-governance-token": "theirs"})
    assert entry.header("x-coder-ai-governance-token") == "theirs"


def test_gateway_tls_an_untrusted_gateway_certificate_is_refused(own_daemon: DaemonMaker, model: str) -> None:
    daemon = own_daemon(config=targeted("https://untrusted.example.com"))
    answer = ask(daemon, model)
    assert answer.status_code == 502
    assert "certificate is not trusted" in answer.json()["error"]["message"]
    assert daemon.record(model)["outcome"] == "upstream_error"


def test_custom_provider_openrouter(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    entry = {"name": "openrouter", "type": "openrouter", "base_url": "https://openrouter.ai/api/v1", "target": GATEWAY}
    daemon = own_daemon(config={"providers": [entry]})
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    with httpx.Client(proxy=daemon.proxy_url(), verify=trust, trust_env=False, timeout=60) as client:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        assert client.post("https://openrouter.ai/api/v1/chat/completions", json=body).status_code == 200
    assert provider.ledger.one(model).target == "/openrouter/api/v1/chat/completions"
    assert daemon.record(model)["provider_name"] == "openrouter"


def test_private_ip_the_gateway_url_is_allowed(own_daemon: DaemonMaker, provider: FakeProvider, model: str) -> None:
    daemon = own_daemon(config=targeted(f"http://127.0.0.1:{provider.plain_port}"))
    asked(daemon, provider, model)


@pytest.mark.parametrize("change", [{"enabled": False}, {"name": "claude"}], ids=["disabled", "renamed"])
def test_reload_a_stale_connection_stops_routing_when_its_provider_is_disabled_or_renamed(
    own_daemon: DaemonMaker, provider: FakeProvider, model: str, change: dict[str, Any]
) -> None:
    daemon = own_daemon(config=targeted())
    with Wire(daemon) as wire:
        assert wire.connect("api.anthropic.com:443").status == 200
        wire.start_tls("api.anthropic.com", daemon.ca_file)
        # The next request is on its way when the provider changes, so the connection cannot just be closed.
        body = b'{"model": "%s", "messages": []}' % model.encode()
        head = f"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: {len(body)}\r\n"
        wire.send(head.encode())
        daemon.write_config(providers=[{"name": "anthropic", "type": "anthropic", "target": GATEWAY} | change])
        daemon.reload()
        daemon.wait_for_log("configuration reloaded")
        wire.send(b"\r\n" + body)
        assert wire.read_answer().status == 200
    entry = provider.ledger.one(model)
    # It went where its client meant it to go, and nothing was counted or recorded.
    assert (entry.sni, entry.target) == ("api.anthropic.com", "/v1/messages")
    assert not daemon.stored(model)
    assert daemon.metrics().total("coder_ai_gateway_proxy_mitm_requests_total") == 0
    daemon.wait_for_log("go there unrecorded")


@pytest.mark.parametrize(("status", "level"), [(404, "warning"), (500, "error")])
def test_errors_of_the_gateway_are_logged(daemon: Daemon, model: str, status: int, level: str) -> None:
    assert ask(daemon, f"{model}+status={status}").status_code == status
    daemon.wait_for_log(f"answered {status}")
    assert any(f"answered {status}" in line and f'"{level}"' in line for line in daemon.log().splitlines())
