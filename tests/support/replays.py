"""Transcripts as the fake provider plays them, and the requests that ask for them: provider, host and path of each."""

import functools
from typing import Any

from aiproxyd.classify import Provider, find_endpoint
from aiproxyd.config.providers import provider_table
from aiproxyd.config.schema import Config
from tests.support.certificates import PROVIDER_HOSTS
from tests.support.replies import Reply
from tests.support.transcripts import Transcript, transcripts

HEADER = "x-transcript"
"""Names the transcript that is to be the answer."""

TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")

_WITH_A_BASE_URL = {"moonshot": "https://api.moonshot.ai", "openai-compat": "https://llm.example.net"}

PROVIDERS: list[dict[str, Any]] = [
    {"name": name, "type": "openai-compat", "base_url": _WITH_A_BASE_URL[name]}
    if name in _WITH_A_BASE_URL
    else {"name": name, "type": name}
    for name in sorted({transcript.provider for transcript in transcripts()})
]
"""`providers` of a configuration in which every transcript's provider is decrypted."""


@functools.cache
def _by_name() -> dict[str, Transcript]:
    return {transcript.name: transcript for transcript in transcripts()}


def true_usage(transcript: Transcript) -> dict[str, int]:
    """Return the billed figures that a transcript's expectation names; empty when the provider reports none."""
    usage = transcript.expected_result["usage"]
    return {} if usage is None else {name: usage.get(name, 0) for name in TOKENS}


def reply(name: str) -> Reply:
    """Return the answer that the transcript `name` holds."""
    transcript = _by_name()[name]
    return Reply(
        transcript.status,
        transcript.content_type,
        [transcript.response],
        usage=true_usage(transcript),
        response_id=transcript.expected_result["response_id"],
        headers=list(transcript.headers.items()),
    )


@functools.cache
def _providers() -> dict[str, Provider]:
    table = provider_table(Config.model_validate({"providers": PROVIDERS, "data_dir": "/nowhere"}))
    return {provider.name: provider for provider in table.providers}


def target(transcript: Transcript) -> tuple[str, str]:
    """Return host and path of the request for a transcript: its own path, or the first of its provider that has its API."""
    provider = _providers()[transcript.provider]
    hosts = {host for host, _ in provider.authorities}
    host = next((host for host in PROVIDER_HOSTS if any(_fits(host, pattern) for pattern in hosts)), "")
    if not host:
        raise ValueError(f"{transcript.name}: the fake provider plays none of {sorted(hosts)}; add one to PROVIDER_HOSTS")
    path = transcript.path
    if not find_endpoint(provider, "POST", path.partition("?")[0]).api:
        route = next(endpoint.route for endpoint in provider.endpoints if endpoint.api == transcript.api.name)
        path = provider.path_prefix + route.replace("{}", "x").replace("*", "x")
    return host, path


def _fits(host: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    return host == pattern if not star else host.startswith(before) and host.endswith(after)
