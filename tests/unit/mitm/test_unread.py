"""Answers whose bytes are read a few pieces at a time: what waits, what ends the waiting, and that the records are the same."""

from collections.abc import Callable

import pytest

from aiproxyd.mitm.decrypted import AbortedBy, TapSettings
from aiproxyd.mitm.tap import RequestTap, Tap
from aiproxyd.mitm.unread import MAX_BYTES, MAX_PIECES, MAX_SWEPT, SWEEP_SECONDS, Unread
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import InterceptionEnded, Observation, ThoughtRecorded, ToolCalled
from tests.support.observing import KeptJournal, SteppedReporter
from tests.unit.mitm.test_interception import (
    MESSAGE_END,
    MESSAGE_START,
    MESSAGES,
    MESSAGES_REQUEST,
    MESSAGES_STREAM,
    THINKING,
    TOOL_END,
    TOOL_START,
    sse,
)

EVENT_STREAM = ResponseHead(200, Headers([("Content-Type", "text/event-stream")]))
WORD = sse({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "word "}})


class Clock:
    """Keeps what is scheduled until a test lets the time pass."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def schedule(self, seconds: float, callback: Callable[[], None]) -> None:
        self.due.append((seconds, callback))

    def tick(self) -> list[float]:
        """Call what is due, and return in how many seconds it was."""
        due, self.due = self.due, []
        for _, callback in due:
            callback()
        return [seconds for seconds, _ in due]


class Story:
    """Answers whose bytes may wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.journal = KeptJournal()
        self.reporter = SteppedReporter(self.journal)
        self.tap = Tap(self.reporter, TapSettings(), schedule=self.clock.schedule)

    def answer(self) -> RequestTap:
        request = self.tap.open(MESSAGES, RequestHead("POST", "/v1/messages", Headers()))
        request.request_data(MESSAGES_REQUEST)
        request.request_end()
        request.response_head(EVENT_STREAM)
        return request

    def told(self, kind: type[Observation]) -> list[Observation]:
        return [observation for observation in self.journal.observations if isinstance(observation, kind)]

    @property
    def ended(self) -> InterceptionEnded:
        (ended,) = self.told(InterceptionEnded)
        assert isinstance(ended, InterceptionEnded)
        return ended


@pytest.mark.parametrize("size", [1, 7, 100, MAX_BYTES, 1 << 20])
def test_what_is_told_is_the_same_however_much_waits(size: int) -> None:
    def observations(schedule: Callable[[float, Callable[[], None]], object] | None) -> list[Observation]:
        journal = KeptJournal()
        tap = Tap(SteppedReporter(journal), TapSettings(), schedule=schedule)
        request = tap.open(MESSAGES, RequestHead("POST", "/v1/messages", Headers()))
        request.request_data(MESSAGES_REQUEST)
        request.request_end()
        request.response_head(EVENT_STREAM)
        stream = MESSAGES_STREAM.replace(MESSAGE_END, WORD * 100 + MESSAGE_END)
        for start in range(0, len(stream), size):
            request.response_data(stream[start : start + size])
        request.response_end()
        return journal.observations

    assert observations(Clock().schedule) == observations(None)


def test_nothing_waits_before_the_first_output_and_its_time_is_exact() -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START)
    story.reporter.seconds += 2
    request.response_data(THINKING[:-1])
    story.reporter.seconds += 5
    request.response_end()
    assert story.ended.first_output_seconds == 2.0
    assert not story.clock.due


def test_a_few_pieces_are_read_at_once() -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START + WORD)
    request.response_data(THINKING)
    for _ in range(MAX_PIECES - 2):
        request.response_data(WORD)
    assert not story.told(ThoughtRecorded)
    request.response_data(WORD)
    assert len(story.told(ThoughtRecorded)) == 1


def test_many_bytes_do_not_wait() -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START + WORD)
    request.response_data(THINKING)
    request.response_data(b": " + b"x" * MAX_BYTES + b"\n")
    assert len(story.told(ThoughtRecorded)) == 1


def test_what_nothing_follows_is_read_after_a_while_and_then_nobody_is_called_any_more() -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START + WORD)
    request.response_data(TOOL_START + TOOL_END + sse({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}))
    assert story.clock.tick() == [SWEEP_SECONDS]
    assert not story.told(ToolCalled)
    assert story.clock.tick() == [SWEEP_SECONDS]
    assert len(story.told(ToolCalled)) == 1
    assert not story.clock.due


@pytest.mark.parametrize(
    "end",
    [
        RequestTap.response_end,
        lambda request: request.abort(AbortedBy.CLIENT),
        lambda request: request.lose_sight("HTTP cannot be followed"),
    ],
    ids=["whole", "aborted", "out of sight"],
)
def test_what_waits_is_read_before_the_end_is_told(end: Callable[[RequestTap], None]) -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START + WORD)
    request.response_data(THINKING)
    end(request)
    assert len(story.told(ThoughtRecorded)) == 1
    assert story.ended.response_bytes == len(MESSAGE_START + WORD + THINKING)
    assert isinstance(story.journal.observations[-1], InterceptionEnded)
    # Nobody is held by the sweep any more.
    story.clock.tick()
    assert not story.clock.due


def test_a_fault_of_the_stream_that_was_met_late_is_told_as_ever() -> None:
    story = Story()
    request = story.answer()
    request.response_data(MESSAGE_START + WORD)
    request.response_data(sse({"type": "content_block_start"}))
    for _ in range(MAX_PIECES):
        request.response_data(WORD)
    request.response_end()
    assert story.ended.outcome == "parse_failed"
    assert story.ended.output_characters == len("word ")


class Reader:
    def __init__(self, unread: Unread) -> None:
        self.reads = 0
        self._unread = unread

    def read_on(self) -> None:
        self._unread.discard(self)
        self.reads += 1


def test_a_sweep_reads_those_that_waited_longest_and_lets_others_go_between() -> None:
    clock = Clock()
    unread = Unread(clock.schedule)
    readers = [Reader(unread) for _ in range(MAX_SWEPT + 3)]
    for reader in readers:
        unread.add(reader)
    clock.tick()
    late = Reader(unread)
    unread.add(late)
    unread.discard(readers[0])
    clock.tick()
    assert [reader.reads for reader in readers] == [0] + [1] * MAX_SWEPT + [0, 0]
    assert clock.tick() == [0.0]
    assert [reader.reads for reader in readers] == [0] + [1] * (MAX_SWEPT + 2)
    assert late.reads == 0
    assert clock.tick() == [SWEEP_SECONDS]
    assert late.reads == 1
    assert not clock.due
