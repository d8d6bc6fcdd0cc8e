"""The boundary: whatever comes in whatever order, nothing is raised and every request that began ends exactly once."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from aiproxyd.exceptions import MalformedBody
from aiproxyd.mitm.tap import AbortedBy, RequestTap, Tap, TapSettings
from aiproxyd.model.endpoint import Endpoint
from aiproxyd.model.events import ProviderErrorReported, StreamEvent
from aiproxyd.model.head import Headers, RequestHead, ResponseHead
from aiproxyd.model.observation import (
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    PassthroughEnded,
    PassthroughStarted,
)
from aiproxyd.model.outcome import ErrorType
from aiproxyd.providers.api import Api, RequestFacts
from tests.support.observing import KeptJournal, SteppedReporter, connection_to

ENDPOINTS = (
    Endpoint("/v1/messages", "anthropic.messages"),
    Endpoint("/v1/models", methods=("GET",)),
    Endpoint("/v1/future", "api.of.tomorrow"),
    Endpoint("/v1/faulty", "faulty"),
)
CONNECTION = connection_to("api.anthropic.com", "anthropic", ENDPOINTS)
JSON = ResponseHead(200, Headers([("Content-Type", "application/json")]))


@pytest.fixture(autouse=True)
def logs() -> object:
    """What the tap logs, kept off the terminal."""
    with capture_logs() as captured:
        yield captured


def tap_of(journal: KeptJournal, **apis: Api) -> Tap:
    reporter = SteppedReporter(journal)
    return Tap(reporter, TapSettings(), apis=apis) if apis else Tap(reporter, TapSettings())


def head(method: str, target: str, *fields: tuple[str, str]) -> RequestHead:
    return RequestHead(method, target, Headers(fields))


@pytest.mark.parametrize(
    ("method", "target", "route"),
    [
        ("GET", "/v1/models?limit=1000", "/v1/models"),
        ("POST", "/api/event_logging/v2/batch", "other"),
        ("GET", "/v1/messages", "other"),
        ("POST", "/v1/future", "/v1/future"),
    ],
)
def test_what_nobody_reads_is_a_passthrough(method: str, target: str, route: str) -> None:
    journal = KeptJournal()
    request = tap_of(journal).open(CONNECTION, head(method, target))
    assert journal.durable == 1
    assert (request.id, request.endpoint.route) == ("id-1", route)
    request.request_data(b"x")
    request.request_end()
    request.response_head(ResponseHead(404, Headers()))
    request.response_data(b"y")
    request.response_end()
    started, ended = journal.observations
    assert started == PassthroughStarted(
        at=started.at, request_id="id-1", provider="anthropic", method=method, route=route, host="api.anthropic.com"
    )
    assert ended == PassthroughEnded(at=ended.at, request_id="id-1", provider="anthropic", status_code=404)


@pytest.mark.parametrize(
    ("by", "status_code", "answered", "expected"),
    [
        (AbortedBy.CLIENT, 0, False, 499),
        (AbortedBy.UPSTREAM, 0, False, 502),
        (AbortedBy.REFUSED, 429, False, 429),
        (AbortedBy.CLIENT, 0, True, 200),
    ],
)
def test_a_passthrough_that_is_aborted_has_a_status(by: AbortedBy, status_code: int, answered: bool, expected: int) -> None:
    journal = KeptJournal()
    request = tap_of(journal).open(CONNECTION, head("GET", "/v1/models"))
    if answered:
        request.response_head(JSON)
    request.abort(by, status_code=status_code)
    request.abort(by)
    ended = journal.observations[-1]
    assert isinstance(ended, PassthroughEnded)
    assert (ended.status_code, len(journal.observations)) == (expected, 2)


def test_only_the_first_end_counts() -> None:
    journal = KeptJournal()
    request = tap_of(journal).open(CONNECTION, head("POST", "/v1/messages"))
    assert not request.is_over
    request.abort(AbortedBy.CLIENT)
    assert request.is_over
    request.response_head(JSON)
    request.response_data(b"{}")
    request.response_end()
    request.request_data(b"x")
    request.request_end()
    assert [type(observation) for observation in journal.observations] == [
        InterceptionStarted,
        InterceptionDescribed,
        InterceptionEnded,
    ]


class Faulty:
    """An API with one fault of ours in it: what must never be, and never harm a stream."""

    samples = None

    def __init__(self, place: str, fault: Exception) -> None:
        self.place = place
        self.fault = fault

    def _at(self, place: str) -> None:
        if place == self.place:
            raise self.fault

    def read_request(self, _body: bytes, _head: RequestHead) -> RequestFacts:
        self._at("read_request")
        return RequestFacts(request_model="m")

    def parser(self, _limit: int) -> "Faulty":
        self._at("parser")
        return self

    def feed(self, _data: bytes) -> list[StreamEvent]:
        self._at("feed")
        return []

    def close(self) -> list[StreamEvent]:
        self._at("close")
        return []

    def read_error(self, _status: int, _body: bytes) -> ProviderErrorReported:
        self._at("read_error")
        return ProviderErrorReported(ErrorType.UNKNOWN, "")

    def api(self) -> Api:
        return Api("faulty", "chat", self.read_request, self.parser, self.parser, self.read_error)


def play(request: RequestTap, status: int = 200) -> None:
    request.request_data(b"{}")
    request.request_end()
    request.response_head(ResponseHead(status, Headers([("Content-Type", "application/json")])))
    request.response_data(b"{}")
    request.response_end()


@pytest.mark.parametrize("place", ["read_request", "parser", "feed", "close", "read_error"])
@pytest.mark.parametrize("fault", [ZeroDivisionError("sk-secret"), KeyError("sk-secret"), RecursionError("sk-secret")])
def test_a_fault_of_ours_ends_as_parse_failed_and_says_where_but_not_what(
    place: str, fault: Exception, logs: list[dict[str, object]]
) -> None:
    journal = KeptJournal()
    play(
        tap_of(journal, faulty=Faulty(place, fault).api()).open(CONNECTION, head("POST", "/v1/faulty")),
        500 if place == "read_error" else 200,
    )
    assert [type(observation) for observation in journal.observations] == [
        InterceptionStarted,
        InterceptionDescribed,
        InterceptionEnded,
    ]
    described, ended = journal.observations[1:]
    assert isinstance(described, InterceptionDescribed)
    assert isinstance(ended, InterceptionEnded)
    assert ended.outcome == "parse_failed"
    assert ended.anomaly.startswith(f"internal error: {type(fault).__name__} in Faulty._at, line ")
    assert bool(described.anomaly) is (place == "read_request")
    assert journal.durable == 3
    assert len(logs) == 1
    assert "sk-secret" not in str(logs) + str(msgspec.json.encode(journal.observations))


def test_a_wire_error_is_no_fault_of_ours(logs: list[dict[str, object]]) -> None:
    journal = KeptJournal()
    api = Faulty("feed", MalformedBody("not as documented")).api()
    play(tap_of(journal, faulty=api).open(CONNECTION, head("POST", "/v1/faulty")))
    ended = journal.observations[-1]
    assert isinstance(ended, InterceptionEnded)
    assert (ended.outcome, ended.anomaly, logs) == ("parse_failed", "not as documented", [])


class BrokenReporter(SteppedReporter):
    """A reporter that breaks its promise never to raise, from the n-th observation on."""

    def __init__(self, journal: KeptJournal, working: int) -> None:
        super().__init__(journal)
        self.working = working

    def tell(self, observation: object) -> None:
        if self.working == 0:
            raise OSError("disk on fire")
        self.working -= 1
        super().tell(observation)  # type: ignore[arg-type]


@pytest.mark.parametrize("working", range(4))
@pytest.mark.parametrize("target", ["/v1/messages", "/v1/models"])
def test_not_even_a_reporter_that_raises_harms_a_request(working: int, target: str) -> None:
    journal = KeptJournal()
    tap = Tap(BrokenReporter(journal, working), TapSettings())
    request = tap.open(CONNECTION, head("POST" if target == "/v1/messages" else "GET", target))
    play(request)
    assert request.is_over
    assert len(journal.observations) <= working


def test_a_fault_in_a_request_body_stops_the_looking_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = KeptJournal()
    request = tap_of(journal).open(CONNECTION, head("POST", "/v1/messages"))
    monkeypatch.setattr("aiproxyd.wire.json_document.DocumentCollector.feed", lambda _self, _data: 1 // 0)
    play(request)
    _, described, ended = journal.observations
    assert isinstance(described, InterceptionDescribed)
    assert isinstance(ended, InterceptionEnded)
    assert described.anomaly.startswith("internal error: ZeroDivisionError")
    assert (ended.outcome, ended.request_bytes) == ("parse_failed", 2)


def test_an_abort_after_a_fault_keeps_the_status_of_the_abort() -> None:
    journal = KeptJournal()
    api = Faulty("read_request", ZeroDivisionError()).api()
    request = tap_of(journal, faulty=api).open(CONNECTION, head("POST", "/v1/faulty"))
    request.request_end()
    request.abort(AbortedBy.CLIENT, "left")
    ended = journal.observations[-1]
    assert isinstance(ended, InterceptionEnded)
    assert (ended.outcome, ended.status_code) == ("parse_failed", 499)


def test_a_request_out_of_sight_ends_as_parse_failed_and_says_why() -> None:
    journal = KeptJournal()
    request = tap_of(journal).open(CONNECTION, head("POST", "/v1/messages"))
    request.response_head(JSON)
    request.lose_sight("HTTP cannot be followed: both_lengths")
    request.lose_sight("again")
    request.response_end()
    ended = journal.observations[-1]
    assert isinstance(ended, InterceptionEnded)
    assert (ended.outcome, ended.status_code, ended.anomaly) == ("parse_failed", 200, "HTTP cannot be followed: both_lengths")
    assert len(journal.observations) == 3


def test_a_switch_of_protocols_ends_even_what_is_not_looked_at_any_more() -> None:
    journal = KeptJournal()
    api = Faulty("read_request", ZeroDivisionError()).api()
    request = tap_of(journal, faulty=api).open(CONNECTION, head("POST", "/v1/faulty"))
    request.request_end()
    request.response_head(ResponseHead(101, Headers()))
    assert request.is_over


CALLS: list[Callable[[RequestTap, bytes], None]] = [
    lambda request, data: request.request_data(data),
    lambda request, _: request.request_end(),
    lambda request, _: request.response_head(JSON),
    lambda request, _: request.response_head(ResponseHead(200, Headers([("Content-Type", "text/event-stream")]))),
    lambda request, _: request.response_head(ResponseHead(500, Headers([("Content-Encoding", "gzip")]))),
    lambda request, _: request.response_head(ResponseHead(200, Headers([("Content-Encoding", "br, zstd")]))),
    lambda request, data: request.response_data(data),
]
PIECES = st.binary(max_size=20) | st.sampled_from(
    [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":3,"output_tokens":1}}}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":4}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n',
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
    ]
)


class TapMachine(RuleBasedStateMachine):
    """Any calls in any order, even those HTTP forbids."""

    @initialize(coding=st.sampled_from(["", "gzip", "compress"]))
    def begin(self, coding: str) -> None:
        self.journal = KeptJournal()
        fields = [("Content-Encoding", coding)] if coding else []
        self.request = tap_of(self.journal).open(CONNECTION, head("POST", "/v1/messages", *fields))
        self.ended_at = 0

    @rule(call=st.sampled_from(CALLS), data=PIECES)
    def carry(self, call: Callable[[RequestTap, bytes], None], data: bytes) -> None:
        call(self.request, data)

    @rule(by=st.none() | st.sampled_from(AbortedBy))
    def end(self, by: AbortedBy | None) -> None:
        if by is None:
            self.request.response_end()
        else:
            self.request.abort(by)
        assert self.request.is_over

    @invariant()
    def it_begins_is_described_and_ends_each_once_and_in_this_order(self) -> None:
        kinds = [type(observation) for observation in self.journal.observations]
        assert kinds[0] is InterceptionStarted
        assert kinds.count(InterceptionStarted) == 1
        assert kinds.count(InterceptionEnded) == self.request.is_over
        if self.request.is_over:
            assert kinds[-1] is InterceptionEnded
            assert kinds.count(InterceptionDescribed) == 1
            assert self.journal.durable == len(kinds)
        assert kinds.count(InterceptionDescribed) <= 1

    @invariant()
    def an_end_is_sound(self) -> None:
        ended = self.journal.observations[-1]
        if isinstance(ended, InterceptionEnded):
            assert (ended.usage_source == "reported") or ended.usage.extra == {}
            assert 0 <= (ended.first_byte_seconds or 0) <= ended.duration_seconds
            assert (ended.outcome == "completed") <= (ended.error_type is None)
            assert ended.outcome != "parse_failed" or ended.anomaly


TestTapMachine = TapMachine.TestCase
TestTapMachine.settings = settings(stateful_step_count=25)


@given(
    st.lists(st.tuples(st.sampled_from(["user-agent", "authorization", "cookie", "content-encoding"]), st.text()), max_size=6)
)
def test_no_head_is_too_strange_to_be_opened(fields: list[tuple[str, str]]) -> None:
    journal = KeptJournal()
    with capture_logs() as captured:
        request = tap_of(journal).open(CONNECTION, head("POST", "/v1/messages", *fields))
        request.abort(AbortedBy.CLIENT)
    assert (len(journal.observations), captured) == (3, [])
