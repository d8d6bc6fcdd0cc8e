"""The fold by examples, and by a machine that feeds it events in any order."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aiproxyd import assemble
from aiproxyd.assemble import Assembly, FinishedThought, FinishedToolCall
from aiproxyd.model.events import (
    ProviderErrorReported,
    ReasoningDelta,
    ReasoningEnded,
    ResponseEnded,
    ResponseStarted,
    TextDelta,
    ThoughtSource,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolKind,
    UnknownEvent,
    UsageReported,
)
from aiproxyd.model.outcome import ErrorType
from aiproxyd.model.usage import TokenUsage

THINKING = ThoughtSource.THINKING


def call(position: int, name: str, arguments: str | None, *, is_truncated: bool = False, **others: str) -> FinishedToolCall:
    facts = {"call_id": "", "item_id": "", "server_url": ""} | others
    return FinishedToolCall(
        position=position, name=name, arguments=arguments, is_truncated=is_truncated, kind=ToolKind.FUNCTION, **facts
    )


def test_parallel_tool_calls_are_told_apart_and_keep_the_order_of_their_start() -> None:
    assembly = Assembly()
    finished = assembly.feed(
        [
            ToolCallStarted(1, "read", "call_a"),
            ToolCallStarted(7, "write", "call_b"),
            ToolCallDelta(7, '{"b"'),
            ToolCallDelta(1, '{"a"'),
            ToolCallDelta(7, ":2}"),
            ToolCallEnded(7),
            ToolCallDelta(1, ":1}"),
        ]
    )
    assert finished == [call(1, "write", '{"b":2}', call_id="call_b")]
    assert assembly.feed([ResponseEnded("tool_use")]) == [call(0, "read", '{"a":1}', call_id="call_a")]
    assert assembly.finish() == []
    assert (assembly.is_ended, assembly.is_complete, assembly.finish_reason) == (True, True, "tool_use")


def test_a_cut_response_ends_its_calls_as_truncated_and_keeps_its_thoughts() -> None:
    assembly = Assembly()
    assembly.feed([ReasoningDelta(0, THINKING, "hm"), ToolCallStarted(1, "read"), ToolCallDelta(1, '{"pa')])
    assert assembly.finish() == [FinishedThought(0, THINKING, "hm"), call(0, "read", '{"pa', is_truncated=True)]
    assert assembly.finish() == []
    assert not assembly.is_ended


def test_a_call_whose_object_is_whole_was_not_cut_though_the_response_was() -> None:
    assembly = Assembly()
    assembly.feed([ToolCallStarted(0, "read"), ToolCallDelta(0, '{"a": {"b": "}"}}'), ToolCallStarted(1, "read")])
    assembly.feed([ToolCallDelta(1, '{"a": {"b": "}"}'), ToolCallStarted(2, "nothing yet")])
    assert [(found.position, found.is_truncated) for found in assembly.finish()] == [(0, False), (1, True), (2, True)]  # type: ignore[union-attr]


def test_free_text_has_no_end_of_its_own() -> None:
    assembly = Assembly()
    assembly.feed([ToolCallStarted(0, "exec", kind=ToolKind.CUSTOM), ToolCallDelta(0, "{}")])
    (found,) = assembly.finish()
    assert isinstance(found, FinishedToolCall)
    assert found.is_truncated


def test_a_call_that_met_the_output_limit_is_truncated_and_so_is_an_open_one_of_a_failed_response() -> None:
    assembly = Assembly()
    limited = assembly.feed([ToolCallStarted(0, "write"), ToolCallDelta(0, "{}"), ToolCallEnded(0, truncated=True)])
    assert limited == [call(0, "write", "{}", is_truncated=True)]
    failed = assembly.feed([ToolCallStarted(1, "write"), ToolCallDelta(1, '{"a'), ResponseEnded("error", complete=False)])
    assert failed == [call(1, "write", '{"a', is_truncated=True)]


def test_calls_without_a_name_or_an_id_are_counted() -> None:
    assembly = Assembly()
    hosted = ToolCallStarted(2, "search", kind=ToolKind.HOSTED)
    assembly.feed([ToolCallStarted(0, "", "a"), ToolCallStarted(1, "ls"), hosted, ResponseEnded("stop")])
    assert (assembly.calls_without_name, assembly.calls_without_id) == (1, 1)


def test_a_call_without_arguments_has_none_and_one_with_empty_ones_has_those() -> None:
    assembly = Assembly()
    events = [ToolCallStarted(0, "a"), ToolCallEnded(0), ToolCallStarted(1, "b"), ToolCallDelta(1, ""), ToolCallEnded(1)]
    assert assembly.feed(events) == [call(0, "a", None), call(1, "b", "")]


def test_the_head_of_a_call_may_come_in_parts() -> None:
    assembly = Assembly()
    events = [ToolCallStarted(0, "", "call_a"), ToolCallStarted(0, "read", "", "item"), ToolCallEnded(0)]
    assert assembly.feed(events) == [call(0, "read", None, call_id="call_a", item_id="item")]


def test_reasonings_are_told_apart_and_empty_ones_are_not_told() -> None:
    assembly = Assembly()
    finished = assembly.feed(
        [
            ReasoningEnded(0),
            ReasoningDelta(1, THINKING, ""),
            ReasoningEnded(1),
            ReasoningDelta(2, ThoughtSource.REASONING_SUMMARY, "one "),
            ReasoningDelta(3, ThoughtSource.COMMENTARY, "two"),
            ReasoningDelta(2, ThoughtSource.REASONING_SUMMARY, "thought"),
            ReasoningEnded(3),
            ResponseEnded(),
        ]
    )
    assert finished == [
        FinishedThought(1, ThoughtSource.COMMENTARY, "two"),
        FinishedThought(0, ThoughtSource.REASONING_SUMMARY, "one thought"),
    ]


def test_without_content_there_are_calls_but_no_arguments_and_no_thoughts() -> None:
    assembly = Assembly(keeps_content=False)
    events = [
        ReasoningDelta(0, THINKING, "secret"),
        ToolCallStarted(0, "read"),
        ToolCallDelta(0, "secret"),
        TextDelta(3),
        ResponseEnded(),
    ]
    assert assembly.feed(events) == [call(0, "read", None)]
    assert assembly.output_characters == 15
    assert assembly.has_output


def test_the_first_identity_error_and_end_count() -> None:
    assembly = Assembly()
    first = ProviderErrorReported(ErrorType.OVERLOADED, "busy")
    assembly.feed(
        [
            ResponseStarted("", "model-a"),
            ResponseStarted("id-1", ""),
            ResponseStarted("id-2", "model-b"),
            first,
            ProviderErrorReported(ErrorType.TIMEOUT, "late"),
            ResponseEnded("failed", complete=False),
            ResponseEnded("stop"),
        ]
    )
    assert (assembly.response_id, assembly.response_model) == ("id-1", "model-a")
    assert assembly.error is first
    assert (assembly.finish_reason, assembly.is_ended, assembly.is_complete) == ("failed", True, False)


def test_each_report_of_usage_replaces_the_one_before() -> None:
    assembly = Assembly()
    assembly.feed([UsageReported(TokenUsage(input_tokens=10, output_tokens=1), metadata={"service_tier": "standard"})])
    assert not assembly.usage_is_final
    final = TokenUsage(input_tokens=10, output_tokens=61)
    assembly.feed([UsageReported(final, final=True, metadata={"speed": "fast"})])
    assert assembly.usage == final
    assert assembly.usage_is_final
    assert assembly.metadata == {"service_tier": "standard", "speed": "fast"}


def test_figures_that_fall_do_not_replace_what_was_reported() -> None:
    assembly = Assembly()
    usage = TokenUsage(input_tokens=6000, output_tokens=30)
    assembly.feed([UsageReported(usage), UsageReported(TokenUsage(), final=True)])
    assert assembly.usage == usage
    assert not assembly.usage_is_final
    assert assembly.unknown == {"assemble:usage_decreased": 1}


def test_parts_that_exceed_their_whole_are_cut_to_it() -> None:
    assembly = Assembly()
    usage = TokenUsage(
        output_tokens=5,
        reasoning_output_tokens=9,
        cache_write_input_tokens=10,
        cache_write_5m_input_tokens=7,
        cache_write_1h_input_tokens=7,
    )
    assembly.feed([UsageReported(usage)])
    assert assembly.usage == TokenUsage(
        output_tokens=5,
        reasoning_output_tokens=5,
        cache_write_input_tokens=10,
        cache_write_5m_input_tokens=7,
        cache_write_1h_input_tokens=3,
    )


def test_successions_that_make_no_sense_are_counted() -> None:
    assembly = Assembly()
    assert assembly.feed([ToolCallDelta(3, "x"), ToolCallEnded(3), UnknownEvent("event:new")]) == []
    assert assembly.unknown == {
        "assemble:arguments_without_tool_call": 1,
        "assemble:end_without_tool_call": 1,
        "event:new": 1,
    }


def test_kinds_of_unknown_events_are_bounded_in_number_and_length() -> None:
    assembly = Assembly()
    assembly.feed(UnknownEvent(f"{number}" + "x" * 100) for number in range(100))
    assert len(assembly.unknown) == assemble.MAX_UNKNOWN_KINDS
    assert assembly.unknown["other"] == 100 - (assemble.MAX_UNKNOWN_KINDS - 1)
    assert max(map(len, assembly.unknown)) == assemble.MAX_UNKNOWN_KIND_CHARACTERS


def test_content_beyond_the_limit_is_cut_and_said_to_be() -> None:
    assembly = Assembly()
    piece = "x" * (1 << 20)
    assembly.feed([ReasoningDelta(0, THINKING, piece), ToolCallStarted(0, "a")])
    assembly.feed([ToolCallDelta(0, piece)] * 3)
    thought, tool_call = assembly.feed([ResponseEnded()])
    assert isinstance(thought, FinishedThought)
    assert isinstance(tool_call, FinishedToolCall)
    assert len(thought.content) + len(tool_call.arguments or "") == assemble.MAX_CONTENT_CHARACTERS
    assert tool_call.is_truncated
    assert assembly.output_characters == 4 << 20
    # What was told makes room for what follows.
    events = [ToolCallStarted(1, "b"), ToolCallDelta(1, "{}"), ToolCallEnded(1)]
    assert assembly.feed(events) == [call(1, "b", "{}")]


def test_how_much_is_open_at_once_is_bounded() -> None:
    assembly = Assembly()
    assembly.feed(ToolCallStarted(index, "a") for index in range(1000))
    assembly.feed(ReasoningDelta(index, THINKING, "a") for index in range(1000))
    assert len(assembly.finish()) == 2 * assemble.MAX_OPEN_ITEMS
    assert assembly.unknown == {
        "assemble:too_many_tool_calls": 1000 - assemble.MAX_OPEN_ITEMS,
        "assemble:too_many_reasonings": 1000 - assemble.MAX_OPEN_ITEMS,
    }


indexes = st.integers(0, 3)
fragments = st.text(max_size=5)
counts = st.integers(0, 50)
usages = st.builds(
    TokenUsage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_input_tokens=counts,
    cache_write_input_tokens=counts,
    cache_write_5m_input_tokens=counts,
    cache_write_1h_input_tokens=counts,
    reasoning_output_tokens=counts,
)


class AssemblyMachine(RuleBasedStateMachine):
    """Whatever the order of events: nothing started is lost or told twice, and figures stay sound."""

    @initialize(keeps_content=st.booleans())
    def begin(self, keeps_content: bool) -> None:
        self.assembly = Assembly(keeps_content=keeps_content)
        self.keeps_content = keeps_content
        self.told_calls: dict[int, FinishedToolCall] = {}
        self.told_thoughts: dict[int, FinishedThought] = {}
        self.open_calls: dict[int, str] = {}
        self.open_thoughts: dict[int, str] = {}
        self.expected_calls: list[str] = []
        self.expected_thoughts: list[str] = []
        self.total = 0
        self.is_finished = False

    def feed(self, event: object) -> None:
        self.take(self.assembly.feed([event]))  # type: ignore[list-item]

    def take(self, finished: list[object]) -> None:
        for item in finished:
            told = self.told_calls if isinstance(item, FinishedToolCall) else self.told_thoughts
            assert item.position not in told
            told[item.position] = item

    def close_all(self) -> None:
        self.expected_calls += self.open_calls.values()
        self.expected_thoughts += self.open_thoughts.values()
        self.open_calls = {}
        self.open_thoughts = {}

    @precondition(lambda self: not self.is_finished)
    @rule(index=indexes)
    def start_call(self, index: int) -> None:
        self.open_calls.setdefault(index, "")
        self.feed(ToolCallStarted(index, "tool"))

    @precondition(lambda self: not self.is_finished)
    @rule(index=indexes, fragment=fragments)
    def add_arguments(self, index: int, fragment: str) -> None:
        if index in self.open_calls:
            self.open_calls[index] += fragment
        self.feed(ToolCallDelta(index, fragment))

    @precondition(lambda self: not self.is_finished)
    @rule(index=indexes)
    def end_call(self, index: int) -> None:
        if index in self.open_calls:
            self.expected_calls.append(self.open_calls.pop(index))
        self.feed(ToolCallEnded(index))

    @precondition(lambda self: not self.is_finished)
    @rule(index=indexes, text=fragments)
    def reason(self, index: int, text: str) -> None:
        if text and self.keeps_content:
            self.open_thoughts[index] = self.open_thoughts.get(index, "") + text
        self.feed(ReasoningDelta(index, THINKING, text))

    @precondition(lambda self: not self.is_finished)
    @rule(index=indexes)
    def end_reasoning(self, index: int) -> None:
        if index in self.open_thoughts:
            self.expected_thoughts.append(self.open_thoughts.pop(index))
        self.feed(ReasoningEnded(index))

    @precondition(lambda self: not self.is_finished)
    @rule(usage=usages, final=st.booleans())
    def report(self, usage: TokenUsage, final: bool) -> None:
        self.feed(UsageReported(usage, final=final))

    @precondition(lambda self: not self.is_finished)
    @rule(complete=st.booleans())
    def end_response(self, complete: bool) -> None:
        was_ended, was_complete = self.assembly.is_ended, self.assembly.is_complete
        self.close_all()
        self.feed(ResponseEnded("stop", complete=complete))
        assert self.assembly.is_ended
        assert self.assembly.is_complete is (was_complete if was_ended else complete)

    @rule()
    def finish(self) -> None:
        self.is_finished = True
        self.close_all()
        self.take(list(self.assembly.finish()))

    @invariant()
    def everything_is_told_once_and_whole(self) -> None:
        expected = self.expected_calls if self.keeps_content else [""] * len(self.expected_calls)
        assert sorted(item.arguments or "" for item in self.told_calls.values()) == sorted(expected)
        assert sorted(item.content for item in self.told_thoughts.values()) == sorted(self.expected_thoughts)

    @invariant()
    def positions_have_no_gap_once_nothing_is_open(self) -> None:
        if not self.open_calls:
            assert sorted(self.told_calls) == list(range(len(self.told_calls)))
        if not self.open_thoughts:
            assert sorted(self.told_thoughts) == list(range(len(self.told_thoughts)))

    @invariant()
    def nothing_is_held_once_nothing_is_open(self) -> None:
        if not self.open_calls and not self.open_thoughts:
            assert self.assembly._held_characters == 0

    @invariant()
    def usage_never_decreases_and_parts_stay_within_wholes(self) -> None:
        usage = self.assembly.usage or TokenUsage()
        total = usage.total_input_tokens + usage.output_tokens
        assert total >= self.total
        self.total = total
        assert usage.reasoning_output_tokens <= usage.output_tokens
        assert usage.cache_write_5m_input_tokens + usage.cache_write_1h_input_tokens <= usage.cache_write_input_tokens


TestAssemblyMachine = AssemblyMachine.TestCase
TestAssemblyMachine.settings = settings(stateful_step_count=30)


@given(st.lists(st.sampled_from(["t", "r", "a"]), max_size=30))
def test_output_is_counted_in_characters_whatever_it_is(kinds: list[str]) -> None:
    assembly = Assembly()
    for kind in kinds:
        assembly.feed({"t": [TextDelta(2)], "r": [ReasoningDelta(0, THINKING, "rr")], "a": [ToolCallDelta(0, "aa")]}[kind])
    assert assembly.output_characters == 2 * len(kinds)
    assert assembly.has_output is any(kind != "a" for kind in kinds)
