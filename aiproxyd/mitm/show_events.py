"""Prints the canonical events of responses as they are parsed, for people who want to see what a provider says.

It stands in for the parsers of each API, so what is printed is what the tap understands; it records nothing.
"""

from collections.abc import Callable, Mapping

import msgspec

from aiproxyd.model.events import (
    ReasoningDelta,
    ResponseEnded,
    ResponseStarted,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from aiproxyd.providers.api import Api, ResponseParser

Write = Callable[[str], object]


def shown(apis: Mapping[str, Api], write: Write) -> dict[str, Api]:
    """Return `apis` with parsers that print what they find.

    Args:
        apis: Those to read with.
        write: Called with each line, its line end included.
    """
    return {name: _shown(api, write) for name, api in apis.items()}


def _shown(api: Api, write: Write) -> Api:
    return msgspec.structs.replace(
        api,
        stream_parser=lambda limit: _ShowingParser(api.stream_parser(limit), api.name, write),
        document_parser=lambda limit: _ShowingParser(api.document_parser(limit), api.name, write),
    )


class _ShowingParser:
    """A parser that prints its events."""

    samples = None

    def __init__(self, inner: ResponseParser, api: str, write: Write) -> None:
        self._inner = inner
        self._api = api
        self._write = write

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self._show(self._inner.feed(data))

    def close(self) -> list[StreamEvent]:
        return self._show(self._inner.close())

    def _show(self, events: list[StreamEvent]) -> list[StreamEvent]:
        for event in events:
            self._write(f"{self._api}  {describe(event)}\n")
        return events


def describe(event: StreamEvent) -> str:
    """Return one line about an event, without control characters."""
    match event:
        case ResponseStarted():
            line = f"response {event.response_id} by {event.response_model}"
        case TextDelta():
            line = f"text, {event.characters} characters"
        case ReasoningDelta():
            line = f"{event.source}: {event.text}"
        case ToolCallStarted():
            line = f"tool {event.name} ({event.kind}) {event.call_id}"
        case ToolCallDelta():
            line = f"arguments: {event.fragment}"
        case UsageReported():
            usage = event.usage
            line = (
                f"usage: {usage.input_tokens} in, {usage.cache_read_input_tokens} from cache, "
                f"{usage.cache_write_input_tokens} to cache, {usage.output_tokens} out"
            )
        case ResponseEnded():
            line = f"end: {event.finish_reason}"
        case _:
            line = repr(event)
    return "".join(character if character.isprintable() else " " for character in line)
