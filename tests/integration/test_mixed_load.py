"""A thousand requests of every kind at once: every figure of every sink adds up."""

import asyncio
import collections
import json
import random

import httpx
import pytest

from tests.support.daemon import Daemon
from tests.support.expectations import tokens_of
from tests.support.fake_provider import FakeProvider

REQUESTS = 1000
AT_ONCE = 24

KINDS = [
    ("api.anthropic.com", "/v1/messages", False, ""),
    ("api.anthropic.com", "/v1/messages", True, "+events=20"),
    ("api.anthropic.com", "/v1/messages", True, "+pause=0.005"),
    ("api.anthropic.com", "/v1/messages", False, "+status=529"),
    ("api.anthropic.com", "/v1/messages", True, "+cut=4"),
    ("api.anthropic.com", "/v1/messages", True, "+error=4"),
    ("api.anthropic.com", "/v1/messages/count_tokens", False, ""),
    ("api.openai.com", "/v1/chat/completions", False, ""),
    ("api.openai.com", "/v1/chat/completions", True, "+events=20"),
    ("api.openai.com", "/v1/responses", False, ""),
    ("api.openai.com", "/v1/responses", True, ""),
    ("api.openai.com", "/v1/moderations", False, ""),
    ("chatgpt.com", "/backend-api/codex/responses", True, ""),
    ("api.individual.githubcopilot.com", "/chat/completions", False, ""),
]
PASSTHROUGHS = ("/v1/messages/count_tokens", "/v1/moderations")


def body(model: str, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    return json.dumps({"model": model, "max_tokens": 9, "stream": stream, "messages": messages, "input": messages}).encode()


@pytest.mark.timeout(240)
def test_requests_responses_and_records_add_up(own_daemon, provider: FakeProvider, model: str, engine: str) -> None:
    import ssl

    daemon: Daemon = own_daemon(workers=2, config={"decrypt": {"engine": engine}})
    order = random.Random(42)
    plan = [order.choice(KINDS) for _ in range(REQUESTS)]
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))

    async def run() -> None:
        numbers = iter(range(REQUESTS))

        async def one_client(at: int) -> None:
            user = ("alice", "bob")[at % 2]
            async with httpx.AsyncClient(proxy=daemon.proxy_url(user), verify=trust, timeout=60) as client:
                for number in numbers:
                    host, path, stream, script = plan[number]
                    content = body(f"{model}-{number:04}{script}", stream=stream)
                    try:
                        await client.post(f"https://{host}{path}", content=content)
                    except httpx.RemoteProtocolError:
                        assert "cut" in script

        await asyncio.gather(*(one_client(at) for at in range(AT_ONCE)))

    asyncio.run(run())

    intercepted = [kind for kind in plan if kind[1] not in PASSTHROUGHS]
    records = daemon.records(model, count=len(intercepted), timeout_seconds=60)
    entries = {entry.model: entry for entry in provider.ledger.entries(model)}
    assert len(entries) == REQUESTS

    # Records against the provider's own account, one by one.
    for record in records:
        entry = entries[record["model"]]
        if record["outcome"] == "completed" and entry.usage:
            expected = {name: count for name, count in entry.usage.items() if name != "reasoning_output_tokens"}
            assert tokens_of(record) == expected
    outcomes = collections.Counter(record["outcome"] for record in records)
    scripts = collections.Counter(kind[3] for kind in intercepted)
    assert outcomes["upstream_aborted"] == scripts["+cut=4"]
    assert outcomes["upstream_error"] == scripts["+status=529"] + scripts["+error=4"]
    assert outcomes["completed"] == len(intercepted) - outcomes["upstream_aborted"] - outcomes["upstream_error"]

    # Metrics against the records.
    daemon.wait_for_metric(REQUESTS, "coder_ai_gateway_proxy_mitm_responses_total")
    daemon.wait_for_metric(0, "coder_ai_gateway_proxy_inflight_mitm_requests")
    daemon.wait_for_metric(0, "coder_ai_gateway_interceptions_inflight")
    metrics = daemon.metrics()
    assert metrics.total("coder_ai_gateway_proxy_mitm_requests_total") == REQUESTS
    assert metrics.total("coder_ai_gateway_interceptions_total") == len(intercepted)
    assert metrics.total("coder_ai_gateway_interceptions_total", status="completed") == outcomes["completed"]
    assert metrics.total("coder_ai_gateway_passthrough_total") == REQUESTS - len(intercepted)
    assert metrics.total("coder_ai_gateway_proxy_mitm_responses_total", code="529") == scripts["+status=529"]
    for kind, name in [
        ("input", "input_tokens"),
        ("output", "output_tokens"),
        ("cache_read_input_tokens", "cache_read_input_tokens"),
    ]:
        counted = metrics.total("coder_ai_gateway_tokens_total", type=kind)
        assert counted == sum(tokens_of(record)[name] for record in records), kind
    for user in ("alice", "bob"):
        ids = {record["initiator"]["id"] for record in records if record["initiator"]["name"] == user}
        (user_id,) = ids
        mine = [record for record in records if record["initiator"]["id"] == user_id]
        assert metrics.total("coder_ai_gateway_interceptions_total", initiator_id=user_id) == len(mine)
