"""The provider facts that come with the package, and what a faulty file gets."""

import datetime as dt
import pathlib

import pytest

import aiproxyd.providers
from aiproxyd.classify import Provider, ProviderTable, find_endpoint
from aiproxyd.model.authority import Authority
from aiproxyd.providers.facts import ProviderFacts, parse_facts

FILES = sorted((pathlib.Path(aiproxyd.providers.__file__).parent / "data").glob("*.yaml"))
FACTS = {path.stem: parse_facts(path.read_text("utf-8")) for path in FILES}


def route(type_: str, method: str, path: str, prefix: str = "") -> tuple[str, str]:
    endpoint = find_endpoint(Provider(type_, type_, path_prefix=prefix, endpoints=FACTS[type_].endpoints), method, path)
    return endpoint.route, endpoint.api


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_every_file_says_where_it_is_from_and_when_it_was_checked(facts: ProviderFacts) -> None:
    assert FACTS[facts.type] is facts
    assert facts.source
    assert all(address.startswith("https://") for address in facts.source)
    assert facts.checked >= dt.date(2026, 11, 21)
    assert len(set(facts.hosts)) == len(facts.hosts)
    assert all(host == host.lower() and "/" not in host for host in facts.hosts)
    routes = [(endpoint.route, method) for endpoint in facts.endpoints for method in endpoint.methods]
    assert len(set(routes)) == len(routes)


def test_every_host_belongs_to_one_type() -> None:
    claimed = [host for facts in FACTS.values() for host in facts.hosts]
    assert len(set(claimed)) == len(claimed)


@pytest.mark.parametrize(
    ("type_", "method", "path", "takes_key"),
    [
        ("anthropic", "POST", "/v1/messages", True),
        ("anthropic", "POST", "/v1/messages/count_tokens", True),
        ("anthropic", "GET", "/v1/models", True),
        ("anthropic", "GET", "/v1/files", False),
        ("anthropic", "DELETE", "/v1/files/file_1", False),
        ("anthropic", "GET", "/v1/organizations/users", False),
        ("anthropic", "GET", "/v1/messages/batches", False),
        ("openai", "POST", "/v1/responses", True),
        ("openai", "POST", "/v1/responses/compact", True),
        ("openai", "GET", "/v1/responses/resp_1", True),
        ("openai", "TRACE", "/v1/responses/resp_1", False),
        ("openai", "GET", "/v1/realtime", True),
        ("openai", "GET", "/v1/chat/completions", False),
        ("openai", "GET", "/v1/organization/admin_api_keys", False),
        ("openai", "DELETE", "/v1/vector_stores/vs_1", False),
        ("azure", "GET", "/openai/v1/models", True),
        ("azure", "GET", "/openai/v1/files", False),
        ("bedrock", "POST", "/model/m/converse", True),
        ("bedrock", "GET", "/async-invoke", False),
        ("google", "GET", "/v1beta/files", False),
        ("google", "GET", "/v1beta/openai/models", True),
        ("mistral", "GET", "/v1/models/m", True),
        ("mistral", "DELETE", "/v1/models/m", False),
        ("openrouter", "POST", "/api/v1/keys", False),
        ("openrouter", "GET", "/api/v1/credits", False),
        ("deepseek", "GET", "/user/balance", False),
    ],
)
def test_an_operator_s_key_goes_where_models_are_asked_and_not_to_the_account(
    type_: str, method: str, path: str, takes_key: bool
) -> None:
    provider = Provider(type_, type_, endpoints=FACTS[type_].endpoints)
    assert find_endpoint(provider, method, path).takes_key is takes_key


@pytest.mark.parametrize(
    ("type_", "method", "path", "expected"),
    [
        ("anthropic", "POST", "/v1/messages", ("/v1/messages", "anthropic.messages")),
        ("anthropic", "POST", "/v1/messages/", ("/v1/messages", "anthropic.messages")),
        ("anthropic", "GET", "/v1/messages", ("other", "")),
        ("anthropic", "POST", "/v1/messages/count_tokens", ("/v1/messages/count_tokens", "")),
        ("anthropic", "POST", "/v1/messages/batches", ("/v1/messages/batches", "")),
        ("anthropic", "GET", "/v1/models", ("/v1/models", "")),
        ("anthropic", "GET", "/v1/models/claude-x", ("/v1/models/{}", "")),
        ("anthropic", "POST", "/api/event_logging/v2/batch", ("/api/event_logging/*", "")),
        ("anthropic", "GET", "/api/claude_code/settings", ("/api/claude_code/*", "")),
        ("anthropic", "GET", "/robots.txt", ("other", "")),
        ("openai", "POST", "/v1/chat/completions", ("/v1/chat/completions", "openai.chat_completions")),
        ("openai", "GET", "/v1/chat/completions", ("/v1/chat/completions", "")),
        ("openai", "POST", "/v1/responses", ("/v1/responses", "openai.responses")),
        ("openai", "GET", "/v1/responses", ("/v1/responses", "")),
        ("openai", "GET", "/v1/responses/resp_1", ("/v1/responses/*", "")),
        ("openai", "POST", "/v1/embeddings", ("/v1/embeddings", "openai.embeddings")),
        ("openai", "POST", "/v1/completions", ("/v1/completions", "openai.completions")),
        ("openai", "POST", "/v1/images/edits", ("/v1/images/edits", "openai.images")),
        ("openai", "POST", "/v1/audio/translations", ("/v1/audio/translations", "openai.transcriptions")),
        ("openai", "POST", "/v1/audio/speech", ("/v1/audio/speech", "openai.speech")),
        ("openai", "POST", "/v1/moderations", ("/v1/moderations", "")),
        ("openai", "GET", "/v1/models", ("/v1/models", "")),
        ("openai", "GET", "/v1/conversations/c/items", ("/v1/conversations/*", "")),
        ("chatgpt", "POST", "/backend-api/codex/responses", ("/backend-api/codex/responses", "openai.responses")),
        ("chatgpt", "GET", "/backend-api/codex/models", ("/backend-api/codex/models", "")),
        ("copilot", "POST", "/chat/completions", ("/chat/completions", "openai.chat_completions")),
        ("copilot", "POST", "/responses", ("/responses", "openai.responses")),
        ("copilot", "POST", "/v1/messages", ("/v1/messages", "anthropic.messages")),
        ("copilot", "GET", "/models", ("/models", "")),
        ("copilot", "POST", "/mcp/readonly", ("/mcp/*", "")),
        ("google", "POST", "/v1beta/models/g:countTokens", ("/v1beta/models/{}:countTokens", "")),
        (
            "google",
            "POST",
            "/v1beta/models/g:streamGenerateContent",
            ("/v1beta/models/{}:streamGenerateContent", "google.generate_content"),
        ),
        (
            "google",
            "POST",
            "/v1beta1/projects/p/locations/l/publishers/google/models/g:generateContent",
            ("/v1beta1/projects/{}/locations/{}/publishers/{}/models/{}:generateContent", "google.generate_content"),
        ),
        (
            "google",
            "POST",
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict",
            ("/v1/projects/{}/locations/{}/publishers/anthropic/models/{}:streamRawPredict", "anthropic.messages"),
        ),
        (
            "google",
            "POST",
            "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            ("/v1/projects/{}/locations/{}/publishers/anthropic/models/count-tokens:rawPredict", ""),
        ),
        ("google", "POST", "/v1beta/interactions", ("/v1beta/interactions", "google.interactions")),
        ("google", "GET", "/v1beta/interactions/v1_1", ("/v1beta/interactions/*", "")),
        ("google", "POST", "/v1internal:generateContent", ("/v1internal:generateContent", "google.generate_content")),
        ("google", "POST", "/v1internal:loadCodeAssist", ("/v1internal:{}", "")),
        ("google", "POST", "/v1beta/openai/chat/completions", ("/v1beta/openai/chat/completions", "openai.chat_completions")),
        (
            "google",
            "POST",
            "/v1beta/models/g:batchEmbedContents",
            ("/v1beta/models/{}:batchEmbedContents", "google.embed_content"),
        ),
        ("bedrock", "POST", "/model/a.b-v1%3A0/invoke", ("/model/{}/invoke", "bedrock.invoke_model")),
        ("bedrock", "POST", "/model/a.b-v1:0/converse-stream", ("/model/{}/converse-stream", "bedrock.converse")),
        ("bedrock", "POST", "/model/a/b/converse", ("other", "")),
        ("bedrock", "POST", "/openai/v1/responses", ("/openai/v1/responses", "openai.responses")),
        ("bedrock", "POST", "/anthropic/v1/messages", ("/anthropic/v1/messages", "anthropic.messages")),
        (
            "azure",
            "POST",
            "/openai/deployments/my-gpt/chat/completions",
            ("/openai/deployments/{}/chat/completions", "openai.chat_completions"),
        ),
        ("azure", "POST", "/openai/v1/responses", ("/openai/v1/responses", "openai.responses")),
        ("azure", "POST", "/openai/deployments/d/extensions/chat/completions", ("/openai/deployments/{}/*", "")),
        ("azure", "POST", "/anthropic/v1/messages", ("/anthropic/v1/messages", "anthropic.messages")),
        ("openrouter", "POST", "/api/v1/chat/completions", ("/api/v1/chat/completions", "openai.chat_completions")),
        ("vercel", "POST", "/v1/messages", ("/v1/messages", "anthropic.messages")),
        ("mistral", "POST", "/v1/fim/completions", ("/v1/fim/completions", "openai.completions")),
        ("groq", "POST", "/openai/v1/audio/transcriptions", ("/openai/v1/audio/transcriptions", "openai.transcriptions")),
        ("deepseek", "POST", "/beta/completions", ("/beta/completions", "openai.completions")),
        ("xai", "POST", "/v1/responses", ("/v1/responses", "openai.responses")),
        ("together", "POST", "/v1/images/generations", ("/v1/images/generations", "openai.images")),
        ("perplexity", "POST", "/v1/sonar", ("/v1/sonar", "openai.chat_completions")),
        ("cohere", "POST", "/v2/chat", ("/v2/chat", "cohere.chat")),
        ("cohere", "POST", "/compatibility/v1/embeddings", ("/compatibility/v1/embeddings", "openai.embeddings")),
        ("copilot", "POST", "/v1/engines/gpt-41-copilot/completions", ("/v1/engines/{}/completions", "openai.completions")),
        ("openai-compat", "POST", "/v1/chat/completions", ("/v1/chat/completions", "openai.chat_completions")),
    ],
)
def test_requests_find_their_endpoint(type_: str, method: str, path: str, expected: tuple[str, str]) -> None:
    assert route(type_, method, path) == expected


@pytest.mark.parametrize(
    ("type_", "host"),
    [
        ("bedrock", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("bedrock", "bedrock-runtime-fips.us-gov-west-1.amazonaws.com"),
        ("bedrock", "bedrock-mantle.eu-west-1.api.aws"),
        ("bedrock", "vpce-0a1b2c3d-xyz.bedrock-runtime.us-east-1.vpce.amazonaws.com"),
        ("azure", "acme.openai.azure.com"),
        ("azure", "acme-foundry.services.ai.azure.com"),
        ("google", "europe-west4-aiplatform.googleapis.com"),
        ("google", "daily-cloudcode-pa.googleapis.com"),
        ("openai", "eu.api.openai.com"),
        ("xai", "us-east-1.api.x.ai"),
        ("copilot", "proxy.business.githubcopilot.com"),
        ("copilot", "copilot-api.acme.ghe.com"),
        ("", "s3.us-east-1.amazonaws.com"),
        ("", "evil.bedrock-runtime.us-east-1.amazonaws.com"),
        ("", "bedrock-runtime.us-east-1.amazonaws.com.example"),
        ("", "storage.googleapis.com"),
        ("", "acme.openai.azure.com.example"),
        ("", "login.azure.com"),
    ],
)
def test_hosts_find_their_type(type_: str, host: str) -> None:
    providers = [
        Provider(facts.type, facts.type, authorities=tuple((pattern, 443) for pattern in facts.hosts))
        for facts in FACTS.values()
    ]
    found = ProviderTable(providers).claimant(Authority(host, 443))
    assert ("" if found is None else found.name) == type_


def test_endpoints_stand_below_the_path_of_a_base_url() -> None:
    assert route("openai-compat", "POST", "/api/v1/chat/completions", "/api/v1") == (
        "/chat/completions",
        "openai.chat_completions",
    )
    assert route("openai-compat", "POST", "/api/v1/responses", "/api") == ("/v1/responses", "openai.responses")
    assert route("openai", "POST", "/v1/chat/completions", "/v1") == ("/chat/completions", "openai.chat_completions")


HEAD = "type: x\nsource: [https://a.example]\nchecked: 2026-11-21\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: [", "no YAML"),
        ("", "Expected `object`"),
        ("type: x\nchecked: 2026-11-21\n", "source"),
        ("type: x\nsource: [https://a.example]\n", "checked"),
        (HEAD + "host: [a]\n", "host"),
        (HEAD + "endpoints: [{route: /a, api: nonsense}]\n", "no parser"),
        (HEAD + "endpoints: [{route: a}]\n", "no endpoint"),
        (HEAD + "endpoints: [{route: /a, methods: [post]}]\n", "no endpoint"),
        (HEAD + "endpoints: [{methods: [GET]}]\n", "route"),
    ],
)
def test_a_faulty_file_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_facts(text)
