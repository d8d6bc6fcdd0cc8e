"""The API of a real daemon: the examples of the documentation, roles, and a session that reads back as what it was."""

import hashlib
import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon import ROOT, Daemon, eventually, plain_environment

URL = "https://api.anthropic.com/v1/messages"
API = "/api/v2/ai-gateway"
TOOL = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def ask(daemon: Daemon, request: dict[str, Any], *, session: str, user: str = "alice") -> dict[str, Any]:
    headers = {"x-claude-code-session-id": session, "user-agent": "claude-cli/2.1.329 (external, cli)"}
    trust = ssl.create_default_context(cafile=str(daemon.ca_file))
    with httpx.Client(proxy=daemon.proxy_url(user), verify=trust, trust_env=False) as client:
        answer: dict[str, Any] = client.post(URL, json={"max_tokens": 99, **request}, headers=headers).json()
        return answer


def get(daemon: Daemon, path: str, token: str = "", **parameters: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(daemon.admin_url + API + path, params=parameters, headers=headers, trust_env=False)


def user_says(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_the_examples_of_the_documentation_work(relay_daemon: Daemon, model: str, tmp_path: Path) -> None:
    ask(relay_daemon, {"model": model, "messages": [user_says("Hi")]}, session=model)
    record = relay_daemon.record(model)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("curl")]
    assert len(commands) >= 13
    variables = {"URL": relay_daemon.admin_url, "TOKEN": "x", "INTERCEPTION": record["id"], "SESSION": record["session_id"]}
    for command in commands:
        environment = plain_environment(**variables, NO_PROXY="127.0.0.1")
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if "DELETE" not in command and "/live" not in command:
            json.loads(done.stdout)


def test_a_session_with_sub_agents_and_parallel_tools_reads_back_as_the_threads_it_was(
    relay_daemon: Daemon, model: str
) -> None:
    """As Claude Code does it: one session id, a loop of parallel calls, and agents with prompts and loops of their own."""
    tools = [TOOL, TOOL | {"name": "Task"}]
    two = f"{model}+tools=2"

    def loop(model: str, prompt: str, turns: int) -> None:
        messages: list[dict[str, Any]] = [user_says(prompt)]
        for _ in range(turns):
            answer = ask(relay_daemon, {"model": model, "messages": messages, "tools": tools}, session=model)
            calls = [block for block in answer["content"] if block["type"] == "tool_use"]
            messages.append({"role": "assistant", "content": answer["content"]})
            if not calls:
                return
            results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "done"} for call in calls]
            messages.append({"role": "user", "content": results})

    loop(two, "Fix the parser.", 2)
    loop(two, "Search for callers.", 2)
    loop(two, "Now write the test.", 1)
    relay_daemon.records(model, count=5)
    detail = get(relay_daemon, f"/sessions/{two}").json()
    assert [thread["prompt"] for thread in detail["threads"]] == [
        "Fix the parser.",
        "Search for callers.",
        "Now write the test.",
    ]
    assert [len(thread["interceptions"]) for thread in detail["threads"]] == [2, 2, 1]
    first = detail["threads"][0]["agentic_actions"][0]
    assert {call["tool"] for call in first["tool_calls"]} == {"get_weather", "Task"}
    (summary,) = get(relay_daemon, "/sessions", session_id=two).json()["sessions"]
    assert (summary["threads"], summary["interceptions"], summary["client"]) == (3, 5, "Claude Code")
    assert summary["last_prompt"] == "Now write the test."


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("/sessions", {"q": "nonsense"}, "Invalid session search query."),
        ("/sessions", {"q": "colour:red"}, "Invalid session search query."),
        ("/sessions", {"q": "initiator:nobody-of-this-name"}, "Invalid session search query."),
        ("/sessions", {"started_after": "yesterday"}, "Invalid session search query."),
        ("/sessions", {"started_after": "2026-01-31"}, "Invalid session search query."),
        ("/sessions", {"q": "started_before:2026-13-31T00:00:00Z"}, "Invalid session search query."),
        ("/sessions", {"q": "model:a", "model": "b"}, "Invalid session search query."),
        ("/sessions", {"model": "a\0b"}, "Invalid session search query."),
        ("/sessions", {"after_session_id": "x"}, 'after_session_id: session "x" not found'),
        ("/sessions", {"after_session_id": "x", "offset": 1}, "Query parameters have invalid values."),
        ("/sessions", {"limit": 0}, "Invalid pagination limit value."),
        ("/sessions", {"limit": 1001}, "Invalid pagination limit value."),
        ("/sessions", {"limit": "many"}, "Invalid pagination limit value."),
        ("/interceptions", {"after_id": "x"}, 'after_id: interception "x" not found'),
        ("/interceptions", {"q": "started_after:then"}, "Invalid interception search query."),
        ("/usage", {"group_by": "colour"}, "Query parameters have invalid values."),
        ("/usage", {"group_by": "day,day"}, "Query parameters have invalid values."),
    ],
)
def test_what_makes_no_sense_gets_a_400_that_says_so(relay_daemon: Daemon, path: str, parameters: dict, message: str) -> None:
    answer = get(relay_daemon, path, **parameters)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert answer.json().get("validations") or answer.json()["detail"]


def test_what_is_not_there_gets_a_404(relay_daemon: Daemon) -> None:
    for path, message in (
        ("/sessions/nothing", "Session not found."),
        ("/sessions/no/thing", "Session not found."),
        ("/sessions/%00", "Session not found."),
        ("/interceptions/nothing", "Interception not found."),
    ):
        answer = get(relay_daemon, path)
        assert (answer.status_code, answer.json()["message"]) == (404, message)


def test_roles_see_what_they_may_and_reading_content_is_logged(own_daemon: Any, model: str) -> None:
    roles = {"vera": "viewer", "otto": "auditor", "ada": "admin"}
    tokens = [
        {"name": name, "token_sha256": hashlib.sha256(f"{name}-token".encode()).hexdigest(), "role": role}
        for name, role in roles.items()
    ]
    daemon: Daemon = own_daemon(config={"admin": {"tokens": tokens}})
    secret = "the launch is on Tuesday"
    ask(daemon, {"model": model, "messages": [user_says(secret)], "tools": [TOOL]}, session="s")
    ask(daemon, {"model": f"{model}+status=400", "messages": [user_says(secret)]}, session="s")
    record = daemon.records(model, count=2)[0]
    paths = ("/interceptions", f"/interceptions/{record['id']}", "/sessions", "/sessions/s", "/usage", "/users", "/models")
    for path in paths:
        assert get(daemon, path).status_code == 401, path
        assert get(daemon, path, "wrong").status_code == 401, path
        seen = get(daemon, path, "vera-token")
        assert seen.status_code == 200, path
        assert secret not in seen.text, path
    assert '"input":null' in get(daemon, "/interceptions", "vera-token").text
    assert "content read" not in daemon.log()
    for path in paths[:4]:
        assert secret in get(daemon, path, "otto-token").text, path
    lines = [json.loads(line) for line in daemon.log().splitlines() if '"content read"' in line]
    assert [(line["who"], line["role"], line["what"]) for line in lines] == [
        ("otto", "auditor", what) for what in ("interceptions", "interception", "sessions", "session")
    ]
    get(daemon, "/interceptions", "otto-token", initiator="alice")
    get(daemon, "/interceptions", "otto-token", q="initiator:alice")
    asked = [json.loads(line) for line in daemon.log().splitlines() if '"content read"' in line][-2:]
    told = [(line.get("parameters"), line.get("query")) for line in asked]
    assert told == [({"initiator": "alice"}, None), (None, "initiator:alice")]
    for token, status in (("vera-token", 403), ("otto-token", 403), ("ada-token", 201)):
        headers = {"authorization": f"Bearer {token}"}
        made = httpx.post(f"{daemon.admin_url}{API}/users", json={"name": "new"}, headers=headers, trust_env=False)
        assert made.status_code == status
    # Without a credential of its own a browser's form of another page gets nowhere, whatever cookie comes with it.
    forged = httpx.post(
        f"{daemon.admin_url}/users/add", data={"name": "evil"}, headers={"origin": "http://evil.example"}, trust_env=False
    )
    assert forged.status_code == 403


def test_another_page_cannot_change_anything_where_no_token_is_asked_for(relay_daemon: Daemon) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        for path, body in (("/users/add", {"name": "evil"}), ("/reload", {}), (f"{API}/users", {"name": "evil"})):
            answer = httpx.post(relay_daemon.admin_url + path, data=body, headers=headers, trust_env=False)
            assert answer.status_code == 403, (path, headers)
    # From our own page, but without the form's token.
    own = {"origin": relay_daemon.admin_url, "sec-fetch-site": "same-origin"}
    answer = httpx.post(f"{relay_daemon.admin_url}/users/add", data={"name": "evil"}, headers=own, trust_env=False)
    assert answer.status_code == 403
    assert "evil" not in get(relay_daemon, "/users").text


def test_log_lines_of_records_cannot_be_forged(own_daemon: Any, model: str, tmp_path: Path) -> None:
    file = tmp_path / "interceptions.jsonl"
    daemon: Daemon = own_daemon(config={"logging": {"structured_interceptions": str(file)}})
    attack = 'x"}\n{"message":"interception log","record_type":"forged"}\r\x1b[2J\u2028'
    request = {"model": f"{model} {attack}", "messages": [user_says(f"{attack} sk-ant-api03-abcdefghijklmnopqrstuvwx")]}
    ask(daemon, request | {"tools": [TOOL | {"name": attack}]}, session="s")
    daemon.record(model)
    eventually(lambda: "interception_end" in file.read_text(), "the end in the log file")
    text = file.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["message"] for line in lines} == {"interception log"}
    kinds = [line["record_type"] for line in lines]
    assert kinds == ["interception_start", "prompt_usage", "tool_usage", "token_usage", "interception_end"]
    assert lines[0]["model"] == f"{model} {attack}"
    assert lines[1]["prompt"].startswith(attack)
    assert "abcdefghijklmnop" not in text, "what looks like a secret is hidden"
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028]", text)
    assert file.stat().st_mode & 0o077 == 0


def test_the_command_line_reads_a_daemon_elsewhere_as_it_reads_the_store(relay_daemon: Daemon, model: str) -> None:
    ask(relay_daemon, {"model": model, "messages": [user_says("Hi there")], "tools": [TOOL]}, session=model)
    record = relay_daemon.record(model)
    there = ("--url", relay_daemon.admin_url)
    for command in (
        ("sessions", "list", "--model", model, "--output", "json"),
        ("sessions", "show", model, "--output", "json"),
        ("usage", "--by", "model", "--by", "day", "--model", model, "--output", "json"),
        ("interceptions", "list", "--model", model),
        ("interceptions", "show", record["id"]),
        ("interceptions", "export", "--model", model),
    ):
        of_store, of_daemon = (relay_daemon.command(*command, *flags).stdout for flags in ((), there))
        assert of_store == of_daemon or json.loads(of_store) == json.loads(of_daemon), command
    tail = relay_daemon.command("tail", "--lines", "1", "--output", "jsonl").stdout
    assert json.loads(tail)["kind"]
    failed = relay_daemon.command("sessions", "list", "--url", "http://127.0.0.1:9", check=False)
    assert failed.returncode == 1
    assert "cannot be asked" in failed.stderr
