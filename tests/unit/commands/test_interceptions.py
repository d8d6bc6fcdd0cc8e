"""Twin of aiproxyd/commands/interceptions.py."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiproxyd.model.observation import Observation
from aiproxyd.storage.store import Store
from tests.support.observations import START, described, ended, life, new_id, of_worker, started, thought, tool_called


@pytest.fixture
def record(data_dir: Path) -> Callable[..., None]:
    """Put observations into the store that the commands read."""
    position = 0

    def put(*observations: Observation) -> None:
        nonlocal position
        position += 1

        async def apply() -> None:
            store = await Store.open(f"sqlite:///{data_dir / 'aiproxyd.sqlite3'}")
            await store.apply(of_worker("w", *observations), {"w-00000001.jsonl": position})
            await store.close()

        asyncio.run(apply())

    return put


def test_a_list_is_an_array_indented_by_two_newest_first(aiproxyd, record) -> None:
    old, new = new_id(), new_id()
    record(*life(old), *life(new, at=START + 60))
    done = aiproxyd("interceptions", "list")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith('[\n  {\n    "id": "')
    assert [each["id"] for each in json.loads(done.out)] == [new, old]


def test_the_shape_is_coders_with_our_additions(aiproxyd, record) -> None:
    id_ = new_id()
    record(started(id_), described(id_), thought(id_), tool_called(id_, "toolu_1"), ended(id_))
    [found] = json.loads(aiproxyd("interceptions", "list").out)
    coder = {"id", "api_key_id", "initiator", "provider", "model", "client", "metadata", "started_at", "ended_at"}
    assert found.keys() >= coder | {"token_usages", "user_prompts", "tool_usages", "model_thoughts"}
    assert found.keys() >= {"provider_name", "outcome", "error_type", "error_message", "usage_source", "status_code"}
    assert found["initiator"].keys() == {"id", "username", "name", "avatar_url"}
    common = {"id", "interception_id", "provider_response_id", "metadata", "created_at"}
    assert found["token_usages"][0].keys() >= common | {"input_tokens", "output_tokens"}
    assert found["token_usages"][0].keys() >= {"cache_read_input_tokens", "cache_write_input_tokens"}
    assert found["user_prompts"][0].keys() >= common | {"prompt"}
    assert found["tool_usages"][0].keys() >= common | {"server_url", "tool", "input", "injected", "invocation_error"}
    assert found["tool_usages"][0]["tool_call_id"] == "toolu_1"
    assert found["model_thoughts"][0]["metadata"] == {"source": "thinking"}
    assert json.loads(aiproxyd("interceptions", "show", id_).out) == found


def test_each_flag_narrows_the_list(aiproxyd, record) -> None:
    alice, bob = new_id(), new_id()
    record(
        *life(alice),
        started(bob, at=START + 60, user="bob", provider="work", provider_type="openai", client="Codex"),
        described(bob, request_model="gpt-5.2"),
    )

    def ids(*flags: str) -> list[str]:
        done = aiproxyd("interceptions", "list", *flags)
        assert (done.status, done.err) == (0, "")
        return [each["id"] for each in json.loads(done.out)]

    assert ids("--initiator", "bob") == [bob]
    assert ids("--provider", "openai") == ids("--provider", "work") == [bob]
    assert ids("--model", "gpt-5.2") == ids("--client", "Codex") == [bob]
    assert ids("--started-after", "2026-01-31T08:01:00Z") == [bob]
    assert ids("--started-before", "2026-01-31T17:00:59+09:00") == [alice]
    assert ids("--limit", "1") == [bob]
    assert ids("--after-id", bob) == [alice]
    assert ids("--initiator", "\udcff\0") == []


def test_me_is_the_person_at_the_terminal(aiproxyd, record, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = new_id(), new_id()
    record(*life(alice), started(bob, at=START + 60, user="bob"), described(bob))
    monkeypatch.setenv("LOGNAME", "bob")
    done = aiproxyd("interceptions", "list", "--initiator", "me")
    assert [each["id"] for each in json.loads(done.out)] == [bob]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--limit", "0"], "limit value must be between 1 and 1000"),
        (["--limit", "1001"], "limit value must be between 1 and 1000"),
        (["--limit", "many"], "Invalid value for '--limit'"),
        (["--after-id", "x"], "'x' is not a UUID"),
        (["--started-after", "yesterday"], "'yesterday' is not an RFC 3339 time"),
        (["--started-after", "2026-01-31T08:00:00"], "is not an RFC 3339 time such as 2026-01-31T08:00:00Z"),
        (["--started-before", "0001-01-01T00:00:00+23:00"], "is not an RFC 3339 time"),
        (["--output", "xml"], "'xml'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_flag_that_is_not_understood_is_told_in_one_sentence(aiproxyd, record, flags: list[str], sentence: str) -> None:
    record(*life(new_id()))
    done = aiproxyd("interceptions", "list", *flags)
    assert (done.status, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["show", "5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11"], ["list", "--after-id", "5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11"]],
)
def test_an_interception_that_is_not_there_is_an_error(aiproxyd, record, arguments: list[str]) -> None:
    record(*life(new_id()))
    done = aiproxyd("interceptions", *arguments)
    assert (done.status, done.out) == (1, "")
    assert "interception '5a0d1c2e-0f7e-4a59-9d5c-5d0c3f6c1c11' not found" in done.err


def test_without_a_store_the_sentence_says_what_makes_one(aiproxyd, data_dir: Path) -> None:
    done = aiproxyd("interceptions", "list")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"aiproxyd: there is no store at {data_dir / 'aiproxyd.sqlite3'}; `aiproxyd run` makes it\n"
    assert not data_dir.exists(), "looking makes nothing"


def test_nothing_found_is_an_empty_array_and_a_sentence_for_people(aiproxyd, record) -> None:
    record()
    assert aiproxyd("interceptions", "list") == (0, "[]\n", "")
    assert aiproxyd("interceptions", "list", "--output", "table") == (0, "no interception was found\n", "")


def test_a_table_has_a_line_for_each(aiproxyd, record) -> None:
    whole, open_ = new_id(), new_id()
    record(*life(whole, calls="toolu_1"), started(open_, at=START - 60, user="bob"))
    head, first, second = aiproxyd("interceptions", "list", "--output", "table").out.splitlines()
    assert head.split()[:3] == ["STARTED", "USER", "PROVIDER"]
    assert first.split()[:4] == ["2026-01-31", "08:00:00", "alice", "anthropic"]
    for text in ("claude-sonnet-4-5", "Claude Code", "completed", "12345", "300", "2.0", "Fix the bug.", whole):
        assert text in first
    assert "bob" in second
    assert "open" in second


def test_what_a_prompt_holds_does_not_move_a_terminal(aiproxyd, record) -> None:
    id_ = new_id()
    trouble = "\x1b[2J\x9b2J\u202eevil\u2028[bold]\r\n" + "x" * 100
    record(started(id_, user="[red]a"), described(id_, prompt=trouble), ended(id_))
    out = aiproxyd("interceptions", "list").out
    assert json.loads(out)[0]["user_prompts"][0]["prompt"] == trouble
    table = aiproxyd("interceptions", "list", "--output", "table").out
    for text in (out, table):
        assert not set(text) & set("\x1b\x9b\u202e\u2028\r")
    assert "[red]a" in table, "markup is text"
    assert "[bold]" in table
    assert len(table.splitlines()) == 2


def test_a_terminal_without_unicode_gets_escapes(record, data_dir: Path) -> None:
    id_ = new_id()
    record(started(id_), described(id_, prompt="修复"), ended(id_))
    result = subprocess.run(
        [sys.executable, "-m", "aiproxyd", "interceptions", "show", id_],
        check=True, capture_output=True, timeout=60,
        env={"AIPROXYD_DATA_DIR": str(data_dir), "PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert json.loads(result.stdout.decode("ascii"))["user_prompts"][0]["prompt"] == "修复"
