"""Who claims an authority, and which endpoint a request names."""

import pytest

from aiproxyd.classify import Provider, ProviderStatus, ProviderTable, find_endpoint
from aiproxyd.model.authority import Authority
from aiproxyd.model.endpoint import PASSTHROUGH, Endpoint

MESSAGES = Endpoint("/v1/messages", api="anthropic.messages")
MODELS = Endpoint("/v1/models", methods=("GET",))
MODEL = Endpoint("/v1/models/{}", methods=("GET",))
EVENTS = Endpoint("/api/event_logging/*", methods=("*",))
ANTHROPIC = Provider(
    "anthropic", "anthropic", authorities=(("api.anthropic.com", 443),), endpoints=(MESSAGES, MODELS, MODEL, EVENTS)
)


def test_the_first_claimant_by_name_wins_whatever_the_order_of_the_file():
    b, a = (Provider(name, "openai", authorities=(("h", 443),)) for name in "ba")
    assert ProviderTable([b, a]).claimant(Authority("h", 443)) is a


def test_an_excluded_claimant_claims_nothing():
    excluded = Provider("a", "openai", authorities=(("h", 443),), status=ProviderStatus.PROXY_EXCLUDED)
    other = Provider("b", "openai", authorities=(("h", 443),))
    assert ProviderTable([excluded, other]).claimant(Authority("h", 443)) is other
    assert ProviderTable([excluded]).claimant(Authority("h", 443)) is None


def test_another_port_is_another_authority():
    table = ProviderTable([ANTHROPIC])
    assert table.claimant(Authority("api.anthropic.com", 443)) is ANTHROPIC
    assert table.claimant(Authority("api.anthropic.com", 8443)) is None
    assert table.claimant(Authority("evil-api.anthropic.com", 443)) is None


@pytest.mark.parametrize(
    ("host", "claimed"),
    [
        ("bedrock-runtime.us-east-1.amazonaws.com", True),
        ("bedrock-runtime..amazonaws.com", False),
        ("bedrock-runtime.us.east.amazonaws.com", False),  # a star is one label
        ("bedrock-runtime.us-east-1.amazonaws.com.evil.example", False),
        ("bedrock-runtimexus-east-1.amazonaws.com", False),  # a dot is a dot
    ],
)
def test_a_star_stands_for_one_label(host, claimed):
    bedrock = Provider("bedrock", "bedrock", authorities=(("bedrock-runtime.*.amazonaws.com", 443),))
    assert (ProviderTable([bedrock]).claimant(Authority(host, 443)) is bedrock) == claimed


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/v1/messages", MESSAGES),
        ("POST", "/v1/messages/", MESSAGES),
        ("GET", "/v1/messages", PASSTHROUGH),
        ("POST", "/v1/messages/count_tokens", PASSTHROUGH),
        ("POST", "/V1/messages", PASSTHROUGH),
        # Spellings that servers read as the same path must not escape the record.
        ("POST", "/v1/mess%61ges", MESSAGES),
        ("POST", "//v1//messages", MESSAGES),
        ("POST", "/v1/./messages/.", MESSAGES),
        ("POST", "/v1/x/../messages", MESSAGES),
        ("POST", "/v1/x/y/../../messages", MESSAGES),
        ("POST", "/a/b/%2e%2E/../v1/messages", MESSAGES),
        ("POST", "/v1%2Fmessages", PASSTHROUGH),
        ("POST", "/v1/messages%", PASSTHROUGH),
        ("GET", "/v1/models/a%2Fb", MODEL),
        ("GET", "/v1/models", MODELS),
        ("GET", "/v1/models/claude", MODEL),
        ("GET", "/v1/models/a/b", PASSTHROUGH),
        ("POST", "/api/event_logging/v2/batch", EVENTS),
        ("GET", "/", PASSTHROUGH),
    ],
)
def test_a_request_names_an_endpoint(method, path, endpoint):
    assert find_endpoint(ANTHROPIC, method, path) == endpoint


def test_a_path_prefix_stands_before_every_route():
    provider = Provider("p", "openai-compat", path_prefix="/api/v1", endpoints=(Endpoint("/chat/completions", api="x"),))
    assert find_endpoint(provider, "POST", "/api/v1/chat/completions").api == "x"
    assert find_endpoint(provider, "POST", "/chat/completions") is PASSTHROUGH
    assert find_endpoint(provider, "POST", "/api/v1x/chat/completions") is PASSTHROUGH


def test_a_provider_is_found_by_name():
    table = ProviderTable([ANTHROPIC])
    assert table.by_name("anthropic") is ANTHROPIC
    assert table.by_name("other") is None


@pytest.mark.parametrize(
    ("authorities", "hosts"),
    [
        ((("a.example", 443), ("a.example", 80)), ("a.example",)),
        ((("a.example", 443), ("a.example", 80), ("a.example", 8443)), ("a.example", "a.example:8443")),
        ((("a.example", 443),), ("a.example",)),
        ((("a.example", 80),), ("a.example:80",)),
        ((("a.example", 443), ("a.example", 8443)), ("a.example", "a.example:8443")),
        ((("*.b.example", 443), ("::1", 8443), ("*.b.example", 80)), ("*.b.example", "[::1]:8443")),
    ],
)
def test_a_host_is_named_once_for_the_ports_it_is_claimed_on_anyway(authorities, hosts):
    assert Provider(name="p", type="openai", authorities=authorities).hosts((443, 80)) == hosts
