"""Canonical events of a response: facts of the provider's protocol, without a clock, ordered by life.

Every API's parser speaks these, streamed or not, so that `assemble` knows no provider.
"""

import enum
from typing import final

import msgspec

from aiproxyd.model.outcome import ErrorType
from aiproxyd.model.usage import TokenUsage


class ThoughtSource(enum.StrEnum):
    """Where a piece of reasoning was found."""

    THINKING = "thinking"
    """Anthropic's thinking blocks, Gemini's thought parts."""
    REASONING_SUMMARY = "reasoning_summary"
    """Summaries of reasoning items in the Responses API."""
    COMMENTARY = "commentary"
    """Assistant messages of phase `commentary` in the Responses API."""
    REASONING_CONTENT = "reasoning_content"
    """`reasoning_content` or `reasoning` of OpenAI-compatible chat."""


class ToolKind(enum.StrEnum):
    """Who runs a tool."""

    FUNCTION = "function"
    """The client, with JSON arguments."""
    CUSTOM = "custom"
    """The client, with free-form input."""
    HOSTED = "hosted"
    """The provider: web search, code interpreter, MCP, …."""


class _Event(msgspec.Struct, frozen=True):
    pass


@final
class ResponseStarted(_Event, frozen=True):
    """The response has an id, or a model that answers; either may be empty. May come again with more."""

    response_id: str = ""
    response_model: str = ""


@final
class TextDelta(_Event, frozen=True):
    """So many characters of visible answer text arrived."""

    characters: int


@final
class ReasoningDelta(_Event, frozen=True):
    """A piece of reasoning text. Pieces with one `index` belong together until its ReasoningEnded."""

    index: int
    source: ThoughtSource
    text: str


@final
class ReasoningEnded(_Event, frozen=True):
    """The reasoning `index` is complete. Optional: the end of the response ends every reasoning."""

    index: int


@final
class ToolCallStarted(_Event, frozen=True):
    """A tool call began. `index` is unique within the response."""

    index: int
    name: str
    call_id: str = ""
    item_id: str = ""
    kind: ToolKind = ToolKind.FUNCTION
    server_url: str = ""


@final
class ToolCallDelta(_Event, frozen=True):
    """A piece of the arguments of tool call `index`: JSON text, or free text for a custom tool."""

    index: int
    fragment: str


@final
class ToolCallEnded(_Event, frozen=True):
    """The tool call `index` is over. Optional: the end of the response ends every call."""

    index: int
    truncated: bool = False
    """Whether the provider's output limit cut its arguments."""


@final
class UsageReported(_Event, frozen=True):
    """The provider's figures so far. Each report replaces the one before: a parser merges what its API spreads."""

    usage: TokenUsage
    final: bool = False
    """Whether these are the figures that are billed."""
    metadata: dict[str, str] = {}
    """Facts beside the figures, such as `service_tier`."""


@final
class ProviderErrorReported(_Event, frozen=True):
    """The provider reported an error in a body or inside a stream."""

    error_type: ErrorType
    message: str


@final
class UnknownEvent(_Event, frozen=True):
    """Something the parser does not know. Counted, never an error."""

    kind: str
    """The provider's own word, such as `event:foo`, `block:bar`, `item:baz`."""


@final
class ResponseEnded(_Event, frozen=True):
    """The provider said that the response is over; a stream cut before this is not complete."""

    finish_reason: str = ""
    """The provider's own word: `end_turn`, `tool_use`, `stop`, `incomplete:max_output_tokens`, …."""
    complete: bool = True
    """False for a response that the provider itself declared failed."""


StreamEvent = (
    ResponseStarted
    | TextDelta
    | ReasoningDelta
    | ReasoningEnded
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | UsageReported
    | ProviderErrorReported
    | UnknownEvent
    | ResponseEnded
)
