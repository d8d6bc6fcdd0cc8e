"""Failed handshakes, keys and breakers are said once a minute, with the remedy."""

import pytest
from structlog.testing import capture_logs

from aiproxyd.model.observation import (
    BreakerChanged,
    ClientTlsFailed,
    ConnectDecided,
    KeyPoolExhausted,
    KeyStateChanged,
    RecordsLost,
    UpstreamTlsFailed,
)
from aiproxyd.model.verdict import Action
from aiproxyd.telemetry.troubles import MAX_KNOWN, TroubleLog


def client(at=0.0, host="api.anthropic.com", reason="unknown_ca"):
    return ClientTlsFailed(at=at, host=host, reason=reason)


def heard(*observations):
    troubles = TroubleLog()
    with capture_logs() as lines:
        for observation in observations:
            troubles.observe("w", observation)
        troubles.worker_lost("w")
    return lines


def test_a_client_that_does_not_trust_us_is_told_how_to():
    (line,) = heard(client())
    assert line["log_level"] == "warning"
    assert line["host"] == "api.anthropic.com"
    assert line["reason"] == "unknown_ca"
    assert "aiproxyd env" in line["remedy"]


def test_a_provider_that_we_do_not_trust_is_told_how_to():
    (line,) = heard(UpstreamTlsFailed(at=0.0, host="h", provider="p", reason="untrusted", detail="self-signed"))
    assert "egress.trusted_ca_file" in line["remedy"]
    assert line["detail"] == "self-signed"


@pytest.mark.parametrize(
    "observation",
    [client(reason="timeout"), UpstreamTlsFailed(at=0.0, host="h", provider="p", reason="expired")],
)
def test_what_no_setting_helps_against_has_no_remedy(observation):
    (line,) = heard(observation)
    assert "remedy" not in line


def decided(reason, status_code=502, action=Action.DECRYPT):
    provider = "p" if action is Action.DECRYPT else ""
    return ConnectDecided(at=0.0, action=action, reason=reason, status_code=status_code, host="h", port=443, provider=provider)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("address", "egress.allowed_private_cidrs"),
        ("dial_resolve", "egress.hosts"),
        ("dial_refused", "docs/troubleshooting.md"),
        ("dial_upstream_proxy_tls", "docs/troubleshooting.md"),
    ],
)
def test_a_provider_that_cannot_be_reached_is_said_once_with_what_to_do(reason, remedy):
    (line,) = heard(decided(reason), decided(reason))
    assert (line["log_level"], line["host"], line["provider"], line["reason"]) == ("warning", "h", "p", reason)
    assert remedy in line["remedy"]


def test_a_connect_that_is_answered_as_it_should_be_is_no_trouble():
    unknown = decided("dial_resolve", action=Action.TUNNEL)  # tools call home to hosts that a closed network does not know
    assert not heard(decided("provider", 200), decided("port", 403, Action.REFUSE), decided("revocation", 503), unknown)


def test_the_same_trouble_is_said_once_a_minute_with_how_often_it_was_met():
    lines = heard(*(client(at=float(second)) for second in range(0, 121, 10)))
    assert [line["again"] for line in lines] == [0, 5, 5]


def test_different_troubles_are_said_apart():
    assert len(heard(client(), client(host="other"), client(reason="closed"))) == 3


def test_what_is_kept_in_mind_is_bounded():
    troubles = TroubleLog()
    with capture_logs():
        for number in range(MAX_KNOWN + 10):
            troubles.observe("w", client(host=str(number)))
    assert len(troubles._known) == MAX_KNOWN


def test_everything_else_is_none_of_its_business():
    assert heard(RecordsLost(at=0.0, count=1)) == []


def test_a_key_that_is_not_accepted_is_named_by_its_hint():
    changed = KeyStateChanged(at=0.0, provider="p", state="permanent", reason="unauthorized", credential_hint="sk-a...efgh")
    (line,) = heard(changed, changed)
    assert (line["provider"], line["key"], line["reason"]) == ("p", "sk-a...efgh", "unauthorized")
    assert "loaded again" in line["remedy"]
    assert not heard(KeyStateChanged(at=0.0, provider="p", state="temporary", reason="rate_limited")), "that is its business"


def test_a_pool_without_a_key_is_said_with_what_helps():
    limited, refused = (KeyPoolExhausted(at=0.0, provider="p", outcome=outcome) for outcome in ("rate_limited", "auth_failed"))
    assert ["add a key" in line["remedy"] for line in heard(limited, refused)] == [True, False]


def test_a_breaker_is_said_when_it_opens():
    states = [BreakerChanged(at=0.0, provider="p", endpoint="/e", model="m", state=s) for s in ("open", "half_open", "closed")]
    (line,) = heard(*states)
    assert (line["provider"], line["endpoint"], line["model"]) == ("p", "/e", "m")
