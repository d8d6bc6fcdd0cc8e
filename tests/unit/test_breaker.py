import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aiproxyd.breaker import (
    FAILURE_STATUSES,
    MAX_BREAKERS,
    Breakers,
    BreakerSettings,
    BreakerState,
    Line,
    Rejected,
    Result,
    Ticket,
    result_of,
)

SETTINGS = BreakerSettings()
SONNET = Line("/v1/messages", "claude-sonnet-4-5")
HAIKU = Line("/v1/messages", "claude-haiku-4-5")


def admit(breakers, line, now):
    admission, _ = breakers.admit(line, now)
    assert isinstance(admission, Ticket)
    return admission


def fail(breakers, line, now):
    return breakers.settle(admit(breakers, line, now), Result.FAILURE, now)


def opened(now=0.0, line=SONNET):
    breakers = Breakers(SETTINGS)
    changes = [fail(breakers, line, now) for _ in range(5)]
    assert changes == [None, None, None, None, BreakerState.OPEN]
    return breakers


def test_five_failures_in_a_row_open_it_and_requests_are_refused():
    breakers = opened()
    assert breakers.admit(SONNET, 29.9) == (Rejected(30), None)
    assert breakers.state(SONNET) is BreakerState.OPEN


def test_a_success_ends_the_row():
    breakers = Breakers(SETTINGS)
    for _ in range(3):
        for _ in range(4):
            assert fail(breakers, SONNET, 0) is None
        breakers.settle(admit(breakers, SONNET, 0), Result.SUCCESS, 0)
    assert breakers.state(SONNET) is BreakerState.CLOSED


def test_a_request_that_nobody_waited_for_says_nothing():
    breakers = Breakers(SETTINGS)
    for _ in range(4):
        fail(breakers, SONNET, 0)
    breakers.settle(admit(breakers, SONNET, 0), Result.UNKNOWN, 0)
    assert fail(breakers, SONNET, 0) is BreakerState.OPEN


def test_failures_that_are_far_apart_do_not_open_it():
    breakers = Breakers(SETTINGS)
    for number in range(50):
        assert fail(breakers, SONNET, number * 2.6) is None, "five of them take 10.4 seconds"
    breakers = Breakers(BreakerSettings(interval_seconds=0))
    assert [fail(breakers, SONNET, number * 1000) for number in range(5)][-1] is BreakerState.OPEN


def test_models_and_endpoints_do_not_share_one():
    breakers = opened()
    admit(breakers, HAIKU, 1)
    admit(breakers, Line("/v1/complete", SONNET.model), 1)


def test_after_a_while_three_requests_may_try_and_close_it():
    breakers = opened()
    first, changed = breakers.admit(SONNET, 30)
    assert changed is BreakerState.HALF_OPEN
    tickets = [first, admit(breakers, SONNET, 30), admit(breakers, SONNET, 31)]
    assert breakers.admit(SONNET, 32) == (Rejected(30), None), "more than three"
    assert [breakers.settle(ticket, Result.SUCCESS, 33) for ticket in tickets] == [None, None, BreakerState.CLOSED]
    assert len(breakers) == 0


def test_one_failure_of_those_that_try_opens_it_again():
    breakers = opened()
    tickets = [admit(breakers, SONNET, 30) for _ in range(3)]
    assert breakers.settle(tickets[0], Result.SUCCESS, 31) is None
    assert breakers.settle(tickets[1], Result.FAILURE, 32) is BreakerState.OPEN
    assert breakers.settle(tickets[2], Result.FAILURE, 33) is None, "it is open already"
    assert breakers.admit(SONNET, 61.9)[0] == Rejected(30)
    assert breakers.admit(SONNET, 62)[1] is BreakerState.HALF_OPEN


def test_a_client_that_leaves_gives_its_place_back():
    breakers = opened()
    tickets = [admit(breakers, SONNET, 30) for _ in range(3)]
    breakers.settle(tickets[0], Result.UNKNOWN, 31)
    admit(breakers, SONNET, 31)
    assert breakers.admit(SONNET, 31)[0] == Rejected(30)


def test_a_provider_that_hangs_does_not_keep_it_half_open_for_ever():
    breakers = opened()
    stale = [admit(breakers, SONNET, 30) for _ in range(3)]
    assert breakers.admit(SONNET, 59)[0] == Rejected(30)
    fresh = [admit(breakers, SONNET, 60) for _ in range(3)]
    assert breakers.settle(stale[0], Result.FAILURE, 61) is None, "it was told of another try"
    assert [breakers.settle(ticket, Result.SUCCESS, 61) for ticket in fresh][-1] is BreakerState.CLOSED
    assert breakers.settle(stale[1], Result.FAILURE, 62) is None
    assert len(breakers) == 0


def test_requests_of_before_it_opened_do_not_count_while_it_tries():
    breakers = Breakers(SETTINGS)
    early = [admit(breakers, SONNET, 0) for _ in range(7)]
    for ticket in early[:5]:
        breakers.settle(ticket, Result.FAILURE, 1)
    assert breakers.state(SONNET) is BreakerState.OPEN
    assert breakers.settle(early[5], Result.FAILURE, 2) is None
    admit(breakers, SONNET, 31)
    assert breakers.settle(early[6], Result.FAILURE, 32) is None
    assert breakers.state(SONNET) is BreakerState.HALF_OPEN


def test_names_that_clients_invent_take_no_memory():
    breakers = Breakers(SETTINGS)
    for number in range(3 * MAX_BREAKERS):
        line = Line("/v1/messages", f"model-{number}")
        breakers.settle(admit(breakers, line, 0), Result.SUCCESS, 0)
    assert len(breakers) == 0
    for number in range(3 * MAX_BREAKERS):
        fail(breakers, Line("/v1/messages", f"model-{number}"), 0)
    assert len(breakers) == MAX_BREAKERS


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 429, 500, 502])
def test_other_statuses_are_answers(status):
    assert result_of(status) is Result.SUCCESS


@pytest.mark.parametrize("status", sorted(FAILURE_STATUSES))
def test_a_provider_that_says_it_cannot_serve_failed(status):
    assert result_of(status) is Result.FAILURE


class BreakerAgainstAModel(RuleBasedStateMachine):
    """One breaker, and its rules once more as a sentence a rule; requests may end in any order and much later."""

    @initialize(
        threshold=st.integers(1, 4),
        interval=st.sampled_from([0.0, 10.0]),
        open_seconds=st.sampled_from([5.0, 30.0]),
        tries=st.integers(1, 3),
    )
    def start(self, threshold, interval, open_seconds, tries):
        self.settings = BreakerSettings(threshold, interval, open_seconds, tries)
        self.breakers = Breakers(self.settings)
        self.now = 0.0
        self.state = BreakerState.CLOSED
        self.row = []
        self.since = 0.0
        self.trials = []
        self.successes = 0
        self.open_requests = []
        self.round = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 6.0, 40.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def request(self):
        admission, changed = self.breakers.admit(SONNET, self.now)
        if self.state is BreakerState.OPEN:
            if self.now - self.since < self.settings.open_seconds:
                assert isinstance(admission, Rejected)
                assert changed is None
                return
            assert changed is BreakerState.HALF_OPEN
            self.state, self.trials, self.successes = BreakerState.HALF_OPEN, [], 0
            self.round += 1
        else:
            assert changed is None
        if self.state is BreakerState.HALF_OPEN:
            if len(self.trials) >= self.settings.half_open_max_requests:
                if self.now - self.since < self.settings.open_seconds:
                    assert isinstance(admission, Rejected)
                    return
                self.trials, self.successes = [], 0
                self.round += 1
            if not self.trials:
                self.since = self.now
            assert isinstance(admission, Ticket)
            self.trials.append(admission)
        assert isinstance(admission, Ticket)
        self.open_requests.append((admission, self.round if self.state is BreakerState.HALF_OPEN else None))

    @precondition(lambda self: self.open_requests)
    @rule(data=st.data(), result=st.sampled_from(list(Result)))
    def answer(self, data, result):
        ticket, round_ = self.open_requests.pop(data.draw(st.integers(0, len(self.open_requests) - 1)))
        changed = self.breakers.settle(ticket, result, self.now)
        expected = None
        if self.state is BreakerState.CLOSED and round_ is None:
            if result is Result.SUCCESS:
                self.row = []
            elif result is Result.FAILURE:
                self.row.append(self.now)
                last = self.row[-self.settings.failure_threshold :]
                interval = self.settings.interval_seconds
                if len(last) == self.settings.failure_threshold and (not interval or last[-1] - last[0] <= interval):
                    expected, self.since = BreakerState.OPEN, self.now
        elif self.state is BreakerState.HALF_OPEN and round_ == self.round:
            if result is Result.SUCCESS:
                self.successes += 1
                if self.successes >= self.settings.half_open_max_requests:
                    expected = BreakerState.CLOSED
            elif result is Result.FAILURE:
                expected, self.since = BreakerState.OPEN, self.now
            else:
                self.trials.remove(ticket)
        if expected is not None:
            self.state, self.row = expected, []
        assert changed is expected
        assert self.breakers.state(SONNET) is self.state
        if self.state is BreakerState.CLOSED and not self.row:
            assert len(self.breakers) == 0


TestBreakerAgainstAModel = BreakerAgainstAModel.TestCase
