import pytest

from aiproxyd.breaker import Breakers, BreakerSettings, BreakerState, Line, Result, Ticket
from aiproxyd.key_pool import KeyMark, KeyState
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.model.head import Headers
from aiproxyd.model.principal import Principal
from aiproxyd.upstream import ActorHeaders, UpstreamRules, Upstreams

ALICE = Principal(id="7c4f", name="Älice 100%", groups=("dev", "ops"))
LINE = Line("/v1/messages", "m")


def rules(*secrets, **more):
    return {"a": UpstreamRules("a", "anthropic", keys=tuple(map(UpstreamKey, secrets)), **more)}


def test_who_has_no_rules_is_forwarded_plainly():
    upstream = Upstreams().of("nobody")
    assert upstream.rules.is_plain
    assert upstream.breakers is None
    assert upstream.pool.walk().next(0) is None


@pytest.mark.parametrize(
    "more",
    [
        {"keys": (UpstreamKey("k"),)},
        {"byok": False},
        {"breaker": BreakerSettings()},
        {"first_byte_timeout_seconds": 1.0},
        {"actor_headers": ActorHeaders(id="x-actor")},
    ],
)
def test_any_rule_about_requests_takes_the_longer_way(more):
    assert not UpstreamRules("a", "anthropic", **more).is_plain


def test_a_key_that_fails_is_told_once_to_the_other_workers():
    told = []
    one = Upstreams(rules("k", "l"), on_mark=lambda provider, mark: told.append((provider, mark)))
    other = Upstreams(rules("k", "l"))
    for _ in range(2):
        one.of("a").key_answered(0, 429, Headers([("retry-after", "9")]), 100)
    assert told == [("a", KeyMark(0, KeyState.TEMPORARY, "rate_limited", 9.0))]
    other.mark(*told[0], generation=0, now=100.0)
    assert other.of("a").pool.state(0, 108) is KeyState.TEMPORARY
    assert other.key_counts(108) == {"a": {KeyState.VALID: 1, KeyState.TEMPORARY: 1, KeyState.PERMANENT: 0}}


def test_what_is_told_about_the_keys_of_before_a_reload_is_void():
    upstreams = Upstreams(rules("k"))
    upstreams.replace(rules("new"), generation=1)
    upstreams.mark("a", KeyMark(0, KeyState.PERMANENT, "unauthorized"), generation=0, now=0)
    assert upstreams.of("a").pool.state(0, 0) is KeyState.VALID
    upstreams.mark("gone", KeyMark(0, KeyState.PERMANENT, "unauthorized"), generation=1, now=0)


def test_a_reload_keeps_cooldowns_and_breakers_and_forgives_rejected_keys():
    upstreams = Upstreams(rules("k", "l", breaker=BreakerSettings(failure_threshold=1)))
    before = upstreams.of("a")
    before.key_answered(0, 401, Headers(), 0)
    before.key_answered(1, 429, Headers(), 0)
    ticket, _ = before.breakers.admit(LINE, 0)
    assert isinstance(ticket, Ticket)
    assert before.breakers.settle(ticket, Result.FAILURE, 0) is BreakerState.OPEN
    upstreams.replace(rules("l", "k", breaker=BreakerSettings(failure_threshold=1)), generation=1)
    after = upstreams.of("a")
    assert [after.pool.state(index, 1) for index in (0, 1)] == [KeyState.TEMPORARY, KeyState.VALID]
    assert after.breakers.state(LINE) is BreakerState.OPEN
    upstreams.replace(rules("l", breaker=BreakerSettings(failure_threshold=2)), generation=2)
    assert isinstance(upstreams.of("a").breakers, Breakers)
    assert upstreams.of("a").breakers.state(LINE) is BreakerState.CLOSED, "it has other rules"
    upstreams.replace(rules("l"), generation=3)
    assert upstreams.of("a").breakers is None


def test_bedrock_s_errors_say_nothing_about_keys():
    assert not UpstreamRules("b", "bedrock").fails_over
    assert UpstreamRules("a", "anthropic").fails_over


def test_actor_headers_hold_what_a_header_can_hold():
    headers = ActorHeaders(id="x-id", username="x-name", groups="x-groups")
    assert headers.fields(ALICE) == (("x-id", "7c4f"), ("x-name", "%C3%84lice%20100%25"), ("x-groups", "dev,ops"))
    assert headers.names == {"x-id", "x-name", "x-groups"}
    evil = Principal(id="1", name="x\r\nauthorization: Bearer stolen")
    assert ActorHeaders(username="x-name").fields(evil) == (("x-name", "x%0D%0Aauthorization:%20Bearer%20stolen"),)
    assert ActorHeaders(groups="x-groups").fields(Principal(id="1", name="n")) == ()


def test_breakers_that_were_open_and_go_with_their_rules_are_named():
    settings = BreakerSettings(failure_threshold=1, interval_seconds=0, open_seconds=30, half_open_max_requests=1)
    others = BreakerSettings(failure_threshold=2, interval_seconds=0, open_seconds=30, half_open_max_requests=1)
    first = {name: UpstreamRules(name, "openai", breaker=settings) for name in ("stays", "changes", "goes")}
    upstreams = Upstreams(first)
    down, well = Line("/v1/responses", "down"), Line("/v1/responses", "well")
    for name in first:
        breakers = upstreams.of(name).breakers
        for line, result in ((down, Result.FAILURE), (well, Result.SUCCESS)):
            ticket, _ = breakers.admit(line, 0)
            breakers.settle(ticket, result, 0)
    assert upstreams.replace(first) == []
    changed = {"stays": first["stays"], "changes": UpstreamRules("changes", "openai", breaker=others)}
    assert upstreams.replace(changed) == [("changes", down), ("goes", down)]
    assert upstreams.replace({}) == [("stays", down)]
