"""Names behind users' ids, for dashboards; part of aiproxyd/telemetry/metrics.py."""

from tests.unit.telemetry.observed import USER, Scrape, described, started

NAME = "coder_ai_gateway_user_info"


def test_a_user_is_shown_with_the_name_of_the_moment() -> None:
    scrape = Scrape().observe(started(), described())
    assert scrape.labels(NAME) == [{"initiator_id": USER, "name": "ada"}]
    scrape.observe(
        started(interception_id="i2", principal_name="countess"), described(interception_id="i2"), started(interception_id="i3")
    )
    assert scrape.labels(NAME) == [{"initiator_id": USER, "name": "countess"}]
    assert scrape.value(NAME) == 1


def test_whoever_has_no_label_of_their_own_has_no_name_either() -> None:
    assert Scrape(per_user=False).observe(started(), described()).labels(NAME) == [{"initiator_id": "all", "name": "all"}]
    long = Scrape().observe(started(principal_name="n" * 500), described())
    assert long.labels(NAME) == [{"initiator_id": USER, "name": "other"}]
