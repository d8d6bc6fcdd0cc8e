"""The admin server: health, readiness, metrics, the CA, and who may read them."""

import json
import urllib.request

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import Daemon, eventually


def test_health_readiness_and_metrics_are_served(relay_daemon: Daemon) -> None:
    assert relay_daemon.get("/healthz")[0] == 200
    status, body = relay_daemon.get("/readyz")
    assert status == 200
    assert {"store", "providers", "workers", "journal"} <= set(str(json.loads(body))) or b"store" in body
    assert relay_daemon.get("/no-such-page")[0] == 404


def test_ca_endpoint_serves_the_certificate(relay_daemon: Daemon) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{relay_daemon.admin_url}/ca-cert.pem") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-pem-file"
        assert answer.headers["content-disposition"] == "attachment; filename=ca-cert.pem"
        pem = answer.read()
    assert pem.startswith(b"-----BEGIN CERTIFICATE-----")
    assert b"PRIVATE" not in pem
    (relay_daemon.folder / "served.pem").write_bytes(pem)
    with Wire(relay_daemon) as wire:
        assert wire.connect("api.anthropic.com:443").status == 200
        wire.start_tls("api.anthropic.com", relay_daemon.folder / "served.pem")


def test_metrics_have_the_names_and_types_of_coder(relay_daemon: Daemon) -> None:
    types = relay_daemon.metrics().types
    for name, kind in {
        "coder_ai_gateway_proxy_connect_sessions": "counter",
        "coder_ai_gateway_proxy_mitm_requests": "counter",
        "coder_ai_gateway_proxy_inflight_mitm_requests": "gauge",
        "coder_ai_gateway_proxy_mitm_responses": "counter",
        "coder_ai_gateway_proxy_provider_info": "gauge",
        "coder_ai_gateway_proxy_providers_last_reload_timestamp_seconds": "gauge",
        "coder_ai_gateway_proxy_providers_last_reload_success_timestamp_seconds": "gauge",
        "coder_ai_gateway_interceptions": "counter",
        "coder_ai_gateway_interceptions_inflight": "gauge",
        "coder_ai_gateway_interceptions_duration_seconds": "histogram",
        "coder_ai_gateway_passthrough": "counter",
        "coder_ai_gateway_prompts": "counter",
        "coder_ai_gateway_tokens": "counter",
        "coder_ai_gateway_non_injected_tool_selections": "counter",
    }.items():
        assert types.get(name) == kind, name


def test_a_token_protects_what_is_not_public(own_daemon) -> None:
    daemon: Daemon = own_daemon(start=False, config={"admin": {"token": "admin-secret"}})
    daemon.start()
    for path in ("/healthz", "/readyz", "/ca-cert.pem"):
        assert daemon.get(path)[0] == 200, path
    assert daemon.get("/metrics")[0] == 401
    assert daemon.get("/metrics", token="wrong")[0] == 401
    assert daemon.get("/metrics", token="admin-secret")[0] == 200


def test_a_reload_changes_what_may_change_and_keeps_live_streams(own_daemon, provider, model: str) -> None:
    daemon: Daemon = own_daemon()
    gate = provider.gate(model)
    model += f"+gate={model}"
    with Wire(daemon) as wire:
        wire.connect("api.anthropic.com:443")
        wire.start_tls("api.anthropic.com", daemon.ca_file)
        body = message(model, stream=True)
        wire.request("POST", "/v1/messages", "api.anthropic.com", body, (("Accept-Encoding", "identity"),), read=False)
        events = wire.events(wire.read_head())
        next(events)
        daemon.write_config(providers=[{"name": "openai", "type": "openai"}], auth={"users": []})
        daemon.reload()

        def is_reloaded() -> bool:
            with Wire(daemon) as other:
                return other.connect("api.openai.com:443").status == 407

        eventually(is_reloaded, "the users of the old file to be gone", 20)
        gate.release(100)
        assert b"message_stop" in list(events)[-1]
    assert daemon.record(model)["outcome"] == "completed"
    info = daemon.metrics().series("coder_ai_gateway_proxy_provider_info")
    assert [labels["provider_name"] for labels in info] == ["openai"]


def test_a_provider_that_a_reload_disables_gets_no_further_request_of_a_connection_that_stands(
    own_daemon, model: str, engine: str
) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}})
    with decrypted(daemon, "api.anthropic.com") as kept, decrypted(daemon, "api.openai.com") as other:
        assert kept.request("POST", "/v1/messages", "api.anthropic.com", message(model)).status == 200
        daemon.write_config(
            providers=[
                {"name": "anthropic", "type": "anthropic", "enabled": False},
                {"name": "openai", "type": "openai"},
            ]
        )
        daemon.reload()
        assert kept.receive() == b""
        assert other.request("GET", "/v1/models", "api.openai.com").status == 200
