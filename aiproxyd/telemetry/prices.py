"""Finds prices: overrides of the configuration first, then the data of genai-prices as installed. Never asks the network.

Used in control, and cheap there: a model is matched once, its rates are resolved once a day and tier. Total: what cannot be priced
has no cost, whatever it is named.

Facts of the data:
- Prices are USD for some number of units, with the days from which they hold, and variants for service tiers.
- Names are matched by rules (prefixes, equality), so dated and undated names of a model both match.
- Which list is meant is found from the host, as with servers compatible with OpenAI's; else from the type of the provider. A
  compatible server at a host that no list knows is not priced: its operator decides what a token costs.
"""

import datetime as dt
import importlib.metadata
import importlib.resources
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import structlog
import yaml

from aiproxyd.pricing import MICROS_PER_USD, STANDARD, Charge, Cost, Override, Part, Rate, Rates, cost_of

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

GENAI_PRICES: Final = "genai-prices"
CORRECTIONS: Final = "aiproxyd"
"""Source of the prices in our own file of corrections."""

MAX_CACHED: Final = 10_000
"""Names and rates that are remembered; clients invent names. Beyond it all are forgotten, which costs a millisecond each."""

_DAY_SECONDS: Final = 86_400
_NO_CONTEXT: Final[Mapping[str, str]] = {}
_NOT_SOUGHT: Final = Rates({}, "", "")

# Lists of genai-prices by type of provider. A plan's models are the provider's own.
_LISTS: Final = {
    "anthropic": ("anthropic",),
    "openai": ("openai",),
    "chatgpt": ("openai",),
    "copilot": ("github-copilot", "openai", "anthropic", "google"),
    "google": ("google",),
    "azure": ("azure",),
    "bedrock": ("aws",),
}

_PARTS: Final = {
    "input_mtok": Part.INPUT,
    "output_mtok": Part.OUTPUT,
    "cache_read_mtok": Part.CACHE_READ,
    "cache_write_mtok": Part.CACHE_WRITE,
    "cache_write_1h_mtok": Part.CACHE_WRITE_1H,
    "output_reasoning_mtok": Part.REASONING,
    "input_audio_mtok": Part.INPUT_AUDIO,
    "output_audio_mtok": Part.OUTPUT_AUDIO,
    "web_searches_kcount": Part.WEB_SEARCH,
    "requests_kcount": Part.REQUEST,
}

# Google's names of a model as a resource: `models/…`, `projects/…/publishers/google/models/…`, at its OpenAI endpoint `google/…`.
_RESOURCE: Final = re.compile(r"^(?:(?:.*/)?models/|google/)(?=[^/]+$)")

# Inference that is kept in the USA costs a tenth more with Claude Opus 4.6 and what came after it; these are older.
# Source: https://platform.claude.com/docs/en/about-claude/pricing#data-residency-pricing
_US_MULTIPLIER: Final = Decimal("1.1")
_SAME_EVERYWHERE: Final = (
    "claude-1", "claude-2", "claude-3", "claude-v", "claude-instant", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2",
    "claude-opus-4-5", "claude-sonnet-4-0", "claude-sonnet-4-2", "claude-sonnet-4-5", "claude-haiku-4-5",
)  # fmt: skip


_log = structlog.get_logger(__name__)


class PriceBook:
    """Every price that is known. A `pricing.Pricer`."""

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        """Load the data, which takes about a third of a second."""
        from genai_prices.data import providers

        self.version: Final = importlib.metadata.version(GENAI_PRICES)
        """Of the data."""
        self.failures = 0
        """Responses that have no cost because of a fault, since the start."""
        self._failed_models: Final[set[str]] = set()
        self._corrections: Final = corrections()
        self._overrides: tuple[Override, ...] = tuple(overrides)
        self._lists: Final[dict[str, Provider]] = {provider.id: provider for provider in providers}
        self._models: dict[tuple[str, str, str], tuple[Provider, ModelInfo] | None] = {}
        self._rates: dict[tuple[Any, ...], Rates | None] = {}

    def replace_overrides(self, overrides: Iterable[Override]) -> None:
        """Use these overrides from now on; what was priced stays as it is."""
        self._overrides = tuple(overrides)
        self._rates.clear()

    def price(self, charge: Charge) -> Cost | None:
        """Return what a response costs, or None when that is not known, or cannot be found out: a fault here must not hold up records."""
        try:
            return self.find_price(charge)
        except Exception as exc:
            self.failures += 1
            # Once a model, and without what the client said but its name.
            if charge.model not in self._failed_models and len(self._failed_models) < MAX_CACHED:
                self._failed_models.add(charge.model)
                _log.error("a response has no cost, because its price cannot be found", model=charge.model, error=repr(exc))
            return None

    def find_price(self, charge: Charge) -> Cost | None:
        """Return the same, for those who would rather stop than write that a price is not known."""
        rates = self.rates(charge)
        if rates is None:
            return None
        return cost_of(charge.usage, rates, billing=charge.billing, multiplier=_multiplier(charge))

    def rates(self, charge: Charge) -> Rates | None:
        """Return the rates that hold for `charge`, or None when there are none."""
        context = _context(charge) if charge.metadata else _NO_CONTEXT
        # What is no time is no day either: its key equals none, itself included.
        day = charge.at // _DAY_SECONDS
        key = (charge.provider, charge.provider_type, charge.host, charge.model, day, *context.items())
        rates = self._rates.get(key, _NOT_SOUGHT)
        if rates is not _NOT_SOUGHT:
            return rates
        try:
            at = dt.datetime.fromtimestamp(charge.at, dt.UTC)
        except (ValueError, OverflowError, OSError):
            return None
        rates, is_stable = self._find(charge, at, context)
        if is_stable:
            if len(self._rates) >= MAX_CACHED:
                self._rates.clear()
            self._rates[key] = rates
        return rates

    def _find(self, charge: Charge, at: dt.datetime, context: Mapping[str, str]) -> tuple[Rates | None, bool]:
        """Return the rates, and whether they hold all day."""
        tier = " ".join(context.values())
        for override in (*self._overrides, *self._corrections):
            if override.covers(charge, at.date(), tier):
                model = f"{override.provider or '*'}/{override.model}"
                version = override.version or (override.first_day.isoformat() if override.first_day else "")
                return Rates(override.parts, override.source, version, model, override.tier), True
        found = self.find_model(charge.provider_type, charge.host, charge.model)
        if found is None:
            return None, True
        list_, info = found
        is_own = any(info is model for model in list_.models)
        standard = info.get_prices(at)
        prices = info.get_prices(at, context) if context and is_own else standard
        if prices == standard:
            tier = ""
        parts = _parts(prices)
        rates = Rates(parts, GENAI_PRICES, self.version, f"{list_.id}/{info.id}", tier) if Part.INPUT in parts else None
        return rates, not _changes_within_a_day(info)

    def find_model(self, provider_type: str, host: str, model: str) -> "tuple[Provider, ModelInfo] | None":
        """Return the list and the entry of a model, or None when it is in no list that prices the provider."""
        key = (provider_type, host, model)
        if key not in self._models:
            if len(self._models) >= MAX_CACHED:
                self._models.clear()
            self._models[key] = self._match(*key)
        return self._models[key]

    def _match(self, provider_type: str, host: str, model: str) -> "tuple[Provider, ModelInfo] | None":
        everything = list(self._lists.values())
        for name in self.lists_of(provider_type, host):
            list_ = self._lists[name]
            for spelling in dict.fromkeys((model, _RESOURCE.sub("", model))):
                info = list_.find_model(spelling, all_providers=everything)
                if info is not None and _is_charged_by_token(info):
                    return list_, info
        return None

    def _lists_of_host(self, host: str) -> tuple[str, ...]:
        url = f"https://{host}/"
        return tuple(name for name, list_ in self._lists.items() if re.match(list_.api_pattern, url))

    def list_names(self) -> tuple[str, ...]:
        """Return the names of all lists."""
        return tuple(self._lists)

    def list_models(self, list_name: str) -> tuple[str, ...]:
        """Return the models that a list names."""
        list_ = self._lists.get(list_name)
        return tuple(model.id for model in list_.models) if list_ is not None else ()

    def lists_of(self, provider_type: str, host: str) -> tuple[str, ...]:
        """Return the lists that price a provider, the first that knows a model first."""
        return _LISTS.get(provider_type) or self._lists_of_host(host)

    def list_rates(self, list_name: str, model: str, at: dt.datetime, context: Mapping[str, str] | None = None) -> Rates | None:
        """Return what one list says of a model, overrides left aside; None when it says nothing.

        Args:
            list_name: One of `list_names`.
            model: As a request names it.
            at: The prices of this time.
            context: The tier, such as `{"service_tier": "priority"}`.
        """
        list_ = self._lists.get(list_name)
        info = list_.find_model(model) if list_ is not None else None
        if info is None:
            return None
        parts = _parts(info.get_prices(at, context))
        return Rates(parts, GENAI_PRICES, self.version, f"{list_name}/{info.id}") if Part.INPUT in parts else None

    def variants(self, provider_type: str, host: str, model: str) -> list[dict[str, str]]:
        """Return the tiers for which a model has prices of its own."""
        found = self.find_model(provider_type, host, model)
        if found is None:
            return []
        seen: list[dict[str, str]] = []
        for variant in found[1].price_variants or ():
            if variant.when not in seen and variant.prices.__dict__:
                seen.append(dict(variant.when))
        return seen


class ExactPrices:
    """The same prices for pricing again: a fault stops it, where `PriceBook` would say that the price is not known."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def price(self, charge: Charge) -> Cost | None:
        """Return what a response costs, or None when that is not known."""
        return self._book.find_price(charge)


def corrections() -> tuple[Override, ...]:
    """Return where the data is known to be wrong, from the package's own file. The tiers in it are the standard one."""
    text = importlib.resources.files("aiproxyd.telemetry").joinpath("data/price_corrections.yaml").read_text(encoding="utf-8")
    return tuple(_correction(entry) for entry in yaml.safe_load(text))


def _correction(entry: Mapping[str, Any]) -> Override:
    above = dict(entry.get("above", {}))
    threshold = above.pop("tokens", 0)
    parts = {}
    for name, usd in entry["prices"].items():
        higher = ((threshold, _micros(above[name])),) if name in above else ()
        parts[Part(name)] = Rate(_micros(usd), higher)
    return Override(
        provider=entry["provider"],
        model=entry["model"],
        first_day=entry.get("from_date"),
        last_day=entry.get("to_date"),
        tier=STANDARD,
        parts=parts,
        source=CORRECTIONS,
        version=entry["checked"].isoformat(),
    )


def _micros(usd: float) -> Decimal:
    return Decimal(str(usd)) * MICROS_PER_USD


def _context(charge: Charge) -> dict[str, str]:
    """Return the service tier as the data names it."""
    context: dict[str, str] = {}
    tier = charge.metadata.get("service_tier", "")
    if tier == "batch":
        context["processing"] = "batch"
    elif tier not in {"", "default", "standard", "auto"}:
        context["service_tier"] = tier
    if charge.metadata.get("speed") == "fast":
        context["speed"] = "fast"
    return context


def _multiplier(charge: Charge) -> Decimal:
    is_dearer = (
        charge.metadata.get("inference_geo") == "us"
        and charge.provider_type == "anthropic"
        and not charge.model.startswith(_SAME_EVERYWHERE)
    )
    return _US_MULTIPLIER if is_dearer else Decimal(1)


def _parts(prices: "ModelPrice") -> dict[Part, Rate]:
    parts: dict[Part, Rate] = {}
    for key, part in _PARTS.items():
        price = prices.__dict__.get(key)
        if price is None:
            continue
        # A million units of what is counted by the thousand are a thousand thousands.
        factor = MICROS_PER_USD * (1000 if key.endswith("kcount") else 1)
        if isinstance(price, Decimal):
            parts[part] = Rate(price * factor)
        else:
            parts[part] = Rate(price.base * factor, tuple((tier.start, tier.price * factor) for tier in price.tiers))
    return parts


def _is_charged_by_token(info: "ModelInfo") -> bool:
    """Return whether it has a price of tokens at any time; a plan's list may have a model only as included, or by request."""
    prices: list[Any] = [each.prices for each in info.prices] if isinstance(info.prices, list) else [info.prices]
    return any(each.__dict__.get("input_mtok") is not None for each in prices)


def _changes_within_a_day(info: "ModelInfo") -> bool:
    from genai_prices.types import ConditionalPrice, TimeOfDateConstraint

    conditions: list[Any] = (
        [price for price in info.prices if isinstance(price, ConditionalPrice)] if isinstance(info.prices, list) else []
    )
    return any(
        isinstance(condition.constraint, TimeOfDateConstraint) for condition in [*conditions, *(info.price_variants or ())]
    )
