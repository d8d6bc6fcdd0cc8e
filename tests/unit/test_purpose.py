"""Why a tool sent a request: people, agents, helpers, and what is beside the work."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.head import Headers
from aiproxyd.providers.api import RequestFacts
from aiproxyd.purpose import MAX_UTILITY_BODY_BYTES, purpose_of

PROMPT = RequestFacts(request_model="m", prompt="Hi")
TOOL_RESULT = RequestFacts(request_model="m", correlating_tool_call_id="call_1")


@pytest.mark.parametrize(
    ("client", "headers", "facts", "expected"),
    [
        ("Unknown", {}, PROMPT, {"initiated_by": "human"}),
        ("Unknown", {}, TOOL_RESULT, {"initiated_by": "agent"}),
        ("Unknown", {}, RequestFacts(), {}),
        ("GitHub Copilot (CLI)", {"X-Initiator": "agent"}, PROMPT, {"initiated_by": "agent"}),
        ("GitHub Copilot (VS Code)", {"x-initiator": " User "}, TOOL_RESULT, {"initiated_by": "human"}),
        ("Unknown", {"x-initiator": "nobody"}, PROMPT, {"initiated_by": "human"}),
        ("Claude Code", {"X-Claude-Code-Request-Class": "main"}, PROMPT, {"agent": "main", "initiated_by": "human"}),
        (
            "Claude Code",
            {
                "X-Claude-Code-Request-Class": "subagent",
                "X-Claude-Code-Agent-Id": "a7",
                "X-Claude-Code-Agent-Type": "Explore",
            },
            PROMPT,
            {"agent": "sub", "agent_id": "a7", "agent_type": "Explore", "initiated_by": "agent"},
        ),
        (
            "Codex",
            {"x-openai-subagent": "review", "x-codex-parent-thread-id": "t1"},
            PROMPT,
            {"agent": "sub", "agent_id": "t1", "agent_type": "review", "initiated_by": "agent"},
        ),
        ("OpenCode", {"x-parent-session-id": "ses_1"}, PROMPT, {"agent": "sub", "agent_id": "ses_1", "initiated_by": "agent"}),
        (
            "Unknown",
            {"x-openai-subagent": "review", "x-claude-code-request-class": "subagent"},
            PROMPT,
            {"initiated_by": "human"},
        ),
    ],
)
def test_headers_and_the_last_message_tell_who_asked(
    client: str, headers: dict[str, str], facts: RequestFacts, expected: dict[str, str]
) -> None:
    assert purpose_of(client, Headers(headers.items()), facts, b"{}") == expected


@pytest.mark.parametrize(
    ("client", "system", "reason"),
    [
        ("Claude Code", "Analyze if this message indicates a new conversation topic.", "topic_detection"),
        ("Claude Code", "Please write a 5-10 word title for the following conversation:", "title"),
        ("Claude Code", "Generate a concise, sentence-case title (3-7 words)", "title"),
        ("Claude Code", "Your task is to process Bash commands that an AI coding agent wants to run.", "command_prefix"),
        ("OpenCode", "You are a title generator. You output ONLY a thread title.", "title"),
        ("Charm Crush", "you will generate a short title based on the first message", "title"),
        ("GitHub Copilot (VS Code)", "You are an expert in crafting pithy titles for chatbot conversations.", "title"),
        ("Codex", "Generate a concise UI title (up to 36 characters)", "title"),
        ("Gemini CLI", "You are a specialized Task Routing AI.", "model_routing"),
        ("Gemini CLI", "Analyze *only* the content and structure of your immediately preceding response", "next_speaker_check"),
        ("Qwen Code", "Analyze *only* the content and structure of your immediately preceding response", "next_speaker_check"),
        ("Roo Code", "Generate an enhanced version of this prompt", "prompt_enhancement"),
        ("Unknown", "You are a title generator.", ""),
        ("Claude Code", "You are a title generator.", ""),
    ],
)
def test_a_request_beside_the_work_is_marked_with_its_reason(client: str, system: str, reason: str) -> None:
    request = {"model": "m", "system": system, "messages": [{"role": "user", "content": "Hi"}]}

    def utility(request: dict[str, object]) -> str:
        return purpose_of(client, Headers(), PROMPT, json.dumps(request).encode()).get("utility", "")

    assert utility(request) == utility(request | {"tools": []}) == reason
    assert utility(request | {"tools": [{"name": "Bash"}]}) == "", "who offers tools works"
    assert utility(request | {"padding": "x" * MAX_UTILITY_BODY_BYTES}) == ""


def test_probes_and_small_models_are_beside_the_work_of_claude_code_alone() -> None:
    probe = b'{"model":"claude-haiku-4-5","max_tokens":1,"messages":[{"role":"user","content":"quota"}]}'
    small = b'{"model":"claude-haiku-4-5","max_tokens":512,"messages":[]}'
    haiku = RequestFacts(request_model="claude-haiku-4-5", prompt="quota")
    assert purpose_of("Claude Code", Headers(), haiku, probe) == {"utility": "quota_probe", "initiated_by": "agent"}
    assert purpose_of("Claude Code", Headers(), haiku, small)["utility"] == "small_model"
    assert "utility" not in purpose_of("Anthropic SDK", Headers(), haiku, probe)


@given(st.sampled_from(["Claude Code", "Codex", "Unknown"]), st.binary(max_size=80), st.text(max_size=80))
def test_any_request_has_a_purpose_or_none(client: str, body: bytes, value: str) -> None:
    headers = Headers([("x-claude-code-request-class", value), ("x-openai-subagent", value), ("x-initiator", value)])
    purpose_of(client, headers, PROMPT, body)


@pytest.mark.parametrize("blanks", [b"", b" ", b"\r\n\t", b" " * 62, b" " * 63, b" " * 64, b" " * 500])
def test_tools_are_offered_or_not_however_the_array_is_written(blanks: bytes) -> None:
    body = b'{"system":"Generate a concise title","tools":[%b]}'
    for tools, expected in ((blanks, "title"), (blanks + b'{"name":"Bash"}', None), (blanks + b'"]"' + blanks, None)):
        assert purpose_of("Claude Code", Headers(), PROMPT, body % tools).get("utility") == expected
