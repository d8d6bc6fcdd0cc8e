import pytest

from aiproxyd.classify import ProviderStatus, find_endpoint
from aiproxyd.config.providers import BaseUrl, base_url_authorities, facts_of, parse_base_url, provider_table
from aiproxyd.config.schema import Config, ProviderType
from aiproxyd.model.authority import Authority


def _config(*providers: dict[str, object], **more: object) -> Config:
    return Config.model_validate({"providers": providers, **more})


def _claimant(config: Config, authority: str) -> str | None:
    host, _, port = authority.rpartition(":")
    provider = provider_table(config).claimant(Authority(host, int(port)))
    return provider.name if provider is not None else None


@pytest.mark.parametrize("kind", ProviderType)
def test_every_type_has_its_facts(kind: ProviderType) -> None:
    facts = facts_of(kind.value)
    assert facts.type == kind.value
    assert facts.endpoints


def test_the_defaults_claim_the_hosts_of_their_types() -> None:
    config = Config()
    assert all(provider.status is ProviderStatus.ENABLED for provider in provider_table(config).providers)
    assert _claimant(config, "api.anthropic.com:443") == "anthropic"
    assert _claimant(config, "api.openai.com:443") == "openai"
    assert _claimant(config, "chatgpt.com:443") == "chatgpt"
    assert _claimant(config, "api.business.githubcopilot.com:443") == "copilot"
    assert _claimant(config, "us-central1-aiplatform.googleapis.com:443") == "google"
    assert _claimant(config, "example.com:443") is None


def test_a_host_without_a_port_is_claimed_on_every_allowed_port() -> None:
    config = _config({"name": "a", "type": "anthropic"}, egress={"allowed_ports": [443, 8443]})
    assert _claimant(config, "api.anthropic.com:8443") == "a"
    assert _claimant(config, "api.anthropic.com:80") is None


@pytest.mark.parametrize(
    ("base_url", "host", "port", "path"),
    [
        ("https://api.example.com", "api.example.com", 443, ""),
        ("https://API.Example.com./", "api.example.com", 443, ""),
        ("http://localhost:11434/v1/", "localhost", 11434, "/v1"),
        ("http://localhost", "localhost", 80, ""),
        ("https://[::1]:8443/a/b", "::1", 8443, "/a/b"),
        ("https://10.0.0.1/a%20b", "10.0.0.1", 443, "/a%20b"),
    ],
)
def test_a_base_url_is_an_authority_and_a_path(base_url: str, host: str, port: int, path: str) -> None:
    assert parse_base_url(base_url) == BaseUrl(Authority(host, port), path)


@pytest.mark.parametrize(
    ("base_url", "sentence"),
    [
        ("", "does not begin with https:// or http://"),
        ("api.example.com", "does not begin with https:// or http://"),
        ("ftp://api.example.com", "does not begin with https:// or http://"),
        ("https://", "has no host"),
        ("https:///v1", "has no host"),
        ("https://:443", "has no usable host or port"),
        ("https://a:99999", "has no usable host or port"),
        ("https://a b", "has no usable host or port"),
        ("https://[::1", "is no URL"),
        ("https://me:hunter2@api.example.com", "holds credentials"),
        ("https://a/v1?key=1", "has a query or a fragment"),
        ("https://a/v1#x", "has a query or a fragment"),
        ("https://a/ü", "must be percent-encoded"),
    ],
)
def test_a_bad_base_url_is_an_error_with_a_sentence(base_url: str, sentence: str) -> None:
    config = _config({"name": "good", "type": "anthropic"}, {"name": "bad", "type": "openai", "base_url": base_url})
    good, bad = provider_table(config).providers
    assert bad.status is ProviderStatus.ERROR
    assert sentence in bad.reason
    assert "hunter2" not in bad.reason
    assert bad.authorities == ()
    assert good.status is ProviderStatus.ENABLED


def test_a_provider_without_any_host_is_an_error() -> None:
    (provider,) = provider_table(_config({"name": "a", "type": "openai-compat"})).providers
    assert provider.status is ProviderStatus.ERROR
    assert provider.reason == "it has no host: give it a base_url or hosts"


def test_a_base_url_takes_the_place_of_the_types_hosts() -> None:
    config = _config({"name": "a", "type": "openai", "base_url": "https://gateway.corp:8443/openai"})
    assert _claimant(config, "gateway.corp:8443") == "a"
    assert _claimant(config, "gateway.corp:443") is None
    assert _claimant(config, "api.openai.com:443") is None
    assert base_url_authorities(config) == {Authority("gateway.corp", 8443)}


def test_hosts_take_the_place_of_both() -> None:
    config = _config(
        {
            "name": "a",
            "type": "openai",
            "base_url": "https://gateway.corp:8443",
            "hosts": ["*.Corp.example", "[::1]:9443", "10.1.2.3", "one.example:444", "::"],
        }
    )
    assert provider_table(config).providers[0].status is ProviderStatus.ERROR
    config = _config(
        {
            "name": "a",
            "type": "openai",
            "base_url": "https://gateway.corp:8443",
            "hosts": ["*.Corp.example", "[::1]:9443", "10.1.2.3", "one.example:444"],
        }
    )
    for authority, claimed in (
        ("x.corp.example:443", True),
        ("x.corp.example:8443", True),
        ("x.y.corp.example:443", False),
        ("corp.example:443", False),
        ("::1:9443", True),
        ("::1:443", False),
        ("10.1.2.3:443", True),
        ("one.example:444", True),
        ("one.example:443", False),
        ("gateway.corp:8443", False),
    ):
        assert (_claimant(config, authority) == "a") is claimed, authority


@pytest.mark.parametrize("host", ["", "a b", "https://x", "x:0", "x:y", "ü.example", "*:99999", "a/b"])
def test_a_bad_host_is_an_error_and_the_good_ones_stay_claimed(host: str) -> None:
    (provider,) = provider_table(_config({"name": "a", "type": "openai", "hosts": ["good.example", host]})).providers
    assert provider.status is ProviderStatus.ERROR
    assert repr(host) in provider.reason
    assert ("good.example", 443) in provider.authorities


def test_the_first_claimant_by_name_has_the_host_and_the_second_is_excluded() -> None:
    config = _config(
        {"name": "zeta", "type": "openai", "base_url": "https://one.example"},
        {"name": "alpha", "type": "openai", "hosts": ["one.example", "two.example"]},
    )
    zeta, alpha = provider_table(config).providers
    assert (zeta.status, alpha.status) == (ProviderStatus.PROXY_EXCLUDED, ProviderStatus.ENABLED)
    assert zeta.reason == "one.example:443 already belongs to the provider 'alpha'"
    assert _claimant(config, "one.example:443") == "alpha"


def test_an_excluded_provider_gives_its_other_hosts_to_nobody() -> None:
    config = _config(
        {"name": "alpha", "type": "openai", "hosts": ["one.example"]},
        {"name": "beta", "type": "openai", "hosts": ["one.example", "two.example"]},
        {"name": "gamma", "type": "openai", "hosts": ["two.example"]},
    )
    assert [provider.status.value for provider in provider_table(config).providers] == ["enabled", "proxy_excluded", "enabled"]
    assert _claimant(config, "two.example:443") == "gamma"


def test_a_disabled_provider_keeps_only_what_no_enabled_one_serves() -> None:
    config = _config(
        {"name": "alpha", "type": "openai", "hosts": ["one.example", "two.example"], "enabled": False},
        {"name": "beta", "type": "openai", "hosts": ["one.example"]},
    )
    alpha, beta = provider_table(config).providers
    assert (alpha.status, alpha.reason) == (ProviderStatus.DISABLED, "enabled is false")
    assert beta.status is ProviderStatus.ENABLED
    assert _claimant(config, "one.example:443") == "beta"
    assert _claimant(config, "two.example:443") == "alpha"


@pytest.mark.parametrize(
    ("kind", "base_url", "prefix", "path", "api"),
    [
        ("openai", "https://api.openai.com/v1/", "", "/v1/chat/completions", "openai.chat_completions"),
        ("openai", "https://gateway.corp/openai", "/openai", "/openai/v1/responses", "openai.responses"),
        ("openai-compat", "https://openrouter.ai/api/v1", "/api", "/api/v1/chat/completions", "openai.chat_completions"),
        (
            "openai-compat",
            "https://api.z.ai/api/paas/v4",
            "/api/paas/v4",
            "/api/paas/v4/chat/completions",
            "openai.chat_completions",
        ),
        ("openai-compat", "https://api.deepseek.com", "", "/chat/completions", "openai.chat_completions"),
        ("chatgpt", "https://chatgpt.com/backend-api/codex", "", "/backend-api/codex/responses", "openai.responses"),
        ("anthropic", "https://gateway.corp/anthropic", "/anthropic", "/anthropic/v1/messages", "anthropic.messages"),
        ("anthropic", "https://gateway.corp/anthropic/v1", "/anthropic", "/anthropic/v1/messages", "anthropic.messages"),
    ],
)
def test_routes_stand_below_the_base_url_however_it_is_written(
    kind: str, base_url: str, prefix: str, path: str, api: str
) -> None:
    (provider,) = provider_table(_config({"name": "a", "type": kind, "base_url": base_url})).providers
    assert provider.path_prefix == prefix
    assert find_endpoint(provider, "POST", path).api == api


def test_base_urls_that_cannot_be_used_exempt_nothing() -> None:
    config = _config(
        {"name": "a", "type": "openai", "base_url": "http://10.0.0.1:11434/v1"},
        {"name": "b", "type": "openai", "base_url": "https://"},
        {"name": "c", "type": "openai"},
    )
    assert base_url_authorities(config) == {Authority("10.0.0.1", 11434)}
