"""Why a tool sent a request: for a person or on its own, as the agent or one of its helpers, for the work or beside it. Pure.

Beside the work: titles, topics, probes of the quota. Such requests are recorded like all others, and marked `utility` with the
reason, so that who counts prompts can leave them out.

Facts:
- Copilot says who asked (`x-initiator`). Others do not: a request that answers a tool call is the agent's, one that ends with
  words of the user is a person's.
- Claude Code and Codex name sub-agents in headers, and keep the session's id.
- Requests beside the work carry no tools and are small, and their instructions are fixed sentences.

Bias: what is not recognised is taken to be work. A sentence counts only for the client that is known to send it, so that a chat about
these tools does not become a title.

Source:
    The tools' requests as observed in 2026-11; each sentence has a row in the tests.
"""

from typing import Final

import msgspec

from aiproxyd.exceptions import MalformedBody
from aiproxyd.model.head import Headers
from aiproxyd.providers import requests
from aiproxyd.providers.api import RequestFacts
from aiproxyd.providers.decoding import decode, is_null, starts_with

MAX_UTILITY_BODY_BYTES: Final = 256 << 10
"""A larger request is work: those beside it are some kilobytes, with the conversation that a title is wanted for."""

MAX_WORD_CHARACTERS: Final = 64

# (client, sentence of the instructions, reason). Sentences are ASCII without quotes, so that JSON does not change them.
_SENTENCES: Final[dict[str, tuple[tuple[bytes, str], ...]]] = {
    "Claude Code": (
        (b"indicates a new conversation topic", "topic_detection"),
        (b"word title for the following conversation", "title"),
        (b"sentence-case title", "title"),
        (b"Generate a concise title", "title"),
        (b"process Bash commands that an AI coding agent wants to run", "command_prefix"),
        (b"[SUGGESTION MODE", "suggestion"),
    ),
    "OpenCode": ((b"You are a title generator", "title"),),
    "Charm Crush": ((b"you will generate a short title", "title"),),
    "GitHub Copilot (VS Code)": (
        (b"crafting pithy titles for chatbot conversations", "title"),
        (b"crafting ultra-compact titles", "title"),
        (b"progress message", "progress_message"),
        (b"git commit message", "commit_message"),
    ),
    "Codex": ((b"Generate a concise UI title", "title"), (b"provide a short title for a task", "title")),
    "Gemini CLI": (
        (b"specialized Task Routing AI", "model_routing"),
        (b"immediately preceding response", "next_speaker_check"),
    ),
    "Qwen Code": ((b"immediately preceding response", "next_speaker_check"),),
    "Roo Code": ((b"Generate an enhanced version of this prompt", "prompt_enhancement"),),
    "Kilo Code": ((b"Generate an enhanced version of this prompt", "prompt_enhancement"),),
}

# Model names of the small models that a client only uses beside its work, and only without tools.
_SMALL_MODELS: Final[dict[str, tuple[str, ...]]] = {"Claude Code": ("haiku",)}

# Headers that name a helper of the agent: the client, the header, and the one that says which kind it is.
_AGENT_HEADERS: Final[dict[str, tuple[str, str]]] = {
    "Claude Code": ("x-claude-code-agent-id", "x-claude-code-agent-type"),
    "Codex": ("x-codex-parent-thread-id", "x-openai-subagent"),
    "OpenCode": ("x-parent-session-id", ""),
}

_REQUEST_CLASS: Final = "x-claude-code-request-class"
_AGENT_SIGNS: Final = frozenset({name for names in _AGENT_HEADERS.values() for name in names if name} | {_REQUEST_CLASS})
_INITIATED_BY: Final = {"user": "human", "agent": "agent"}


class _Shape(msgspec.Struct):
    tools: msgspec.Raw = requests.NOTHING
    max_tokens: msgspec.Raw = requests.NOTHING


_SHAPE: Final = msgspec.json.Decoder(_Shape)
# So many bytes of an array are looked at for its first item.
_MAX_BLANKS: Final = 64

_TOOLS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def purpose_of(client: str, headers: Headers, facts: RequestFacts, body: bytes) -> dict[str, str]:
    """Return what a request says about why it was sent, by the keys of records. Total.

    `agent`: `main` or `sub`, with `agent_id` and `agent_type` where they are told; `initiated_by`: `human` or `agent`;
    `utility`: the reason, for a request beside the work.

    Args:
        client: Name of the client, as `clients` has it.
        headers: Of the request.
        facts: What its API read of the body.
        body: Decoded.
    """
    found = _agent(client, headers)
    if utility := _utility(client, facts, body):
        found["utility"] = utility
    asked = _INITIATED_BY.get((headers.first("x-initiator") or "").strip().lower(), "")
    if not asked:
        if found.get("agent") == "sub" or utility or facts.correlating_tool_call_id:
            asked = "agent"
        elif facts.prompt:
            asked = "human"
    if asked:
        found["initiated_by"] = asked
    return found


def _agent(client: str, headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    signs = _AGENT_HEADERS.get(client)
    if signs is None or not headers.has_any(_AGENT_SIGNS):
        return found
    for key, header in zip(("agent_id", "agent_type"), signs, strict=True):
        if value := (headers.first(header) or "").strip()[:MAX_WORD_CHARACTERS]:
            found[key] = value
    if client == "Claude Code":
        match (headers.first(_REQUEST_CLASS) or "").strip().lower():
            case "subagent":
                found["agent"] = "sub"
            case "main":
                found["agent"] = "main"
    if found and "agent" not in found:
        found["agent"] = "sub"
    return found


def _is_empty(array: msgspec.Raw) -> bool:
    # Tools are most of many requests: their beginning tells, without a pass over them.
    start = bytes(memoryview(array)[1:_MAX_BLANKS]).lstrip()
    return start.startswith(b"]") if start else not decode(_TOOLS, array)


def _utility(client: str, facts: RequestFacts, body: bytes) -> str:
    sentences = _SENTENCES.get(client)
    small_models = _SMALL_MODELS.get(client, ())
    if (sentences is None and not small_models) or len(body) > MAX_UTILITY_BODY_BYTES:
        return ""
    try:
        shape = decode(_SHAPE, body)
        if starts_with(shape.tools, b"[") and not _is_empty(shape.tools):
            return ""
    except MalformedBody:
        return ""
    if not is_null(shape.max_tokens) and bytes(shape.max_tokens) == b"1":
        return "quota_probe"
    for sentence, reason in sentences or ():
        if sentence in body:
            return reason
    return "small_model" if any(word in facts.request_model for word in small_models) else ""
