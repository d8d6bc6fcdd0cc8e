"""The `gen_ai` dialect: OpenTelemetry's metrics of generative AI clients, by their Prometheus names. The words are `semconv`'s.

Time per output chunk is one observation a stream, the mean seconds between tokens over it: the chunks themselves are not told.
"""

from prometheus_client import CollectorRegistry

from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.telemetry.coder import LIMITS
from aiproxyd.telemetry.custom_labels import CustomLabels
from aiproxyd.telemetry.exchange import Exchange
from aiproxyd.telemetry.families import OTHER, Family, histogram, label_text
from aiproxyd.telemetry.instruments import Histogram
from aiproxyd.telemetry.semconv import operation_name, provider_name

_LABELS = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "server_address",
    "server_port",
)

MAX_SERIES_TUPLES = 10_000
"""Distinct tuples of labels; beyond it the models and custom labels are `other`."""

_TUPLES = (MAX_SERIES_TUPLES, "tuples of labels")
# The conventions' buckets, and longer ones where a reasoning model works for minutes.
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_PER_CHUNK = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_DURATION = (*_PER_CHUNK, 163.84, 327.68, 655.36)

TOKEN_USAGE = histogram(
    "gen_ai_client_token_usage",
    "Tokens of a response; input includes cached ones.",
    (*_LABELS, "gen_ai_token_type"),
    (_TUPLES, (2, "token types")),
    buckets=_TOKENS,
)
DURATION = histogram(
    "gen_ai_client_operation_duration_seconds",
    "Seconds of an operation; error_type is empty when it succeeded.",
    (*_LABELS, "error_type"),
    (_TUPLES, (9, "error types")),
    buckets=_DURATION,
)
FIRST_CHUNK = histogram(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "Seconds to the first output of a stream.",
    _LABELS,
    (_TUPLES,),
    buckets=_DURATION,
)
PER_CHUNK = histogram(
    "gen_ai_client_operation_time_per_output_chunk_seconds",
    "Mean seconds between output tokens of a stream.",
    _LABELS,
    (_TUPLES,),
    buckets=_PER_CHUNK,
)

FAMILIES: tuple[Family, ...] = (TOKEN_USAGE, DURATION, FIRST_CHUNK, PER_CHUNK)


class GenAiMetrics:
    """The families above, registered and fed. A `Dialect`."""

    def __init__(self, registry: CollectorRegistry, custom: CustomLabels) -> None:
        self._custom = custom
        self._tuples: set[tuple[str, ...]] = set()

        def register(family: Family) -> Histogram:
            return family.with_labels(custom.names).histogram(registry)

        self._tokens = register(TOKEN_USAGE)
        self._duration = register(DURATION)
        self._first = register(FIRST_CHUNK)
        self._per_chunk = register(PER_CHUNK)

    def intercepted(self, exchange: Exchange, exemplar: dict[str, str] | None) -> None:
        """Count an intercepted request that ended."""
        started, ended, labels = exchange.started, exchange.ended, exchange.labels
        # A model that has no label of its own as asked for gets none as answered.
        answered = label_text(ended.response_model, empty="") if labels.model != OTHER else OTHER
        base: tuple[str, ...] = (
            operation_name(started.api),
            provider_name(started.provider_type, started.host),
            labels.model,
            answered,
            started.host,
            str(started.port),
        )
        base, custom = self._admitted(base, self._custom.of(started.labels))
        whole = (*base, *custom)
        error = "" if exchange.is_success else str(ended.error_type or ended.outcome)
        self._duration.labels(*base, error, *custom).observe(ended.duration_seconds, exemplar)
        if exchange.has_usage:
            self._tokens.labels(*base, "input", *custom).observe(ended.usage.total_input_tokens)
            self._tokens.labels(*base, "output", *custom).observe(ended.usage.output_tokens)
        if exchange.streaming and ended.first_output_seconds is not None:
            self._first.labels(*whole).observe(ended.first_output_seconds, exemplar)
        per_token = exchange.seconds_per_token
        if per_token is not None:
            self._per_chunk.labels(*whole).observe(per_token)

    def passed_through(self, started: PassthroughStarted, ended: PassthroughEnded) -> None:
        """Count nothing: the conventions know no such request."""

    def _admitted(self, base: tuple[str, ...], custom: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        whole = (*base, *custom)
        if whole not in self._tuples:
            if len(self._tuples) >= MAX_SERIES_TUPLES - LIMITS.providers:
                return (base[0], base[1], OTHER, OTHER, OTHER, OTHER), (OTHER,) * len(custom)
            self._tuples.add(whole)
        return base, custom
