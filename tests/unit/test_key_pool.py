import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aiproxyd.key_pool import MAX_COOLDOWN_SECONDS, KeyMark, KeyPool, KeyState, cooldown_seconds
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers

NONE = Headers()


def keys(*names):
    return [UpstreamKey(name) for name in names]


def retry_after(seconds):
    return Headers([("retry-after", str(seconds))])


def test_a_request_begins_at_the_first_key_and_tries_each_once():
    walk = KeyPool(keys("a", "b", "c")).walk()
    assert [walk.next(0).secret for _ in range(3)] == ["a", "b", "c"]
    assert walk.next(0) is None
    assert walk.attempts == 3


def test_every_request_begins_at_the_first_usable_key_again():
    pool = KeyPool(keys("a", "b"))
    pool.answered(0, 429, retry_after(10), 100)
    assert pool.walk().next(100).secret == "b"
    assert pool.walk().next(109.9).secret == "b"
    assert pool.walk().next(110).secret == "a"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 60),
        ([("retry-after", "7")], 7),
        ([("retry-after", "0")], 0),
        ([("retry-after-ms", "1500")], 1.5),
        ([("retry-after-ms", "0.5"), ("retry-after", "9")], 0.0005),
        ([("retry-after-ms", "soon"), ("retry-after", "9")], 9),
        ([("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], 60),
        ([("retry-after", "1.5")], 60),
        ([("retry-after", "-1")], 60),
        ([("retry-after", "1e3")], 60),
        ([("retry-after", "١")], 60),
        ([("retry-after", "999999999")], MAX_COOLDOWN_SECONDS),
    ],
)
def test_a_key_rests_as_long_as_its_provider_says(headers, seconds):
    assert cooldown_seconds(Headers(headers)) == seconds


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthorized"), (403, "forbidden")])
def test_a_key_that_is_not_accepted_is_not_used_again(status, reason):
    pool = KeyPool(keys("a", "b"))
    assert pool.answered(0, status, NONE, 0) == KeyMark(0, KeyState.PERMANENT, reason)
    assert pool.state(0, 10**9) is KeyState.PERMANENT
    assert pool.walk().next(10**9).secret == "b"


@pytest.mark.parametrize("status", [200, 400, 404, 408, 413, 500, 502, 503, 529])
def test_no_other_status_is_the_fault_of_a_key(status):
    pool = KeyPool(keys("a"))
    assert pool.answered(0, status, retry_after(5), 0) is None
    assert not pool.walk().fails_over(status)
    assert pool.state(0, 0) is KeyState.VALID


def test_only_a_change_of_state_is_told():
    pool = KeyPool(keys("a"))
    assert pool.answered(0, 429, retry_after(10), 0) is not None
    assert pool.answered(0, 429, retry_after(20), 1) is None, "it was temporary already"
    assert pool.state(0, 20.9) is KeyState.TEMPORARY, "and rests longer"
    assert pool.answered(0, 401, NONE, 2) is not None
    assert pool.answered(0, 403, NONE, 3) is None
    assert pool.answered(0, 429, NONE, 4) is None


def test_a_running_cooldown_is_never_shortened():
    pool = KeyPool(keys("a"))
    pool.answered(0, 429, retry_after(100), 0)
    pool.answered(0, 429, retry_after(1), 10)
    assert pool.state(0, 99.9) is KeyState.TEMPORARY


def test_when_all_keys_rest_the_client_is_told_the_shortest_wait():
    pool = KeyPool(keys("a", "b", "c"))
    pool.answered(0, 429, retry_after(30), 0)
    pool.answered(1, 429, retry_after(12), 0)
    pool.answered(2, 401, NONE, 0)
    exhausted = pool.exhausted(1.5)
    assert (exhausted.outcome, exhausted.status_code, exhausted.retry_after_seconds) == ("rate_limited", 429, 11)


def test_when_no_key_is_accepted_the_client_is_told_so():
    pool = KeyPool(keys("a", "b"))
    pool.answered(0, 401, NONE, 0)
    pool.answered(1, 403, NONE, 0)
    exhausted = pool.exhausted(0)
    assert (exhausted.outcome, exhausted.status_code, exhausted.retry_after_seconds) == ("auth_failed", 502, 0)


def test_a_provider_that_asks_for_no_wait_does_not_make_a_request_go_round():
    pool = KeyPool(keys("a"))
    walk = pool.walk()
    assert walk.next(0).secret == "a"
    pool.answered(0, 429, retry_after(0), 0)
    assert walk.next(0) is None
    assert pool.exhausted(0).retry_after_seconds == 1


def test_what_another_worker_learnt_holds_here():
    pool, other = KeyPool(keys("a", "b")), KeyPool(keys("a", "b"))
    mark = pool.answered(0, 429, retry_after(10), 50)
    other.mark(mark, 50.01)
    assert other.walk().next(55).secret == "b"
    assert other.mark(KeyMark(7, KeyState.PERMANENT, "forbidden"), 0) is None, "a key that it does not have"


def test_a_reload_gives_rejected_keys_another_chance_and_lets_cooldowns_go_on():
    pool = KeyPool(keys("a", "b", "c"))
    pool.answered(0, 401, NONE, 0)
    pool.answered(1, 429, retry_after(30), 0)
    renewed = pool.renewed(keys("b", "a", "d"))
    assert [renewed.state(index, 1) for index in range(3)] == [KeyState.TEMPORARY, KeyState.VALID, KeyState.VALID]
    assert [key.secret for key in renewed.keys] == ["b", "a", "d"]


def test_a_pool_that_does_not_fail_over_uses_its_first_key_and_marks_none():
    pool = KeyPool(keys("a"), fails_over=False)
    walk = pool.walk()
    assert walk.next(0).secret == "a"
    assert pool.answered(0, 403, NONE, 0) is None
    assert pool.answered(0, 429, NONE, 0) is None
    assert not walk.fails_over(429)
    assert walk.next(0) is None
    assert pool.walk().next(0).secret == "a"


def test_an_empty_pool_has_no_key():
    pool = KeyPool(())
    assert pool.walk().next(0) is None
    assert sum(pool.counts(0).values()) == 0


class PoolAgainstAList(RuleBasedStateMachine):
    """Two workers' pools that tell each other, and a list of facts about each key that is looked at anew each time."""

    @initialize(count=st.integers(1, 5))
    def start(self, count):
        names = [f"key-{index}" for index in range(count)]
        self.pools = [KeyPool(keys(*names)), KeyPool(keys(*names))]
        self.facts = [[] for _ in names]
        self.now = 0.0

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds):
        self.now += seconds

    def expected(self, index):
        if "permanent" in self.facts[index]:
            return KeyState.PERMANENT
        ends = [fact for fact in self.facts[index] if fact != "permanent"]
        return KeyState.TEMPORARY if any(self.now < end for end in ends) else KeyState.VALID

    @rule(
        worker=st.integers(0, 1),
        statuses=st.lists(st.sampled_from([200, 429, 401, 403, 500]), min_size=5, max_size=5),
        wait=st.integers(0, 60),
    )
    def request(self, worker, statuses, wait):
        pool, other = self.pools[worker], self.pools[1 - worker]
        walk = pool.walk()
        tried = []
        while (key := walk.next(self.now)) is not None:
            index = walk.index
            usable = [i for i in range(len(self.facts)) if self.expected(i) is KeyState.VALID and i not in tried]
            assert key.secret == f"key-{usable[0]}"
            assert index == usable[0]
            tried.append(index)
            status = statuses[len(tried) - 1]
            before = self.expected(index)
            if status == 429:
                self.facts[index].append(self.now + wait)
            elif status in {401, 403}:
                self.facts[index].append("permanent")
            mark = pool.answered(index, status, retry_after(wait), self.now)
            assert (mark is not None) == (self.expected(index) is not before)
            if mark is not None:
                other.mark(mark, self.now)
            if not walk.fails_over(status):
                return
        assert walk.attempts == len(tried)
        assert not [i for i in range(len(self.facts)) if self.expected(i) is KeyState.VALID and i not in tried]
        exhausted = pool.exhausted(self.now)
        assert (exhausted.status_code == 502) == all("permanent" in facts for facts in self.facts)
        assert exhausted.retry_after_seconds >= (exhausted.status_code == 429)

    @rule()
    def reload(self):
        self.pools = [pool.renewed(pool.keys) for pool in self.pools]
        self.facts = [[fact for fact in facts if fact != "permanent"] for facts in self.facts]

    @invariant()
    def both_workers_know_the_state_of_every_key(self):
        if not hasattr(self, "pools"):
            return
        for pool in self.pools:
            assert [pool.state(index, self.now) for index in range(len(self.facts))] == [
                self.expected(index) for index in range(len(self.facts))
            ]
            assert sum(pool.counts(self.now).values()) == len(self.facts)


TestPoolAgainstAList = PoolAgainstAList.TestCase
