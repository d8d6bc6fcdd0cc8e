import pytest
from prometheus_client import CollectorRegistry

from aiproxyd.model.observation import InterceptionStarted
from aiproxyd.telemetry.coder import CoderMetrics, Limits
from aiproxyd.telemetry.own import OwnMetrics
from aiproxyd.telemetry.series import Places, SeriesTable, code_label, method_label

LIMITS = Limits(
    endpoints=2,
    models=5,
    combinations=12,
    combinations_of_a_user=4,
    tool_combinations=8,
    tool_combinations_of_a_user=3,
)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def table(registry):
    return SeriesTable(CoderMetrics(registry), OwnMetrics(registry), LIMITS)


def started(user="u1", *, client="Codex", method="POST", route="/v1/messages"):
    return InterceptionStarted(
        at=0,
        interception_id="i",
        provider="anthropic",
        provider_type="anthropic",
        api="anthropic.messages",
        method=method,
        route=route,
        host="api.anthropic.com",
        principal_id=user,
        principal_name=user,
        client=client,
    )


@pytest.mark.parametrize(
    ("status_code", "label"),
    [(200, "200"), (499, "499"), (529, "529"), (599, "599"), (0, "0"), (600, "other"), (99, "other"), (-1, "other")],
)
def test_the_code_label_is_a_status_or_other(status_code, label):
    assert code_label(status_code) == label


def test_the_method_label_is_a_known_method_or_other():
    assert [method_label(method) for method in ("GET", "PURGE", "get", "")] == ["GET", "other", "other", "other"]


def test_the_same_labels_give_the_same_series(table):
    assert table.combination(started(), "m") is table.combination(started(), "m")
    assert table.combination(started(), "m") is not table.combination(started("u2"), "m")


def test_no_model_is_unknown(table):
    assert table.combination(started(), "").combination.model == "unknown"


def test_a_user_beyond_his_share_keeps_his_own_series_and_costs_nobody_elses(table):
    """The attack: one user sends a thousand invented model names."""
    labels = [table.combination(started("attacker"), f"invented-{n}").combination for n in range(1000)]
    assert {one.model for one in labels[:4]} == {f"invented-{n}" for n in range(4)}
    assert {(one.model, one.initiator, one.client) for one in labels[4:]} == {("other", "attacker", "other")}
    assert table.combination(started("u2"), "claude").combination[3:] == ("claude", "u2", "Codex")


def test_a_user_beyond_his_share_is_still_counted_by_what_he_had(table):
    first = table.combination(started("attacker"), "m")
    for n in range(100):
        table.combination(started("attacker"), f"invented-{n}")
    assert table.combination(started("attacker"), "m") is first


def test_beyond_the_limit_for_all_one_series_an_endpoint_is_left(table):
    seen = {table.combination(started(f"u{n}"), "m").combination for n in range(1000)}
    assert len(seen) <= LIMITS.combinations
    assert table.combination(started("late"), "m").combination[3:] == ("other", "other", "other")


def test_whatever_comes_the_number_of_combinations_stays_within_the_limit(table):
    seen = {
        table.combination(
            started(f"u{n % 37}", client=f"c{n % 5}", method=f"M{n % 7}", route=f"/{n % 2}"), f"m{n % 11}"
        ).combination
        for n in range(5000)
    }
    assert len(seen) <= LIMITS.combinations


def test_models_have_a_limit_of_their_own(table):
    models = {table.combination(started(f"u{n // 2}"), f"m{n}").combination.model for n in range(8)}
    assert models == {"m0", "m1", "m2", "m3", "m4", "other"}


def test_a_tools_name_is_a_label_until_its_users_share_is_used_up(table, registry):
    attacker = table.combination(started("attacker"), "m")
    other = table.combination(started("u2"), "m")
    for n in range(100):
        table.tool(attacker, f"tool-{n}").inc()
    table.tool(other, "Bash").inc()
    table.tool(other, "Bash").inc()

    def count(model, name):
        labels = {"provider": "anthropic", "model": model, "name": name}
        return registry.get_sample_value("coder_ai_gateway_non_injected_tool_selections_total", labels)

    assert [count("m", f"tool-{n}") for n in range(4)] == [1, 1, 1, None]
    assert count("other", "other") == 97
    assert count("m", "Bash") == 2


def test_a_hostile_tool_name_is_other_of_its_model(table, registry):
    table.tool(table.combination(started(), "m"), "a\nb").inc()
    labels = {"provider": "anthropic", "model": "m", "name": "other"}
    assert registry.get_sample_value("coder_ai_gateway_non_injected_tool_selections_total", labels) == 1


def test_token_types_of_a_combination_are_limited(table, registry):
    series = table.combination(started(), "m")
    for n in range(100):
        series.tokens(f"type-{n}").inc(2)
        series.tokens(f"type-{n}").inc(0)
    family = next(metric for metric in registry.collect() if metric.name == "coder_ai_gateway_tokens")
    assert len(family.samples) == 16
    assert sum(sample.value for sample in family.samples) == 200


def test_a_series_exists_only_after_it_counted(table, registry):
    table.combination(started(), "m").failed.inc()
    family = next(metric for metric in registry.collect() if metric.name == "coder_ai_gateway_interceptions")
    assert [sample.labels["status"] for sample in family.samples] == ["failed"]


def test_places_are_given_up_to_both_limits():
    places = Places(3)
    assert [places.take(user, 2) for user in ("a", "a", "a", "b", "b")] == [True, True, False, True, False]
