"""The sections of the configuration about metrics, traces and prices. Like every section frozen, strict and documented."""

import base64
import datetime as dt
import re
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from aiproxyd.config.section import Section, restart
from aiproxyd.pricing import Override, Part, Rate
from aiproxyd.redaction import SENSITIVE_HEADERS
from aiproxyd.telemetry.settings import MetricsSettings, PushSettings, TracingSettings

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+\Z")


class MetricsDialect(StrEnum):
    """A family of metric names."""

    CODER = "coder"
    CODER_LEGACY = "coder_legacy"
    BIFROST = "bifrost"
    GEN_AI = "gen_ai"


# Labels that metrics have already, in any dialect, or that Prometheus adds.
_RESERVED_LABELS = frozenset(
    {
        "basis",
        "cache_type",
        "client",
        "code",
        "direction",
        "endpoint",
        "error_type",
        "event",
        "fallback_index",
        "gen_ai_operation_name",
        "gen_ai_provider_name",
        "gen_ai_request_model",
        "gen_ai_response_model",
        "gen_ai_token_type",
        "host",
        "initiator_id",
        "instance",
        "is_success",
        "job",
        "le",
        "method",
        "model",
        "name",
        "number_of_retries",
        "outcome",
        "part",
        "path",
        "provider",
        "provider_name",
        "provider_type",
        "python",
        "quantile",
        "reason",
        "result",
        "route",
        "routing_engines_used",
        "routing_rule_id",
        "routing_rule_name",
        "selected_key_id",
        "selected_key_name",
        "server_address",
        "server_port",
        "source",
        "state",
        "status",
        "status_code",
        "type",
        "version",
        "virtual_key_id",
        "virtual_key_name",
        "worker",
    }
)


class PushConfig(Section):
    """A Prometheus Pushgateway that gets the metrics besides, where nobody can reach `/metrics` to scrape it."""

    url: str = restart("", pattern=r"^(https?://[^\s/?#@]+(/[^\s?#]*)?)?$")
    """Its address, such as `http://pushgateway.internal:9091`; nothing is pushed without one."""
    interval_seconds: float = restart(15.0, ge=1, le=3600)
    """How often."""
    job: str = restart("aiproxyd", pattern=r"^[^/]+$")
    """`job` of the pushed metrics."""
    instance: str = restart("", pattern=r"^[^/]*$")
    """`instance` of them, by which the gateway keeps several daemons apart; the machine's name when empty."""
    basic_user: str = restart("", max_length=120)
    """User name of HTTP basic authentication at the gateway."""
    basic_password: SecretStr | None = restart(None)
    """Its password. Goes with `basic_user`."""

    @model_validator(mode="after")
    def _pair(self) -> "PushConfig":
        if bool(self.basic_user) != (self.basic_password is not None):
            message = "basic_user and basic_password go together"
            raise ValueError(message)
        return self

    def to_settings(self, machine: str) -> PushSettings | None:
        """Return what pushing needs, or None when nothing is pushed.

        Args:
            machine: The machine's name.
        """
        if not self.url:
            return None
        return PushSettings(
            url=self.url,
            interval_seconds=self.interval_seconds,
            job=self.job,
            instance=self.instance or machine,
            basic_user=self.basic_user,
            basic_password=self.basic_password.get_secret_value() if self.basic_password is not None else "",
        )


class MetricsConfig(Section):
    """What `/metrics` shows."""

    dialects: tuple[MetricsDialect, ...] = restart((MetricsDialect.CODER,))
    """Names of the metrics: `coder` is always there; `coder_legacy` adds its names of before 2.35, `bifrost` those of Bifrost,
    `gen_ai` those of OpenTelemetry."""
    labels: dict[str, str] = restart(None, validate_default=True)
    """Labels with a fixed value on every metric, such as `environment: production`."""
    header_labels: dict[str, str] = restart(None, validate_default=True)
    """Labels of the `bifrost` and `gen_ai` dialects whose values come from request headers, as `label: header`, such as
    `team: x-bf-prom-team`. The headers are taken off the request: no provider gets them."""
    header_label_values: int = restart(50, ge=1, le=1000)
    """So many different values each of these labels has, the first ones that come; any other is `other`."""
    per_user: bool = restart(True)
    """Whether metrics tell users apart; without, their id is `all` in every one."""
    exemplars: bool = restart(True)
    """Whether durations and cost name the interception behind a sample, in OpenMetrics alone."""
    token: SecretStr | None = None
    """Bearer token that opens `/metrics` alone; `admin.token` does too."""
    basic_user: str = Field("", max_length=120)
    """User name of HTTP basic authentication for `/metrics`."""
    basic_password: SecretStr | None = None
    """Its password. Goes with `basic_user`."""
    push: PushConfig = PushConfig()
    """Where metrics are pushed to, for places that nobody scrapes."""

    @field_validator("dialects")
    @classmethod
    def _with_coder(cls, dialects: tuple[MetricsDialect, ...]) -> tuple[MetricsDialect, ...]:
        return tuple(dict.fromkeys((MetricsDialect.CODER, *dialects)))

    @field_validator("labels", "header_labels", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("labels", "header_labels")
    @classmethod
    def _label_names(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if not _LABEL_NAME.match(name) or name.startswith("__") or name in _RESERVED_LABELS:
                message = f"{name!r} cannot be a label: it is taken, or not letters, digits and underscores"
                raise ValueError(message)
        return labels

    @field_validator("header_labels")
    @classmethod
    def _headers(cls, labels: dict[str, str]) -> dict[str, str]:
        lowered = {label: header.lower() for label, header in labels.items()}
        for header in lowered.values():
            if header in SENSITIVE_HEADERS:
                message = f"{header!r} holds credentials, which are no labels"
                raise ValueError(message)
            if not _HEADER_NAME.match(header) or not header.startswith("x-"):
                message = f"{header!r} is not the name of a header that begins with x-; others belong to the provider"
                raise ValueError(message)
        return lowered

    @model_validator(mode="after")
    def _whole(self) -> "MetricsConfig":
        if twice := sorted(self.labels.keys() & self.header_labels.keys()):
            message = f"{twice[0]!r} is in labels and in header_labels"
            raise ValueError(message)
        if bool(self.basic_user) != (self.basic_password is not None):
            message = "basic_user and basic_password go together"
            raise ValueError(message)
        return self

    def to_settings(self) -> MetricsSettings:
        """Return what the sink needs."""
        return MetricsSettings(
            dialects=frozenset(str(dialect) for dialect in self.dialects),
            header_labels=tuple(self.header_labels),
            header_label_values=self.header_label_values,
            per_user=self.per_user,
            exemplars=self.exemplars,
        )

    def credentials(self) -> tuple[str, ...]:
        """Return the values of an `Authorization` header that open `/metrics`; none when nothing is configured."""
        values = []
        if self.token is not None:
            values.append(f"Bearer {self.token.get_secret_value()}")
        if self.basic_password is not None:
            pair = f"{self.basic_user}:{self.basic_password.get_secret_value()}"
            values.append("Basic " + base64.b64encode(pair.encode()).decode())
        return tuple(values)


class TracingConfig(Section):
    """Spans of every intercepted request, over OpenTelemetry's protocol."""

    enabled: bool = restart(False)
    """Whether spans are made and sent."""
    endpoint: str = restart("http://127.0.0.1:4317", pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    """Where the collector listens; `https` for TLS. For `http` the path is `/v1/traces` when it has none."""
    protocol: Literal["grpc", "http"] = restart("grpc")
    """Which form of the protocol it speaks there: usually `grpc` at port 4317, `http` at 4318."""
    headers: dict[str, SecretStr] = restart(None, validate_default=True)
    """Headers for the collector, such as its API key."""
    ca_file: Path | None = restart(None)
    """PEM of the root that the collector's certificate leads to; the usual ones when absent."""
    service_name: str = restart("coder-ai-gateway", min_length=1)
    """`service.name` of the spans."""
    sample_ratio: float = restart(1.0, ge=0, le=1)
    """Share of requests that are traced; a client's own `traceparent` decides for its requests."""
    capture_logs: bool = restart(False)
    """Whether the records of an interception are span events, too."""
    content: bool = restart(False)
    """Whether spans and their events hold prompts, tool arguments and reasoning."""

    @field_validator("headers", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value

    def to_settings(self) -> TracingSettings:
        """Return what making and sending spans needs."""
        return TracingSettings(
            endpoint=self.endpoint,
            protocol=self.protocol,
            headers={name: value.get_secret_value() for name, value in self.headers.items()},
            ca_file=str(self.ca_file or ""),
            service_name=self.service_name,
            sample_ratio=self.sample_ratio,
            capture_logs=self.capture_logs,
            content=self.content,
        )


class PriceOverrideConfig(Section):
    """Prices of a model that differ from the list, in micro-USD per million tokens: 3000000 is 3 USD."""

    model: str = Field(min_length=1)
    """The model's name, or the beginning of one with `*` behind it."""
    provider: str = ""
    """Name or type of the provider; empty for any."""
    from_date: dt.date | None = None
    """First day, in UTC, it holds; none for always."""
    to_date: dt.date | None = None
    """Last day it holds."""
    service_tier: str = ""
    """The tier it holds for, such as `priority`; empty for any."""
    input_micros: int = Field(ge=0)
    """Input that is neither read from nor written to a cache."""
    output_micros: int = Field(ge=0)
    """Output, reasoning included unless it has its own price."""
    cache_read_micros: int | None = Field(None, ge=0)
    """Input read from a cache; that of input when absent."""
    cache_write_micros: int | None = Field(None, ge=0)
    """Input written to a cache; that of input when absent."""
    cache_write_1h_micros: int | None = Field(None, ge=0)
    """Input written to a cache for an hour; that of other cache writes when absent."""
    reasoning_micros: int | None = Field(None, ge=0)
    """Reasoning; that of output when absent."""

    @model_validator(mode="after")
    def _dates(self) -> "PriceOverrideConfig":
        if self.from_date is not None and self.to_date is not None and self.to_date < self.from_date:
            message = "to_date is before from_date"
            raise ValueError(message)
        return self

    def to_override(self) -> Override:
        """Return it as pricing takes it."""
        prices = {
            Part.INPUT: self.input_micros,
            Part.OUTPUT: self.output_micros,
            Part.CACHE_READ: self.cache_read_micros,
            Part.CACHE_WRITE: self.cache_write_micros,
            Part.CACHE_WRITE_1H: self.cache_write_1h_micros,
            Part.REASONING: self.reasoning_micros,
        }
        return Override(
            provider=self.provider,
            model=self.model,
            first_day=self.from_date,
            last_day=self.to_date,
            tier=self.service_tier,
            parts={part: Rate(Decimal(micros)) for part, micros in prices.items() if micros is not None},
        )


class PricingConfig(Section):
    """What tokens cost. The list of `genai-prices` is part of the package; nothing is fetched."""

    overrides: tuple[PriceOverrideConfig, ...] = ()
    """Prices that go before the list; of several that fit, the first."""

    def to_overrides(self) -> tuple[Override, ...]:
        """Return them as pricing takes them."""
        return tuple(override.to_override() for override in self.overrides)
