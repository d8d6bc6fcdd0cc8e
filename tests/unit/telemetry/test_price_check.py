"""Twin of aiproxyd/telemetry/price_check.py."""

import datetime as dt
from decimal import Decimal

import pytest

from aiproxyd.pricing import Override, Part, Rate
from aiproxyd.telemetry.price_check import check_lists, check_litellm, check_overrides
from aiproxyd.telemetry.prices import PriceBook

AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook()


def test_an_override_that_differs_from_the_list_is_told(book: PriceBook) -> None:
    same = Override(model="claude-opus-5", parts={Part.INPUT: Rate(Decimal(5_000_000))})
    other = Override(model="claude-opus-5*", parts={Part.INPUT: Rate(Decimal(4_000_000)), Part.REASONING: Rate(Decimal(1))})
    unknown = Override(model="nonesuch", parts={Part.INPUT: Rate(Decimal(1))})
    [difference] = check_overrides(book, [same, other, unknown], "anthropic", AT)
    assert (difference.part, difference.source, difference.micros) == (Part.INPUT, "configuration", 4_000_000)
    assert (difference.other_source, difference.other_micros) == ("anthropic", 5_000_000)


def test_resellers_are_compared_by_the_same_model(book: PriceBook) -> None:
    found = list(check_lists(book, ["anthropic"], AT))
    assert all(each.source == "anthropic" and each.micros != each.other_micros for each in found)
    # `claude-opus-5` and `claude-opus-5-fast` are two models.
    assert not any(each.other_micros == 2 * each.micros for each in found)


def test_a_file_of_litellm_is_read_in_decimal(book: PriceBook) -> None:
    prices = {
        "claude-opus-5": {
            "input_cost_per_token": 5e-06,
            "output_cost_per_token": 2.5000000000000001e-05,
            "cache_read_input_token_cost": 1e-06,
            "cache_creation_input_token_cost": None,
            "cache_creation_input_token_cost_above_1hr": True,
        },
        "claude-sonnet-5": "no entry",
        "openai/gpt-5": {"input_cost_per_token": "1.25e-06", "output_cost_per_token": "dear"},
        "gpt-4o": {"input_cost_per_token": float("inf")},
    }
    [difference] = check_litellm(book, ["anthropic", "openai"], AT, prices)
    assert (difference.model, difference.part) == ("claude-opus-5", Part.CACHE_READ)
    assert (difference.micros, difference.other_micros, difference.other_source) == (500_000, 1_000_000, "litellm")
