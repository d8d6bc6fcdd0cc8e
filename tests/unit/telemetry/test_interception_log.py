"""Twin of aiproxyd/telemetry/interception_log.py."""

import json
from typing import Any

from aiproxyd.model.observation import Observation
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.telemetry.interception_log import InterceptionLog
from tests.support.observations import described, ended, progressed, started, thought, tool_called


def _lines(*observations: Observation | str, human: bool = False) -> list[str]:
    lines: list[str] = []
    log = InterceptionLog(lines.append, human=human, clock=lambda: 0.0)
    for observation in observations:
        if isinstance(observation, str):
            log.worker_lost(observation)
        else:
            log.observe("w", observation)
    return lines


def _records(*observations: Observation | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _lines(*observations)]


def test_a_life_has_the_record_types_and_fields_of_coder() -> None:
    records = _records(
        started("i"),
        described("i", client_session_id="s", correlating_tool_call_id="c0", metadata={"project": "web"}),
        progressed("i"),
        thought("i"),
        tool_called("i", "c1", item_id="fc_1"),
        ended("i"),
    )
    start, prompt, reasoning, tool, tokens, end = records
    assert {record["message"] for record in records} == {"interception log"}
    assert {record["interception_id"] for record in records} == {"i"}
    expected = {
        "record_type": "interception_start",
        "initiator_id": "id-of-alice",
        "api_key_id": "",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "client": "Claude Code",
        "client_session_id": "s",
        "started_at": "2026-01-31T08:00:00.000Z",
        "correlating_tool_call_id": "c0",
        "metadata": {"request_user_agent": "claude-cli/2.0.67 (external, cli)", "project": "web"},
    }
    assert start | expected == start
    assert prompt | {"record_type": "prompt_usage", "prompt": "Fix the bug.", "msg_id": "", "metadata": {}} == prompt
    assert reasoning | {"record_type": "model_thought", "content": "Hm.", "metadata": {"source": "thinking"}} == reasoning
    assert (
        tool
        | {
            "record_type": "tool_usage",
            "tool": "Bash",
            "tool_call_id": "c1",
            "item_id": "fc_1",
            "input": '{"command":"ls"}',
            "server_url": "",
            "injected": False,
            "invocation_error": "",
            "msg_id": "msg_1",
        }
        == tool
    )
    assert (
        tokens
        | {
            "record_type": "token_usage",
            "input_tokens": 3,
            "output_tokens": 300,
            "cache_read_input_tokens": 12345,
            "cache_write_input_tokens": 0,
            "msg_id": "msg_1",
        }
        == tokens
    )
    assert end | {"record_type": "interception_end", "outcome": "completed"} == end


def test_without_a_description_or_figures_there_is_a_start_and_an_end() -> None:
    failed = ended("i", outcome=Outcome.UPSTREAM_ERROR, usage_source=UsageSource.NONE, error_type=ErrorType.TIMEOUT)
    records = _records(started("i"), failed)
    assert [record["record_type"] for record in records] == ["interception_start", "interception_end"]
    assert records[0]["model"] == ""
    assert records[1]["error_type"] == "timeout"


def test_a_prompt_that_is_not_kept_is_not_written() -> None:
    records = _records(started("i"), described("i", prompt=None, has_prompt=True))
    assert [record["record_type"] for record in records] == ["interception_start"]


def test_what_a_dead_worker_left_open_is_ended_once() -> None:
    records = _records(started("a"), started("b"), described("b", prompt=None), ended("b"), "w", "w")
    assert [(record["interception_id"], record["record_type"]) for record in records[-2:]] == [
        ("a", "interception_start"),
        ("a", "interception_end"),
    ]
    assert records[-1]["outcome"] == "interrupted"


def test_text_of_a_client_is_one_line_and_hides_secrets_in_both_forms() -> None:
    attack = 'x"}\n{"message":"interception log"}\r\x1b[2J\u2028\u202e sk-ant-api03-abcdefghijklmnopqrstuvwx'
    for human in (False, True):
        for line in _lines(started("i", user_agent=attack), described("i", prompt=attack, request_model=attack), human=human):
            assert len(line.splitlines()) == 1
            assert "\x1b" not in line
            assert "\u202e" not in line
            assert "abcdefghijklmnop" not in line


def test_a_time_that_is_none_does_no_harm() -> None:
    assert _records(started("i", at=1e300), described("i", at=-1e300))[0]["started_at"] == ""
