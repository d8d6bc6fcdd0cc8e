"""Twin of aiproxyd/telemetry/prices.py, with the table of prices that were written down by hand."""

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from aiproxyd.model.billing import Billing
from aiproxyd.model.usage import TokenUsage
from aiproxyd.pricing import Charge, Override, Part, Rate
from aiproxyd.telemetry import prices
from aiproxyd.telemetry.prices import ExactPrices, PriceBook, corrections

_TABLE = yaml.safe_load(Path(__file__).with_name("price_table.yaml").read_text())
_ROWS = [
    (group["provider"], model, row, group.get("day", group["read"]))
    for group in _TABLE
    for model, row in group["models"].items()
]
_HOSTS = {"anthropic": "api.anthropic.com", "openai": "api.openai.com", "google": "generativelanguage.googleapis.com"}

# Input, output, cache read, cache write of five minutes, of one hour.
_SHAPES = {
    "plain": (12_345, 678, 0, 0, 0),
    "cached": (1_234, 567, 45_678, 2_345, 0),
    "1h cache": (1_234, 567, 45_678, 1_000, 3_456),
    "long context": (250_001, 4_321, 50_000, 1_000, 2_000),
}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook()


def _charge(provider: str, model: str, day: dt.date = dt.date(2026, 11, 21), **more: Any) -> Charge:
    at = dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.UTC).timestamp()
    fields: dict[str, Any] = {"host": _HOSTS.get(provider, ""), "usage": TokenUsage(input_tokens=1_000_000)} | more
    return Charge(at=at, provider=provider, provider_type=provider, model=model, **fields)


def _by_hand(row: dict[str, Any], shape: tuple[int, ...]) -> int:
    """Return micro-USD: a million tokens at one USD cost a million micro-USD, so USD a million tokens is micro-USD a token."""
    input_, output, read, write, write_1h = shape
    long = row.get("long")
    at = row | long if long and input_ + read + write + write_1h > long["above"] else row
    usd = {name: Decimal(str(at[name])) for name in ("input", "output", "read", "write", "write_1h") if name in at}
    of_write = usd.get("write", usd["input"])
    total = (
        input_ * usd["input"]
        + output * usd["output"]
        + read * usd.get("read", usd["input"])
        + write * of_write
        + write_1h * usd.get("write_1h", of_write)
    )
    return int(total.quantize(Decimal(1), ROUND_HALF_UP))


def test_the_table_has_sixty_models() -> None:
    assert len(_ROWS) >= 60
    assert all(group["source"].startswith("https://") and isinstance(group["read"], dt.date) for group in _TABLE)


@pytest.mark.parametrize(("provider", "model", "row", "day"), _ROWS, ids=[f"{row[1]}@{row[3]}" for row in _ROWS])
def test_a_model_costs_what_its_providers_page_says(
    book: PriceBook, provider: str, model: str, row: dict[str, Any], day: dt.date
) -> None:
    for name, (input_, output, read, write, write_1h) in _SHAPES.items():
        usage = TokenUsage(
            input_tokens=input_,
            output_tokens=output,
            cache_read_input_tokens=read,
            cache_write_input_tokens=write + write_1h,
            cache_write_5m_input_tokens=write,
            cache_write_1h_input_tokens=write_1h,
            reasoning_output_tokens=output // 2,
        )
        cost = book.price(_charge(provider, model, day, usage=usage))
        assert cost is not None, model
        assert cost.micros == _by_hand(row, _SHAPES[name]), name
        assert cost.source in {prices.GENAI_PRICES, prices.CORRECTIONS}
        assert cost.version


@pytest.mark.parametrize(
    ("model", "metadata", "factor", "tier"),
    [
        ("claude-opus-5-5", {"service_tier": "batch"}, Decimal("0.5"), "batch"),
        ("claude-opus-5-5", {"service_tier": "standard"}, Decimal(1), ""),
        ("claude-opus-5-5", {"service_tier": "priority"}, Decimal(1), ""),
        ("claude-opus-5-5", {"speed": "fast"}, Decimal(2), "fast"),
        ("claude-opus-5-5", {"inference_geo": "us"}, Decimal("1.1"), ""),
        ("claude-opus-5-5", {"inference_geo": "global"}, Decimal(1), ""),
        ("claude-haiku-4-5", {"inference_geo": "us"}, Decimal(1), ""),
        ("gpt-5.5", {"service_tier": "flex"}, Decimal("0.5"), "flex"),
        ("gpt-5.5", {"service_tier": "priority"}, Decimal("2.5"), "priority"),
        ("gpt-5.5", {"service_tier": "default"}, Decimal(1), ""),
        ("gpt-5.5", {"service_tier": "a tier of tomorrow"}, Decimal(1), ""),
    ],
)
def test_a_tier_that_the_reply_names_has_its_price(
    book: PriceBook, model: str, metadata: dict[str, str], factor: Decimal, tier: str
) -> None:
    provider = "anthropic" if model.startswith("claude") else "openai"
    usage = TokenUsage(input_tokens=1_000, output_tokens=1_000)
    standard = book.price(_charge(provider, model, usage=usage))
    named = book.price(_charge(provider, model, usage=usage, metadata=metadata))
    assert standard is not None
    assert named is not None
    assert named.micros == standard.micros * factor
    assert named.details.get("tier", "") == tier


def test_a_plan_is_priced_for_comparison(book: PriceBook) -> None:
    cost = book.price(_charge("chatgpt", "gpt-5.5", billing=Billing.SUBSCRIPTION))
    assert cost is not None
    assert (cost.micros, cost.basis) == (10_000_000, "list_price_equivalent")
    metered = book.price(_charge("openai", "gpt-5.5"))
    assert metered is not None
    assert metered.basis == "list_price"


@pytest.mark.parametrize(
    ("provider", "host", "model", "is_known"),
    [
        ("openai-compat", "api.deepseek.com", "deepseek-chat", True),
        ("openai-compat", "llm.internal", "gpt-4o", False),
        ("openai", "gateway.example", "gpt-4o", True),
        ("openai", "api.openai.com", "a-model-of-tomorrow", False),
        ("openai", "api.openai.com", "", False),
        ("anthropic", "api.anthropic.com", "coder-aibridge-unknown", False),
        ("copilot", "api.githubcopilot.com", "claude-sonnet-5", True),
        ("another", "", "gpt-4o", False),
    ],
)
def test_what_no_list_prices_has_no_cost(book: PriceBook, provider: str, host: str, model: str, is_known: bool) -> None:
    assert (book.price(_charge(provider, model, host=host)) is not None) is is_known


def test_a_time_that_is_none_has_no_cost(book: PriceBook) -> None:
    charge = Charge(at=1e300, provider="openai", provider_type="openai", host="", model="gpt-5", usage=TokenUsage())
    assert book.price(charge) is None


def test_prices_have_dates(book: PriceBook) -> None:
    before = book.price(_charge("openai", "gpt-5.6-luna", dt.date(2026, 7, 29)))
    after = book.price(_charge("openai", "gpt-5.6-luna", dt.date(2026, 7, 30)))
    assert before is not None
    assert after is not None
    assert before.micros == 5 * after.micros


def test_a_price_by_the_hour_is_looked_up_each_time(book: PriceBook) -> None:
    day = dt.datetime(2025, 6, 1, tzinfo=dt.UTC).timestamp()
    amounts = set()
    for hour in range(24):
        charge = Charge(
            at=day + hour * 3600,
            provider="d",
            provider_type="openai-compat",
            host="api.deepseek.com",
            model="deepseek-chat",
            usage=TokenUsage(input_tokens=1_000_000),
        )
        cost = book.price(charge)
        assert cost is not None
        amounts.add(cost.micros)
    assert len(amounts) == 2


def test_the_first_override_that_fits_goes_before_the_list() -> None:
    override = Override(
        provider="anthropic",
        model="claude-opus-*",
        first_day=dt.date(2026, 1, 1),
        last_day=dt.date(2026, 6, 30),
        parts={Part.INPUT: Rate(Decimal(1_000_000))},
    )
    book = PriceBook([override])
    inside = book.price(_charge("anthropic", "claude-opus-5", dt.date(2026, 6, 30)))
    assert inside is not None
    assert (inside.micros, inside.source, inside.version) == (1_000_000, "configuration", "2026-01-01")
    for charge in (
        _charge("anthropic", "claude-opus-5", dt.date(2026, 7, 1)),
        _charge("anthropic", "claude-sonnet-5", dt.date(2026, 6, 30)),
        _charge("copilot", "claude-opus-5", dt.date(2026, 6, 30)),
    ):
        outside = book.price(charge)
        assert outside is not None
        assert outside.source == "genai-prices"
    book.replace_overrides([])
    again = book.price(_charge("anthropic", "claude-opus-5", dt.date(2026, 6, 30)))
    assert again is not None
    assert again.source == "genai-prices"


def test_each_correction_says_where_it_is_from() -> None:
    text = Path(prices.__file__).with_name("data").joinpath("price_corrections.yaml").read_text()
    assert all(entry["source"].startswith("https://") and entry["checked"] for entry in yaml.safe_load(text))
    assert {each.source for each in corrections()} == {prices.CORRECTIONS}


def test_names_that_clients_invent_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, book: PriceBook) -> None:
    monkeypatch.setattr(prices, "MAX_CACHED", 50)
    for number in range(500):
        book.price(_charge("openai", f"model-{number}"))
    assert len(book._models) <= 51
    assert len(book._rates) <= 51


def test_every_tier_of_a_model_is_found(book: PriceBook) -> None:
    assert {"service_tier": "priority"} in book.variants("openai", "", "gpt-5.5")
    assert {"speed": "fast"} in book.variants("anthropic", "", "claude-opus-5-5")
    assert book.variants("openai", "", "nonesuch") == []
    assert "anthropic" in book.list_names()
    assert book.list_rates("nonesuch", "x", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) is None
    assert book.list_models("nonesuch") == ()


@pytest.mark.parametrize(
    ("provider", "host", "model", "found", "usd"),
    [
        ("bedrock", "", "anthropic.claude-3-5-sonnet-20241022-v2:0", "aws/regional.anthropic.claude-3-5-sonnet-20241022-v2:0", "3"),
        ("bedrock", "", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        ("bedrock", "", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3"),
        ("bedrock", "", "apac.anthropic.claude-sonnet-4-20250514-v1:0", "aws/regional.anthropic.claude-sonnet-4-20250514-v1:0", "3"),
        ("bedrock", "", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0", "aws/regional.anthropic.claude-haiku-4-5-20251001-v1:0", "1.1"),
        ("bedrock", "", "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", "aws/regional.anthropic.claude-3-haiku-20240307-v1:0", "0.25"),
        ("bedrock", "", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123", None, None),
        ("bedrock", "", "eu.amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0", "0.06"),
        ("google", "us-central1-aiplatform.googleapis.com", "publishers/google/models/gemini-2.5-flash", "google/gemini-2.5-flash", "0.3"),
        ("google", "us-central1-aiplatform.googleapis.com", "projects/p/locations/l/publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro", "1.25"),
        ("google", "us-central1-aiplatform.googleapis.com", "google/gemini-2.5-pro", "google/gemini-2.5-pro", "1.25"),
        ("google", "us-central1-aiplatform.googleapis.com", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5", "3"),
        ("google", "generativelanguage.googleapis.com", "models/gemini-2.5-flash", "google/gemini-2.5-flash", "0.3"),
        ("google", "generativelanguage.googleapis.com", "tunedModels/mine", None, None),
        ("azure", "acme.openai.azure.com", "gpt-4o-2024-08-06", "azure/gpt-4o", "2.5"),
        ("azure", "acme.openai.azure.com", "gpt-35-turbo", "azure/gpt-3.5-turbo", "0.5"),
        ("azure", "acme.services.ai.azure.com", "claude-sonnet-4-5", "azure/claude-sonnet-4-5", "3"),
        # A deployment's own name says nothing; the answer names the model, and that is what is priced.
        ("azure", "acme.openai.azure.com", "my-deployment", None, None),
        ("openrouter", "openrouter.ai", "google/gemini-2.5-pro", "openrouter/google/gemini-2.5-pro", "1.25"),
        ("copilot", "api.githubcopilot.com", "gpt-4o-2024-11-20", "openai/gpt-4o", "2.5"),
        ("copilot", "api.githubcopilot.com", "gemini-2.5-pro", "google/gemini-2.5-pro", "1.25"),
    ],
)  # fmt: skip
def test_models_are_found_by_the_names_that_clouds_give_them(
    book: PriceBook, provider: str, host: str, model: str, found: str | None, usd: str | None
) -> None:
    rates = book.rates(_charge(provider, model, host=host))
    assert (rates.model if rates is not None else None) == found
    assert (rates is None) == (usd is None)
    if rates is not None and usd is not None:
        assert rates.parts[Part.INPUT].base == Decimal(usd) * 1_000_000


def test_a_fault_leaves_a_response_without_a_cost_and_is_told_once_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    book = PriceBook()

    def broken(charge: Charge) -> None:
        raise ZeroDivisionError(charge.model)

    monkeypatch.setattr(book, "rates", broken)
    with structlog.testing.capture_logs() as logs:
        assert [book.price(_charge("openai", model)) for model in ("gpt-5", "gpt-5", "gpt-4o")] == [None] * 3
    assert book.failures == 3
    assert [line["model"] for line in logs] == ["gpt-5", "gpt-4o"]
    # Pricing again must not write that a price is not known.
    with pytest.raises(ZeroDivisionError):
        ExactPrices(book).price(_charge("openai", "gpt-5"))
