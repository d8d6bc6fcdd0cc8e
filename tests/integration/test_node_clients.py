"""Codex and Claude Code themselves, unchanged, by environment variables alone: every request is recorded, to the token."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import node_clients
from tests.support.daemon import Daemon
from tests.support.expectations import assert_matches, prompts_of, tokens_of
from tests.support.fake_provider import FakeProvider

# Installing takes a minute or more; the clients themselves some seconds.
pytestmark = pytest.mark.timeout(900)

# Codex asks its server for WebSockets and can be told not to: a custom provider is asked over HTTP alone.
OVER_HTTP = (
    "-c",
    'model_provider="plain"',
    "-c",
    'model_providers.plain={name="plain",base_url="https://api.openai.com/v1",wire_api="responses",env_key="OPENAI_API_KEY"}',
)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., str]:
    """Runs a client; a machine without npm, or without a way to its registry, skips."""

    def run(name: str, daemon: Daemon, prompt: str, **options: object) -> str:
        try:
            return node_clients.ask(name, daemon, tmp_path, prompt, **options)  # type: ignore[arg-type]
        except node_clients.NotInstallable as exc:
            pytest.skip(str(exc))
        except subprocess.CalledProcessError as exc:
            pytest.fail(f"{exc}\n{exc.stdout}\n{exc.stderr}")

    return run


def turns(daemon: Daemon, provider: FakeProvider, model: str) -> list[tuple[dict, object]]:
    """Return records with the entries of the same requests, in order."""
    entries = [entry for entry in provider.ledger.entries(model) if entry.method in {"POST", "WS"}]
    records = daemon.records(model, count=len(entries))
    of_response = {record["provider_response_id"]: record for record in records}
    assert len(of_response) == len(entries)
    return [(of_response[entry.response_id], entry) for entry in entries]


@pytest.mark.parametrize("transport", ["WS", "POST"])
def test_codex_is_recorded_to_the_token(relay_daemon: Daemon, provider: FakeProvider, ask, model: str, transport: str) -> None:
    daemon = relay_daemon
    printed = ask("codex", daemon, "Say hello", model=model, options=OVER_HTTP if transport == "POST" else ())
    assert "word0" in printed
    found = turns(daemon, provider, model)
    assert {entry.method for _, entry in found} == {transport}  # type: ignore[attr-defined]
    for record, entry in found:
        assert tokens_of(record) == {key: count for key, count in entry.usage.items() if not key.startswith("reasoning")}  # type: ignore[attr-defined]
        assert (record["client"], record["client_version"], record["outcome"]) == ("Codex", "0.169.0", "completed")
    assert len({record["client_session_id"] for record, _ in found}) == 1
    work = [(record, entry) for record, entry in found if "warmup" not in record["metadata"]]
    assert [prompts_of(record) for record, _ in found if "warmup" in record["metadata"]] == [[]] * (len(found) - len(work))
    first, entry = work[0]
    assert_matches(first, entry, prompt="Say hello")  # type: ignore[arg-type]
    assert first["metadata"]["project"] == "shop"
    assert first["metadata"]["project_evidence"] in {"environment_context", "turn_metadata"}
    # The first answer calls a tool; the second request brings what it said, and belongs to the first.
    second, _ = work[1]
    assert second["thread_root_id"] == first["id"]
    assert second["metadata"]["initiated_by"] == "agent"


def test_claude_code_is_recorded_to_the_token(relay_daemon: Daemon, provider: FakeProvider, ask, model: str) -> None:
    daemon = relay_daemon
    assert "word0" in ask("claude", daemon, "Say hello", model=model)
    found = turns(daemon, provider, model)
    for record, entry in found:
        assert_matches(record, entry, prompt=(prompts_of(record) or [None])[0])  # type: ignore[arg-type]
        assert (record["client"], record["client_version"]) == ("Claude Code", "2.1.329")
        assert record["metadata"]["project"] == "shop"
        assert record["metadata"]["project_evidence"] == "environment_block"
    work = [record for record, _ in found if "utility" not in record["metadata"]]
    assert prompts_of(work[0]) == ["Say hello"]
    assert work[0]["metadata"]["agent"] == "main"
    assert work[0]["metadata"]["initiated_by"] == "human"
    assert len({record["client_session_id"] for record in work}) == 1
    assert work[1]["thread_root_id"] == work[0]["id"]
