"""The metric families of the `coder` dialect: names, types, labels and buckets of Coder's AI Gateway and its proxy, exactly.

Families of features that do not exist here are absent: injected tools, cost control.

The worst case beside each family is what a hostile client can reach, not what happens. Its first factor is most often the
*combinations*: distinct tuples of provider, route, method, model, user and client. They are limited for the whole daemon and,
so that one user's inventions cost nobody else a series, for each user; beyond a limit model and client are `other`.
"""

from typing import NamedTuple

from prometheus_client import CollectorRegistry

from aiproxyd.telemetry.families import Family, counter, gauge, histogram

GATEWAY = "coder_ai_gateway_"
PROXY = "coder_ai_gateway_proxy_"


class Limits(NamedTuple):
    """How many series there may be. Those marked *assumed* are an operator's or the package's choice and only worked with."""

    providers: int = 20
    """Configured providers. Assumed."""
    endpoints: int = 400
    """Endpoints of all providers together. Assumed."""
    models: int = 500
    """Distinct `model` labels, besides `other`."""
    combinations: int = 10_000
    """Distinct combinations for all users together."""
    combinations_of_a_user: int = 200
    tool_combinations: int = 4_000
    """Distinct provider, model and tool."""
    tool_combinations_of_a_user: int = 400
    breakers: int = 2_000
    """Distinct provider, endpoint and model whose circuit breaker ever moved or refused."""
    token_types: int = 16
    """Of one combination. The API with most, chat completions, has ten."""


LIMITS = Limits()

_PROVIDERS = (LIMITS.providers, "providers")
_COMBINATIONS = (LIMITS.combinations, "combinations")
_ENDPOINTS = (LIMITS.endpoints, "endpoints")
_METHODS = (9, "methods")
_BREAKERS = (LIMITS.breakers, "breakers")
# 100 to 599, `0` for none, `other` for what is no status.
_CODES = (502, "status codes")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"})
"""Values of the `method` label; any other method is `other`, for a client can send any word."""

INTERCEPTIONS = counter(
    GATEWAY + "interceptions_total",
    "Intercepted requests that ended, by status: completed or failed.",
    ("provider", "model", "status", "route", "method", "initiator_id", "client"),
    (_COMBINATIONS, (2, "statuses")),
)
INTERCEPTIONS_INFLIGHT = gauge(
    GATEWAY + "interceptions_inflight",
    "Intercepted requests whose body was read and whose response has not ended.",
    ("provider", "model", "route"),
    (_COMBINATIONS,),
)
INTERCEPTIONS_DURATION = histogram(
    GATEWAY + "interceptions_duration_seconds",
    "Seconds from the head of an intercepted request to the end of its response.",
    ("provider", "model"),
    (_COMBINATIONS,),
    buckets=(0.5, 2, 5, 15, 30, 60, 120),
)
PASSTHROUGH = counter(
    GATEWAY + "passthrough_total",
    "Decrypted requests to endpoints that are not intercepted.",
    ("provider", "route", "method"),
    (_ENDPOINTS, _METHODS),
)
PROMPTS = counter(
    GATEWAY + "prompts_total",
    "Intercepted requests that carried a user's prompt.",
    ("provider", "model", "initiator_id", "client"),
    (_COMBINATIONS,),
)
TOKENS = counter(
    GATEWAY + "tokens_total",
    "Tokens by type. input, output, cache_read_input_tokens and cache_write_input_tokens are disjoint; the further types of "
    "an API repeat parts of them.",
    ("provider", "model", "type", "initiator_id", "client"),
    (_COMBINATIONS, (LIMITS.token_types, "token types")),
)
NON_INJECTED_TOOL_SELECTIONS = counter(
    GATEWAY + "non_injected_tool_selections_total",
    "Tool calls in responses.",
    ("provider", "model", "name"),
    ((LIMITS.tool_combinations, "combinations of provider, model and tool"),),
)
CIRCUIT_BREAKER_STATE = gauge(
    GATEWAY + "circuit_breaker_state",
    "State of a circuit breaker, that of the worker where it is worst: 0 closed, 0.5 half-open, 1 open.",
    ("provider", "endpoint", "model"),
    (_BREAKERS,),
)
CIRCUIT_BREAKER_TRIPS = counter(
    GATEWAY + "circuit_breaker_trips_total",
    "How often a circuit breaker opened, in any worker.",
    ("provider", "endpoint", "model"),
    (_BREAKERS,),
)
CIRCUIT_BREAKER_REJECTS = counter(
    GATEWAY + "circuit_breaker_rejects_total",
    "Requests that a circuit breaker refused.",
    ("provider", "endpoint", "model"),
    (_BREAKERS,),
)
KEY_POOL_STATE = gauge(
    GATEWAY + "key_pool_state",
    "Keys of a provider entry by state: valid, temporary (its rate is limited for a while), permanent (it is not accepted).",
    ("provider", "state"),
    (_PROVIDERS, (3, "states")),
)
KEY_POOL_STATE_TRANSITIONS = counter(
    GATEWAY + "key_pool_state_transitions_total",
    "Keys that became unusable, by reason: rate_limited, unauthorized, forbidden.",
    ("provider", "reason"),
    (_PROVIDERS, (3, "reasons")),
)
KEY_POOL_EXHAUSTIONS = counter(
    GATEWAY + "key_pool_exhaustions_total",
    "Requests for which no key was left, by outcome: rate_limited or auth_failed.",
    ("provider", "outcome"),
    (_PROVIDERS, (2, "outcomes")),
)
KEY_POOL_FAILOVER_ATTEMPTS = histogram(
    GATEWAY + "key_pool_failover_attempts",
    "Keys that a request tried, of those that take keys of a provider entry.",
    ("provider",),
    (_PROVIDERS,),
    buckets=(1, 2, 3, 4, 5, 10, 25),
)
PROVIDER_INFO = gauge(
    GATEWAY + "provider_info",
    "Each configured provider with its status (enabled, disabled, error, proxy_excluded); always 1.",
    ("provider_name", "provider_type", "status"),
    (_PROVIDERS,),
)
LAST_RELOAD = gauge(
    GATEWAY + "providers_last_reload_timestamp_seconds",
    "Unix time of the last attempt to load the providers.",
)
LAST_RELOAD_SUCCESS = gauge(
    GATEWAY + "providers_last_reload_success_timestamp_seconds",
    "Unix time of the last successful load of the providers.",
)

CONNECT_SESSIONS = counter(
    PROXY + "connect_sessions_total",
    "CONNECT sessions by type: mitm once authenticated and connected, tunneled at the verdict.",
    ("type",),
    ((2, "types"),),
)
MITM_REQUESTS = counter(
    PROXY + "mitm_requests_total",
    "Decrypted requests, intercepted or passed through.",
    ("provider",),
    (_PROVIDERS,),
)
MITM_REQUESTS_INFLIGHT = gauge(
    PROXY + "inflight_mitm_requests",
    "Decrypted requests whose response has not ended.",
    ("provider",),
    (_PROVIDERS,),
)
MITM_RESPONSES = counter(
    PROXY + "mitm_responses_total",
    "Ends of decrypted requests by status code, one for each request; 499 when the client left before an answer began, "
    "0 when the proxy ended first.",
    ("code", "provider"),
    (_CODES, _PROVIDERS),
)
PROXY_PROVIDER_INFO = gauge(
    PROXY + "provider_info",
    "Each configured provider with its status (enabled, disabled, error, proxy_excluded); always 1.",
    ("provider_name", "provider_type", "status"),
    (_PROVIDERS,),
)
PROXY_LAST_RELOAD = gauge(
    PROXY + "providers_last_reload_timestamp_seconds",
    "Unix time of the last attempt to load the providers.",
)
PROXY_LAST_RELOAD_SUCCESS = gauge(
    PROXY + "providers_last_reload_success_timestamp_seconds",
    "Unix time of the last successful load of the providers.",
)

FAMILIES: tuple[Family, ...] = (
    INTERCEPTIONS,
    INTERCEPTIONS_INFLIGHT,
    INTERCEPTIONS_DURATION,
    PASSTHROUGH,
    PROMPTS,
    TOKENS,
    NON_INJECTED_TOOL_SELECTIONS,
    CIRCUIT_BREAKER_STATE,
    CIRCUIT_BREAKER_TRIPS,
    CIRCUIT_BREAKER_REJECTS,
    KEY_POOL_STATE,
    KEY_POOL_STATE_TRANSITIONS,
    KEY_POOL_EXHAUSTIONS,
    KEY_POOL_FAILOVER_ATTEMPTS,
    PROVIDER_INFO,
    LAST_RELOAD,
    LAST_RELOAD_SUCCESS,
    CONNECT_SESSIONS,
    MITM_REQUESTS,
    MITM_REQUESTS_INFLIGHT,
    MITM_RESPONSES,
    PROXY_PROVIDER_INFO,
    PROXY_LAST_RELOAD,
    PROXY_LAST_RELOAD_SUCCESS,
)


class CoderMetrics:
    """The families above, registered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.interceptions = INTERCEPTIONS.counter(registry)
        self.interceptions_inflight = INTERCEPTIONS_INFLIGHT.gauge(registry)
        self.interceptions_duration = INTERCEPTIONS_DURATION.histogram(registry)
        self.passthrough = PASSTHROUGH.counter(registry)
        self.prompts = PROMPTS.counter(registry)
        self.tokens = TOKENS.counter(registry)
        self.non_injected_tool_selections = NON_INJECTED_TOOL_SELECTIONS.counter(registry)
        self.breaker_state = CIRCUIT_BREAKER_STATE.gauge(registry)
        self.breaker_trips = CIRCUIT_BREAKER_TRIPS.counter(registry)
        self.breaker_rejects = CIRCUIT_BREAKER_REJECTS.counter(registry)
        self.key_pool_state = KEY_POOL_STATE.gauge(registry)
        self.key_pool_transitions = KEY_POOL_STATE_TRANSITIONS.counter(registry)
        self.key_pool_exhaustions = KEY_POOL_EXHAUSTIONS.counter(registry)
        self.key_pool_attempts = KEY_POOL_FAILOVER_ATTEMPTS.histogram(registry)
        self.connect_sessions = CONNECT_SESSIONS.counter(registry)
        self.mitm_requests = MITM_REQUESTS.counter(registry)
        self.mitm_requests_inflight = MITM_REQUESTS_INFLIGHT.gauge(registry)
        self.mitm_responses = MITM_RESPONSES.counter(registry)
        self.provider_info = (PROVIDER_INFO.gauge(registry), PROXY_PROVIDER_INFO.gauge(registry))
        self.last_reload = (LAST_RELOAD.gauge(registry), PROXY_LAST_RELOAD.gauge(registry))
        self.last_reload_success = (LAST_RELOAD_SUCCESS.gauge(registry), PROXY_LAST_RELOAD_SUCCESS.gauge(registry))
