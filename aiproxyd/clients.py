"""Which tool sent a request, in which version, and in which of its sessions. Pure: a table of data, which an operator may extend, and look-ups.

Names are Coder's where Coder has one, so that records and metrics compare; the others are what the tool calls itself.

Facts:
- Rules are tried in order and the first hit wins; user agents are compared by prefix, without regard to case.
- Several tools hide behind an SDK's user agent (aider, pi, Cline, Continue): they are told only where another header says so.
- A session is only looked for where the detected client puts it: the same header means a window, a workspace or a turn elsewhere.

Source:
    The tools' requests as observed in 2026-11 with the versions in each rule's test row.
"""

import functools
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from aiproxyd.model.head import Headers
from aiproxyd.providers.api import RequestFacts

UNKNOWN: Final = "Unknown"
"""Name of a client that no rule knows."""

# Header values end up in records and indexes; real ones are below half of these.
MAX_SESSION_ID_CHARACTERS: Final = 256
MAX_REQUEST_ID_CHARACTERS: Final = 128
MAX_VERSION_CHARACTERS: Final = 64


_USER_ID: Final = "metadata.user_id"


class ClientFacts(msgspec.Struct, frozen=True):
    """What the headers of a request say about the tool that sent it."""

    name: str
    """`Unknown` when no rule fits. One of the table's, so bounded."""
    version: str
    """Empty when it does not say."""


class ClientRule(msgspec.Struct, frozen=True):
    """How one client is recognised, and where it puts its session id. Any one sign is enough."""

    name: str
    user_agents: tuple[str, ...] = ()
    """Lower-case beginnings of the user agent."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers with their exact value; an empty value means any that is not blank."""
    session_headers: tuple[str, ...] = ()
    """Headers of the session id, the first that is not blank counts."""
    body_hints: tuple[str, ...] = ()
    """Where in the body a session id counts when no header has one: `metadata.user_id` for what an API finds there, or a key of
    `RequestFacts.metadata`."""
    body_hint_prefix: str = ""
    """What a session id in the body must begin with, and is not part of it."""
    version_header: str = ""
    """A header that holds the version, where the user agent does not."""


RULES: Final = (
    # Coder's list, in Coder's order.
    ClientRule("Xum", user_agents=("xum/",), session_headers=("x-mux-workspace-id",)),
    ClientRule("Mux", user_agents=("mux/",), session_headers=("x-mux-workspace-id",)),
    ClientRule("Claude Code", user_agents=("claude",), session_headers=("x-claude-code-session-id",), body_hints=(_USER_ID,)),
    ClientRule(
        "Codex",
        user_agents=("codex",),
        session_headers=("session-id", "session_id"),
        body_hints=("client_metadata.session_id", "prompt_cache_key"),
    ),
    ClientRule("Zed", user_agents=("zed/",)),
    ClientRule("GitHub Copilot (VS Code)", user_agents=("githubcopilotchat/",), session_headers=("x-interaction-id",)),
    ClientRule("GitHub Copilot (CLI)", user_agents=("copilot/",), session_headers=("x-client-session-id",)),
    ClientRule(
        "Kilo Code",
        user_agents=("kilo-code/",),
        headers=(("originator", "kilo-code"),),
        session_headers=("x-kilocode-taskid",),
    ),
    ClientRule("Roo Code", user_agents=("roo-code/",), headers=(("originator", "roo-code"),)),
    ClientRule("Coder Agents", user_agents=("coder-agents/",), session_headers=("x-coder-chat-id",)),
    ClientRule("Charm Crush", user_agents=("charm crush/", "charm-crush/")),
    ClientRule("Cursor", headers=(("x-cursor-client-version", ""),), version_header="x-cursor-client-version"),
    ClientRule(
        "OpenCode",
        user_agents=("opencode/",),
        session_headers=("x-opencode-session", "x-session-affinity", "x-session-id", "session-id"),
        body_hints=("prompt_cache_key",),
    ),
    ClientRule("Junie", user_agents=("junie:",)),
    # Beyond Coder's list.
    # A session is told to Code Assist alone.
    ClientRule("Gemini CLI", user_agents=("geminicli",), body_hints=("request.session_id",)),
    ClientRule("Antigravity", user_agents=("antigravity/",), body_hints=("request.session_id",)),
    ClientRule("Qwen Code", user_agents=("qwencode/",), body_hints=("prompt_cache_key",), body_hint_prefix="qwen-code:"),
    # aider says who it is to OpenRouter alone.
    ClientRule("Aider", headers=(("x-title", "Aider"), ("http-referer", "https://aider.chat"))),
    ClientRule("Mistral Vibe", user_agents=("mistral-vibe/", "mistral-client-python/mistral-vibe/")),
    # Libraries, for those who write their own tools. Last, because tools are built from them.
    # Also its classes for Bedrock, Vertex and Foundry, which begin alike.
    ClientRule("Anthropic SDK", user_agents=("anthropic", "asyncanthropic")),
    ClientRule("OpenAI SDK", user_agents=("openai/", "asyncopenai/", "azureopenai/", "asyncazureopenai/")),
    ClientRule("Google GenAI SDK", user_agents=("google-genai-sdk/",)),
    ClientRule("AWS SDK", user_agents=("boto3/", "botocore/", "aws-sdk-", "aws-cli/")),
    ClientRule("Mistral SDK", user_agents=("mistral-client-python/", "mistral-client-typescript/")),
    ClientRule("Groq SDK", user_agents=("groq/", "asyncgroq/")),
    ClientRule("Together SDK", user_agents=("together/", "asynctogether/")),
    ClientRule("Perplexity SDK", user_agents=("perplexity/", "asyncperplexity/")),
    ClientRule("Vercel AI SDK", user_agents=("ai-sdk/", "ai-sdk-")),
    ClientRule("LiteLLM", user_agents=("litellm/",)),
    ClientRule("LangChain", user_agents=("langchain",)),
    ClientRule("curl", user_agents=("curl/",)),
)
"""Every client that is known, the first rule that fits wins."""

# What a client calls one request and repeats when it retries it.
_REQUEST_ID_HEADERS: Final = ("x-client-request-id", "idempotency-key", "x-request-id")

# Some clients put their session or thread there (Codex, pi), which would make one request's retries of a whole session.
_NOT_REQUEST_IDS: Final = ("session-id", "session_id", "thread-id", "x-session-id")

# The first number that ends a name: `name/1.2.3`, `name/v1.2.3`, `name:1.2.3`, `name/language 1.2.3`.
_VERSION: Final = re.compile(r"[/: ]v?(\d[^\s/(),;]*)")

# A user agent is judged by its beginning. Real ones are below 200 characters.
_MAX_USER_AGENT_CHARACTERS: Final = 256


class ClientTable:
    """Clients that are known, the first rule that fits wins."""

    __slots__ = ("_by_name", "_no_signs", "_remembered", "_sign_headers", "_sign_names", "rules")

    def __init__(self, rules: Iterable[ClientRule] = RULES) -> None:
        """Return the table of `rules`, in their order."""
        self.rules = tuple(rules)
        self._by_name: dict[str, ClientRule] = {}
        for rule in self.rules:
            # Two rules of one name are two ways to recognise it; the first one also says where its session stands.
            self._by_name.setdefault(rule.name, rule)
        names = [name for rule in self.rules for name in (*(name for name, _ in rule.headers), rule.version_header) if name]
        self._sign_headers = tuple(dict.fromkeys(names))
        self._sign_names = frozenset(names)
        self._no_signs = ("",) * len(self._sign_headers)
        # A machine's tools send few different user agents.
        self._remembered = functools.lru_cache(maxsize=1024)(self._detect)

    def detect(self, headers: Headers) -> ClientFacts:
        """Return which client sent a request with these headers. Total."""
        user_agent = (headers.first("user-agent") or "")[:_MAX_USER_AGENT_CHARACTERS]
        signs = self._no_signs
        if headers.has_any(self._sign_names):
            signs = tuple([(headers.first(name) or "")[:_MAX_USER_AGENT_CHARACTERS] for name in self._sign_headers])
        return self._remembered(user_agent, signs)

    def session_id(self, client: str, headers: Headers, facts: RequestFacts) -> str:
        """Return the id of the client's own session; empty when it has none.

        Args:
            client: Name of the client, as `detect` returned it.
            headers: Of the request.
            facts: What its body offers.
        """
        rule = self._by_name.get(client)
        if rule is None:
            return ""
        for name in rule.session_headers:
            if found := (headers.first(name) or "").strip():
                return found[:MAX_SESSION_ID_CHARACTERS]
        for hint in rule.body_hints:
            found = facts.client_session_id if hint == _USER_ID else facts.metadata.get(hint, "")
            if found.startswith(rule.body_hint_prefix) and (found := found.removeprefix(rule.body_hint_prefix).strip()):
                return found[:MAX_SESSION_ID_CHARACTERS]
        return ""

    def _detect(self, user_agent: str, signs: tuple[str, ...]) -> ClientFacts:
        lower = user_agent.lower()
        values = dict(zip(self._sign_headers, signs, strict=True))
        for rule in self.rules:
            is_named = bool(rule.user_agents) and lower.startswith(rule.user_agents)
            if is_named or any(values[name] == value if value else values[name].strip() for name, value in rule.headers):
                if rule.version_header:
                    version = values[rule.version_header].strip()
                else:
                    # Another product's user agent says nothing about the version of the one that a header named.
                    found = _VERSION.search(user_agent) if is_named else None
                    version = found[1] if found else ""
                return ClientFacts(rule.name, version[:MAX_VERSION_CHARACTERS])
        return ClientFacts(UNKNOWN, "")


KNOWN: Final = ClientTable()
"""The table without an operator's own rules."""


def detect(headers: Headers) -> ClientFacts:
    """As `ClientTable.detect`, by the rules of this file."""
    return KNOWN.detect(headers)


def session_id(client: str, headers: Headers, facts: RequestFacts) -> str:
    """As `ClientTable.session_id`, by the rules of this file."""
    return KNOWN.session_id(client, headers, facts)


def request_id(headers: Headers) -> str:
    """Return what the client calls this request, the same when it tries again; empty when it has no name for it."""
    for name in _REQUEST_ID_HEADERS:
        found = (headers.first(name) or "").strip()
        if found and all(headers.first(other) != found for other in _NOT_REQUEST_IDS):
            return found[:MAX_REQUEST_ID_CHARACTERS]
    return ""


_TRACE_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,100})?\Z")


def trace_parent(headers: Headers) -> str:
    """Return the client's `traceparent`, or nothing when it sent none, several, or one that is not of that form.

    Source:
        https://www.w3.org/TR/trace-context/#traceparent-header
    """
    values = headers.all("traceparent")
    return values[0] if len(values) == 1 and _TRACE_PARENT.match(values[0]) else ""
