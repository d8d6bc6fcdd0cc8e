"""The series of one provider and of one combination of labels, resolved once and then only counted. Not when to count.

A series is made when it is first counted, never before: an error must not leave a `completed` series of 0 behind.
"""

from functools import cache, cached_property
from typing import NamedTuple

from aiproxyd.model.observation import InterceptionStarted
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.telemetry.coder import LIMITS, METHODS, CoderMetrics, Limits
from aiproxyd.telemetry.families import OTHER, Admission, label_text
from aiproxyd.telemetry.instruments import CounterCell, GaugeCell, HistogramCell
from aiproxyd.telemetry.own import OwnMetrics

EVERYBODY = "all"
"""The user's label where metrics do not tell users apart."""


def code_label(status_code: int) -> str:
    """Return the `code` label of a status: its three digits, `0` for none, `other` for what is no status."""
    return str(status_code) if 100 <= status_code <= 599 or status_code == 0 else OTHER


def method_label(method: str) -> str:
    """Return the `method` label of a request."""
    return method if method in METHODS else OTHER


class ProviderSeries:
    """What is counted for a provider as a whole."""

    def __init__(self, coder: CoderMetrics, own: OwnMetrics, provider: str) -> None:
        self._provider = provider
        self._own = own
        self._responses = coder.mitm_responses
        self.requests = coder.mitm_requests.labels(provider)
        self.inflight = coder.mitm_requests_inflight.labels(provider)

    def response(self, status_code: int) -> CounterCell:
        """Return the counter of responses with this status."""
        return self._responses.labels(code_label(status_code), self._provider)

    def outcome(self, outcome: Outcome) -> CounterCell:
        """Return the counter of this outcome."""
        return self._own.outcomes.labels(self._provider, outcome)

    def source(self, source: UsageSource) -> CounterCell:
        """Return the counter of this usage source."""
        return self._own.usage_sources.labels(self._provider, source)

    def error(self, error_type: ErrorType) -> CounterCell:
        """Return the counter of this class of error."""
        return self._own.errors.labels(self._provider, error_type)

    @cached_property
    def request_anomalies(self) -> CounterCell:
        """Requests that were not understood."""
        return self._own.anomalies.labels(self._provider, "request")

    @cached_property
    def response_anomalies(self) -> CounterCell:
        """Responses that were not understood."""
        return self._own.anomalies.labels(self._provider, "response")

    @cached_property
    def estimated_input(self) -> CounterCell:
        """Estimated input tokens."""
        return self._own.estimated_tokens.labels(self._provider, "input")

    @cached_property
    def estimated_output(self) -> CounterCell:
        """Estimated output tokens."""
        return self._own.estimated_tokens.labels(self._provider, "output")

    @cached_property
    def first_byte(self) -> HistogramCell:
        """Seconds to the first byte of responses."""
        return self._own.first_byte.labels(self._provider)

    @cached_property
    def request_body(self) -> HistogramCell:
        """Bytes of request bodies."""
        return self._own.request_body.labels(self._provider)

    @cached_property
    def response_body(self) -> HistogramCell:
        """Bytes of response bodies."""
        return self._own.response_body.labels(self._provider)


class Combination(NamedTuple):
    """The labels of an interception."""

    provider: str
    route: str
    method: str
    model: str
    initiator: str
    client: str


class CombinationSeries:
    """What is counted for one combination of labels."""

    def __init__(self, coder: CoderMetrics, own: OwnMetrics, combination: Combination) -> None:
        self.combination = combination
        self._coder = coder
        self._own = own
        self._costs: dict[str, CounterCell] = {}
        self._tokens: dict[str, CounterCell] = {}

    def _status(self, status: str) -> CounterCell:
        provider, route, method, model, initiator, client = self.combination
        return self._coder.interceptions.labels(provider, model, status, route, method, initiator, client)

    @cached_property
    def completed(self) -> CounterCell:
        """Interceptions that completed."""
        return self._status("completed")

    @cached_property
    def failed(self) -> CounterCell:
        """Interceptions that ended in any other way."""
        return self._status("failed")

    @cached_property
    def inflight(self) -> GaugeCell:
        """Interceptions that have not ended."""
        provider, route, _, model, _, _ = self.combination
        return self._coder.interceptions_inflight.labels(provider, model, route)

    @cached_property
    def duration(self) -> HistogramCell:
        """Seconds of interceptions."""
        return self._coder.interceptions_duration.labels(self.combination.provider, self.combination.model)

    @cached_property
    def first_output(self) -> HistogramCell:
        """Seconds to the first output."""
        return self._own.first_output.labels(self.combination.provider, self.combination.model)

    @cached_property
    def between_tokens(self) -> HistogramCell:
        """Mean seconds between output tokens."""
        return self._own.between_tokens.labels(self.combination.provider, self.combination.model)

    def cost(self, basis: str) -> CounterCell:
        """Return the counter of USD on this basis."""
        child = self._costs.get(basis)
        if child is None:
            provider, _, _, model, initiator, client = self.combination
            child = self._costs[basis] = self._own.cost.labels(provider, model, basis, initiator, client)
        return child

    def unpriced(self, provider_type: str) -> CounterCell:
        """Return the counter of records without a cost."""
        return self._own.unpriced.labels(self.combination.provider, provider_type, self.combination.model)

    @cached_property
    def prompts(self) -> CounterCell:
        """Requests that carried a prompt."""
        provider, _, _, model, initiator, client = self.combination
        return self._coder.prompts.labels(provider, model, initiator, client)

    def tokens(self, token_type: str) -> CounterCell:
        """Return the counter of this type of tokens."""
        child = self._tokens.get(token_type)
        if child is None:
            provider, _, _, model, initiator, client = self.combination
            name = label_text(token_type) if len(self._tokens) < LIMITS.token_types - 1 else OTHER
            child = self._coder.tokens.labels(provider, model, name, initiator, client)
            if name == token_type:
                # What became `other` is not remembered, so that hostile names take no memory.
                self._tokens[token_type] = child
        return child


class Places:
    """Gives out places for series, up to a limit for all and one for each user: one user's inventions cost nobody else's."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._taken: dict[str, int] = {}

    def take(self, user: str, limit_of_a_user: int) -> bool:
        """Return whether `user` gets one more place, and count it."""
        taken = self._taken.get(user, 0)
        if self._left <= 0 or taken >= limit_of_a_user:
            return False
        self._left -= 1
        self._taken[user] = taken + 1
        return True


class SeriesTable:
    """Finds series by labels and keeps their number within the limits."""

    def __init__(self, coder: CoderMetrics, own: OwnMetrics, limits: Limits = LIMITS, *, per_user: bool = True) -> None:
        self._coder = coder
        self._own = own
        self._limits = limits
        self._per_user = per_user
        self._models = Admission(limits.models)
        self._places = Places(limits.combinations - limits.endpoints)
        self._tool_places = Places(limits.tool_combinations - limits.endpoints)
        self._combinations: dict[tuple[str, ...], CombinationSeries] = {}
        self._tools: dict[tuple[str, str, str], CounterCell] = {}
        self.provider = cache(lambda provider: ProviderSeries(coder, own, provider))
        """The series of a provider, by its name."""

    def combination(self, started: InterceptionStarted, request_model: str) -> CombinationSeries:
        """Return the series of an interception.

        Args:
            started: The head of its request.
            request_model: What its body asks for; may be empty.
        """
        user = started.principal_id if self._per_user else EVERYBODY
        # Most values are their own labels, and then this is the combination.
        series = self._combinations.get((started.provider, started.route, started.method, request_model, user, started.client))
        if series is None:
            series = self._combination(started, request_model, user)
        return series

    def _combination(self, started: InterceptionStarted, request_model: str, principal_id: str) -> CombinationSeries:
        """Find or make the series, with the first labels for which there is a place."""
        limits = self._limits
        endpoint = (started.provider, started.route, method_label(started.method))
        user = label_text(principal_id)
        model = self._models.label(request_model)
        whole = Combination(*endpoint, model, user, label_text(started.client))
        of_user = Combination(*endpoint, OTHER, user, OTHER)
        if whole in self._combinations:
            key = whole
        elif self._places.take(user, limits.combinations_of_a_user if self._per_user else limits.combinations):
            # Only who has a place may use up a model name.
            self._models.admit(model)
            key = whole
        elif of_user in self._combinations or self._places.take(user, limits.combinations_of_a_user + limits.endpoints):
            key = of_user
        else:
            # One an endpoint; the limits leave room for these.
            key = Combination(*endpoint, OTHER, OTHER, OTHER)
        series = self._combinations.get(key)
        if series is None:
            series = self._combinations[key] = CombinationSeries(self._coder, self._own, key)
        return series

    def tool(self, series: CombinationSeries, name: str) -> CounterCell:
        """Return the counter of calls to the tool that a response to `series` names `name`."""
        labels = series.combination
        key = (labels.provider, labels.model, name)
        child = self._tools.get(key)
        if child is None:
            key = (labels.provider, labels.model, label_text(name))
            if key not in self._tools and not self._tool_places.take(
                labels.initiator, self._limits.tool_combinations_of_a_user
            ):
                # One a provider; the limits leave room for these.
                key = (labels.provider, OTHER, OTHER)
            child = self._tools.get(key)
            if child is None:
                child = self._tools[key] = self._coder.non_injected_tool_selections.labels(*key)
        return child
