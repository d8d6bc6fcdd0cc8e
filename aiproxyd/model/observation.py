"""What the data plane tells the rest, with a time: one observation is one line of a worker's journal.

An intercepted request gives, in this order and each exactly once: InterceptionStarted (its head was seen, before anything
leaves for the provider), InterceptionDescribed (its body was read, or will never be), InterceptionEnded. Between the last two
come the response's tool calls, thoughts and usage so far. A decrypted request to any other endpoint gives PassthroughStarted
and PassthroughEnded. Sinks rely on that order within one worker; between workers there is none.
"""

import msgspec

from aiproxyd.model.billing import Billing
from aiproxyd.model.events import ThoughtSource, ToolKind
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.model.verdict import Action


# Nothing in one refers back to it, so the collector need not look at the thousands that a batch has.
class _Observation(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="o", kw_only=True, gc=False):
    at: float
    """Unix time in seconds when it was seen."""


class WorkerStarted(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="worker_started"):
    """First line of a worker's journal."""

    worker_id: str
    pid: int


class ConnectDecided(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="connect_decided"):
    """A CONNECT, or a plain forward request, got its verdict (and for DECRYPT and TUNNEL its upstream connection)."""

    action: Action
    reason: str
    status_code: int
    """Status the client got: 200, or that of the refusal (502 when the upstream could not be reached)."""
    host: str = ""
    port: int = 0
    provider: str = ""
    principal_id: str = ""
    principal_name: str = ""
    decide_seconds: float = 0.0
    """Time for the verdict, authentication included."""
    dial_seconds: float = 0.0
    """Time to resolve and connect upstream."""


class TunnelClosed(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="tunnel_closed"):
    """A tunnel ended."""

    host: str
    port: int
    reason: str
    """`eof`, `idle`, `error`, `drained`, `revoked`."""
    bytes_to_upstream: int = 0
    bytes_to_client: int = 0
    duration_seconds: float = 0.0


class ConnectionSecured(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="connection_secured"):
    """TLS stands on both sides of a connection that is decrypted."""

    provider: str
    seconds: float
    """From the answer to the CONNECT until both handshakes were done, which run at the same time. The client's own delay counts."""


class ClientTlsFailed(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="client_tls_failed"):
    """A client did not complete TLS with us, most often because it does not trust our CA."""

    host: str
    reason: str
    """Bounded word: `unknown_ca`, `bad_certificate`, `closed`, `timeout`, `protocol`, `other`."""
    detail: str = ""


class UpstreamTlsFailed(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="upstream_tls_failed"):
    """A provider's certificate was not accepted, or TLS with it failed."""

    host: str
    provider: str
    reason: str
    """Bounded word: `untrusted`, `hostname`, `expired`, `timeout`, `closed`, `other`."""
    detail: str = ""


class PassthroughStarted(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="passthrough_started"):
    """A decrypted request to an endpoint that is not intercepted."""

    request_id: str
    provider: str
    method: str
    route: str
    """The endpoint's pattern from the provider facts, `other` for what no pattern names. Bounded."""
    host: str = ""
    trace_parent: str = ""
    """As of InterceptionStarted."""


class PassthroughEnded(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="passthrough_ended"):
    """Its answer ended, or will never come. Exactly once for each PassthroughStarted."""

    request_id: str
    provider: str
    status_code: int
    """The provider's status; 499 when the client left before an answer began, 502 when the upstream failed to answer."""


class InterceptionStarted(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="interception_started"):
    """The head of a request to an intercepted endpoint was seen."""

    interception_id: str
    provider: str
    provider_type: str
    api: str
    """`anthropic.messages`, `openai.chat_completions`, `openai.responses`, …."""
    method: str
    route: str
    host: str
    principal_id: str
    principal_name: str
    port: int = 443
    """Of `host`, as the CONNECT named it."""
    principal_groups: tuple[str, ...] = ()
    client: str = "Unknown"
    client_version: str = ""
    user_agent: str = ""
    credential_kind: str = "byok"
    """`byok` or `centralized`."""
    credential_hint: str = ""
    """Masked, at most 15 characters."""
    billing: Billing = Billing.METERED
    """How it is paid for, as far as the request shows."""
    labels: dict[str, str] = {}
    """Values of the headers that `metrics.header_labels` names, by label; cut to 100 characters each by the sender."""
    trace_parent: str = ""
    """The client's `traceparent` header (W3C Trace Context); empty when it sent none of that form."""
    client_request_id: str = ""
    """What the client itself calls this request, equal for its retries."""
    connection_id: str = ""


class InterceptionDescribed(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="interception_described"):
    """What the request's body says; defaults where it could not be read."""

    interception_id: str
    request_model: str
    streaming: bool = False
    client_session_id: str = ""
    correlating_tool_call_id: str = ""
    prompt: str | None = None
    """The last user prompt; None when there is none or `recording.content` is `metadata`."""
    has_prompt: bool = False
    """Whether there was a non-empty prompt, kept or not."""
    anomaly: str = ""
    """Why the body was not understood; empty when it was."""
    metadata: dict[str, str] = {}


class ResponseProgressed(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="response_progressed"):
    """First usage of a response that is still arriving, kept in case we die before its end."""

    interception_id: str
    response_id: str = ""
    response_model: str = ""
    usage: TokenUsage = TokenUsage()


class ToolCalled(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="tool_called"):
    """The model called a tool and its arguments are complete (or the response ended before they were)."""

    interception_id: str
    tool: str
    position: int
    """Order within the response, from 0; with the interception it identifies the call."""
    call_id: str = ""
    item_id: str = ""
    tool_kind: ToolKind = ToolKind.FUNCTION
    arguments: str | None = None
    """JSON text, or free text for a custom tool; None when not kept."""
    truncated: bool = False
    """Whether the response ended, or a limit was met, before the arguments were complete."""
    server_url: str = ""
    response_id: str = ""


class ThoughtRecorded(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="thought_recorded"):
    """A piece of the model's reasoning is complete."""

    interception_id: str
    position: int
    source: ThoughtSource
    content: str


class InterceptionEnded(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="interception_ended"):
    """The one end of an interception."""

    interception_id: str
    outcome: Outcome
    usage_source: UsageSource
    usage: TokenUsage = TokenUsage()
    status_code: int = 0
    """The provider's status; 499 when the client left before an answer began, 502 when the upstream failed to answer."""
    response_id: str = ""
    response_model: str = ""
    finish_reason: str = ""
    error_type: ErrorType | None = None
    error_message: str = ""
    anomaly: str = ""
    """Why the response was not understood; empty when it was."""
    request_bytes: int = 0
    """Body bytes as they were on the wire, content-coded."""
    response_bytes: int = 0
    first_byte_seconds: float | None = None
    """From the request head to the first byte of the response."""
    first_output_seconds: float | None = None
    """From the request head to the first text, reasoning or tool call of a streamed response."""
    duration_seconds: float = 0.0
    held_seconds: float | None = None
    """How long this proxy held the first bytes: of the request, from when its head was read until it was written to the provider (its
    record is on disk by then), and of the response, from when they were read until they were written to the client. The relay tells
    both; who carries requests otherwise tells of the request what its record took, and mitmproxy's layers nothing of the response."""
    tap_seconds: float | None = None
    """Time spent on reading along, all of it after the bytes had been forwarded: decoding, parsing, assembling."""
    output_characters: int = 0
    credential_hint: str = ""
    """Of the key that was used in the end, where it is one of the provider entry; empty leaves that of the start."""
    metadata: dict[str, str] = {}


class UnknownEventsSeen(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="unknown_events_seen"):
    """A response held things its parser does not know."""

    provider: str
    api: str
    counts: dict[str, int]
    """By kind; bounded in number and length by the sender."""
    samples: dict[str, str] = {}
    """By kind, for some of them: the shape of one, without anything that anybody said."""


class KeyStateChanged(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="key_state_changed"):
    """A key of a provider entry may not be used any more, or not now."""

    provider: str
    state: str
    """`temporary` or `permanent`."""
    reason: str
    """`rate_limited`, `unauthorized` or `forbidden`."""
    credential_hint: str = ""
    """Masked, at most 15 characters."""
    cooldown_seconds: float = 0.0
    """How long, for `temporary`."""


class KeyPoolExhausted(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="key_pool_exhausted"):
    """No key of a provider entry was left for a request."""

    provider: str
    outcome: str
    """`rate_limited` or `auth_failed`."""


class KeyFailover(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="key_failover"):
    """A request that used keys of a provider entry got its answer, or ran out of keys. Exactly one for each such request."""

    provider: str
    attempts: int
    """How many keys it tried, 1 for a request that went well at once."""


class BreakerChanged(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="breaker_changed"):
    """A circuit breaker of this worker took another state."""

    provider: str
    endpoint: str
    """The route."""
    model: str
    state: str
    """`closed`, `half_open` or `open`."""


class BreakerRejected(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="breaker_rejected"):
    """A circuit breaker refused a request."""

    provider: str
    endpoint: str
    model: str


class RecordsLost(_Observation, frozen=True, omit_defaults=True, kw_only=True, tag="records_lost"):
    """The journal could not be written; so many observations are gone."""

    count: int


Observation = (
    WorkerStarted
    | ConnectDecided
    | TunnelClosed
    | ConnectionSecured
    | ClientTlsFailed
    | UpstreamTlsFailed
    | PassthroughStarted
    | PassthroughEnded
    | InterceptionStarted
    | InterceptionDescribed
    | ResponseProgressed
    | ToolCalled
    | ThoughtRecorded
    | InterceptionEnded
    | UnknownEventsSeen
    | KeyStateChanged
    | KeyPoolExhausted
    | KeyFailover
    | BreakerChanged
    | BreakerRejected
    | RecordsLost
)
