"""The `bifrost` dialect: the names, types and labels of Bifrost's telemetry page, for dashboards that were made for it.

What has no meaning in a proxy that forwards what clients send:

* `routing_engines_used`, `routing_rule_id`, `routing_rule_name`, `selected_key_id`: empty. Nothing is routed; a client's key is its
  own, and its hint stays out of labels. `selected_key_name` is `byok` or `centralized`, and `null` for a failed request.
* `number_of_retries`, `fallback_index`: 0. Retries are the client's, and come as requests of their own.
* `virtual_key_id`, `virtual_key_name`: id and name of the user, whose token is what a virtual key is there.
* `method` of the upstream metrics: `chat`; other kinds of requests are not intercepted.
* `bifrost_cache_hits_total`: there is no cache of responses, so the family has no series.
* Sizes are those of bodies, and known of intercepted requests alone.
* Inter-token latency: one observation a stream, the mean over it.
"""

from prometheus_client import CollectorRegistry

from aiproxyd.model.observation import PassthroughEnded, PassthroughStarted
from aiproxyd.telemetry.coder import LIMITS
from aiproxyd.telemetry.custom_labels import CustomLabels
from aiproxyd.telemetry.exchange import Exchange
from aiproxyd.telemetry.families import Family, counter, histogram
from aiproxyd.telemetry.instruments import Counter, Histogram
from aiproxyd.telemetry.series import code_label, method_label

BASE_LABELS = (
    "provider",
    "model",
    "method",
    "virtual_key_id",
    "virtual_key_name",
    "routing_engines_used",
    "routing_rule_id",
    "routing_rule_name",
    "selected_key_id",
    "selected_key_name",
    "number_of_retries",
    "fallback_index",
)
HTTP_LABELS = ("path", "method", "status")

MAX_SERIES_TUPLES = 10_000
"""Distinct tuples of base and custom labels; beyond it model and custom labels are `other`."""

_BASE = (MAX_SERIES_TUPLES, "tuples of base and custom labels")
_HTTP = ((MAX_SERIES_TUPLES, "tuples of labels"),)
_LATENCY = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_SIZES = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

HTTP_REQUESTS = counter("http_requests_total", "Decrypted HTTP requests that ended.", HTTP_LABELS, _HTTP)
HTTP_DURATION = histogram(
    "http_request_duration_seconds", "Seconds of decrypted HTTP requests.", HTTP_LABELS, _HTTP, buckets=_LATENCY
)
HTTP_REQUEST_SIZE = histogram(
    "http_request_size_bytes", "Body bytes of intercepted requests.", HTTP_LABELS, _HTTP, buckets=_SIZES
)
HTTP_RESPONSE_SIZE = histogram(
    "http_response_size_bytes", "Body bytes of responses to intercepted requests.", HTTP_LABELS, _HTTP, buckets=_SIZES
)
UPSTREAM = counter("bifrost_upstream_requests_total", "Requests forwarded to providers.", BASE_LABELS, (_BASE,))
SUCCESS = counter("bifrost_success_requests_total", "Requests to providers that succeeded.", BASE_LABELS, (_BASE,))
ERROR = counter(
    "bifrost_error_requests_total",
    "Requests to providers that failed.",
    (*BASE_LABELS, "status_code"),
    ((MAX_SERIES_TUPLES, "tuples of base and custom labels and status code"),),
)
LATENCY = histogram(
    "bifrost_upstream_latency_seconds",
    "Seconds of requests to providers.",
    (*BASE_LABELS, "is_success"),
    (_BASE, (2, "truth values")),
    buckets=_LATENCY,
)
INPUT_TOKENS = counter("bifrost_input_tokens_total", "Input tokens, cached ones included.", BASE_LABELS, (_BASE,))
OUTPUT_TOKENS = counter("bifrost_output_tokens_total", "Output tokens.", BASE_LABELS, (_BASE,))
CACHE_HITS = counter(
    "bifrost_cache_hits_total",
    "Always without series: there is no cache of responses here.",
    (*BASE_LABELS, "cache_type"),
    (_BASE, (2, "types")),
)
COST = counter("bifrost_cost_total", "Cost in USD of requests to providers.", BASE_LABELS, (_BASE,))
FIRST_TOKEN = histogram(
    "bifrost_stream_first_token_latency_seconds",
    "Seconds from a request's head to the first output of its stream.",
    BASE_LABELS,
    (_BASE,),
    buckets=_LATENCY,
)
INTER_TOKEN = histogram(
    "bifrost_stream_inter_token_latency_seconds",
    "Mean seconds between output tokens of a stream.",
    BASE_LABELS,
    (_BASE,),
    buckets=_BETWEEN,
)

FAMILIES: tuple[Family, ...] = (
    HTTP_REQUESTS, HTTP_DURATION, HTTP_REQUEST_SIZE, HTTP_RESPONSE_SIZE, UPSTREAM, SUCCESS, ERROR, LATENCY, INPUT_TOKENS,
    OUTPUT_TOKENS, CACHE_HITS, COST, FIRST_TOKEN, INTER_TOKEN,
)  # fmt: skip

_WITHOUT_CUSTOM_LABELS = frozenset({FIRST_TOKEN, INTER_TOKEN})


class BifrostMetrics:
    """The families above, registered and fed. A `Dialect`."""

    def __init__(self, registry: CollectorRegistry, custom: CustomLabels) -> None:
        self._custom = custom
        self._tuples: set[tuple[str, ...]] = set()
        self._http: set[tuple[str, ...]] = set()
        self._errors: set[tuple[str, ...]] = set()
        made = {
            family: family.with_labels(() if family in _WITHOUT_CUSTOM_LABELS else custom.names).register(registry)
            for family in FAMILIES
        }
        self._counter = {family: metric for family, metric in made.items() if isinstance(metric, Counter)}
        self._histogram = {family: metric for family, metric in made.items() if isinstance(metric, Histogram)}

    def intercepted(self, exchange: Exchange, exemplar: dict[str, str] | None) -> None:
        """Count an intercepted request that ended."""
        ended, labels = exchange.ended, exchange.labels
        custom = self._custom.of(exchange.started.labels)
        status = code_label(ended.status_code)
        http = self._bounded(self._http, (labels.route, labels.method, status, *custom))
        counter, histogram = self._counter, self._histogram
        counter[HTTP_REQUESTS].labels(*http).inc()
        histogram[HTTP_DURATION].labels(*http).observe(ended.duration_seconds, exemplar)
        histogram[HTTP_REQUEST_SIZE].labels(*http).observe(ended.request_bytes)
        histogram[HTTP_RESPONSE_SIZE].labels(*http).observe(ended.response_bytes)
        base, custom = self._admitted(self._base(exchange), custom)
        whole = (*base, *custom)
        counter[UPSTREAM].labels(*whole).inc()
        is_success = exchange.is_success
        if is_success:
            counter[SUCCESS].labels(*whole).inc()
        else:
            counter[ERROR].labels(*self._bounded(self._errors, (*base, status, *custom))).inc()
        histogram[LATENCY].labels(*base, "true" if is_success else "false", *custom).observe(ended.duration_seconds, exemplar)
        if exchange.has_usage:
            counter[INPUT_TOKENS].labels(*whole).inc(max(0, ended.usage.total_input_tokens))
            counter[OUTPUT_TOKENS].labels(*whole).inc(max(0, ended.usage.output_tokens))
        if exchange.cost is not None:
            counter[COST].labels(*whole).inc(exchange.cost.micros / 1_000_000, exemplar)
        if exchange.streaming and ended.first_output_seconds is not None:
            histogram[FIRST_TOKEN].labels(*base).observe(ended.first_output_seconds, exemplar)
        between = exchange.seconds_per_token
        if between is not None:
            histogram[INTER_TOKEN].labels(*base).observe(between)

    def passed_through(self, started: PassthroughStarted, ended: PassthroughEnded) -> None:
        """Count a request to another endpoint that ended."""
        status = code_label(ended.status_code)
        http = self._bounded(self._http, (started.route, method_label(started.method), status, *self._custom.of({})))
        self._counter[HTTP_REQUESTS].labels(*http).inc()
        self._histogram[HTTP_DURATION].labels(*http).observe(max(0.0, ended.at - started.at))

    @staticmethod
    def _bounded(known: set[tuple[str, ...]], labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return `labels`, or `other` for each where there is no place for more."""
        if labels not in known:
            if len(known) >= MAX_SERIES_TUPLES - 1:
                return ("other",) * len(labels)
            known.add(labels)
        return labels

    def _base(self, exchange: Exchange) -> tuple[str, ...]:
        labels = exchange.labels
        user = labels.initiator
        name = exchange.started.principal_name if user == exchange.started.principal_id else user
        key = exchange.started.credential_kind if exchange.is_success else "null"
        return (
            labels.provider,
            labels.model,
            "chat",
            user,
            name,
            "",
            "",
            "",
            "" if exchange.is_success else "null",
            key,
            "0",
            "0",
        )

    def _admitted(self, base: tuple[str, ...], custom: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the labels, or `other` ones where there is no place for more."""
        whole = (*base, *custom)
        if whole not in self._tuples:
            if len(self._tuples) >= MAX_SERIES_TUPLES - LIMITS.providers:
                return (base[0], "other", "chat", "other", "other", "", "", "", "", "other", "0", "0"), ("other",) * len(custom)
            self._tuples.add(whole)
        return base, custom
