"""The metric families that Coder does not have: accounting, latencies, refusals, journal, store and processes.

They stand under the same prefixes, so that one dashboard finds them. Worst cases as in `coder`.
"""

import enum

from prometheus_client import CollectorRegistry

from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.telemetry.coder import GATEWAY, LIMITS, PROXY
from aiproxyd.telemetry.families import Family, counter, gauge, histogram

MAX_UNKNOWN_EVENTS = 200
MAX_TLS_HOSTS = 200
MAX_REASONS = 50
"""Distinct reasons of one family. They are words of this package; the limit is for the day one of them is not."""

_PROVIDERS = (LIMITS.providers, "providers")
_COMBINATIONS = (LIMITS.combinations, "combinations")
_REASONS = (MAX_REASONS + 1, "reasons")

# A proxy's own work is fractions of a millisecond to milliseconds; a connection across the world is a few hundred.
_CONNECT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_OVERHEAD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, *_CONNECT_BUCKETS)
# A small model answers in 0.2 s, a reasoning one may be silent for minutes.
_FIRST_OUTPUT_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
# 1 kB to 100 MB: one prompt to a whole repository with pictures.
_BETWEEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BODY_BUCKETS = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
_TUNNEL_BUCKETS = (0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)
_STORE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)


class OverheadPart(enum.StrEnum):
    """What the proxy's own time is spent on."""

    AUTH = "auth"
    UPSTREAM_CONNECT = "upstream_connect"
    TLS = "tls"
    FIRST_BYTE = "first_byte"
    TAP = "tap"


OUTCOMES = counter(
    GATEWAY + "accounting_outcomes_total",
    f"Intercepted requests that ended, by outcome: {', '.join(Outcome)}.",
    ("provider", "outcome"),
    (_PROVIDERS, (len(Outcome), "outcomes")),
)
USAGE_SOURCES = counter(
    GATEWAY + "usage_sources_total",
    f"Intercepted requests that ended, by where their token figures come from: {', '.join(UsageSource)}.",
    ("provider", "source"),
    (_PROVIDERS, (len(UsageSource), "sources")),
)
ESTIMATED_TOKENS = counter(
    GATEWAY + "estimated_tokens_total",
    "The part of tokens_total that no provider reported and that was worked out from the length of the text.",
    ("provider", "type"),
    (_PROVIDERS, (2, "token types: input and output")),
)
ERRORS = counter(
    GATEWAY + "interception_errors_total",
    f"Intercepted requests that ended with an error, by its class: {', '.join(ErrorType)}.",
    ("provider", "error_type"),
    (_PROVIDERS, (len(ErrorType), "error types")),
)
ANOMALIES = counter(
    GATEWAY + "anomalies_total",
    "Intercepted requests of which one part, request or response, was not understood. Its bytes were forwarded.",
    ("provider", "part"),
    (_PROVIDERS, (2, "parts")),
)
UNKNOWN_EVENTS = counter(
    GATEWAY + "unknown_events_total",
    "Things in responses that their parser does not know, and documented fields that completed ones lack (missing:…)."
    " A rise after a provider's release is drift.",
    ("provider", "event"),
    (_PROVIDERS, (MAX_UNKNOWN_EVENTS + 1, "events")),
)
FIRST_BYTE = histogram(
    GATEWAY + "time_to_first_byte_seconds",
    "Seconds from the head of an intercepted request to the first byte of its response.",
    ("provider",),
    (_PROVIDERS,),
    buckets=_FIRST_OUTPUT_BUCKETS,
)
FIRST_OUTPUT = histogram(
    GATEWAY + "time_to_first_output_seconds",
    "Seconds from the head of an intercepted request to the first text, reasoning or tool call of a streamed response.",
    ("provider", "model"),
    (_COMBINATIONS,),
    buckets=_FIRST_OUTPUT_BUCKETS,
)
REQUEST_BODY = histogram(
    GATEWAY + "request_body_bytes",
    "Body bytes of intercepted requests as they were on the wire.",
    ("provider",),
    (_PROVIDERS,),
    buckets=_BODY_BUCKETS,
)
RESPONSE_BODY = histogram(
    GATEWAY + "response_body_bytes",
    "Body bytes of responses to intercepted requests as they were on the wire.",
    ("provider",),
    (_PROVIDERS,),
    buckets=_BODY_BUCKETS,
)
BETWEEN_TOKENS = histogram(
    GATEWAY + "time_per_output_token_seconds",
    "Mean seconds between the output tokens of a streamed response that completed; one observation a response.",
    ("provider", "model"),
    (_COMBINATIONS,),
    buckets=_BETWEEN_BUCKETS,
)
COST = counter(
    GATEWAY + "cost_usd_total",
    "Cost in USD by basis: list_price, or list_price_equivalent where a plan pays and the amount is a comparison.",
    ("provider", "model", "basis", "initiator_id", "client"),
    (_COMBINATIONS, (2, "bases")),
)
UNPRICED = counter(
    GATEWAY + "cost_control_unpriced_token_usage_records_total",
    "Records of token usage whose cost is not known.",
    ("provider", "provider_type", "model"),
    (_COMBINATIONS,),
)
ORPHANED = counter(
    GATEWAY + "orphaned_observations_total",
    "Observations of requests whose start this process has not seen, as after a restart. They are stored, not counted elsewhere.",
)
USER_INFO = gauge(
    GATEWAY + "user_info",
    "Each user met since the start with the name behind the id; always 1. Queries join it to show names.",
    ("initiator_id", "name"),
    (_COMBINATIONS,),
)
BUILD_INFO = gauge(GATEWAY + "build_info", "The version that runs; always 1.", ("version", "python"), ((1, "versions"),))

CONNECT_REFUSED = counter(
    PROXY + "connect_refused_total",
    "CONNECTs and forward requests that were refused or could not be connected, by reason.",
    ("reason",),
    (_REASONS,),
)
CONNECT_DECIDE = histogram(
    PROXY + "connect_decide_seconds",
    "Seconds until the verdict on a CONNECT, authentication included.",
    buckets=_CONNECT_BUCKETS,
)
UPSTREAM_CONNECT = histogram(
    PROXY + "upstream_connect_seconds",
    "Seconds to resolve and connect to the destination of a CONNECT, where that was tried.",
    buckets=_CONNECT_BUCKETS,
)
OVERHEAD = histogram(
    PROXY + "overhead_seconds",
    "Seconds of the proxy's own work by part. Of a CONNECT: auth (until its verdict), upstream_connect (to resolve and connect), tls "
    "(from the 200 until both handshakes are done, the client's delay included). Of an intercepted request: first_byte (how long the "
    "first bytes of request and response were held), tap (reading along, after the bytes have been forwarded).",
    ("part",),
    ((len(OverheadPart), "parts"),),
    buckets=_OVERHEAD_BUCKETS,
)
CLIENT_TLS_FAILURES = counter(
    PROXY + "client_tls_failures_total",
    "Clients that did not complete TLS with the proxy. unknown_ca and bad_certificate mean a client that does not trust the CA.",
    ("host", "reason"),
    ((MAX_TLS_HOSTS + 1, "hosts"), _REASONS),
)
UPSTREAM_TLS_FAILURES = counter(
    PROXY + "upstream_tls_failures_total",
    "Providers with whom TLS failed.",
    ("provider", "reason"),
    (_PROVIDERS, _REASONS),
)
TUNNEL_BYTES = counter(
    PROXY + "tunnel_bytes_total",
    "Bytes of closed tunnels by direction: upstream or client.",
    ("direction",),
    ((2, "directions"),),
)
TUNNELS_CLOSED = counter(
    PROXY + "tunnels_closed_total",
    "Tunnels that ended, by reason.",
    ("reason",),
    (_REASONS,),
)
TUNNEL_DURATION = histogram(
    PROXY + "tunnel_duration_seconds",
    "Seconds that tunnels lived.",
    buckets=_TUNNEL_BUCKETS,
)
WORKERS = gauge(PROXY + "workers", "Worker processes that accept connections.")
WORKER_RESTARTS = counter(PROXY + "worker_restarts_total", "Worker processes that died and were replaced.")
CA_EXPIRY = gauge(PROXY + "ca_expiry_timestamp_seconds", "Unix time at which the CA certificate expires.")

IDENTITY_ERRORS = counter(
    GATEWAY + "identity_errors_total",
    "Questions about a credential that nobody could answer, by source (users, coder, jwt) and reason; their clients were refused.",
    ("source", "reason"),
    ((3, "sources"), (6, "reasons")),
)
IDENTITY_DURATION = histogram(
    GATEWAY + "identity_duration_seconds",
    "Seconds until a source of identities answered or failed. Workers remember answers, so it is not asked for each connection.",
    ("source",),
    ((3, "sources"),),
    buckets=_CONNECT_BUCKETS,
)

JOURNAL_BYTES = gauge(GATEWAY + "journal_bytes", "Size of the journal on disk.")
JOURNAL_LAG = gauge(GATEWAY + "journal_lag_seconds", "Age of the oldest observation that is not stored.")
JOURNAL_LOST = counter(
    GATEWAY + "journal_lost_observations_total",
    "Observations that are gone because the journal could not be written.",
)
STORE_WRITE = histogram(
    GATEWAY + "store_write_seconds",
    "Seconds of one transaction that stores a batch of observations.",
    buckets=_STORE_BUCKETS,
)
STORE_OBSERVATIONS = counter(GATEWAY + "stored_observations_total", "Observations that are stored.")
STORE_ERRORS = counter(GATEWAY + "store_errors_total", "Attempts to store a batch that failed and are repeated.")
PUSHES = counter(
    GATEWAY + "metrics_pushes_total", "Pushes of the metrics to a gateway: succeeded or failed.", ("result",), ((2, "results"),)
)
TRACE_SPANS = counter(
    GATEWAY + "trace_spans_total",
    "Spans for the collector: sent, failed (it did not take them) or dropped (more were waiting for it than may).",
    ("result",),
    ((3, "results"),),
)

FAMILIES: tuple[Family, ...] = (
    OUTCOMES,
    USAGE_SOURCES,
    ESTIMATED_TOKENS,
    ERRORS,
    ANOMALIES,
    UNKNOWN_EVENTS,
    FIRST_BYTE,
    FIRST_OUTPUT,
    BETWEEN_TOKENS,
    COST,
    UNPRICED,
    REQUEST_BODY,
    RESPONSE_BODY,
    ORPHANED,
    USER_INFO,
    BUILD_INFO,
    CONNECT_REFUSED,
    CONNECT_DECIDE,
    UPSTREAM_CONNECT,
    OVERHEAD,
    CLIENT_TLS_FAILURES,
    UPSTREAM_TLS_FAILURES,
    TUNNEL_BYTES,
    TUNNELS_CLOSED,
    TUNNEL_DURATION,
    WORKERS,
    WORKER_RESTARTS,
    CA_EXPIRY,
    IDENTITY_ERRORS,
    IDENTITY_DURATION,
    JOURNAL_BYTES,
    JOURNAL_LAG,
    JOURNAL_LOST,
    STORE_WRITE,
    STORE_OBSERVATIONS,
    STORE_ERRORS,
    PUSHES,
    TRACE_SPANS,
)


class OwnMetrics:
    """The families above, registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes = OUTCOMES.counter(registry)
        self.usage_sources = USAGE_SOURCES.counter(registry)
        self.estimated_tokens = ESTIMATED_TOKENS.counter(registry)
        self.errors = ERRORS.counter(registry)
        self.anomalies = ANOMALIES.counter(registry)
        self.unknown_events = UNKNOWN_EVENTS.counter(registry)
        self.first_byte = FIRST_BYTE.histogram(registry)
        self.first_output = FIRST_OUTPUT.histogram(registry)
        self.between_tokens = BETWEEN_TOKENS.histogram(registry)
        self.cost = COST.counter(registry)
        self.unpriced = UNPRICED.counter(registry)
        overhead = OVERHEAD.histogram(registry)
        self.overhead = {part: overhead.labels(part) for part in OverheadPart}
        self.request_body = REQUEST_BODY.histogram(registry)
        self.response_body = RESPONSE_BODY.histogram(registry)
        self.orphaned = ORPHANED.counter(registry)
        self.user_info = USER_INFO.gauge(registry)
        self.build_info = BUILD_INFO.gauge(registry)
        self.connect_refused = CONNECT_REFUSED.counter(registry)
        self.connect_decide = CONNECT_DECIDE.histogram(registry)
        self.upstream_connect = UPSTREAM_CONNECT.histogram(registry)
        self.client_tls_failures = CLIENT_TLS_FAILURES.counter(registry)
        self.upstream_tls_failures = UPSTREAM_TLS_FAILURES.counter(registry)
        self.tunnel_bytes = TUNNEL_BYTES.counter(registry)
        self.tunnels_closed = TUNNELS_CLOSED.counter(registry)
        self.tunnel_duration = TUNNEL_DURATION.histogram(registry)
        self.identity_errors = IDENTITY_ERRORS.counter(registry)
        self.identity_duration = IDENTITY_DURATION.histogram(registry)
        self.workers = WORKERS.gauge(registry)
        self.worker_restarts = WORKER_RESTARTS.counter(registry)
        self.ca_expiry = CA_EXPIRY.gauge(registry)
        self.journal_bytes = JOURNAL_BYTES.gauge(registry)
        self.journal_lag = JOURNAL_LAG.gauge(registry)
        self.journal_lost = JOURNAL_LOST.counter(registry)
        self.store_write = STORE_WRITE.histogram(registry)
        self.store_observations = STORE_OBSERVATIONS.counter(registry)
        self.store_errors = STORE_ERRORS.counter(registry)
        self.pushes = PUSHES.counter(registry)
        self.trace_spans = TRACE_SPANS.counter(registry)
