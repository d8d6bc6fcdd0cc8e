"""The metrics sink: folds observations into Prometheus series. Not their exposition, and not a store: a restart begins at zero.

Facts that the sums rely on, and dashboards with them:

* Each decrypted request counts once in `mitm_requests_total` and once in `mitm_responses_total`; requests whose worker died
  count there with code `0`, so the two sums meet and the in-flight gauges return to 0.
* `interceptions_total` equals the number of ended interceptions, and `accounting_outcomes_total` sums to the same.
* Tokens are counted at the end of an interception, from the same observation that the store keeps. For one that was interrupted
  it is what the provider had reported until then, as in the store.
* An observation of a request whose start was not seen (it was another process that counted it) changes nothing but
  `orphaned_observations_total`.
"""

import platform
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

import aiproxyd
from aiproxyd.classify import ProviderTable
from aiproxyd.model.observation import (
    BreakerChanged,
    BreakerRejected,
    ClientTlsFailed,
    ConnectDecided,
    ConnectionSecured,
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    KeyFailover,
    KeyPoolExhausted,
    KeyStateChanged,
    Observation,
    PassthroughEnded,
    PassthroughStarted,
    RecordsLost,
    ResponseProgressed,
    ToolCalled,
    TunnelClosed,
    UnknownEventsSeen,
    UpstreamTlsFailed,
    WorkerStarted,
)
from aiproxyd.model.outcome import Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.model.verdict import Action
from aiproxyd.pricing import MICROS_PER_USD, Charge, Cost, Pricer
from aiproxyd.telemetry.bifrost import BifrostMetrics
from aiproxyd.telemetry.coder import CoderMetrics
from aiproxyd.telemetry.custom_labels import CustomLabels
from aiproxyd.telemetry.exchange import Dialect, Exchange, exemplar_of, seconds_per_token
from aiproxyd.telemetry.exposed import LegacyNames, collectors_of
from aiproxyd.telemetry.families import Admission, label_text
from aiproxyd.telemetry.gen_ai import GenAiMetrics
from aiproxyd.telemetry.instruments import Gauge
from aiproxyd.telemetry.own import MAX_REASONS, MAX_TLS_HOSTS, MAX_UNKNOWN_EVENTS, OverheadPart, OwnMetrics
from aiproxyd.telemetry.series import CombinationSeries, ProviderSeries, SeriesTable, method_label
from aiproxyd.telemetry.settings import MetricsSettings
from aiproxyd.telemetry.token_types import token_amounts
from aiproxyd.telemetry.upstream_series import UpstreamSeries


class _OpenInterception(msgspec.Struct):
    started: InterceptionStarted
    provider: ProviderSeries
    series: CombinationSeries | None = None
    """None until the request's body told the model; then it counts in the in-flight gauge."""
    usage: TokenUsage | None = None
    """What the provider reported so far."""
    request_model: str = ""
    response_model: str = ""
    streaming: bool = False


class _Worker:
    """What a worker has open."""

    __slots__ = ("at", "interceptions", "passthroughs")

    def __init__(self) -> None:
        self.interceptions: dict[str, _OpenInterception] = {}
        self.passthroughs: dict[str, tuple[ProviderSeries, PassthroughStarted]] = {}
        self.at = 0.0
        """Unix time of its last observation."""


class MetricsSink:
    """Counts what the workers observed, and what control knows of itself.

    Cheap: labels are resolved once an interception at most. Total: no observation raises, whatever its fields hold. For one
    thread; the exposition may run in another.
    """

    def __init__(
        self, registry: CollectorRegistry, pricer: Pricer | None = None, settings: MetricsSettings = MetricsSettings()
    ) -> None:
        """Register every family.

        Args:
            registry: Gets them.
            pricer: Knows what responses cost; without one, cost is not counted.
            settings: Which families and labels there are.
        """
        self._coder = coder = CoderMetrics(registry)
        self._own = own = OwnMetrics(registry)
        self._held, self._tapped = own.overhead[OverheadPart.FIRST_BYTE], own.overhead[OverheadPart.TAP]
        self._pricer = pricer
        self._has_exemplars = settings.exemplars
        self._series = SeriesTable(coder, own, per_user=settings.per_user)
        self._dialects = _dialects(registry, settings)
        if "coder_legacy" in settings.dialects:
            registry.register(LegacyNames(collectors_of(coder)))
        self._workers: dict[str, _Worker] = {}
        self.upstreams = upstreams = UpstreamSeries(coder)
        """What is counted of keys and circuit breakers."""
        self._provider_info: set[tuple[str, str, str]] = set()
        self._worker_restarts = 0
        self._refusal_reasons = Admission(MAX_REASONS)
        self._tunnel_reasons = Admission(MAX_REASONS)
        self._client_tls_hosts = Admission(MAX_TLS_HOSTS)
        self._client_tls_reasons = Admission(MAX_REASONS)
        self._upstream_tls_reasons = Admission(MAX_REASONS)
        self._unknown_events = Admission(MAX_UNKNOWN_EVENTS)
        self._user_names: dict[str, str] = {}
        self._spans_lock = threading.Lock()
        self._handlers: dict[type, Callable[[_Worker, Any], None]] = {
            ConnectDecided: self._connect_decided,
            TunnelClosed: self._tunnel_closed,
            ConnectionSecured: self._connection_secured,
            ClientTlsFailed: self._client_tls_failed,
            UpstreamTlsFailed: self._upstream_tls_failed,
            PassthroughStarted: self._passthrough_started,
            PassthroughEnded: self._passthrough_ended,
            InterceptionStarted: self._interception_started,
            InterceptionDescribed: self._interception_described,
            ResponseProgressed: self._response_progressed,
            ToolCalled: self._tool_called,
            InterceptionEnded: self._interception_ended,
            UnknownEventsSeen: self._unknown_events_seen,
            KeyStateChanged: lambda _worker, changed: upstreams.key_changed(changed),
            KeyPoolExhausted: lambda _worker, exhausted: upstreams.exhausted(exhausted),
            KeyFailover: lambda _worker, failover: upstreams.answered(failover),
            BreakerRejected: lambda _worker, rejected: upstreams.rejected(rejected),
            RecordsLost: self._records_lost,
        }
        own.build_info.labels(aiproxyd.__version__, platform.python_version()).set(1)

    # Observations.

    def observe(self, worker_id: str, observation: Observation) -> None:
        """Count one observation of a worker, in the order of its journal."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = _Worker()
        worker.at = observation.at
        handler = self._handlers.get(type(observation))
        if handler is not None:
            handler(worker, observation)
        elif type(observation) is BreakerChanged:
            self.upstreams.breaker_changed(worker_id, observation)
        elif type(observation) is WorkerStarted:
            # Ids are not used twice; if one is, nothing of its first life can end any more.
            self.worker_lost(worker_id)

    def worker_lost(self, worker_id: str) -> None:
        """End what a dead worker had open; all that it wrote has been observed."""
        self.upstreams.worker_lost(worker_id)
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        for request_id, (provider, started) in worker.passthroughs.items():
            self._answered(provider, 0)
            ended = PassthroughEnded(at=worker.at, request_id=request_id, provider=started.provider, status_code=0)
            for dialect in self._dialects:
                dialect.passed_through(started, ended)
        for interception in worker.interceptions.values():
            usage = interception.usage
            self._ended(
                interception,
                InterceptionEnded(
                    at=worker.at,
                    interception_id=interception.started.interception_id,
                    response_model=interception.response_model,
                    outcome=Outcome.INTERRUPTED,
                    usage_source=UsageSource.NONE if usage is None else UsageSource.REPORTED,
                    usage=usage or TokenUsage(),
                    duration_seconds=max(0.0, worker.at - interception.started.at),
                ),
            )

    def _connect_decided(self, _worker: _Worker, decided: ConnectDecided) -> None:
        own = self._own
        own.connect_decide.observe(decided.decide_seconds)
        own.overhead[OverheadPart.AUTH].observe(decided.decide_seconds)
        if decided.dial_seconds:
            own.upstream_connect.observe(decided.dial_seconds)
            own.overhead[OverheadPart.UPSTREAM_CONNECT].observe(decided.dial_seconds)
        connected = decided.status_code == 200
        if decided.action is Action.TUNNEL:
            # Coder counts a tunnel before it is dialled.
            self._coder.connect_sessions.labels("tunneled").inc()
        elif decided.action is Action.DECRYPT and connected:
            self._coder.connect_sessions.labels("mitm").inc()
        if decided.action is Action.REFUSE or not connected:
            self._own.connect_refused.labels(self._refusal_reasons.admit(decided.reason)).inc()

    def _tunnel_closed(self, _worker: _Worker, closed: TunnelClosed) -> None:
        own = self._own
        own.tunnels_closed.labels(self._tunnel_reasons.admit(closed.reason)).inc()
        own.tunnel_bytes.labels("upstream").inc(max(0, closed.bytes_to_upstream))
        own.tunnel_bytes.labels("client").inc(max(0, closed.bytes_to_client))
        own.tunnel_duration.observe(closed.duration_seconds)

    def _connection_secured(self, _worker: _Worker, secured: ConnectionSecured) -> None:
        self._own.overhead[OverheadPart.TLS].observe(secured.seconds)

    def _client_tls_failed(self, _worker: _Worker, failed: ClientTlsFailed) -> None:
        host = self._client_tls_hosts.admit(failed.host)
        self._own.client_tls_failures.labels(host, self._client_tls_reasons.admit(failed.reason)).inc()

    def _upstream_tls_failed(self, _worker: _Worker, failed: UpstreamTlsFailed) -> None:
        self._own.upstream_tls_failures.labels(
            label_text(failed.provider), self._upstream_tls_reasons.admit(failed.reason)
        ).inc()

    def _passthrough_started(self, worker: _Worker, started: PassthroughStarted) -> None:
        if started.request_id in worker.passthroughs:
            return
        provider = self._series.provider(started.provider)
        worker.passthroughs[started.request_id] = provider, started
        provider.requests.inc()
        provider.inflight.inc()
        self._coder.passthrough.labels(started.provider, started.route, method_label(started.method)).inc()

    def _passthrough_ended(self, worker: _Worker, ended: PassthroughEnded) -> None:
        passthrough = worker.passthroughs.pop(ended.request_id, None)
        if passthrough is None:
            self._own.orphaned.inc()
            return
        provider, started = passthrough
        self._answered(provider, ended.status_code)
        for dialect in self._dialects:
            dialect.passed_through(started, ended)

    def _answered(self, provider: ProviderSeries, status_code: int) -> None:
        provider.inflight.dec()
        provider.response(status_code).inc()

    def _interception_started(self, worker: _Worker, started: InterceptionStarted) -> None:
        if started.interception_id in worker.interceptions:
            return
        provider = self._series.provider(started.provider)
        worker.interceptions[started.interception_id] = _OpenInterception(started, provider)
        provider.requests.inc()
        provider.inflight.inc()

    def _interception_described(self, worker: _Worker, described: InterceptionDescribed) -> None:
        interception = self._open(worker, described.interception_id)
        if interception is None or interception.series is not None:
            return
        interception.streaming = described.streaming
        series = self._described(interception, described.request_model)
        if described.has_prompt:
            series.prompts.inc()
        if described.anomaly:
            interception.provider.request_anomalies.inc()

    def _described(self, interception: _OpenInterception, request_model: str) -> CombinationSeries:
        interception.request_model = request_model
        series = interception.series = self._series.combination(interception.started, request_model)
        series.inflight.inc()
        self._named(series.combination.initiator, interception.started)
        return series

    def _named(self, initiator: str, started: InterceptionStarted) -> None:
        """Show the name behind the label of a user; one who has no label of their own is called what the label says."""
        name = started.principal_name if initiator == started.principal_id else initiator
        former = self._user_names.get(initiator)
        if former == name:
            return
        name = label_text(name)
        if former == name:
            return
        if former is not None:
            self._own.user_info.remove(initiator, former)
        self._user_names[initiator] = name
        self._own.user_info.labels(initiator, name).set(1)

    def _response_progressed(self, worker: _Worker, progressed: ResponseProgressed) -> None:
        interception = self._open(worker, progressed.interception_id)
        if interception is not None:
            interception.usage = progressed.usage
            interception.response_model = progressed.response_model

    def _tool_called(self, worker: _Worker, called: ToolCalled) -> None:
        interception = self._open(worker, called.interception_id)
        if interception is not None:
            series = interception.series or self._described(interception, "")
            self._series.tool(series, called.tool).inc()

    def _open(self, worker: _Worker, interception_id: str) -> _OpenInterception | None:
        interception = worker.interceptions.get(interception_id)
        if interception is None:
            self._own.orphaned.inc()
        return interception

    def _interception_ended(self, worker: _Worker, ended: InterceptionEnded) -> None:
        interception = worker.interceptions.pop(ended.interception_id, None)
        if interception is None:
            self._own.orphaned.inc()
        else:
            self._ended(interception, ended)

    def _ended(self, interception: _OpenInterception, ended: InterceptionEnded) -> None:
        provider = interception.provider
        series = interception.series or self._described(interception, "")
        series.inflight.dec()
        (series.completed if ended.outcome is Outcome.COMPLETED else series.failed).inc()
        exemplar = exemplar_of(interception.started.interception_id) if self._has_exemplars else None
        series.duration.observe(ended.duration_seconds, exemplar)
        cost = self._cost(interception, series, ended)
        if cost is not None:
            series.cost(cost.basis).inc(cost.micros / MICROS_PER_USD, exemplar)
        if self._dialects:
            exchange = Exchange(interception.started, series.combination, interception.streaming, ended, cost)
            for dialect in self._dialects:
                dialect.intercepted(exchange, exemplar)
        self._answered(provider, ended.status_code)
        provider.outcome(ended.outcome).inc()
        provider.source(ended.usage_source).inc()
        provider.request_body.observe(ended.request_bytes)
        provider.response_body.observe(ended.response_bytes)
        if ended.held_seconds is not None:
            self._held.observe(ended.held_seconds)
        if ended.tap_seconds is not None:
            self._tapped.observe(ended.tap_seconds)
        if ended.first_byte_seconds is not None:
            provider.first_byte.observe(ended.first_byte_seconds)
        if ended.first_output_seconds is not None:
            series.first_output.observe(ended.first_output_seconds, exemplar)
            between = seconds_per_token(ended, streaming=interception.streaming)
            if between is not None:
                series.between_tokens.observe(between)
        if ended.error_type is not None:
            provider.error(ended.error_type).inc()
        if ended.anomaly:
            provider.response_anomalies.inc()
        if ended.usage_source is UsageSource.NONE:
            return
        for token_type, count in token_amounts(interception.started.api, ended.usage):
            # The series is there from its first record on; most types are 0 in most of them.
            counter = series.tokens(token_type)
            if count:
                counter.inc(count)
        if ended.usage_source is UsageSource.ESTIMATED:
            provider.estimated_input.inc(max(0, ended.usage.input_tokens))
            provider.estimated_output.inc(max(0, ended.usage.output_tokens))

    def _cost(self, interception: _OpenInterception, series: CombinationSeries, ended: InterceptionEnded) -> Cost | None:
        if self._pricer is None or ended.usage_source is UsageSource.NONE:
            return None
        started = interception.started
        cost = self._pricer.price(
            Charge(
                at=ended.at,
                provider=started.provider,
                provider_type=started.provider_type,
                host=started.host,
                model=ended.response_model or interception.request_model,
                usage=ended.usage,
                billing=started.billing,
                metadata=ended.metadata,
            )
        )
        if cost is None:
            series.unpriced(started.provider_type).inc()
        return cost

    def _unknown_events_seen(self, _worker: _Worker, seen: UnknownEventsSeen) -> None:
        for event, count in seen.counts.items():
            self._own.unknown_events.labels(seen.provider, self._unknown_events.admit(event)).inc(max(0, count))

    def _records_lost(self, _worker: _Worker, lost: RecordsLost) -> None:
        self._own.journal_lost.inc(max(0, lost.count))

    # What control tells of itself.

    def set_providers(self, table: ProviderTable) -> None:
        """Show the providers in use; those of the table before that are gone or changed vanish."""
        current = {(provider.name, provider.type, str(provider.status)) for provider in table.providers}
        for family in self._coder.provider_info:
            # New ones first: a scrape in between sees one too many, never none, which would be an alert.
            for labels in current:
                family.labels(*labels).set(1)
            for labels in self._provider_info - current:
                family.remove(*labels)
        self._provider_info = current

    def reload_attempted(self, at: float) -> None:
        """Note the Unix time of an attempt to load the configuration."""
        _set_both(self._coder.last_reload, at)

    def reload_succeeded(self, at: float) -> None:
        """Note the Unix time of a configuration that was loaded."""
        _set_both(self._coder.last_reload_success, at)

    def set_workers(self, ready: int, restarts: int) -> None:
        """Show how many workers accept connections, and how many were replaced since the start."""
        self._own.workers.set(ready)
        self._own.worker_restarts.inc(max(0, restarts - self._worker_restarts))
        self._worker_restarts = max(restarts, self._worker_restarts)

    def identity_asked(self, source: str, seconds: float, reason: str) -> None:
        """Note that a source of identities was asked, how long it took, and why it failed or an empty string."""
        self._own.identity_duration.labels(source).observe(seconds)
        if reason:
            self._own.identity_errors.labels(source, reason).inc()

    def set_ca_expiry(self, at: float) -> None:
        """Show the Unix time at which the CA certificate expires."""
        self._own.ca_expiry.set(at)

    def set_journal(self, size_bytes: int, lag_seconds: float) -> None:
        """Show the size of the journal, and the age of its oldest observation that is not stored."""
        self._own.journal_bytes.set(size_bytes)
        self._own.journal_lag.set(lag_seconds)

    def store_written(self, seconds: float, observations: int) -> None:
        """Count a batch that was stored, and how long its transaction took."""
        self._own.store_write.observe(seconds)
        self._own.store_observations.inc(observations)

    def spans_left(self, result: str, spans: int) -> None:
        """Count spans that left the daemon: `sent`, `failed` or `dropped`. From any thread."""
        with self._spans_lock:
            self._own.trace_spans.labels(result).inc(spans)

    def pushed(self, result: str) -> None:
        """Count a push to a gateway: `succeeded` or `failed`."""
        self._own.pushes.labels(result).inc()

    def store_failed(self) -> None:
        """Count an attempt to store a batch that failed."""
        self._own.store_errors.inc()


def _dialects(registry: CollectorRegistry, settings: MetricsSettings) -> tuple[Dialect, ...]:
    dialects: list[Dialect] = []
    if "bifrost" in settings.dialects:
        dialects.append(BifrostMetrics(registry, CustomLabels(settings.header_labels, settings.header_label_values)))
    if "gen_ai" in settings.dialects:
        dialects.append(GenAiMetrics(registry, CustomLabels(settings.header_labels, settings.header_label_values)))
    return tuple(dialects)


def _set_both(gauges: tuple[Gauge, ...], value: float) -> None:
    for gauge in gauges:
        gauge.set(value)
