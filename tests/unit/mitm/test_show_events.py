import json

import pytest

from aiproxyd.mitm.show_events import describe, shown
from aiproxyd.model.events import (
    ProviderErrorReported,
    ReasoningDelta,
    ResponseEnded,
    ResponseStarted,
    TextDelta,
    ThoughtSource,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from aiproxyd.model.outcome import ErrorType
from aiproxyd.model.usage import TokenUsage
from aiproxyd.providers.apis import APIS


def test_events_are_printed_and_passed_on():
    lines: list[str] = []
    api = shown(APIS, lines.append)["openai.chat_completions"]
    document = {"id": "c1", "model": "m", "choices": [{"message": {"content": "ho"}, "finish_reason": "stop"}]}
    for parser, data in (
        (api.document_parser(1 << 20), json.dumps(document).encode()),
        (
            api.stream_parser(1 << 20),
            b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"ho"}}]}\n\ndata: [DONE]\n\n',
        ),
    ):
        lines.clear()
        events = parser.feed(data) + parser.close()
        assert len(lines) == len(events) > 1
        assert lines[0] == "openai.chat_completions  response c1 by m\n"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ResponseStarted("r", "m"), "response r by m"),
        (TextDelta(3), "text, 3 characters"),
        (ReasoningDelta(0, ThoughtSource.THINKING, "hm\x1b[31m\nhm"), "thinking: hm [31m hm"),
        (ToolCallStarted(0, "ls", "call_1"), "tool ls (function) call_1"),
        (ToolCallDelta(0, '{"a"'), 'arguments: {"a"'),
        (
            UsageReported(TokenUsage(1, 2, cache_read_input_tokens=3, cache_write_input_tokens=4)),
            "usage: 1 in, 3 from cache, 4 to cache, 2 out",
        ),
        (ResponseEnded("stop"), "end: stop"),
    ],
)
def test_an_event_is_one_line_without_control_characters(event, line):
    assert describe(event) == line


def test_what_has_no_words_of_its_own_is_shown_as_it_is():
    assert "rate_limited" in describe(ProviderErrorReported(ErrorType.RATE_LIMITED, "slow down"))
