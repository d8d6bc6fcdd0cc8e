"""The shapes of answers, for the OpenAPI document. Answers are not built from these; a test compares both.

`null` stands where a viewer may not see content.
"""

from typing import Any

from pydantic import BaseModel, Field


class Validation(BaseModel):
    """A parameter that is wrong."""

    field: str
    detail: str


class ProblemAnswer(BaseModel):
    """What an answer that is no success holds."""

    message: str
    detail: str = ""
    validations: list[Validation] = []


class User(BaseModel):
    """Who made a request."""

    id: str
    username: str
    name: str
    avatar_url: str


class TokenFigures(BaseModel):
    """Disjoint counts."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int


class TokenUsage(TokenFigures):
    """The figures of one response."""

    id: str
    interception_id: str
    provider_response_id: str
    cost_micros: int | None
    price_source: str | None
    price_version: str | None
    metadata: dict[str, Any]
    created_at: str


class UserPrompt(BaseModel):
    """The last user prompt of a request."""

    id: str
    interception_id: str
    provider_response_id: str
    prompt: str | None
    metadata: dict[str, Any]
    created_at: str


class ToolUsage(BaseModel):
    """A tool call of a response."""

    id: str
    interception_id: str
    provider_response_id: str
    tool_call_id: str
    item_id: str
    server_url: str
    tool: str
    tool_kind: str
    input: str | None
    truncated: bool
    injected: bool
    invocation_error: str
    metadata: dict[str, Any]
    created_at: str


class ModelThought(BaseModel):
    """A piece of a model's reasoning."""

    content: str | None
    metadata: dict[str, Any]
    created_at: str


class Interception(BaseModel):
    """One decrypted request and its response."""

    id: str
    api_key_id: str | None
    initiator: User
    provider: str
    provider_name: str
    api: str
    method: str
    route: str
    host: str
    model: str
    response_model: str
    streaming: bool
    client: str
    client_version: str
    client_session_id: str | None
    session_id: str
    thread_parent_id: str | None
    thread_root_id: str | None
    user_agent: str
    credential_kind: str
    credential_hint: str
    metadata: dict[str, Any]
    started_at: str
    ended_at: str | None
    outcome: str | None
    usage_source: str | None
    status_code: int | None
    finish_reason: str
    error_type: str | None
    error_message: str | None
    duration_seconds: float | None
    first_byte_seconds: float | None
    first_output_seconds: float | None
    token_usages: list[TokenUsage]
    user_prompts: list[UserPrompt]
    tool_usages: list[ToolUsage]
    model_thoughts: list[ModelThought]


class Interceptions(BaseModel):
    """A page of interceptions."""

    count: int = Field(description="How many there are in all; in a large store up to a minute old.")
    results: list[Interception]


class NetworkCalls(BaseModel):
    """Always 0; Coder's agent firewall counts these."""

    total: int
    blocked: int


class SessionSummary(BaseModel):
    """A session of a list."""

    id: str
    initiator: User
    providers: list[str]
    models: list[str]
    client: str
    metadata: dict[str, Any]
    started_at: str
    ended_at: str
    threads: int
    interceptions: int
    failures: int
    token_usage_summary: TokenFigures
    cost_micros: int | None
    last_prompt: str | None
    last_active_at: str
    network_calls: NetworkCalls


class Sessions(BaseModel):
    """A page of sessions."""

    count: int = Field(description="How many there are in all; in a large store up to a minute old.")
    sessions: list[SessionSummary]


class TokenSummary(TokenFigures):
    """Figures summed up, with those that have no column."""

    metadata: dict[str, int | float]


class Thinking(BaseModel):
    """Reasoning before a tool call."""

    text: str | None


class AgenticAction(BaseModel):
    """A response that called tools."""

    model: str
    token_usage: TokenSummary
    thinking: list[Thinking]
    tool_calls: list[ToolUsage]


class Thread(BaseModel):
    """A prompt and the loop it started."""

    id: str
    prompt: str | None
    model: str
    provider: str
    credential_kind: str
    credential_hint: str
    started_at: str
    ended_at: str
    token_usage: TokenSummary
    cost_micros: int | None
    error_type: str | None
    error_message: str | None
    interceptions: list[str] = Field(description="Ids of the requests, oldest first.")
    agentic_actions: list[AgenticAction]


class SessionDetail(BaseModel):
    """A session with a page of its threads, oldest first."""

    id: str
    initiator: User
    providers: list[str]
    models: list[str]
    client: str
    metadata: dict[str, Any]
    page_started_at: str | None
    page_ended_at: str | None
    started_at: str
    ended_at: str
    token_usage_summary: TokenSummary
    cost_micros: int | None
    network_calls: NetworkCalls
    threads: list[Thread]


class ConfiguredProvider(BaseModel):
    """A provider entry as the daemon has it right now."""

    name: str
    type: str
    status: str = Field(description="enabled, disabled, error or proxy_excluded.")
    reason: str = Field(description="Why it is not in use; empty when it is.")
    hosts: list[str]
    keys: dict[str, int] = Field(description="How many keys are valid, temporary, permanent; empty for an entry without keys.")


class UsageUser(BaseModel):
    """Whose figures these are."""

    id: str
    name: str


class UsageFigures(TokenFigures):
    """Requests, tokens and cost."""

    requests: int
    failures: int
    total_tokens: int
    cost_micros: int | None = Field(description="Micro-USD, as far as prices are known; null when none is.")
    unpriced: int = Field(description="Responses without a price.")


class UsageRow(UsageFigures):
    """Figures of one combination; only what was asked for by `group_by` is there."""

    user: UsageUser | None = None
    model: str | None = None
    provider: str | None = None
    client: str | None = None
    project: str | None = None
    day: str | None = None


class Usage(BaseModel):
    """Figures, summed up."""

    group_by: list[str]
    count: int
    total: UsageFigures
    usage: list[UsageRow]


class KnownUser(BaseModel):
    """A user of the store or of the configuration, or one who was seen."""

    id: str
    username: str
    name: str
    groups: list[str]
    status: str = Field(description="`active` with a token of the store, `configured`, `revoked`, or `seen` and no more.")
    created_at: str | None
    revoked_at: str | None


class NewUser(BaseModel):
    """A user to make."""

    name: str = Field(min_length=1, max_length=120)
    groups: list[str] = Field(default=[], max_length=100)


class MadeUser(BaseModel):
    """A user who was made."""

    name: str
    token: str = Field(description="Shown this once.")
