"""The command line as an operator uses it beside a running daemon: users, environments, records."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import Wire, decrypted, message
from tests.support.daemon import ROOT, Daemon, eventually, plain_environment
from tests.support.fake_provider import FakeProvider

HOST = "api.anthropic.com"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def ask(daemon: Daemon, model: str, user: str = "alice", **more: object) -> None:
    with decrypted(daemon, HOST, user=user) as wire:
        wire.request("POST", "/v1/messages", HOST, message(model, **more))


@needs_curl
def test_the_printed_exports_bring_a_tool_through_the_proxy(relay_daemon: Daemon, provider: FakeProvider, model: str) -> None:
    exports = relay_daemon.command("env", "--user", "alice", "--token", "alice-token", "--shell", "bash").stdout
    script = f"{exports}\ncurl -sS -d @- https://{HOST}/v1/messages"
    done = subprocess.run(
        ["bash", "-c", script], input=message(model), capture_output=True, env=plain_environment(), timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == provider.ledger.one(model).response_id
    assert relay_daemon.record(model)["initiator"]["name"] == "alice"


@needs_curl
def test_the_bundle_trusts_the_world_and_our_ca(relay_daemon: Daemon) -> None:
    exports = relay_daemon.command("env", "--user", "alice", "--token", "alice-token", "--shell", "bash").stdout
    listed = subprocess.run(
        ["bash", "-c", f'{exports}\ngrep -c "BEGIN CERTIFICATE" "$SSL_CERT_FILE"; cat "$NODE_EXTRA_CA_CERTS"'],
        capture_output=True,
        text=True,
        env=plain_environment(),
        timeout=60,
        check=True,
    ).stdout
    count, _, own = listed.partition("\n")
    assert int(count) > 50
    assert own.strip() == relay_daemon.ca_file.read_text().strip()


@needs_curl
def test_exec_runs_a_tool_through_the_proxy_and_returns_its_status(relay_daemon: Daemon, model: str) -> None:
    options = ["exec", "--user", "bob", "--token", "bob-token"]
    relay_daemon.command(*options, "--", "curl", "-sS", "-d", message(model).decode(), f"https://{HOST}/v1/messages")
    assert relay_daemon.record(model)["initiator"]["name"] == "bob"
    assert relay_daemon.command(*options, "--", "bash", "-c", "exit 42", check=False).returncode == 42
    assert relay_daemon.command(*options, "--", "no-such-command", check=False).returncode == 127


def test_a_python_sdk_needs_nothing_but_the_environment(relay_daemon: Daemon, model: str) -> None:
    script = f"import anthropic; print(anthropic.Anthropic(api_key='k').messages.create(model={model!r}, max_tokens=9, messages=[{{'role': 'user', 'content': 'Hi'}}]).id)"
    done = relay_daemon.command(
        "exec", "--user", "alice", "--token", "alice-token", "--", sys.executable, "-W", "ignore", "-c", script
    )
    assert done.stdout.startswith("msg_")
    assert relay_daemon.record(model)["outcome"] == "completed"


def test_a_new_user_may_enter_at_once_and_a_revoked_one_may_not(own_daemon, model: str) -> None:
    daemon: Daemon = own_daemon(config={"auth": {"cache_seconds": 0.5}})
    printed = daemon.command("user", "add", "carol").stdout
    token = next(
        word
        for line in printed.splitlines()
        for word in line.replace(":", " ").replace("@", " ").split()
        if len(word) > 30 and word.isascii() and "/" not in word
    )
    with Wire(daemon) as wire:
        assert wire.connect(f"{HOST}:443", user="carol", token=token).status == 200
        wire.start_tls(HOST, daemon.ca_file)
        wire.request("POST", "/v1/messages", HOST, message(model))
    assert daemon.record(model)["initiator"]["name"] == "carol"
    assert "carol" in daemon.command("user", "list").stdout
    # The token itself is kept nowhere: only its hash.
    for path in daemon.data_dir.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    daemon.command("user", "revoke", "carol")

    def is_out() -> bool:
        with Wire(daemon) as wire:
            return wire.connect(f"{HOST}:443", user="carol", token=token).status == 407

    eventually(is_out, "the revocation to reach the workers", 15)
    assert daemon.command("user", "revoke", "nobody", check=False).returncode == 1


def test_list_filters_and_prints_json(own_daemon, provider: FakeProvider, model: str) -> None:
    daemon: Daemon = own_daemon()
    for number in range(5):
        ask(daemon, f"{model}-{number}", "alice" if number % 2 else "bob")
    with decrypted(daemon, "api.openai.com") as wire:
        wire.request("POST", "/v1/chat/completions", "api.openai.com", message(f"{model}-5"))
    stored = daemon.records(model, count=6)
    listed = daemon.interceptions()
    assert sorted(record["id"] for record in listed) == sorted(record["id"] for record in stored)
    by_id = {record["id"]: record for record in stored}
    assert all(record == by_id[record["id"]] for record in listed)
    assert {record["initiator"]["name"] for record in daemon.interceptions("--initiator", "bob")} == {"bob"}
    assert len(daemon.interceptions("--provider", "openai")) == 1
    assert [record["model"] for record in daemon.interceptions("--model", f"{model}-3")] == [f"{model}-3"]
    first = daemon.interceptions("--limit", "2")
    assert len(first) == 2
    rest = daemon.interceptions("--after-id", first[-1]["id"])
    assert [record["id"] for record in first + rest] == [record["id"] for record in listed]
    assert len(daemon.interceptions("--started-after", stored[2]["started_at"])) <= 4
    assert daemon.interceptions("--started-before", "2000-01-01T00:00:00Z") == []
    shown = json.loads(daemon.command("interceptions", "show", stored[0]["id"]).stdout)
    assert (shown[0] if isinstance(shown, list) else shown)["id"] == stored[0]["id"]
    table = daemon.command("interceptions", "list", "--output", "table").stdout
    assert "bob" in table
    assert daemon.command("interceptions", "list", "--limit", "0", check=False).returncode == 2
    assert daemon.command("interceptions", "show", "no-such-id", check=False).returncode in {1, 2}


def test_metadata_only_recording_keeps_no_content_anywhere(own_daemon, provider: FakeProvider, model: str, engine: str) -> None:
    daemon: Daemon = own_daemon(config={"decrypt": {"engine": engine}, "recording": {"content": "metadata"}})
    tool = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"zxcity": {"type": "string"}}}}
    ask(
        daemon,
        model,
        prompt="a very private prompt",
        tools=[tool],
        thinking={"type": "enabled", "budget_tokens": 1024},
        stream=True,
    )
    record = daemon.record(model)
    assert record["outcome"] == "completed"
    assert [row["tool"] for row in record["tool_usages"]] == ["get_weather"]
    daemon.wait_for_metric(1, "coder_ai_gateway_prompts_total")
    daemon.stop()
    kept = b"".join(path.read_bytes() for path in daemon.data_dir.rglob("*") if path.is_file())
    for text in (b"a very private prompt", b"zxcity", b"Let me think"):
        assert text not in kept


def test_the_first_run_needs_no_configuration(tmp_path: Path, provider: FakeProvider, model: str) -> None:
    from tests.support.first_run import FirstRun

    with FirstRun(tmp_path, provider) as first:
        text = first.wait_until_ready()
        assert "eval" in text
        exports = first.command("env", "--shell", "bash")
        script = f"{exports}\n{sys.executable} -c \"import os; print(os.environ['HTTPS_PROXY'])\""
        printed = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=True, env=plain_environment()
        ).stdout
        assert f"@127.0.0.1:{first.port}" in printed
        done = subprocess.run(
            ["bash", "-c", f"{exports}\ncurl -sS -d @- https://{HOST}/v1/messages"],
            input=message(model),
            capture_output=True,
            env=plain_environment(),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ca = first.state / "aiproxyd" / "ca"
        assert oct(ca.stat().st_mode & 0o777) == "0o700"
        assert {oct(path.stat().st_mode & 0o777) for path in ca.glob("*key*")} == {"0o600"}


def test_help_and_version_answer_quickly_without_a_configuration(tmp_path: Path) -> None:
    for arguments in (["--help"], ["version"], ["run", "--help"], ["interceptions", "list", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "aiproxyd", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=plain_environment(),
        )
        assert done.stdout
        assert "mitmproxy" not in done.stderr
