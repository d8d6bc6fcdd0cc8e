"""Thousands of mixed requests at once, a tenth of them broken on purpose: every one has one outcome, and the one that was meant."""

import asyncio
import collections
import contextlib
import json
import random
import ssl
from typing import Any, NamedTuple

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.accounting.table import Row
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider

AT_ONCE = 24


class Kind(NamedTuple):
    """One sort of request."""

    host: str
    path: str
    stream: bool
    script: str
    """For the fake provider; see `tests.support.pace`."""
    outcome: str
    leaves_after: int = -1
    """Bytes of the answer after which the client leaves; -1 for never."""


WHOLE = [
    Kind("api.anthropic.com", "/v1/messages", False, "", "completed"),
    Kind("api.anthropic.com", "/v1/messages", True, "+events=20", "completed"),
    Kind("api.anthropic.com", "/v1/messages", True, "+events=3+split=7", "completed"),
    Kind("api.openai.com", "/v1/chat/completions", False, "", "completed"),
    Kind("api.openai.com", "/v1/chat/completions", True, "+events=20", "completed"),
    Kind("api.openai.com", "/v1/responses", False, "+framing=length", "completed"),
    Kind("api.openai.com", "/v1/responses", True, "+coding=br", "completed"),
    Kind("api.openai.com", "/v1/embeddings", False, "", "completed"),
    Kind("chatgpt.com", "/backend-api/codex/responses", True, "+coding=zstd", "completed"),
    Kind("api.individual.githubcopilot.com", "/chat/completions", False, "+coding=gzip", "completed"),
    Kind("generativelanguage.googleapis.com", "/v1beta/models/{model}:streamGenerateContent?alt=sse", True, "", "completed"),
    Kind("wss:api.openai.com", "/v1/responses", True, "+events=4", "completed"),
]
BROKEN = [
    Kind("api.anthropic.com", "/v1/messages", False, "+status=529", "upstream_error"),
    Kind("api.openai.com", "/v1/chat/completions", True, "+status=400", "upstream_error"),
    Kind("api.anthropic.com", "/v1/messages", True, "+error=4", "upstream_error"),
    Kind("api.openai.com", "/v1/responses", True, "+error=6", "upstream_error"),
    Kind("api.anthropic.com", "/v1/messages", True, "+cut=4", "upstream_aborted"),
    Kind("api.openai.com", "/v1/chat/completions", True, "+reset=5", "upstream_aborted"),
    Kind("api.anthropic.com", "/v1/messages", True, "+broken=4", "parse_failed"),
    Kind("api.anthropic.com", "/v1/messages", True, "+events=500+pause=0.02", "client_aborted", 200),
    Kind("api.openai.com", "/v1/responses", True, "+events=500+pause=0.02", "client_aborted", 200),
    Kind("wss:api.openai.com", "/v1/responses", True, "+status=429", "upstream_error"),
    Kind("wss:api.openai.com", "/v1/responses", True, "+cut=4", "upstream_aborted"),
    Kind("wss:api.openai.com", "/v1/responses", True, "+events=500+pause=0.02", "client_aborted", 200),
]


def run(daemon: Daemon, provider: FakeProvider, requests: int, *, prefix: str = "mixed-", seed: int = 42) -> list[Row]:
    """Send `requests` through `daemon` and return two rows: those that were to end well, and the others.

    Only what the provider answered whole is compared to the token; of the others the outcome is.
    """
    order = random.Random(seed)
    plan = [order.choice(BROKEN if number % 10 == 9 else WHOLE) for number in range(requests)]
    order.shuffle(plan)
    models = [f"{prefix}{number:05}{kind.script}" for number, kind in enumerate(plan)]
    asyncio.run(_send(daemon, plan, models))

    def stored() -> list[dict[str, Any]]:
        return [record for record in daemon.stored(prefix) if record["ended_at"]]

    with contextlib.suppress(TimeoutError):
        eventually(lambda: len(stored()) >= requests, "a record of each request", 120)
    records = collections.defaultdict(list)
    for record in stored():
        records[record["model"]].append(record)
    entries = {entry.model: entry for entry in provider.ledger.entries(prefix)}
    whole, broken = Row(f"{requests:,} mixed requests, whole"), Row(f"{requests:,} mixed requests, broken on purpose")
    for kind, model in zip(plan, models, strict=True):
        mine = records.pop(model, [])
        row = broken if kind in BROKEN else whole
        if row is whole:
            row.compare(model, entries[model].usage, mine)
        else:
            row.requests += 1
            row.recorded += len(mine)
            if len(mine) != 1:
                row.complaints.append(f"{model}: {len(mine)} records")
        row.complaints += [
            f"{model}: {record['outcome']} ({record['response_anomaly']}), meant was {kind.outcome}"
            for record in mine
            if record["outcome"] != kind.outcome
        ]
    whole.complaints += [f"{model}: {len(mine)} records without a request" for model, mine in records.items()]
    return [whole, broken]


def outcomes(daemon: Daemon, prefix: str = "mixed-") -> dict[str, int]:
    """Return how many records of `run` ended in which way."""
    return dict(collections.Counter(record["outcome"] for record in daemon.stored(prefix)))


async def _send(daemon: Daemon, plan: list[Kind], models: list[str]) -> None:
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    numbers = iter(range(len(plan)))

    async def one_client(at: int) -> None:
        proxy = daemon.proxy_url(("alice", "bob")[at % 2])
        async with httpx.AsyncClient(proxy=proxy, verify=trust, timeout=120) as client:
            for number in numbers:
                kind, model = plan[number], models[number]
                if kind.host.startswith("wss:"):
                    await _talk(kind, model, proxy, trust)
                else:
                    await _post(client, kind, model)

    await asyncio.gather(*(one_client(at) for at in range(AT_ONCE)))


async def _post(client: httpx.AsyncClient, kind: Kind, model: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 9,
        "stream": kind.stream,
        "stream_options": {"include_usage": True},
        "messages": messages,
        "input": messages,
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
    }
    url = f"https://{kind.host}{kind.path.replace('{model}', model)}"
    # What the provider breaks, the client sees broken.
    with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.DecodingError):
        async with client.stream("POST", url, json=body) as response:
            received = 0
            async for piece in response.aiter_raw():
                received += len(piece)
                if 0 <= kind.leaves_after < received:
                    break


async def _talk(kind: Kind, model: str, proxy: str, trust: ssl.SSLContext) -> None:
    url = f"wss://{kind.host.removeprefix('wss:')}{kind.path}"
    async with connect(url, ssl=trust, proxy=proxy, max_size=None, close_timeout=1) as websocket:
        await websocket.send(json.dumps({"type": "response.create", "model": model, "input": "Hi"}))
        received = 0
        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                received += len(message)
                if json.loads(message)["type"] in {"response.completed", "error"}:
                    break
                if 0 <= kind.leaves_after < received:
                    break
