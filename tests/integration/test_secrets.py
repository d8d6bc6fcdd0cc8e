"""Secrets are planted wherever one can stand, real traffic runs over them, and everything that is written down is searched.

What a person writes into a prompt is content, and recorded; it is the proof that the search finds what is there.
"""

import base64
import hashlib
import json
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.conftest import DaemonMaker
from tests.support.clients import Answer, Wire, credentials, message
from tests.support.daemon import Daemon, eventually
from tests.support.fake_provider import FakeProvider
from tests.support.otlp import grpc_collector

HOST = "api.anthropic.com"


class Planted:
    """Secrets by where they were planted, and what was found to hold one."""

    def __init__(self) -> None:
        self._by_place: dict[str, str] = {}
        self.looked_at: set[str] = set()

    def new(self, place: str, form: str = "planted-{}") -> str:
        """Return a secret for a place; its middle is unlike anything else."""
        assert place not in self._by_place
        self._by_place[place] = core = secrets.token_hex(12)
        return form.format(core)

    def core(self, place: str) -> str:
        """Return what is searched for."""
        return self._by_place[place]

    def found_in(self, where: str, haystack: bytes | str) -> list[str]:
        """Return which secrets stand in `haystack`, as they are or in base64, and where."""
        self.looked_at.add(where)
        text = haystack.decode("latin-1") if isinstance(haystack, bytes) else haystack
        found = []
        for place, core in self._by_place.items():
            # In base64 a text has three faces, by where it begins; the ends depend on what stands beside it.
            faces = [base64.b64encode(b"\0" * shift + core.encode()).decode()[4:-4] for shift in range(3)]
            if any(face in text for face in (core, *faces)):
                position = next(text.index(face) for face in (core, *faces) if face in text)
                found.append(f"{place} in {where}: …{text[max(0, position - 120) : position + 60]!r}…")
        return found


def _configuration(planted: Planted, folder: Path, endpoint: str, log_format: str, engine: str) -> dict[str, Any]:
    (folder / "key").write_text(planted.new("key in a file") + "\n")
    alice, admin = planted.new("token of a user"), planted.new("admin token")
    return {
        "logging": {
            "format": log_format,
            "level": "debug",
            "structured_interceptions": str(folder / "interceptions.log"),
        },
        "decrypt": {"engine": engine},
        "admin": {"token": admin},
        "metrics": {"token": planted.new("metrics token"), "dialects": ["coder", "bifrost", "gen_ai"]},
        "tracing": {
            "enabled": True,
            "endpoint": endpoint,
            "capture_logs": True,
            "headers": {"x-collector-key": planted.new("collector key")},
        },
        # Answers are remembered, so that workers go on while control is held.
        "auth": {
            "cache_seconds": 300,
            "users": [{"name": "alice", "token_sha256": hashlib.sha256(alice.encode()).hexdigest()}],
        },
        "providers": [
            {"name": "anthropic", "type": "anthropic"},
            {"name": "google", "type": "google"},
            {
                "name": "central",
                "type": "openai",
                "keys": [
                    planted.new("key in the configuration"),
                    {"env": "SOME_PROVIDER_KEY"},
                    {"file": str(folder / "key")},
                ],
            },
            {
                "name": "aws",
                "type": "bedrock",
                "keys": [
                    {
                        "access_key_id": planted.new("access key id", "AKIA{}"),
                        "secret_access_key": {"env": "SOME_AWS_SECRET"},
                        "session_token": planted.new("session token"),
                    }
                ],
            },
            {
                "name": "broken",
                "type": "openai-compat",
                "base_url": f"https://me:{planted.new('password in a base_url')}@broken.example.com",
            },
            {
                "name": "broken-too",
                "type": "openai-compat",
                "base_url": "https://too.example.com",
                "target": f"https://gateway.example.com/?token={planted.new('token in a target')}",
            },
            {
                "name": "twice",
                "type": "mistral",
                "base_url": "https://twice.example.com",
                "keys": [planted.new("a key that is there twice", "twice-{0}"), {"env": "SOME_KEY_TWICE"}],
            },
        ],
    }


def _environment(planted: Planted) -> dict[str, str]:
    return {
        "SOME_PROVIDER_KEY": planted.new("key in the environment"),
        "SOME_AWS_SECRET": planted.new("AWS secret in the environment"),
        "SOME_KEY_TWICE": f"twice-{planted.core('a key that is there twice')}",
    }


def _fields(planted: Planted, name: str) -> tuple[tuple[str, str], ...]:
    """Return the credentials that a client may send, each a secret of its own."""
    return (
        ("Content-Type", "application/json"),
        ("X-Api-Key", planted.new(f"x-api-key of {name}", "sk-ant-api03-{}")),
        ("Authorization", f"Bearer {planted.new(f'authorization of {name}', 'a{}')}"),
        ("Cookie", f"session={planted.new(f'cookie of {name}')}; theme=dark"),
        ("X-Auth-Token", planted.new(f"x-auth-token of {name}")),
        ("X-Amz-Security-Token", planted.new(f"x-amz-security-token of {name}")),
        ("Proxy-Authorization", f"Bearer {planted.new(f'proxy-authorization inside of {name}')}"),
        ("X-Coder-AI-Governance-Token", planted.new(f"governance token of {name}")),
    )


class Story:
    """What clients do; keeps what the proxy itself answered."""

    def __init__(self, daemon: Daemon, planted: Planted, token: str) -> None:
        self.daemon = daemon
        self.planted = planted
        self.token = token
        self.refusals = b""
        """Answers of the proxy, and those of a provider that was asked with the entry's keys."""

    def wire(self, host: str, wire: Wire) -> Wire:
        answer = wire.connect(f"{host}:443", token=self.token)
        assert answer.status == 200, (answer.head, answer.body)
        wire.start_tls(host, self.daemon.ca_file)
        return wire

    def ask(self, host: str, target: str, body: bytes, fields: tuple[tuple[str, str], ...]) -> Answer:
        with Wire(self.daemon) as wire:
            answer = self.wire(host, wire).request("POST", target, host, body, fields)
        assert answer is not None
        return answer

    def go_well_and_fail(self, model: str) -> None:
        """Requests to intercepted and other endpoints, that succeed, fail and end early."""
        planted = self.planted
        for number, script in enumerate(
            ("", "+status=400+echo=1", "+status=401+echo=1", "+status=529+echo=1", "+cut=3", "+broken=2")
        ):
            fields = _fields(planted, f"request {number}")
            prompt = f"hello {planted.new(f'content {number}', 'content-{}')}"
            try:
                self.ask(HOST, "/v1/messages", message(model + script, prompt, stream=True), fields)
            except (OSError, EOFError):
                assert "cut" in script
        key = planted.new("key in a query")
        generate = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}).encode()
        for script in ("", "+status=400+echo=1"):
            target = f"/v1beta/models/{quote(model + script)}:generateContent?alt=json&key={key}"
            self.ask("generativelanguage.googleapis.com", target, generate, (("Content-Type", "application/json"),))
        # Endpoints that nobody knows, with a secret in their path's query.
        self.ask(HOST, f"/v1/nothing?token={planted.new('token in a query')}", b"{}", _fields(planted, "a passthrough"))
        self.ask(HOST, "/v1/messages", b'{"model": ', _fields(planted, "a request that is no JSON"))

    def use_the_keys_of_the_entry(self, model: str) -> None:
        """Requests without a credential of their own, which the entry's keys are for; all keys are refused with an echo."""
        for script in ("", "+status=400+echo=1", "+status=401+echo=1", ""):
            body = json.dumps({"model": model + script, "messages": [{"role": "user", "content": "hi"}]}).encode()
            answer = self.ask(
                "api.openai.com",
                "/v1/chat/completions",
                body,
                (("Content-Type", "application/json"), ("Authorization", f"Bearer {self.token}")),
            )
            self.refusals += answer.head + answer.body
        signed = "AWS4-HMAC-SHA256 Credential=aiproxyd/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=0"
        converse = json.dumps({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}).encode()
        for script in ("", "+status=403+echo=1"):
            target = f"/model/{quote(model + script, safe='')}/converse"
            answer = self.ask("bedrock-runtime.us-east-1.amazonaws.com", target, converse, (("Authorization", signed),))
            self.refusals += answer.head + answer.body
        assert b"[hidden]" in self.refusals

    def send_the_token_to_a_provider(self, model: str) -> None:
        """What a user does who takes the proxy's token for the provider's key."""
        fields = (("Content-Type", "application/json"), ("Authorization", f"Bearer {self.token}"), ("X-Api-Key", self.token))
        self.ask(HOST, f"/v1/messages?beta=true&key={self.token}", message(model + "-token"), fields)

    def be_refused(self) -> None:
        """CONNECTs and forward requests that are refused, with secrets where they do not belong."""
        planted = self.planted
        own = f"Proxy-Authorization: {credentials(token=self.token)}"
        url = f"http://me:{planted.new('password in a URL')}@plain.example.com/?key={planted.new('key in a URL')}"
        refused = f"http://10.1.2.3/?key={planted.new('key in a refused URL')}"
        requests = [
            f"CONNECT {HOST}:443 HTTP/1.1\r\nProxy-Authorization: {credentials(token=planted.new('a wrong token'))}\r\n\r\n",
            f"CONNECT {HOST}:443 HTTP/1.1\r\nProxy-Authorization: Bearer {planted.new('a token of a wrong scheme')}\r\n\r\n",
            f"CONNECT {HOST}:443 HTTP/1.1\r\nProxy-Authorization: {planted.new('a token without a scheme')}\r\n\r\n",
            f"CONNECT me:{planted.new('password in a CONNECT')}@{HOST}:443 HTTP/1.1\r\n{own}\r\n\r\n",
            f"CONNECT broken.example.com:443 HTTP/1.1\r\n{own}\r\n\r\n",
            f"GET {url} HTTP/1.1\r\nHost: plain.example.com\r\n{own}\r\n\r\n",
            f"GET {refused} HTTP/1.1\r\nHost: 10.1.2.3\r\n{own}\r\n\r\n",
            f"{planted.new('secret in place of a method')} / HTTP/1.1\r\n\r\n",
        ]
        for request in requests:
            with Wire(self.daemon) as wire:
                wire.send(request.encode())
                try:
                    answer = wire.read_answer("GET" if request.startswith("GET") else "POST")
                except (OSError, EOFError):
                    continue
                self.refusals += answer.head + answer.body


def _journal(daemon: Daemon) -> bytes:
    return b"".join(file.read_bytes() for file in sorted((daemon.data_dir / "journal").iterdir()) if file.is_file())


def _commands(daemon: Daemon) -> str:
    text = ""
    for arguments in (
        ("providers", "list"),
        ("providers", "list", "--output", "json"),
        ("providers", "drift"),
        ("check",),
        ("interceptions", "list"),
        ("sessions", "list"),
        ("usage",),
        ("user", "list"),
    ):
        done: subprocess.CompletedProcess[str] = daemon.command(*arguments, check=False)
        text += done.stdout + done.stderr
    return text


REST = (
    "interceptions",
    "sessions",
    "models",
    "clients",
    "providers",
    "providers/status",
    "users",
    "usage?group_by=provider,model",
)


@pytest.mark.parametrize(("engine", "log_format"), [("relay", "json"), ("mitmproxy", "human")])
def test_no_secret_is_written_down_anywhere(
    own_daemon: DaemonMaker, provider: FakeProvider, tmp_path: Path, model: str, engine: str, log_format: str
) -> None:
    planted = Planted()
    with grpc_collector() as (endpoint, received):
        config = _configuration(planted, tmp_path, endpoint, log_format, engine)
        token, admin, metrics_token = (
            f"planted-{planted.core(place)}" for place in ("token of a user", "admin token", "metrics token")
        )
        daemon = own_daemon(config=config, users=(), environ=_environment(planted), start=True)
        assert daemon.process is not None
        story = Story(daemon, planted, token)

        story.go_well_and_fail(model)
        story.use_the_keys_of_the_entry(model)
        story.send_the_token_to_a_provider(model)
        story.be_refused()
        (misled,) = provider.ledger.entries(model + "-token")
        assert misled.target == "/v1/messages?beta=true"
        received_heads = str([(entry.target, entry.headers) for entry in provider.ledger.entries()])
        assert planted.core("token of a user") not in received_heads
        sent = [entry.header("authorization") for entry in provider.ledger.entries() if entry.model.startswith(model)]
        for place in ("key in the configuration", "key in the environment", "key in a file", "access key id"):
            assert any(planted.core(place) in value for value in sent), f"no provider saw the {place}"
        found = planted.found_in("the metrics", daemon.get("/metrics", metrics_token)[1])

        # While control is held, what workers tell stays in the journal.
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            held = model + "-held"
            fields = _fields(planted, "a request whose record is held")
            prompt = f"hello {planted.new('content in the journal', 'content-{}')}"
            story.ask(HOST, "/v1/messages", message(held + "+status=400+echo=1", prompt), fields)
            story.ask(HOST, f"/v1/held?key={planted.new('key of a held passthrough')}", b"{}", fields)
            eventually(lambda: b"interception_ended" in _journal(daemon), "the end of an interception in the journal")
            journal = _journal(daemon)
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)
        daemon.record(held)

        # A reload that succeeds, and one that is refused, with secrets in it.
        daemon.write_config(drain_timeout_seconds=11)
        daemon.reload()
        daemon.wait_for_log("configuration reloaded")
        bad = {**daemon.config, "admin": {**daemon.config["admin"], "tokn": planted.new("secret under a mistyped name")}}
        bad["providers"] = [
            *daemon.config["providers"],
            {"name": "x", "type": "openai", "keys": [[planted.new("a list as key")]]},
        ]
        daemon.config_file.write_text(json.dumps(bad))
        daemon.reload()
        daemon.wait_for_log("configuration not reloaded")
        refused = daemon.command("check", check=False)
        assert refused.returncode == 2
        daemon.write_config()
        daemon.reload()
        daemon.command("interceptions", "list", "--limit", "1")
        received.wait_for("Intercept")
        rest = {path: daemon.get(f"/api/v2/ai-gateway/{path}", admin)[1] for path in REST}
        pages = b"".join(daemon.get(path, admin)[1] for path in ("/", "/sessions", "/readyz", "/healthz"))
        commands = _commands(daemon)
        daemon.stop()
        spans = str(received.spans) + str(received.resources)

    found += planted.found_in("the answers of the proxy", story.refusals)
    found += planted.found_in("what a refused configuration says", refused.stdout + refused.stderr)
    found += planted.found_in("the log", daemon.log())
    contents = [planted.core(place) for place in list(planted._by_place) if place.startswith("content")]
    for where, text in (
        ("the journal", journal),
        ("the store", b"".join(file.read_bytes() for file in daemon.data_dir.glob("aiproxyd.sqlite3*"))),
        ("the rest of the data folder", b"".join(f.read_bytes() for f in daemon.data_dir.iterdir() if f.suffix == ".json")),
        ("the log of interceptions", (tmp_path / "interceptions.log").read_bytes()),
        ("the answers of the API", b"".join(rest.values())),
        ("the pages", pages),
        ("what commands print", commands),
        ("the spans", spans),
    ):
        found += [each for each in planted.found_in(where, text) if not each.startswith("content")]
        if where in {"the journal", "the store", "the log of interceptions", "the answers of the API", "what commands print"}:
            raw = text if isinstance(text, bytes) else text.encode()
            assert any(content.encode() in raw for content in contents), f"nothing would be found in {where}"
    assert not found, "\n".join(found)
