import shutil
import subprocess

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from prometheus_client import CollectorRegistry, generate_latest

import aiproxyd
from aiproxyd.classify import Provider, ProviderStatus, ProviderTable
from aiproxyd.model.events import ThoughtSource
from aiproxyd.model.observation import (
    ClientTlsFailed,
    ConnectDecided,
    InterceptionDescribed,
    InterceptionEnded,
    InterceptionStarted,
    PassthroughEnded,
    PassthroughStarted,
    RecordsLost,
    ResponseProgressed,
    ThoughtRecorded,
    ToolCalled,
    TunnelClosed,
    UnknownEventsSeen,
    UpstreamTlsFailed,
    WorkerStarted,
)
from aiproxyd.model.outcome import ErrorType, Outcome, UsageSource
from aiproxyd.model.usage import TokenUsage
from aiproxyd.model.verdict import Action
from aiproxyd.telemetry import coder, own
from aiproxyd.telemetry.families import create_registry
from aiproxyd.telemetry.metrics import MetricsSink
from aiproxyd.telemetry.settings import MetricsSettings

GATEWAY = "coder_ai_gateway_"
PROXY = "coder_ai_gateway_proxy_"
USER = "0b5b4a8c-6a4e-4f6e-9a53-2f0a6f6e2c11"


class Scrape:
    """A sink with its registry, and what a scrape of it would say."""

    def __init__(self, *dialects):
        self.registry = CollectorRegistry()
        self.sink = MetricsSink(self.registry, settings=MetricsSettings(dialects=frozenset(dialects)))

    def observe(self, *observations, worker="w1"):
        for observation in observations:
            self.sink.observe(worker, observation)

    def value(self, name, /, **labels):
        return self.registry.get_sample_value(name, labels)

    def series(self, name):
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name
        }

    def total(self, name):
        return sum(self.series(name).values())


@pytest.fixture
def scrape():
    return Scrape()


def started(id_="i1", at=100.0, **changes):
    fields = {
        "provider": "anthropic",
        "provider_type": "anthropic",
        "api": "anthropic.messages",
        "method": "POST",
        "route": "/v1/messages",
        "host": "api.anthropic.com",
        "principal_id": USER,
        "principal_name": "alice",
        "client": "Claude Code",
    }
    return InterceptionStarted(at=at, interception_id=id_, **fields | changes)


def described(id_="i1", at=100.5, **changes):
    return InterceptionDescribed(
        at=at, interception_id=id_, **{"request_model": "claude-sonnet-4-0", "has_prompt": True} | changes
    )


def ended(id_="i1", at=103.0, **changes):
    fields = {
        "outcome": Outcome.COMPLETED,
        "usage_source": UsageSource.REPORTED,
        "usage": TokenUsage(input_tokens=2, output_tokens=66, cache_read_input_tokens=13993, cache_write_input_tokens=22),
        "status_code": 200,
        "duration_seconds": 3.0,
        "first_byte_seconds": 0.3,
        "first_output_seconds": 0.7,
        "request_bytes": 5000,
        "response_bytes": 2000,
    }
    return InterceptionEnded(at=at, interception_id=id_, **fields | changes)


LABELS = {
    "provider": "anthropic",
    "model": "claude-sonnet-4-0",
    "route": "/v1/messages",
    "method": "POST",
    "initiator_id": USER,
    "client": "Claude Code",
}


def test_an_interception_counts_once_in_every_family(scrape):
    scrape.observe(started(), described())
    assert (
        scrape.value(GATEWAY + "interceptions_inflight", provider="anthropic", model="claude-sonnet-4-0", route="/v1/messages")
        == 1
    )
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="anthropic") == 1
    assert scrape.series(GATEWAY + "interceptions_total") == {}

    scrape.observe(ended())
    assert scrape.series(GATEWAY + "interceptions_total") == {tuple(sorted({**LABELS, "status": "completed"}.items())): 1}
    assert scrape.total(GATEWAY + "interceptions_inflight") == 0
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="anthropic") == 0
    assert scrape.value(PROXY + "mitm_requests_total", provider="anthropic") == 1
    assert scrape.series(PROXY + "mitm_responses_total") == {(("code", "200"), ("provider", "anthropic")): 1}
    assert scrape.value(GATEWAY + "accounting_outcomes_total", provider="anthropic", outcome="completed") == 1
    assert scrape.value(GATEWAY + "usage_sources_total", provider="anthropic", source="reported") == 1
    assert (
        scrape.value(
            GATEWAY + "prompts_total", provider="anthropic", model="claude-sonnet-4-0", initiator_id=USER, client="Claude Code"
        )
        == 1
    )
    of_model = {"provider": "anthropic", "model": "claude-sonnet-4-0"}
    assert scrape.value(GATEWAY + "interceptions_duration_seconds_sum", **of_model) == 3
    assert scrape.value(GATEWAY + "interceptions_duration_seconds_bucket", **of_model, le="2.0") == 0
    assert scrape.value(GATEWAY + "interceptions_duration_seconds_bucket", **of_model, le="5.0") == 1
    assert scrape.value(GATEWAY + "time_to_first_output_seconds_sum", **of_model) == pytest.approx(0.7)
    assert scrape.value(GATEWAY + "time_to_first_byte_seconds_sum", provider="anthropic") == pytest.approx(0.3)
    assert scrape.value(GATEWAY + "request_body_bytes_sum", provider="anthropic") == 5000
    assert scrape.value(GATEWAY + "response_body_bytes_sum", provider="anthropic") == 2000


def test_tokens_are_counted_by_type_also_those_of_which_there_are_none(scrape):
    scrape.observe(started(), described(), ended())
    by_type = {dict(labels)["type"]: value for labels, value in scrape.series(GATEWAY + "tokens_total").items()}
    assert by_type == {
        "input": 2,
        "output": 66,
        "cache_read_input_tokens": 13993,
        "cache_write_input_tokens": 22,
        "cache_read_input": 13993,
        "cache_creation_input": 22,
        "cache_ephemeral_1h_input": 0,
        "cache_ephemeral_5m_input": 0,
        "web_search_requests": 0,
    }


def test_nothing_is_counted_as_tokens_when_nothing_is_known_of_them(scrape):
    scrape.observe(
        started(), described(), ended(usage_source=UsageSource.NONE, usage=TokenUsage(), outcome=Outcome.UPSTREAM_ERROR)
    )
    assert scrape.series(GATEWAY + "tokens_total") == {}


def test_estimated_tokens_count_as_tokens_and_are_told_apart(scrape):
    scrape.observe(
        started(), described(), ended(usage_source=UsageSource.ESTIMATED, usage=TokenUsage(input_tokens=7, output_tokens=3))
    )
    assert scrape.value(GATEWAY + "estimated_tokens_total", provider="anthropic", type="input") == 7
    assert scrape.value(GATEWAY + "estimated_tokens_total", provider="anthropic", type="output") == 3
    assert (
        scrape.value(
            GATEWAY + "tokens_total",
            provider="anthropic",
            model="claude-sonnet-4-0",
            type="input",
            initiator_id=USER,
            client="Claude Code",
        )
        == 7
    )


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_the_outcome_completed_is_the_status_completed(scrape, outcome):
    scrape.observe(started(), described(), ended(outcome=outcome))
    status = "completed" if outcome is Outcome.COMPLETED else "failed"
    assert [dict(labels)["status"] for labels in scrape.series(GATEWAY + "interceptions_total")] == [status]
    assert scrape.value(GATEWAY + "accounting_outcomes_total", provider="anthropic", outcome=outcome.value) == 1


def test_an_error_is_one_failed_series_with_its_class_and_code(scrape):
    scrape.observe(
        started(),
        described(),
        ended(
            outcome=Outcome.UPSTREAM_ERROR,
            status_code=529,
            error_type=ErrorType.OVERLOADED,
            usage_source=UsageSource.NONE,
            usage=TokenUsage(),
            first_output_seconds=None,
        ),
    )
    assert len(scrape.series(GATEWAY + "interceptions_total")) == 1
    assert scrape.value(PROXY + "mitm_responses_total", code="529", provider="anthropic") == 1
    assert scrape.value(GATEWAY + "interception_errors_total", provider="anthropic", error_type="overloaded") == 1
    assert scrape.series(GATEWAY + "time_to_first_output_seconds_count") == {}


def test_a_request_without_a_prompt_is_no_prompt(scrape):
    scrape.observe(started(), described(has_prompt=False), ended())
    assert scrape.total(GATEWAY + "prompts_total") == 0


def test_what_was_not_understood_is_counted_by_part(scrape):
    scrape.observe(started(), described(anomaly="not JSON"), ended(anomaly="cut event"))
    assert scrape.value(GATEWAY + "anomalies_total", provider="anthropic", part="request") == 1
    assert scrape.value(GATEWAY + "anomalies_total", provider="anthropic", part="response") == 1


def test_each_tool_call_counts(scrape):
    scrape.observe(started(), described())
    for position, tool in enumerate(["Bash", "Read", "Bash"]):
        scrape.observe(ToolCalled(at=101, interception_id="i1", tool=tool, position=position))
    of_model = {"provider": "anthropic", "model": "claude-sonnet-4-0"}
    assert scrape.value(GATEWAY + "non_injected_tool_selections_total", **of_model, name="Bash") == 2
    assert scrape.value(GATEWAY + "non_injected_tool_selections_total", **of_model, name="Read") == 1


def test_a_passthrough_counts_by_route_and_has_one_response(scrape):
    scrape.observe(PassthroughStarted(at=1, request_id="p1", provider="openai", method="GET", route="/v1/models"))
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="openai") == 1
    scrape.observe(PassthroughEnded(at=2, request_id="p1", provider="openai", status_code=404))
    assert scrape.value(GATEWAY + "passthrough_total", provider="openai", route="/v1/models", method="GET") == 1
    assert scrape.value(PROXY + "mitm_requests_total", provider="openai") == 1
    assert scrape.value(PROXY + "mitm_responses_total", code="404", provider="openai") == 1
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="openai") == 0
    assert scrape.total(GATEWAY + "interceptions_total") == 0


def test_any_word_may_be_a_method_but_not_a_label(scrape):
    scrape.observe(PassthroughStarted(at=1, request_id="p1", provider="openai", method="X" * 300, route="other"))
    assert scrape.value(GATEWAY + "passthrough_total", provider="openai", route="other", method="other") == 1


def decided(action, status_code=200, reason="provider", **changes):
    return ConnectDecided(at=1, action=action, reason=reason, status_code=status_code, host="h", port=443, **changes)


def test_a_decrypted_session_counts_once_it_stands(scrape):
    scrape.observe(decided(Action.DECRYPT, decide_seconds=0.002, dial_seconds=0.03))
    assert scrape.series(PROXY + "connect_sessions_total") == {(("type", "mitm"),): 1}
    assert scrape.total(PROXY + "connect_refused_total") == 0
    assert scrape.value(PROXY + "connect_decide_seconds_sum") == pytest.approx(0.002)
    assert scrape.value(PROXY + "upstream_connect_seconds_sum") == pytest.approx(0.03)


def test_a_decrypted_session_that_could_not_be_connected_is_refused(scrape):
    scrape.observe(decided(Action.DECRYPT, 502, "unreachable"))
    assert scrape.series(PROXY + "connect_sessions_total") == {}
    assert scrape.value(PROXY + "connect_refused_total", reason="unreachable") == 1


def test_a_tunnel_counts_at_the_verdict_whether_it_stands_or_not(scrape):
    scrape.observe(decided(Action.TUNNEL, reason="no_provider"), decided(Action.TUNNEL, 502, "unreachable"))
    assert scrape.series(PROXY + "connect_sessions_total") == {(("type", "tunneled"),): 2}
    assert scrape.series(PROXY + "connect_refused_total") == {(("reason", "unreachable"),): 1}


def test_a_refusal_counts_by_reason_only(scrape):
    scrape.observe(decided(Action.REFUSE, 407, "missing_credentials"), decided(Action.REFUSE, 403, "port"))
    assert scrape.series(PROXY + "connect_sessions_total") == {}
    assert scrape.series(PROXY + "connect_refused_total") == {
        (("reason", "missing_credentials"),): 1,
        (("reason", "port"),): 1,
    }
    assert scrape.value(PROXY + "upstream_connect_seconds_count") == 0


def test_a_tunnels_bytes_count_by_direction_when_it_ends(scrape):
    scrape.observe(
        TunnelClosed(at=9, host="h", port=443, reason="eof", bytes_to_upstream=10, bytes_to_client=2000, duration_seconds=8)
    )
    assert scrape.value(PROXY + "tunnel_bytes_total", direction="upstream") == 10
    assert scrape.value(PROXY + "tunnel_bytes_total", direction="client") == 2000
    assert scrape.value(PROXY + "tunnels_closed_total", reason="eof") == 1
    assert scrape.value(PROXY + "tunnel_duration_seconds_sum") == 8


def test_tls_failures_count_by_who_and_why(scrape):
    scrape.observe(
        ClientTlsFailed(at=1, host="api.openai.com", reason="unknown_ca", detail="tlsv1 alert"),
        UpstreamTlsFailed(at=1, host="api.openai.com", provider="openai", reason="expired"),
    )
    assert scrape.value(PROXY + "client_tls_failures_total", host="api.openai.com", reason="unknown_ca") == 1
    assert scrape.value(PROXY + "upstream_tls_failures_total", provider="openai", reason="expired") == 1


def test_hosts_of_failing_clients_are_bounded(scrape):
    """The attack: a client that asks for a thousand hosts below a wildcard of a provider."""
    for number in range(1000):
        scrape.observe(ClientTlsFailed(at=1, host=f"h{number}.example", reason="closed"))
    assert len(scrape.series(PROXY + "client_tls_failures_total")) == own.MAX_TLS_HOSTS + 1
    assert scrape.total(PROXY + "client_tls_failures_total") == 1000


def test_unknown_events_are_counted_by_kind_and_bounded(scrape):
    for number in range(1000):
        scrape.observe(UnknownEventsSeen(at=1, provider="openai", api="openai.responses", counts={f"event:{number}": 2}))
    series = scrape.series(GATEWAY + "unknown_events_total")
    assert len(series) == own.MAX_UNKNOWN_EVENTS + 1
    assert sum(series.values()) == 2000


def test_lost_records_are_counted(scrape):
    scrape.observe(RecordsLost(at=1, count=3))
    assert scrape.value(GATEWAY + "journal_lost_observations_total") == 3


def test_what_a_dead_worker_had_open_ends_as_interrupted(scrape):
    usage = TokenUsage(input_tokens=5, output_tokens=1)
    scrape.observe(
        started("told", at=100),
        described("told"),
        ResponseProgressed(at=107, interception_id="told", usage=usage),
        started("silent", at=105),
        PassthroughStarted(at=106, request_id="p1", provider="anthropic", method="GET", route="/v1/models"),
    )
    scrape.observe(started("elsewhere"), described("elsewhere"), worker="w2")
    scrape.sink.worker_lost("w1")

    assert scrape.value(GATEWAY + "accounting_outcomes_total", provider="anthropic", outcome="interrupted") == 2
    assert {dict(labels)["status"] for labels in scrape.series(GATEWAY + "interceptions_total")} == {"failed"}
    assert scrape.total(GATEWAY + "interceptions_total") == 2
    assert scrape.value(PROXY + "mitm_responses_total", code="0", provider="anthropic") == 3
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="anthropic") == 1
    assert scrape.total(GATEWAY + "interceptions_inflight") == 1
    assert scrape.value(GATEWAY + "usage_sources_total", provider="anthropic", source="reported") == 1
    assert scrape.value(GATEWAY + "usage_sources_total", provider="anthropic", source="none") == 1
    of_model = {"provider": "anthropic", "model": "claude-sonnet-4-0"}
    assert scrape.value(GATEWAY + "tokens_total", **of_model, type="input", initiator_id=USER, client="Claude Code") == 5
    assert scrape.value(GATEWAY + "interceptions_duration_seconds_sum", **of_model) == 6


def test_a_worker_is_lost_once(scrape):
    scrape.observe(started(), described())
    scrape.sink.worker_lost("w1")
    scrape.sink.worker_lost("w1")
    scrape.sink.worker_lost("never seen")
    assert scrape.total(GATEWAY + "interceptions_total") == 1


def test_an_id_that_begins_again_has_lost_what_it_had(scrape):
    scrape.observe(started(), described(), WorkerStarted(at=200, worker_id="w1", pid=1))
    assert scrape.value(PROXY + "inflight_mitm_requests", provider="anthropic") == 0
    assert scrape.value(GATEWAY + "accounting_outcomes_total", provider="anthropic", outcome="interrupted") == 1


def test_requests_whose_start_was_not_seen_change_no_sum(scrape):
    scrape.observe(
        described("gone"),
        ResponseProgressed(at=1, interception_id="gone"),
        ToolCalled(at=1, interception_id="gone", tool="Bash", position=0),
        ended("gone"),
        PassthroughEnded(at=1, request_id="gone", provider="openai", status_code=200),
    )
    assert scrape.value(GATEWAY + "orphaned_observations_total") == 5
    for name in ("interceptions_total", "tokens_total", "interceptions_inflight", "accounting_outcomes_total", "prompts_total"):
        assert scrape.total(GATEWAY + name) == 0
    assert scrape.total(PROXY + "mitm_responses_total") == 0
    assert scrape.total(PROXY + "inflight_mitm_requests") == 0


def test_what_is_said_twice_counts_once(scrape):
    passthrough = PassthroughStarted(at=1, request_id="p1", provider="openai", method="GET", route="/v1/models")
    scrape.observe(started(), started(), described(), described(), ended(), ended(), passthrough, passthrough)
    assert scrape.total(PROXY + "mitm_requests_total") == 2
    assert scrape.total(GATEWAY + "interceptions_total") == 1
    assert scrape.total(GATEWAY + "prompts_total") == 1


def test_an_end_without_a_description_has_the_model_unknown(scrape):
    scrape.observe(started(), ended(outcome=Outcome.CLIENT_ABORTED, status_code=499))
    assert [dict(labels)["model"] for labels in scrape.series(GATEWAY + "interceptions_total")] == ["unknown"]
    assert scrape.total(GATEWAY + "interceptions_inflight") == 0


def test_no_field_can_make_the_sink_raise(scrape):
    negative = TokenUsage(input_tokens=-5, extra={"": -1, "x\ny": 10**30})
    scrape.observe(
        started(provider="", client="\x00", principal_id="", method="", route="\n"),
        described(request_model="\ud800 lone"),
        ToolCalled(at=1, interception_id="i1", tool="", position=-1),
        ThoughtRecorded(at=1, interception_id="i1", position=0, source=ThoughtSource.THINKING, content="x"),
        ended(usage=negative, duration_seconds=float("nan"), status_code=-7, request_bytes=-1),
        TunnelClosed(at=1, host="", port=0, reason="", bytes_to_client=-1),
        RecordsLost(at=1, count=-1),
        UnknownEventsSeen(at=1, provider="", api="", counts={"": -1}),
        UpstreamTlsFailed(at=1, host="", provider="", reason="\ud800"),
    )
    generate_latest(scrape.registry)


def provider(name, status=ProviderStatus.ENABLED):
    return Provider(name=name, type="openai-compat", status=status)


@pytest.mark.parametrize("prefix", [GATEWAY, PROXY])
def test_providers_are_shown_with_their_status_and_vanish_when_they_are_gone(scrape, prefix):
    scrape.sink.set_providers(
        ProviderTable([provider("a"), provider("b", ProviderStatus.DISABLED), provider("c", ProviderStatus.ERROR)])
    )

    def shown():
        return {(dict(labels)["provider_name"], dict(labels)["status"]) for labels in scrape.series(prefix + "provider_info")}

    assert shown() == {("a", "enabled"), ("b", "disabled"), ("c", "error")}
    assert scrape.value(prefix + "provider_info", provider_name="a", provider_type="openai-compat", status="enabled") == 1
    scrape.sink.set_providers(ProviderTable([provider("a", ProviderStatus.DISABLED), provider("renamed")]))
    assert shown() == {("a", "disabled"), ("renamed", "enabled")}
    scrape.sink.set_providers(ProviderTable([]))
    assert shown() == set()


def test_an_entry_whose_host_another_claims_has_a_status_of_its_own_and_is_an_error_under_the_former_names():
    scrape = Scrape("coder_legacy")
    scrape.sink.set_providers(ProviderTable([provider("late", ProviderStatus.PROXY_EXCLUDED)]))
    labels = {"provider_name": "late", "provider_type": "openai-compat"}
    for prefix, status in ((PROXY, "proxy_excluded"), ("coder_aibridgeproxyd_", "error"), ("coder_aibridged_", "error")):
        assert scrape.value(prefix + "provider_info", **labels, status=status) == 1


@pytest.mark.parametrize("prefix", [GATEWAY, PROXY])
def test_the_gap_between_reloads_shows_a_failed_one(scrape, prefix):
    scrape.sink.reload_attempted(1000)
    scrape.sink.reload_succeeded(1001)
    scrape.sink.reload_attempted(2000)
    assert scrape.value(prefix + "providers_last_reload_timestamp_seconds") == 2000
    assert scrape.value(prefix + "providers_last_reload_success_timestamp_seconds") == 1001


def test_what_control_knows_of_itself_is_shown(scrape):
    scrape.sink.set_workers(2, 1)
    scrape.sink.set_workers(1, 3)
    scrape.sink.set_ca_expiry(3e9)
    scrape.sink.set_journal(4096, 1.5)
    scrape.sink.store_written(0.02, 100)
    scrape.sink.store_failed()
    assert scrape.value(PROXY + "workers") == 1
    assert scrape.value(PROXY + "worker_restarts_total") == 3
    assert scrape.value(PROXY + "ca_expiry_timestamp_seconds") == 3e9
    assert scrape.value(GATEWAY + "journal_bytes") == 4096
    assert scrape.value(GATEWAY + "journal_lag_seconds") == 1.5
    assert scrape.value(GATEWAY + "store_write_seconds_count") == 1
    assert scrape.value(GATEWAY + "stored_observations_total") == 100
    assert scrape.value(GATEWAY + "store_errors_total") == 1
    assert [dict(labels)["version"] for labels in scrape.series(GATEWAY + "build_info")] == [aiproxyd.__version__]


def test_two_sinks_with_two_registries_know_nothing_of_each_other(scrape):
    other = Scrape()
    scrape.observe(started(), described(), ended())
    assert other.total(PROXY + "mitm_requests_total") == 0


def test_a_hostile_stream_of_requests_stays_within_the_worst_case(scrape):
    """The attack: every request with another model, tool, client, method, user and status."""
    for n in range(12_000):
        scrape.observe(
            started(client=f"c{n % 60}", method=f"M{n}", principal_id=f"u{n % 90}"),
            described(request_model=f"m{n}"),
            ToolCalled(at=1, interception_id="i1", tool=f"t{n}", position=0),
            ended(status_code=n, usage=TokenUsage(extra={f"x{n}": 1})),
        )
    children = {metric.name: len({tuple(s.labels[name] for name in sorted(s.labels) if name != "le") for s in metric.samples})
                for metric in scrape.registry.collect()}  # fmt: skip
    for family in coder.FAMILIES + own.FAMILIES:
        assert children[family.name.removesuffix("_total")] <= max(1, family.max_children), family.name
    assert scrape.total(GATEWAY + "interceptions_total") == 12_000
    assert scrape.total(GATEWAY + "non_injected_tool_selections_total") == 12_000


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus package")
def test_promtool_has_nothing_to_say_about_our_own_names():
    registry = create_registry()
    sink = MetricsSink(registry)
    for observation in (
        started(),
        described(),
        ended(),
        decided(Action.DECRYPT),
        decided(Action.REFUSE, 403, "port"),
        TunnelClosed(at=1, host="h", port=1, reason="eof"),
        ClientTlsFailed(at=1, host="h", reason="closed"),
        UpstreamTlsFailed(at=1, host="h", provider="p", reason="closed"),
        PassthroughStarted(at=1, request_id="p", provider="p", method="GET", route="/"),
        UnknownEventsSeen(at=1, provider="p", api="", counts={"a": 1}),
    ):
        sink.observe("w", observation)
    sink.set_providers(ProviderTable([provider("a")]))
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
    )
    # 3 is its status for advice about style; names that are Coder's are not ours to change.
    complaints = [line for line in checked.stderr.decode().splitlines() if line.strip()]
    assert checked.returncode in {0, 3}, complaints
    coders = {family.name for family in coder.FAMILIES}
    assert [line for line in complaints if line.split()[0] not in coders] == []


class Life(RuleBasedStateMachine):
    """Any order of observations of two workers, with ends and deaths: the sums meet."""

    interceptions = Bundle("interceptions")
    passthroughs = Bundle("passthroughs")

    def __init__(self):
        super().__init__()
        self.scrape = Scrape()
        self.next_id = 0
        self.open = {"w1": set(), "w2": set()}
        self.requests = 0

    def _new(self, worker):
        self.next_id += 1
        self.requests += 1
        self.open[worker].add(self.next_id)
        return worker, str(self.next_id)

    @rule(target=interceptions, worker=st.sampled_from(["w1", "w2"]))
    def interception_starts(self, worker):
        worker, id_ = self._new(worker)
        self.scrape.observe(started(id_), worker=worker)
        return worker, id_

    @rule(target=passthroughs, worker=st.sampled_from(["w1", "w2"]))
    def passthrough_starts(self, worker):
        worker, id_ = self._new(worker)
        observation = PassthroughStarted(at=1, request_id=id_, provider="openai", method="GET", route="/v1/models")
        self.scrape.observe(observation, worker=worker)
        return worker, id_

    @rule(one=interceptions, model=st.sampled_from(["", "m", "n"]))
    def interception_is_described(self, one, model):
        self.scrape.observe(described(one[1], request_model=model), worker=one[0])

    @rule(one=interceptions)
    def tool_is_called(self, one):
        self.scrape.observe(ToolCalled(at=1, interception_id=one[1], tool="t", position=0), worker=one[0])

    @rule(one=consumes(interceptions), outcome=st.sampled_from(Outcome), status=st.sampled_from([0, 200, 429, 499]))
    def interception_ends(self, one, outcome, status):
        self.scrape.observe(ended(one[1], outcome=outcome, status_code=status), worker=one[0])
        self.open[one[0]].discard(int(one[1]))

    @rule(one=consumes(passthroughs), status=st.sampled_from([200, 404]))
    def passthrough_ends(self, one, status):
        self.scrape.observe(PassthroughEnded(at=1, request_id=one[1], provider="openai", status_code=status), worker=one[0])
        self.open[one[0]].discard(int(one[1]))

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def worker_dies(self, worker):
        self.scrape.sink.worker_lost(worker)
        self.open[worker].clear()

    @invariant()
    def the_sums_meet(self):
        in_flight = sum(map(len, self.open.values()))
        assert self.scrape.total(PROXY + "mitm_requests_total") == self.requests
        assert self.scrape.total(PROXY + "mitm_responses_total") == self.requests - in_flight
        assert self.scrape.total(PROXY + "inflight_mitm_requests") == in_flight
        assert self.scrape.total(GATEWAY + "interceptions_total") == self.scrape.total(GATEWAY + "accounting_outcomes_total")
        assert all(value >= 0 for value in self.scrape.series(GATEWAY + "interceptions_inflight").values())
        if not in_flight:
            assert self.scrape.total(GATEWAY + "interceptions_inflight") == 0


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
