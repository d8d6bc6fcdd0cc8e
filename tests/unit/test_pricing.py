"""Twin of aiproxyd/pricing.py."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.model.billing import Billing
from aiproxyd.model.head import Headers, RequestHead
from aiproxyd.model.usage import TokenUsage
from aiproxyd.pricing import (
    MAX_COST_MICROS,
    STANDARD,
    Charge,
    Override,
    Part,
    Rate,
    Rates,
    billing_of,
    cost_of,
    units_of,
)


def _rates(**usd: float) -> Rates:
    return Rates({Part(name): Rate(Decimal(str(price)) * 1_000_000) for name, price in usd.items()}, "list", "1")


def _micros(usage: TokenUsage, rates: Rates) -> int | None:
    cost = cost_of(usage, rates)
    return None if cost is None else cost.micros


@pytest.mark.parametrize(
    ("usage", "rates", "micros"),
    [
        (TokenUsage(), _rates(input=1, output=1), 0),
        (TokenUsage(input_tokens=3), _rates(input=2), 6),
        (TokenUsage(output_tokens=3, reasoning_output_tokens=2), _rates(input=1, output=5), 15),
        (TokenUsage(output_tokens=3, reasoning_output_tokens=2), _rates(input=1, output=5, reasoning=2), 9),
        (TokenUsage(cache_read_input_tokens=10), _rates(input=1), 10),
        (TokenUsage(cache_read_input_tokens=10), _rates(input=1, cache_read=0.1), 1),
        (TokenUsage(cache_write_input_tokens=4, cache_write_1h_input_tokens=3), _rates(input=1), 4),
        (TokenUsage(cache_write_input_tokens=4, cache_write_1h_input_tokens=3), _rates(input=1, cache_write=2), 8),
        (TokenUsage(cache_write_input_tokens=4, cache_write_1h_input_tokens=3), _rates(cache_write=2, cache_write_1h=3), 11),
        (TokenUsage(input_tokens=5, extra={"prompt_audio": 2}), _rates(input=1, input_audio=10), 23),
        (TokenUsage(input_tokens=5, extra={"prompt_audio": 2}), _rates(input=1), 5),
        (TokenUsage(output_tokens=5, extra={"completion_audio": 2}), _rates(output=1, output_audio=10), 23),
        (TokenUsage(extra={"web_search_requests": 2}), _rates(input=1, web_search=10_000), 20_000),
        (TokenUsage(extra={"web_search_requests": 2}), _rates(input=1), 0),
        (TokenUsage(), _rates(input=1, request=5000), 5000),
        # Unknown is not zero.
        (TokenUsage(output_tokens=1), _rates(input=1), None),
        (TokenUsage(input_tokens=1), _rates(output=1), None),
        # Half a micro-USD is rounded up, and only once.
        (TokenUsage(input_tokens=1), _rates(input=0.5), 1),
        (TokenUsage(input_tokens=1, output_tokens=1), _rates(input=0.5, output=0.5), 1),
        (TokenUsage(input_tokens=1), _rates(input=0.49), 0),
        # A figure that cannot be is no cost.
        (TokenUsage(input_tokens=10**12), _rates(input=11), None),
    ],
)
def test_each_part_has_its_price_or_that_of_what_contains_it(usage: TokenUsage, rates: Rates, micros: int | None) -> None:
    assert _micros(usage, rates) == micros


def test_a_long_context_rate_holds_for_every_token() -> None:
    rates = Rates(
        {
            Part.INPUT: Rate(Decimal(1_000_000), ((100, Decimal(2_000_000)), (200, Decimal(3_000_000)))),
            Part.OUTPUT: Rate(Decimal(1_000_000), ((100, Decimal(10_000_000)),)),
        },
        "list",
        "1",
    )
    assert _micros(TokenUsage(input_tokens=100, output_tokens=1), rates) == 101
    assert _micros(TokenUsage(input_tokens=101, output_tokens=1), rates) == 212
    assert _micros(TokenUsage(input_tokens=1, cache_read_input_tokens=100, output_tokens=1), rates) == 212
    assert _micros(TokenUsage(input_tokens=201), rates) == 603


def test_a_cost_tells_its_parts() -> None:
    rates = Rates({Part.INPUT: Rate(Decimal("1250000.5"))}, "list", "7", "a/b", "batch")
    cost = cost_of(TokenUsage(input_tokens=4), rates, billing=Billing.SUBSCRIPTION, multiplier=Decimal("1.1"))
    assert cost is not None
    assert cost.details == {"parts": {"input": [4, "1375000.55"]}, "model": "a/b", "tier": "batch"}
    assert (cost.micros, cost.source, cost.version, cost.basis) == (6, "list", "7", "list_price_equivalent")


_counts = st.integers(0, 10**7)


@given(_counts, _counts, _counts, _counts, _counts, _counts, _counts)
def test_no_token_is_charged_twice_and_none_is_forgotten(
    input_: int, output: int, read: int, write: int, hour: int, reasoning: int, audio: int
) -> None:
    usage = TokenUsage(
        input_tokens=input_,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_write_input_tokens=write,
        cache_write_1h_input_tokens=hour,
        reasoning_output_tokens=reasoning,
        extra={"prompt_audio": audio, "completion_audio": audio},
    )
    every = {part: Rate(Decimal(1)) for part in Part}
    for priced in ({}, every):
        units = dict(units_of(usage, priced))
        units.pop(Part.REQUEST)
        assert all(count > 0 for count in units.values())
        assert sum(units.values()) == input_ + output + read + write


@given(_counts, _counts)
def test_more_tokens_never_cost_less(few: int, more: int) -> None:
    rates = _rates(input=0.3, output=1)
    low, high = _micros(TokenUsage(input_tokens=few), rates), _micros(TokenUsage(input_tokens=few + more), rates)
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= MAX_COST_MICROS


def test_an_override_covers_what_it_says() -> None:
    charge = Charge(at=0, provider="work", provider_type="anthropic", host="", model="claude-x-1", usage=TokenUsage())
    day = dt.date(2026, 5, 5)
    parts = {Part.INPUT: Rate(Decimal(1))}
    for override, is_covered in (
        (Override(model="claude-x-1", parts=parts), True),
        (Override(model="claude-x", parts=parts), False),
        (Override(model="claude-x*", parts=parts), True),
        (Override(model="*", provider="work", parts=parts), True),
        (Override(model="*", provider="anthropic", parts=parts), True),
        (Override(model="*", provider="openai", parts=parts), False),
        (Override(model="*", first_day=day, last_day=day, parts=parts), True),
        (Override(model="*", first_day=day + dt.timedelta(1), parts=parts), False),
        (Override(model="*", last_day=day - dt.timedelta(1), parts=parts), False),
        (Override(model="*", tier="batch", parts=parts), False),
        (Override(model="*", tier=STANDARD, parts=parts), True),
    ):
        assert override.covers(charge, day, "") is is_covered, override
    assert Override(model="*", tier="batch", parts=parts).covers(charge, day, "batch")
    assert not Override(model="*", tier=STANDARD, parts=parts).covers(charge, day, "batch")


@pytest.mark.parametrize(
    ("provider_type", "host", "headers", "billing"),
    [
        ("anthropic", "api.anthropic.com", [("authorization", "Bearer sk-ant-oat01-abc")], Billing.SUBSCRIPTION),
        ("anthropic", "api.anthropic.com", [("authorization", "bearer  sk-ant-oat01-abc")], Billing.SUBSCRIPTION),
        ("anthropic", "api.anthropic.com", [("authorization", "Bearer sk-ant-api03-abc")], Billing.METERED),
        # The key is what is charged when both are there.
        (
            "anthropic",
            "api.anthropic.com",
            [("x-api-key", "sk-ant-api03-x"), ("authorization", "Bearer sk-ant-oat01-abc")],
            Billing.METERED,
        ),
        ("anthropic", "api.anthropic.com", [], Billing.METERED),
        ("openai", "api.openai.com", [("authorization", "Bearer sk-ant-oat01-abc")], Billing.METERED),
        ("chatgpt", "chatgpt.com", [], Billing.SUBSCRIPTION),
        ("copilot", "api.githubcopilot.com", [], Billing.SUBSCRIPTION),
        ("google", "cloudcode-pa.googleapis.com", [], Billing.SUBSCRIPTION),
        ("google", "generativelanguage.googleapis.com", [], Billing.METERED),
    ],
)
def test_a_plan_shows_in_the_request(provider_type: str, host: str, headers: list, billing: Billing) -> None:
    assert billing_of(provider_type, host, RequestHead("POST", "/", Headers(headers))) is billing


def test_sound_that_is_charged_by_time_has_no_cost_and_not_one_of_zero() -> None:
    rates = Rates({Part.INPUT: Rate(Decimal(1))}, "list", "1")
    assert cost_of(TokenUsage(extra={"audio_milliseconds": 2500}), rates) is None
    assert cost_of(TokenUsage(input_tokens=1_000_000, extra={"audio_milliseconds": 2500}), rates) is not None


@pytest.mark.parametrize(
    ("extra", "micros"),
    [
        ({"prompt_audio": 40, "completion_audio": 10}, 60 * 1 + 40 * 10 + 10 * 2 + 10 * 20),
        ({"input_audio": 40, "output_audio": 10}, 60 * 1 + 40 * 10 + 10 * 2 + 10 * 20),
        # What was read from the cache is charged as that, sound or not.
        ({"prompt_audio": 40, "cached_audio": 30}, 90 * 1 + 10 * 10 + 20 * 2),
        ({"input_audio": 4_000, "output_audio": 4_000}, 100 * 10 + 20 * 20),
        ({"input_audio": 10, "cached_audio": 40}, 100 * 1 + 20 * 2),
    ],
)
def test_sound_has_its_own_price_by_whatever_name_a_provider_counts_it(extra: dict[str, int], micros: int) -> None:
    million = Decimal(1_000_000)
    parts = {Part.INPUT: 1, Part.OUTPUT: 2, Part.INPUT_AUDIO: 10, Part.OUTPUT_AUDIO: 20}
    rates = Rates({part: Rate(million * price) for part, price in parts.items()}, "list", "1")
    cost = cost_of(TokenUsage(input_tokens=100, output_tokens=20, extra=extra), rates)
    assert cost is not None
    assert cost.micros == micros
