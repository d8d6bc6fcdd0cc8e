"""Observations for tests of what listens to them, and a sink with the registry it fills."""

from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry

from aiproxyd.model.observation import InterceptionDescribed, InterceptionEnded, InterceptionStarted, Observation
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.pricing import Charge, Cost, Part, Rate, Rates, cost_of
from aiproxyd.telemetry.metrics import MetricsSink
from aiproxyd.telemetry.settings import MetricsSettings

USER = "0b5b4a8c-6a4e-4f6e-9a53-2f0a6f6e2c11"


class OneDollar:
    """A pricer to whom a million tokens of any kind cost one dollar, and models that begin with `unknown` nothing known."""

    def price(self, charge: Charge) -> Cost | None:
        if charge.model.startswith("unknown"):
            return None
        rates = Rates({Part.INPUT: Rate(Decimal(1_000_000)), Part.OUTPUT: Rate(Decimal(1_000_000))}, "test", "1")
        return cost_of(charge.usage, rates, billing=charge.billing)


class Scrape:
    """A sink of some settings."""

    def __init__(self, *dialects: str, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.sink = MetricsSink(self.registry, OneDollar(), MetricsSettings(dialects=frozenset(dialects), **settings))

    def observe(self, *observations: Observation, worker: str = "w") -> "Scrape":
        for observation in observations:
            self.sink.observe(worker, observation)
        return self

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the sum of the series with these labels among others; None when there are none."""
        found = [
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for metric in self.registry.collect() for sample in metric.samples if sample.name == name]


def started(**more: Any) -> InterceptionStarted:
    fields: dict[str, Any] = {
        "at": 1000.0,
        "interception_id": "i1",
        "provider": "claude",
        "provider_type": "anthropic",
        "api": "anthropic.messages",
        "method": "POST",
        "route": "/v1/messages",
        "host": "api.anthropic.com",
        "principal_id": USER,
        "principal_name": "ada",
        "client": "Claude Code",
    }
    return InterceptionStarted(**(fields | more))


def described(**more: Any) -> InterceptionDescribed:
    fields: dict[str, Any] = {"at": 1000.1, "interception_id": "i1", "request_model": "claude-x", "streaming": True}
    return InterceptionDescribed(**(fields | more))


def ended(**more: Any) -> InterceptionEnded:
    fields: dict[str, Any] = {
        "at": 1003.0,
        "interception_id": "i1",
        "outcome": Outcome.COMPLETED,
        "usage_source": UsageSource.REPORTED,
        "usage": TokenUsage(input_tokens=30, output_tokens=101, cache_read_input_tokens=70),
        "status_code": 200,
        "response_model": "claude-x-1",
        "first_output_seconds": 1.0,
        "duration_seconds": 3.0,
        "request_bytes": 500,
        "response_bytes": 5000,
    }
    return InterceptionEnded(**(fields | more))
