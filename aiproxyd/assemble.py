"""Folds the events of one response into what its records need. Knows no provider, no clock and no bytes.

Facts:
- Events of several tool calls and reasonings may interleave; `index` tells them apart, and each kind counts for itself.
- The end of a call or a reasoning is optional: the end of the response ends all that are open.

Strategy: the text of an open call or reasoning grows in a buffer until it ends. What `ResponseEnded` finds open
is complete, unless the provider declared the response failed; what `finish` finds open was cut. A call that was cut
behind its arguments' last brace is whole all the same. The fold is total: a succession that makes no sense is counted in `unknown`
under `assemble:…` and changes nothing.
"""

import io
from collections.abc import Iterable
from typing import Final, assert_never

import msgspec

from aiproxyd.model.events import (
    ProviderErrorReported,
    ReasoningDelta,
    ReasoningEnded,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ThoughtSource,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolKind,
    UnknownEvent,
    UsageReported,
)
from aiproxyd.model.usage import TokenUsage

MAX_CONTENT_CHARACTERS: Final = 2 << 20
"""Most characters kept of all open tool calls and reasonings of one response together. At four bytes a character 8 MiB."""

MAX_OPEN_ITEMS: Final = 512
"""Most tool calls, and most reasonings, that may be open in one response; real ones stay below 20."""

MAX_UNKNOWN_KINDS: Final = 32
"""Most kinds of unknown events that are told apart; the rest is counted as `other`."""

MAX_UNKNOWN_KIND_CHARACTERS: Final = 64
"""A kind is cut to this length, since it is a provider's text and becomes a metric's label."""


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class FinishedToolCall(msgspec.Struct, frozen=True):
    """A tool call that will not change any more."""

    position: int
    """Order of its start among the response's tool calls, from 0."""
    name: str
    call_id: str
    item_id: str
    kind: ToolKind
    server_url: str
    arguments: str | None
    """None when content is not kept, or when none arrived."""
    is_truncated: bool
    """Whether the response was cut, or a limit met, before the arguments were complete."""


class FinishedThought(msgspec.Struct, frozen=True):
    """A piece of reasoning that will not change any more, never empty."""

    position: int
    """Order of its start among the response's thoughts, from 0."""
    source: ThoughtSource
    content: str


class _OpenToolCall:
    __slots__ = ("arguments", "call_id", "is_truncated", "item_id", "kind", "name", "position", "server_url")

    def __init__(self, event: ToolCallStarted, position: int) -> None:
        self.position = position
        self.name = event.name
        self.call_id = event.call_id
        self.item_id = event.item_id
        self.kind = event.kind
        self.server_url = event.server_url
        self.arguments: io.StringIO | None = None
        self.is_truncated = False


class _OpenThought:
    __slots__ = ("content", "position", "source")

    def __init__(self, source: ThoughtSource, position: int) -> None:
        self.position = position
        self.source = source
        self.content = io.StringIO()


Finished = FinishedToolCall | FinishedThought


class Assembly:
    """The state of one response. Reading an attribute is always allowed; only `feed` and `finish` change them."""

    __slots__ = (
        "_held_characters",
        "_keeps_content",
        "_thought_positions",
        "_thoughts",
        "_tool_calls",
        "_tool_positions",
        "calls_without_id",
        "calls_without_name",
        "error",
        "finish_reason",
        "has_output",
        "is_complete",
        "is_ended",
        "metadata",
        "output_characters",
        "response_id",
        "response_model",
        "unknown",
        "usage",
        "usage_is_final",
    )

    def __init__(self, *, keeps_content: bool = True) -> None:
        """Return the state before the first event.

        Args:
            keeps_content: Whether tool arguments and reasoning are kept; without it calls have no arguments and there are no
                thoughts, and neither is ever in memory.
        """
        self._keeps_content = keeps_content
        self._tool_calls: dict[int, _OpenToolCall] = {}
        self._thoughts: dict[int, _OpenThought] = {}
        self._tool_positions = 0
        self._thought_positions = 0
        self._held_characters = 0
        self.response_id = ""
        """The first that was not empty."""
        self.response_model = ""
        """The first that was not empty."""
        self.usage: TokenUsage | None = None
        """The latest figures; None until the provider reports some. Their sum never decreases."""
        self.usage_is_final = False
        """Whether these are the billed ones."""
        self.metadata: dict[str, str] = {}
        """Facts beside the figures, such as `service_tier`."""
        self.error: ProviderErrorReported | None = None
        """The first error the provider reported."""
        self.finish_reason = ""
        """Of the first `ResponseEnded`."""
        self.is_ended = False
        """Whether the provider said that the response is over."""
        self.is_complete = False
        """Whether it is over and the provider did not declare it failed."""
        self.has_output = False
        """Whether text, reasoning or a tool call arrived."""
        self.output_characters = 0
        """Characters of text, reasoning and tool arguments."""
        self.calls_without_name = 0
        """Tool calls that ended and have no name."""
        self.calls_without_id = 0
        """Tool calls for the client that ended and have no id to answer by."""
        self.unknown: dict[str, int] = {}
        """How often what was met that the parser or this fold does not know; bounded in number and length of its keys."""

    def feed(self, events: Iterable[StreamEvent]) -> list[Finished]:
        """Return the tool calls and thoughts that `events` finish, in the order in which they end."""
        finished: list[Finished] = []
        for event in events:
            # By frequency: a stream is text and fragments for the most part. Comparing types costs half of what a pattern does.
            if type(event) is TextDelta:
                self.output_characters += event.characters
                self.has_output = True
            elif type(event) is ToolCallDelta:
                self._add_arguments(event)
            elif type(event) is ReasoningDelta:
                self._add_reasoning(event)
            elif type(event) is ToolCallStarted:
                self._start_tool_call(event)
            elif type(event) is ToolCallEnded:
                self._end_tool_call(event.index, finished, is_cut=event.truncated)
            elif type(event) is ReasoningEnded:
                self._end_thought(event.index, finished)
            elif type(event) is UsageReported:
                self._replace_usage(event)
            elif type(event) is ResponseStarted:
                self.response_id = self.response_id or event.response_id
                self.response_model = self.response_model or event.response_model
            elif type(event) is ProviderErrorReported:
                self.error = self.error or event
            elif type(event) is UnknownEvent:
                self.count_unknown(event.kind)
            elif type(event) is ResponseEnded:
                if not self.is_ended:
                    self.is_ended = True
                    self.is_complete = event.complete
                    self.finish_reason = event.finish_reason
                self._end_all(finished, is_cut=not event.complete)
            else:
                assert_never(event)
        return finished

    def finish(self) -> list[Finished]:
        """Return what is still open, as cut. No more events follow; a second call returns nothing."""
        finished: list[Finished] = []
        self._end_all(finished, is_cut=True)
        return finished

    def count_unknown(self, kind: str) -> None:
        """Count one thing that nobody knows."""
        kind = kind[:MAX_UNKNOWN_KIND_CHARACTERS]
        if kind not in self.unknown and len(self.unknown) >= MAX_UNKNOWN_KINDS - 1:
            kind = "other"
        self.unknown[kind] = self.unknown.get(kind, 0) + 1

    def _start_tool_call(self, event: ToolCallStarted) -> None:
        self.has_output = True
        call = self._tool_calls.get(event.index)
        if call is not None:
            # Some servers repeat the head of a call with every piece, or send its parts one after the other.
            call.name = call.name or event.name
            call.call_id = call.call_id or event.call_id
            call.item_id = call.item_id or event.item_id
            call.server_url = call.server_url or event.server_url
            return
        if len(self._tool_calls) >= MAX_OPEN_ITEMS:
            self.count_unknown("assemble:too_many_tool_calls")
            return
        self._tool_calls[event.index] = _OpenToolCall(event, self._tool_positions)
        self._tool_positions += 1

    def _add_arguments(self, event: ToolCallDelta) -> None:
        self.output_characters += len(event.fragment)
        call = self._tool_calls.get(event.index)
        if call is None:
            self.count_unknown("assemble:arguments_without_tool_call")
        elif self._keeps_content and not call.is_truncated:
            kept = self._room_for(event.fragment)
            if call.arguments is None:
                call.arguments = io.StringIO()
            call.arguments.write(kept)
            call.is_truncated = len(kept) < len(event.fragment)

    def _end_tool_call(self, index: int, finished: list[Finished], *, is_cut: bool) -> None:
        call = self._tool_calls.pop(index, None)
        if call is None:
            self.count_unknown("assemble:end_without_tool_call")
            return
        self.calls_without_name += not call.name
        self.calls_without_id += not call.call_id and call.kind is not ToolKind.HOSTED
        arguments = call.arguments.getvalue() if call.arguments is not None else None
        self._held_characters -= len(arguments or "")
        finished.append(
            FinishedToolCall(
                position=call.position,
                name=call.name,
                call_id=call.call_id,
                item_id=call.item_id,
                kind=call.kind,
                server_url=call.server_url,
                arguments=arguments,
                is_truncated=is_cut or call.is_truncated,
            )
        )

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        self.output_characters += len(event.text)
        self.has_output = True
        if not self._keeps_content or not event.text:
            return
        thought = self._thoughts.get(event.index)
        if thought is None:
            if len(self._thoughts) >= MAX_OPEN_ITEMS:
                self.count_unknown("assemble:too_many_reasonings")
                return
            thought = self._thoughts[event.index] = _OpenThought(event.source, self._thought_positions)
            self._thought_positions += 1
        thought.content.write(self._room_for(event.text))

    def _end_thought(self, index: int, finished: list[Finished]) -> None:
        thought = self._thoughts.pop(index, None)
        if thought is None:
            # Usual: reasoning may be empty or encrypted, and then has no text to begin with.
            return
        content = thought.content.getvalue()
        self._held_characters -= len(content)
        if content:
            finished.append(FinishedThought(thought.position, thought.source, content))

    def _end_all(self, finished: list[Finished], *, is_cut: bool) -> None:
        if not self._thoughts and not self._tool_calls:
            return
        for index in list(self._thoughts):
            self._end_thought(index, finished)
        for index, call in list(self._tool_calls.items()):
            self._end_tool_call(index, finished, is_cut=is_cut and not _has_whole_arguments(call))

    def _room_for(self, text: str) -> str:
        kept = text[: MAX_CONTENT_CHARACTERS - self._held_characters]
        self._held_characters += len(kept)
        return kept

    def _replace_usage(self, event: UsageReported) -> None:
        """Take over a report, unless it says less than one before: some servers end a stream with figures of zero."""
        self.metadata.update(event.metadata)
        usage = _with_parts_within_wholes(event.usage)
        if self.usage is not None and _sum(usage) < _sum(self.usage):
            self.count_unknown("assemble:usage_decreased")
            return
        self.usage = usage
        self.usage_is_final = self.usage_is_final or event.final


def _has_whole_arguments(call: _OpenToolCall) -> bool:
    """Return whether nothing can follow: a whole JSON object is no beginning of a longer one."""
    if call.arguments is None or call.is_truncated or call.kind is ToolKind.CUSTOM:
        return False
    try:
        _OBJECT.decode(call.arguments.getvalue())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _sum(usage: TokenUsage) -> int:
    return usage.total_input_tokens + usage.output_tokens


def _with_parts_within_wholes(usage: TokenUsage) -> TokenUsage:
    """Return `usage` with each part cut to its whole: a provider's inconsistent figures must not become negative remainders."""
    split = usage.cache_write_5m_input_tokens + usage.cache_write_1h_input_tokens
    if usage.reasoning_output_tokens <= usage.output_tokens and split <= usage.cache_write_input_tokens:
        return usage
    reasoning = min(usage.reasoning_output_tokens, usage.output_tokens)
    short = min(usage.cache_write_5m_input_tokens, usage.cache_write_input_tokens)
    long = min(usage.cache_write_1h_input_tokens, usage.cache_write_input_tokens - short)
    return msgspec.structs.replace(
        usage, reasoning_output_tokens=reasoning, cache_write_5m_input_tokens=short, cache_write_1h_input_tokens=long
    )
