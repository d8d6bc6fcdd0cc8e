"""The verdict on a CONNECT."""

import pytest

from aiproxyd.classify import Provider, ProviderStatus, ProviderTable
from aiproxyd.model.authority import Authority
from aiproxyd.model.principal import ANONYMOUS
from aiproxyd.model.verdict import Action
from aiproxyd.policy import decide, needs_credentials

AUTHORITY = Authority("api.anthropic.com", 443)


def table(status=ProviderStatus.ENABLED, when_disabled="refuse"):
    return ProviderTable(
        [Provider("p", "anthropic", authorities=(AUTHORITY,), status=status, when_disabled=when_disabled)],
    )


def verdict(authority=AUTHORITY, providers=None, ports=(443, 80)):
    return decide(authority, principal=ANONYMOUS, providers=providers or table(), allowed_ports=ports)


def test_an_enabled_provider_is_decrypted():
    answer = verdict()
    assert (answer.action, answer.reason, answer.provider, answer.principal) == (Action.DECRYPT, "provider", "p", ANONYMOUS)


def test_everything_else_is_tunneled():
    assert verdict(Authority("example.com", 443)).action is Action.TUNNEL


def test_a_port_that_is_not_allowed_is_refused_with_what_is():
    answer = verdict(Authority("example.com", 25))
    assert (answer.action, answer.status_code, answer.reason) == (Action.REFUSE, 403, "port")
    assert "port 25" in answer.message
    assert "80, 443" in answer.message


def test_a_providers_own_port_is_always_allowed():
    assert verdict(ports=()).action is Action.DECRYPT


@pytest.mark.parametrize("status", [ProviderStatus.DISABLED, ProviderStatus.ERROR])
def test_a_provider_that_is_not_in_use_is_refused_or_tunneled_as_it_says(status):
    refused = verdict(providers=table(status))
    assert (refused.action, refused.status_code, refused.reason) == (Action.REFUSE, 403, f"provider_{status}")
    assert "'p'" in refused.message
    assert verdict(providers=table(status, "tunnel")).action is Action.TUNNEL


@pytest.mark.parametrize(
    ("mode", "host", "needed"),
    [
        ("required", "example.com", True),
        ("required", "api.anthropic.com", True),
        ("decrypted", "example.com", False),
        ("decrypted", "api.anthropic.com", True),
        ("off", "api.anthropic.com", False),
    ],
)
def test_credentials_are_asked_for_by_mode(mode, host, needed):
    assert needs_credentials(Authority(host, 443), auth_mode=mode, providers=table()) == needed
