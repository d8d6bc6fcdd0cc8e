"""Compares what different sources say a model costs. Finds differences; which source is right, a person decides.

Sources: the overrides of the configuration, a provider's own list, the lists of resellers that pass prices on (all of them in
genai-prices), and a file in the form of LiteLLM's `model_prices_and_context_window.json`.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from aiproxyd.pricing import CONFIGURATION, MICROS_PER_USD, UNITS, Override, Part, Rates
from aiproxyd.telemetry.prices import PriceBook

RESELLERS: Final = ("openrouter", "github-copilot", "azure")
"""They sell others' models, most at the list price: where theirs differs, one of the two is out of date or charges more."""

_LITELLM_KEYS: Final = {
    Part.INPUT: "input_cost_per_token",
    Part.OUTPUT: "output_cost_per_token",
    Part.CACHE_READ: "cache_read_input_token_cost",
    Part.CACHE_WRITE: "cache_creation_input_token_cost",
    Part.CACHE_WRITE_1H: "cache_creation_input_token_cost_above_1hr",
    Part.REASONING: "output_cost_per_reasoning_token",
}

# A price a token is written as a float: 1.2500000000000001e-06.
_LITELLM_DIGITS: Final = Decimal("0.0001")


class Difference(msgspec.Struct, frozen=True):
    """Two sources that do not agree."""

    model: str
    part: Part
    source: str
    micros: Decimal
    """Micro-USD per million tokens."""
    other_source: str
    other_micros: Decimal


def compare(model: str, rates: Rates, other: Rates) -> Iterator[Difference]:
    """Yield the parts that both sources price, and not alike."""
    for part in Part:
        ours, theirs = rates.parts.get(part), other.parts.get(part)
        if ours is not None and theirs is not None and ours.base != theirs.base:
            yield Difference(model, part, _name(rates), ours.base, _name(other), theirs.base)


def check_lists(book: PriceBook, lists: Iterable[str], at: dt.datetime) -> Iterator[Difference]:
    """Yield where a reseller's price of a model differs from its provider's own.

    Args:
        book: The prices.
        lists: The providers' own lists to look at.
        at: The prices of this time.
    """
    for list_name in lists:
        for model in book.list_models(list_name):
            own = book.list_rates(list_name, model, at)
            if own is None:
                continue
            for reseller in RESELLERS:
                for name in _spellings(list_name, model):
                    other = book.list_rates(reseller, name, at)
                    # Their rules match beginnings; a longer name may be another model.
                    if other is not None and _plain(other.model).endswith(_plain(model)):
                        yield from compare(model, own, other)
                        break


def check_overrides(book: PriceBook, overrides: Iterable[Override], list_name: str, at: dt.datetime) -> Iterator[Difference]:
    """Yield where an override differs from a list, which is why it is there."""
    for override in overrides:
        listed = book.list_rates(list_name, override.model.removesuffix("*"), at)
        if listed is not None:
            yield from compare(override.model, Rates(override.parts, CONFIGURATION, "", CONFIGURATION), listed)


def check_litellm(book: PriceBook, lists: Iterable[str], at: dt.datetime, prices: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield where a file in LiteLLM's form differs from the providers' own lists.

    Args:
        book: The prices.
        lists: The providers' own lists to look at.
        at: The prices of this time.
        prices: The parsed file; what in it is no price is left out.
    """
    for list_name in lists:
        for model in book.list_models(list_name):
            entry = prices.get(model) or prices.get(f"{list_name}/{model}")
            own = book.list_rates(list_name, model, at)
            if own is None or not isinstance(entry, dict):
                continue
            for part, key in _LITELLM_KEYS.items():
                rate, theirs = own.parts.get(part), _micros(entry.get(key))
                if rate is not None and theirs is not None and rate.base != theirs:
                    yield Difference(model, part, _name(own), rate.base, "litellm", theirs)


def _micros(cost: object) -> Decimal | None:
    if isinstance(cost, bool) or not isinstance(cost, int | float | str):
        return None
    try:
        value = Decimal(str(cost)) * MICROS_PER_USD * UNITS
    except InvalidOperation:
        return None
    return value.quantize(_LITELLM_DIGITS) if value.is_finite() else None


def _name(rates: Rates) -> str:
    return rates.model.partition("/")[0] or rates.source


def _spellings(list_name: str, model: str) -> tuple[str, ...]:
    dotted = re.sub(r"-(\d{1,2})-(\d{1,2})(?=-|$)", r"-\1.\2", model)
    return tuple(dict.fromkeys((f"{list_name}/{dotted}", f"{list_name}/{model}", dotted, model)))


def _plain(model: str) -> str:
    return model.replace(".", "-")
