"""Makes up what a store holds after weeks of work: sessions of coding agents with threads, sub-agents, tools, thoughts and costs.

Rows are those of the tables, as tuples in the order of `COLUMNS`. The same seed gives the same rows. Nothing is written here.
"""

import datetime as dt
import itertools
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiproxyd.model.ids import uuid7
from aiproxyd.model.principal import id_of_name

USERS = 48
PROJECTS = 24
WORKING_HOURS = (7, 19)

Rows = dict[str, list[tuple[Any, ...]]]
"""By table."""


class Model(NamedTuple):
    """A model, where it is asked for, and USD per million tokens: input, output, cache read, cache write."""

    provider: str
    provider_type: str
    api: str
    route: str
    host: str
    name: str
    answered_by: str
    rates: tuple[float, float, float, float]


class Tool(NamedTuple):
    """A client with the models it uses, the first for its sub-agents."""

    client: str
    version: str
    user_agent: str
    models: tuple[Model, ...]


_ANTHROPIC = ("anthropic", "anthropic", "anthropic.messages", "/v1/messages", "api.anthropic.com")
_OPENAI = ("openai", "openai", "openai.responses", "/v1/responses", "api.openai.com")
_CHATGPT = ("chatgpt", "chatgpt", "openai.responses", "/backend-api/codex/responses", "chatgpt.com")
_GOOGLE = (
    "google",
    "google",
    "google.generate_content",
    "/v1beta/models/{model}:streamGenerateContent",
    "generativelanguage.googleapis.com",
)
_HAIKU = Model(*_ANTHROPIC, "claude-haiku-4-5", "claude-haiku-4-5-20251001", (1, 5, 0.1, 1.25))
_SONNET = Model(*_ANTHROPIC, "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", (3, 15, 0.3, 3.75))
_OPUS = Model(*_ANTHROPIC, "claude-opus-4-5", "claude-opus-4-5-20251101", (5, 25, 0.5, 6.25))
_GPT = Model(*_OPENAI, "gpt-5.5", "gpt-5.5-2026-04-01", (1.25, 10, 0.125, 0))
_MINI = Model(*_OPENAI, "gpt-5.5-mini", "gpt-5.5-mini-2026-04-01", (0.25, 2, 0.025, 0))
_CODEX = Model(*_CHATGPT, "gpt-5.5-codex", "gpt-5.5-codex", (1.25, 10, 0.125, 0))
_FLASH = Model(*_GOOGLE, "gemini-3-flash", "gemini-3-flash", (0.3, 2.5, 0.03, 0))
_PRO = Model(*_GOOGLE, "gemini-3-pro", "gemini-3-pro", (2, 12, 0.2, 0))

TOOLS = (
    Tool("Claude Code", "2.0.67", "claude-cli/2.0.67 (external, cli)", (_HAIKU, _SONNET, _OPUS)),
    Tool("Codex", "0.75.0", "codex_cli_rs/0.75.0 (Linux; x86_64)", (_MINI, _GPT, _CODEX)),
    Tool("Gemini CLI", "0.20.1", "GeminiCLI/0.20.1 (linux; x64)", (_FLASH, _PRO)),
    Tool("OpenCode", "1.0.150", "opencode/1.0.150", (_HAIKU, _SONNET, _GPT)),
    Tool("Unknown", "", "python-httpx/0.28.1", (_MINI, _SONNET)),
)
_WEIGHTS = (50, 20, 10, 12, 8)

# Few people do most of the work.
_USER_IDS = [id_of_name(f"engineer-{number:02}") for number in range(USERS)]
_USER_WEIGHTS = list(itertools.accumulate(1 / (number + 5) for number in range(USERS)))

_ENDINGS = ("completed", "client_aborted", "upstream_error", "upstream_aborted", "interrupted")
_ENDING_WEIGHTS = (955, 20, 15, 7, 3)
_CALLED = ("Bash", "Read", "Edit", "Grep", "Write", "WebFetch", "mcp__tracker__search")
_TALK = (
    "please fix the failing test in the parser and explain why it failed look at the last commit then add a case for empty input "
    "refactor this function so that errors name the file and the line run the linter and push the branch when it is green"
)
_WORDS = _TALK.split()

COLUMNS = {
    "interceptions": (
        "id", "worker_id", "connection_id", "initiator_id", "provider", "provider_name", "api", "method", "route", "host", "model",
        "streaming", "client", "client_version", "user_agent", "client_request_id", "client_session_id", "session_id",
        "correlating_tool_call_id", "thread_parent_id", "thread_root_id", "credential_kind", "credential_hint", "billing",
        "has_prompt", "started_at", "described_at", "ended_at", "outcome", "usage_source", "status_code", "response_id",
        "response_model", "finish_reason", "error_type", "error_message", "request_anomaly", "response_anomaly", "request_bytes",
        "response_bytes", "first_byte_seconds", "first_output_seconds", "duration_seconds", "output_characters", "metadata",
    ),
    "token_usages": (
        "interception_id", "position", "provider_response_id", "input_tokens", "output_tokens", "cache_read_input_tokens",
        "cache_write_input_tokens", "cost_micros", "price_source", "price_version", "cost_basis", "cost_details", "cost_history",
        "metadata", "created_at",
    ),
    "user_prompts": ("interception_id", "provider_response_id", "prompt", "metadata", "created_at"),
    "tool_usages": (
        "interception_id", "position", "provider_response_id", "provider_tool_call_id", "provider_item_id", "tool", "tool_kind",
        "server_url", "input", "truncated", "injected", "invocation_error", "metadata", "created_at",
    ),
    "model_thoughts": ("interception_id", "position", "content", "metadata", "created_at"),
    "users": ("id", "name", "groups", "token_sha256", "created_at", "revoked_at"),
}  # fmt: skip


def user_rows(at: dt.datetime) -> list[tuple[Any, ...]]:
    """Return the users that interceptions are of."""
    return [
        (id_of_name(name), name, '["engineers"]', None, at, None)
        for name in (f"engineer-{number:02}" for number in range(USERS))
    ]


def pages(count: int, days: float, until: dt.datetime, *, seed: int = 1, page: int = 5000) -> Iterator[Rows]:
    """Yield the rows of `count` interceptions over `days` days, about in the order of time, some thousands at once.

    Args:
        count: How many interceptions.
        days: Over how many days.
        until: When the newest starts, about.
        seed: Same seed, same rows.
        page: Interceptions of a page, at least.
    """
    chance = random.Random(seed)
    made = 0
    rows: Rows = {name: [] for name in COLUMNS}
    while made < count:
        at = until - dt.timedelta(days=days * (1 - (made + len(rows["interceptions"])) / count))
        _session(chance, _work_time(chance, at, until), rows, until)
        surplus = made + len(rows["interceptions"]) - count
        if len(rows["interceptions"]) >= page or surplus >= 0:
            if surplus > 0:
                _cut(rows, surplus)
            made += len(rows["interceptions"])
            yield rows
            rows = {name: [] for name in COLUMNS}


def _cut(rows: Rows, surplus: int) -> None:
    gone = {row[0] for row in rows["interceptions"][-surplus:]}
    for name in ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts"):
        rows[name] = [row for row in rows[name] if row[0] not in gone]


def _work_time(chance: random.Random, at: dt.datetime, until: dt.datetime) -> dt.datetime:
    """Return a time of about that day at which people work, most of them."""
    moved = at + dt.timedelta(seconds=chance.uniform(-43_200, 43_200))
    if chance.random() < 0.85:
        moved = moved.replace(hour=chance.randint(*WORKING_HOURS))
    return moved if moved <= until else at


def _id(chance: random.Random, at: dt.datetime) -> str:
    return uuid7(int(at.timestamp() * 1000), chance.randbytes(10))


def _text(chance: random.Random, least: int, most: int) -> str:
    return " ".join(chance.choices(_WORDS, k=chance.randint(least, most)))


def _session(chance: random.Random, at: dt.datetime, rows: Rows, until: dt.datetime) -> None:
    user = chance.choices(_USER_IDS, cum_weights=_USER_WEIGHTS)[0]
    tool = chance.choices(TOOLS, _WEIGHTS)[0]
    has_session = tool.client != "Unknown"
    project = f"service-{min(int(chance.paretovariate(0.8)), PROJECTS):02}"
    metadata = (
        f'{{"request_user_agent":"{tool.user_agent}","project":"{project}",'
        f'"project_directory":"/src/{project}","project_branch":"main"}}'
        if has_session
        else f'{{"request_user_agent":"{tool.user_agent}"}}'
    )
    session = _id(chance, at) if has_session else None
    model = tool.models[min(1 + int(chance.paretovariate(1.5)) - 1, len(tool.models) - 1)]
    for _ in range(chance.randint(1, 4)):
        at = _thread(chance, at, rows, (user, tool, session, metadata, model), until)
        if has_session and chance.random() < 0.25:
            _thread(chance, at, rows, (user, tool, session, metadata, tool.models[0]), until)
        at += dt.timedelta(seconds=chance.expovariate(1 / 240))


def _thread(
    chance: random.Random,
    at: dt.datetime,
    rows: Rows,
    work: tuple[str, Tool, str | None, str, Model],
    until: dt.datetime,
) -> dt.datetime:
    """Add a prompt and the loop it starts, and return when that is over."""
    user, tool, session, metadata, model = work
    root: str | None = None
    parent: str | None = None
    answers: str | None = None
    cached = chance.randint(8_000, 40_000)
    steps = min(1 + int(chance.expovariate(1 / 5.5)), 60)
    connection = _id(chance, at)
    for step in range(steps):
        at = min(at, until)
        id_ = _id(chance, at)
        seconds = chance.lognormvariate(1.8, 0.7)
        end = at + dt.timedelta(seconds=seconds)
        outcome = chance.choices(_ENDINGS, _ENDING_WEIGHTS)[0]
        is_whole = outcome == "completed"
        response_id = f"msg_{id_[24:]}" if is_whole else ""
        calls = (chance.choices((1, 2, 3), (80, 15, 5))[0] if step < steps - 1 else 0) if is_whole else 0
        written = chance.randint(200, 4_000)
        error = None if is_whole or outcome == "client_aborted" else "overloaded" if outcome == "upstream_error" else "unknown"
        has_prompt = step == 0
        rows["interceptions"].append((
            id_, f"worker-{at.timetuple().tm_yday % 3}", connection, user, model.provider_type, model.provider, model.api, "POST",
            model.route, model.host, model.name, True, tool.client, tool.version, tool.user_agent, f"req_{id_[24:]}", session,
            session or root or id_, answers, parent, root, "subscription" if model.provider == "chatgpt" else "api_key",
            "sk-a...efgh", "subscription" if model.provider == "chatgpt" else "metered", has_prompt, at,
            at + dt.timedelta(milliseconds=9), end, outcome, "reported" if is_whole else "none",
            529 if outcome == "upstream_error" else 200, response_id, model.answered_by if is_whole else "",
            "tool_use" if calls else "end_turn" if is_whole else "", error, "The provider is overloaded." if error else None,
            "", "", cached * 4, written * 20, 0.6, 0.7, round(seconds, 6), 800, metadata,
        ))  # fmt: skip
        if has_prompt:
            rows["user_prompts"].append((id_, response_id, _text(chance, 6, 90), "{}", at + dt.timedelta(milliseconds=9)))
        if is_whole:
            rows["token_usages"].append(_tokens(chance, model, id_, response_id, (cached, written), end))
        answers_next: str | None = None
        for place in range(calls):
            answers_next = f"toolu_{id_[19:23]}{place}{id_[24:]}"
            rows["tool_usages"].append((
                id_, place, response_id, answers_next, "", chance.choice(_CALLED), "function", "",
                f'{{"command":"{_text(chance, 3, 30)}"}}', False, False, None, "{}", end,
            ))  # fmt: skip
        if is_whole and chance.random() < 0.35:
            rows["model_thoughts"].append((id_, 0, _text(chance, 20, 120), '{"source":"thinking"}', end))
        if not is_whole:
            return end
        cached += written
        parent, answers = id_, answers_next
        root = root or id_
        at = end + dt.timedelta(seconds=chance.expovariate(1 / 2))
    return at


def _tokens(
    chance: random.Random, model: Model, id_: str, response_id: str, read_written: tuple[int, int], at: dt.datetime
) -> tuple[Any, ...]:
    read, written = read_written
    fresh, output = chance.randint(1, 60), chance.randint(40, 2_500)
    if not model.rates[3]:
        fresh, written = written, 0
    units = (fresh, output, read, written)
    cost = round(sum(count * rate for count, rate in zip(units, model.rates, strict=True)))
    parts = ",".join(
        f'"{name}":[{count},{round(rate * 1_000_000)}]'
        for name, count, rate in zip(("input", "output", "cache_read", "cache_write"), units, model.rates, strict=True)
        if count
    )
    # Now and then a model that no list knows.
    is_priced = chance.random() < 0.995
    return (
        id_, 0, response_id, fresh, output, read, written, cost if is_priced else None, "genai-prices" if is_priced else None,
        "0.0.30" if is_priced else None,
        None if not is_priced else "list_price_equivalent" if model.provider == "chatgpt" else "list_price",
        f'{{"parts":{{{parts}}},"model":"{model.provider}/{model.name}"}}' if is_priced else None, None,
        f'{{"output_reasoning":{output // 3}}}', at,
    )  # fmt: skip
