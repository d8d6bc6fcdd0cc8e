"""A little of all that happens in a day, in a second: two users, three tools, answers, failures, refusals, strangers and tunnels.

For tests that want to see every metric move.
"""

import contextlib
import ssl
from typing import Any

import httpx

from tests.support.clients import Wire
from tests.support.daemon import Daemon
from tests.support.fake_provider import FakeProvider

TOOL: dict[str, Any] = {"name": "get_weather", "description": "The weather.", "input_schema": {"type": "object"}}

UNTRUSTED_PROVIDER = {"name": "stranger", "type": "openai-compat", "base_url": "https://llm.example.net/v1"}
"""A provider whose certificate leads to no known root."""

POOLED_PROVIDERS = [
    # The first key rests, the second answers; the only key rests; a breaker opens at the first failure.
    {
        "name": "pooled",
        "type": "openai-compat",
        "base_url": "https://api.deepseek.com/v1",
        "keys": ["sk-first-aaaaaaaaaaaaaaaa+status=429+retry=1", "sk-second-bbbbbbbbbbbb"],
    },
    {
        "name": "exhausted",
        "type": "openai-compat",
        "base_url": "https://api.mistral.ai/v1",
        "keys": ["sk-only-cccccccccccccccc+status=429+retry=1"],
    },
    {
        "name": "down",
        "type": "openai-compat",
        "base_url": "https://api.x.ai/v1",
        "breaker": {"enabled": True, "failure_threshold": 1, "open_seconds": 3600},
    },
]
"""Providers whose keys and breakers are used."""

REQUESTS = 13
"""Interceptions of one day."""


def configuration(provider: FakeProvider, echo: str, collector: str) -> dict[str, Any]:
    """Return the configuration under which a day has everything.

    Args:
        provider: Plays the providers.
        echo: `host:port` of whoever answers behind a tunnel.
        collector: URL of who takes the spans, by gRPC.
    """
    return {
        "metrics": {"dialects": ["coder", "coder_legacy", "bifrost", "gen_ai"], "header_labels": {"team": "x-bf-prom-team"}},
        "pricing": {"overrides": [{"model": "priced-*", "input_micros": 3_000_000, "output_micros": 15_000_000}]},
        "providers": [
            {"name": "anthropic", "type": "anthropic"},
            {"name": "openai", "type": "openai"},
            UNTRUSTED_PROVIDER,
            *POOLED_PROVIDERS,
        ],
        "tracing": {"enabled": True, "endpoint": collector},
        "egress": {"hosts": {"llm.example.net": f"127.0.0.1:{provider.untrusted_port}", "echo.example.com": echo}},
    }


def live_through(daemon: Daemon, provider: FakeProvider) -> None:
    """Let one day happen."""
    with _client(daemon, "alice", "claude-cli/2.1.329 (external, sdk-cli)") as alice:
        # By a key, with a tool call; by a plan; refused by the provider; not understood; with something new in it.
        _claude(alice, "priced-claude", headers={"x-api-key": "sk-ant-api03-abcdefgh"}, tools=[TOOL])
        _claude(alice, "priced-claude", headers={"authorization": "Bearer sk-ant-oat01-abcdefgh"})
        _claude(alice, "priced-claude+status=429")
        _claude(alice, "priced-claude+broken=4+coding=identity")
        _claude(alice, "priced-claude", headers={"x-transcript": "anthropic/messages/unknown_things"})
        alice.get("https://api.anthropic.com/v1/models")
    with _client(daemon, "bob", "codex_exec/0.169.0 (Debian 12.0.0; x86_64)") as bob:
        _gpt(bob, "priced-gpt", stream_options={"include_usage": True})
        # Without figures, and without a price.
        _gpt(bob, "nameless-gpt")
        _gpt(bob, "nameless-gpt", stream_options={"include_usage": True})
        for host, model in (
            ("api.deepseek.com", "priced-gpt"),
            ("api.mistral.ai", "priced-gpt"),
            ("api.x.ai", "priced-gpt+status=503"),
            ("api.x.ai", "priced-gpt+status=503"),
        ):
            # The word for "the organisation's key".
            _gpt(bob, model, host=host, key="aiproxyd")
        with contextlib.suppress(httpx.HTTPError):
            bob.post("https://llm.example.net/v1/chat/completions", json={"model": "m", "messages": []})
    with Wire(daemon) as wire:
        wire.connect("api.anthropic.com:443")
        with contextlib.suppress(ssl.SSLError):
            wire.start_tls("api.anthropic.com", provider.ca_file)
    with Wire(daemon) as wire:
        assert wire.connect("api.openai.com:22").status == 403
    with Wire(daemon) as wire:
        assert wire.connect("echo.example.com:443").status == 200
        wire.send(b"hello")
        assert wire.read_exactly(5) == b"hello"


def _client(daemon: Daemon, user: str, agent: str) -> httpx.Client:
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    headers = {"user-agent": agent, "x-bf-prom-team": f"team-of-{user}"}
    return httpx.Client(proxy=daemon.proxy_url(user), verify=trust, trust_env=False, timeout=60, headers=headers)


def _claude(client: httpx.Client, model: str, headers: dict[str, str] | None = None, **more: Any) -> None:
    body = {"model": model, "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hello"}], **more}
    client.post("https://api.anthropic.com/v1/messages", headers=headers, json=body)


def _gpt(client: httpx.Client, model: str, host: str = "api.openai.com", key: str = "sk-proj-abc", **more: Any) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}], **more}
    client.post(f"https://{host}/v1/chat/completions", headers={"authorization": f"Bearer {key}"}, json=body)
