"""One row a client, from what each was seen to send, and the vectors of the sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.clients import (
    MAX_REQUEST_ID_CHARACTERS,
    MAX_SESSION_ID_CHARACTERS,
    RULES,
    ClientFacts,
    detect,
    request_id,
    session_id,
)
from aiproxyd.model.head import Headers
from aiproxyd.providers.api import RequestFacts

NOTHING = RequestFacts()


def headers(user_agent: str = "", **others: str) -> Headers:
    fields = [("User-Agent", user_agent)] if user_agent else []
    return Headers([*fields, *((name.replace("_", "-"), value) for name, value in others.items())])


ROWS = [
    # Coder's test vectors.
    ("mux/0.19.0-next.2.gcceff159 ai-sdk/openai/3.0.36 ai-sdk/provider-utils/4.0.1", "Mux", "0.19.0-next.2.gcceff159"),
    ("xum/0.30.1 ai-sdk/openai/3.0.36", "Xum", "0.30.1"),
    ("claude-cli/2.0.67 (external, cli)", "Claude Code", "2.0.67"),
    ("claude-code/1.0.0", "Claude Code", "1.0.0"),
    ("codex_cli_rs/0.87.0 (Mac OS 26.2.0; arm64) ghostty/1.3.0", "Codex", "0.87.0"),
    ("Zed/0.219.4+stable.119.abc123 (macos; aarch64)", "Zed", "0.219.4+stable.119.abc123"),
    ("GitHubCopilotChat/0.37.2026011603", "GitHub Copilot (VS Code)", "0.37.2026011603"),
    ("copilot/0.0.403 (client/cli linux v24.11.1)", "GitHub Copilot (CLI)", "0.0.403"),
    ("kilo-code/5.1.0 (darwin 25.2.0; arm64) node/22.20.0", "Kilo Code", "5.1.0"),
    ("roo-code/3.36.1 (darwin 25.2.0; arm64) node/22.20.0", "Roo Code", "3.36.1"),
    ("coder-agents/v2.24.0 (linux/amd64)", "Coder Agents", "2.24.0"),
    ("Charm Crush/0.1.11", "Charm Crush", "0.1.11"),
    ("charm-crush/0.2.0", "Charm Crush", "0.2.0"),
    ("junie:1.2.3", "Junie", "1.2.3"),
    ("ccclaude-cli/1.0.0", "Unknown", ""),
    ("", "Unknown", ""),
    # Observed in 2026-11.
    ("claude-cli/2.1.329 (external, sdk-cli)", "Claude Code", "2.1.329"),
    ("codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm-256color (codex_exec; 0.169.0)", "Codex", "0.169.0"),
    ("GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)", "Gemini CLI", "0.61.0"),
    ("opencode/1.18.33 ai-sdk/provider-utils/4.0.46 runtime/bun/1.3.14", "OpenCode", "1.18.33"),
    ("copilot/1.0.102 (linux v24.20.0) term/unknown client/github/cli", "GitHub Copilot (CLI)", "1.0.102"),
    ("QwenCode/0.24.4 (linux; x64)", "Qwen Code", "0.24.4"),
    ("Anthropic/Python 2.11.0", "Anthropic SDK", "2.11.0"),
    ("AsyncAnthropic/Python 2.11.0", "Anthropic SDK", "2.11.0"),
    ("Anthropic/JS 1.11.0", "Anthropic SDK", "1.11.0"),
    ("AnthropicBedrock/Python 2.11.0", "Anthropic SDK", "2.11.0"),
    ("OpenAI/Python 3.52.0", "OpenAI SDK", "3.52.0"),
    ("AsyncOpenAI/Python 3.52.0", "OpenAI SDK", "3.52.0"),
    ("OpenAI/JS 7.55.0", "OpenAI SDK", "7.55.0"),
    ("google-genai-sdk/3.4.0 gl-python/3.12.1", "Google GenAI SDK", "3.4.0"),
    ("ai-sdk-anthropic/4.0.105 ai-sdk-provider-utils/5.0.81 node.js/22", "Vercel AI SDK", "4.0.105"),
    ("ai-sdk/anthropic/4.0.42 ai-sdk/provider-utils/5.0.30 runtime/bun/1.3.13", "Vercel AI SDK", "4.0.42"),
    ("Boto3/1.44.5 md/Botocore#1.44.5", "AWS SDK", "1.44.5"),
    ("aws-sdk-js/3.940.0 ua/2.1 os/linux#6.1", "AWS SDK", "3.940.0"),
    ("aws-cli/2.31.0 md/awscrt#0.28", "AWS SDK", "2.31.0"),
    ("AsyncAnthropicVertex/Python 2.11.0", "Anthropic SDK", "2.11.0"),
    ("AnthropicFoundry/Python 2.11.0", "Anthropic SDK", "2.11.0"),
    ("antigravity/1.15.8 windows/amd64", "Antigravity", "1.15.8"),
    ("antigravity/cli/1.0.13 (aidev_client; os_type=darwin; arch=arm64)", "Antigravity", "1.0.13"),
    ("mistral-client-python/Mistral-Vibe/1.4.0", "Mistral Vibe", "1.4.0"),
    ("Mistral-Vibe/1.4.0", "Mistral Vibe", "1.4.0"),
    ("mistral-client-python/2.1.0", "Mistral SDK", "2.1.0"),
    ("Groq/Python 1.2.0", "Groq SDK", "1.2.0"),
    ("AsyncTogether/Python 2.3.0", "Together SDK", "2.3.0"),
    ("Perplexity/Python 0.48.1", "Perplexity SDK", "0.48.1"),
    ("litellm/1.106.2", "LiteLLM", "1.106.2"),
    ("langchain-anthropic/1.7.7", "LangChain", "1.7.7"),
    ("curl/7.88.1", "curl", "7.88.1"),
    ("Go-http-client/2.0", "Unknown", ""),
    ("ls/JS 5.23.2", "Unknown", ""),
]


@pytest.mark.parametrize(("user_agent", "name", "version"), ROWS)
def test_a_client_is_told_by_its_user_agent(user_agent: str, name: str, version: str) -> None:
    assert detect(headers(user_agent)) == ClientFacts(name, version)


@pytest.mark.parametrize(
    ("fields", "name", "version"),
    [
        (headers("node-fetch/3.1.0", originator="kilo-code"), "Kilo Code", ""),
        (headers(originator="roo-code"), "Roo Code", ""),
        (headers(originator="Roo-Code"), "Unknown", ""),
        (headers("connect-es/1.6.1", x_cursor_client_version="2.3.4"), "Cursor", "2.3.4"),
        (headers("connect-es/1.6.1", x_cursor_client_version=" "), "Unknown", ""),
        (headers("litellm/1.81.10", http_referer="https://aider.chat", x_title="Aider"), "Aider", ""),
        (headers("claude-cli/2.0.0", originator="kilo-code"), "Claude Code", "2.0.0"),
    ],
)
def test_a_client_is_told_by_other_headers(fields: Headers, name: str, version: str) -> None:
    assert detect(fields) == ClientFacts(name, version)


def test_every_rule_but_those_told_by_headers_alone_has_a_row() -> None:
    assert {rule.name for rule in RULES if rule.user_agents} == {name for _, name, _ in ROWS} - {"Unknown"}


UUID = "54c1eb09-7f2b-4b0e-9d6a-2b1d1c0f7a11"


@pytest.mark.parametrize(
    ("client", "fields", "facts", "expected"),
    [
        ("Claude Code", headers(x_claude_code_session_id="of-header"), RequestFacts(client_session_id="of-body"), "of-header"),
        ("Claude Code", headers(x_claude_code_session_id="  "), RequestFacts(client_session_id=UUID), UUID),
        ("Claude Code", headers(), RequestFacts(client_session_id=UUID), UUID),
        ("Claude Code", headers(), RequestFacts(metadata={"user_id": "user_abc123_account_456"}), ""),
        ("Claude Code", headers(session_id="other"), NOTHING, ""),
        ("Codex", headers(session_id="  codex-session-123  "), NOTHING, "codex-session-123"),
        ("Codex", headers(**{"session-id": "new", "session_id": "old"}), NOTHING, "new"),
        ("Codex", headers(), RequestFacts(metadata={"client_metadata.session_id": "s", "prompt_cache_key": "p"}), "s"),
        ("Codex", headers(), RequestFacts(metadata={"prompt_cache_key": "p"}), "p"),
        ("Mux", headers(x_mux_workspace_id="w"), NOTHING, "w"),
        ("Xum", headers(x_mux_workspace_id="w"), NOTHING, "w"),
        ("GitHub Copilot (VS Code)", headers(x_interaction_id="i", vscode_sessionid="v"), NOTHING, "i"),
        ("GitHub Copilot (VS Code)", headers(vscode_sessionid="v"), NOTHING, ""),
        ("GitHub Copilot (CLI)", headers(x_client_session_id="s", x_interaction_id="i"), NOTHING, "s"),
        ("Kilo Code", headers(x_kilocode_taskid="t"), NOTHING, "t"),
        ("Coder Agents", headers(x_coder_chat_id="c"), NOTHING, "c"),
        ("OpenCode", headers(x_opencode_session="o", x_session_affinity="a"), NOTHING, "o"),
        ("OpenCode", headers(x_session_affinity="ses_1", x_session_id="ses_1"), NOTHING, "ses_1"),
        ("OpenCode", headers(), RequestFacts(metadata={"prompt_cache_key": "ses_2"}), "ses_2"),
        ("Qwen Code", headers(), RequestFacts(metadata={"prompt_cache_key": f"qwen-code:{UUID}"}), UUID),
        ("Qwen Code", headers(), RequestFacts(metadata={"prompt_cache_key": UUID}), ""),
        ("Zed", headers(session_id="s"), NOTHING, ""),
        ("Roo Code", headers(session_id="s"), NOTHING, ""),
        ("Cursor", headers(session_id="s"), NOTHING, ""),
        ("Charm Crush", headers(session_id="s"), NOTHING, ""),
        ("Gemini CLI", headers(session_id="s"), NOTHING, ""),
        ("Gemini CLI", headers(), RequestFacts(metadata={"request.session_id": "s"}), "s"),
        ("Antigravity", headers(), RequestFacts(metadata={"request.session_id": "s"}), "s"),
        ("OpenAI SDK", headers(session_id="s"), RequestFacts(metadata={"prompt_cache_key": "p"}), ""),
        ("Unknown", headers(session_id="s"), RequestFacts(client_session_id="s"), ""),
    ],
)
def test_a_session_is_looked_for_where_its_client_puts_it(
    client: str, fields: Headers, facts: RequestFacts, expected: str
) -> None:
    assert session_id(client, fields, facts) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (headers(), ""),
        (headers(x_client_request_id=" r-1 "), "r-1"),
        (headers(x_client_request_id="r-1", x_request_id="r-2"), "r-1"),
        (headers(idempotency_key="stainless-retry-7", x_request_id="r-2"), "stainless-retry-7"),
        (headers(x_request_id="r-2"), "r-2"),
        # Codex and pi put their session there, which is no name of a request.
        (headers(**{"x-client-request-id": "s", "session-id": "s"}), ""),
        (headers(**{"x-client-request-id": "s", "session_id": "s", "x-request-id": "r"}), "r"),
        (headers(**{"x-client-request-id": "t", "session-id": "s", "thread-id": "t"}), ""),
    ],
)
def test_a_request_has_the_name_its_client_gives_it(fields: Headers, expected: str) -> None:
    assert request_id(fields) == expected


@given(st.lists(st.tuples(st.sampled_from(["user-agent", "originator", "x-title", "session-id"]), st.text()), max_size=5))
def test_every_head_has_a_client_of_the_table(fields: list[tuple[str, str]]) -> None:
    client = detect(Headers(fields))
    assert client.name in {rule.name for rule in RULES} | {"Unknown"}
    assert len(session_id(client.name, Headers(fields), NOTHING)) <= MAX_SESSION_ID_CHARACTERS


def test_what_a_client_sends_is_cut() -> None:
    fields = headers("codex/" + "1" * 300, **{"session-id": "s" * 5000, "x-request-id": "r" * 5000})
    assert len(detect(fields).version) == 64
    assert len(session_id("Codex", fields, NOTHING)) == MAX_SESSION_ID_CHARACTERS
    assert len(request_id(fields)) == MAX_REQUEST_ID_CHARACTERS
