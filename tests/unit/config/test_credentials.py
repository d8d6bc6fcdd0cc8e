import pytest
from pydantic import ValidationError

from aiproxyd.config.credentials import ActorHeadersConfig, KeyConfig, SecretConfig
from aiproxyd.config.schema import Config, ProviderConfig


def _provider(**more: object) -> ProviderConfig:
    return ProviderConfig.model_validate({"name": "a", "type": "openai"} | more)


@pytest.mark.parametrize("key", ["k", {"value": "k"}, {"env": "OPENAI_API_KEY"}, {"file": "/run/secrets/key"}])
def test_a_key_is_text_or_where_to_find_it(key: object) -> None:
    assert len(_provider(keys=[key]).keys) == 1


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ({"value": ""}, "is empty"),
        ({}, "needs one of"),
        ({"env": "A", "file": "/b"}, "needs one of"),
        ({"env": "NOT-A-NAME"}, "pattern"),
        (12345, "a key is text in quotes"),
        ({"value": "k", "region": "us-east-1"}, "belong to AWS"),
        ({"access_key_id": "a"}, "go together"),
        ({"secret_access_key": "a"}, "go together"),
        ({"access_key_id": "a", "secret_access_key": "b", "value": "c"}, "go together"),
        ({"access_key_id": "", "secret_access_key": "b"}, "is empty"),
        ({"access_key_id": {"env": "A", "value": "b"}, "secret_access_key": "b"}, "needs one of"),
    ],
)
def test_any_other_key_is_refused(key: object, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        _provider(keys=[key])


def test_five_keys_are_the_most() -> None:
    assert len(_provider(keys=list("abcde")).keys) == 5
    with pytest.raises(ValidationError, match="5 items"):
        _provider(keys=list("abcdef"))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"type": "copilot", "keys": ["k"]}, "logs in on their own"),
        ({"type": "chatgpt", "keys": ["k"]}, "logs in on their own"),
        ({"type": "bedrock", "keys": ["k", "l"]}, "bedrock takes one"),
        ({"keys": [{"access_key_id": "a", "secret_access_key": "b"}]}, "type bedrock"),
        ({"keys": ["k"], "target": "https://gateway.example.com"}, "has its own"),
    ],
)
def test_keys_that_do_not_fit_their_provider_are_refused(more: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        _provider(**more)


def test_bedrock_takes_aws_credentials_or_an_api_key() -> None:
    aws = {"access_key_id": {"env": "AWS_ACCESS_KEY_ID"}, "secret_access_key": {"file": "/s"}, "session_token": "t"}
    assert _provider(type="bedrock", keys=[aws | {"region": "eu-west-1"}]).keys[0].is_aws
    assert not _provider(type="bedrock", keys=["bedrock-api-key-x"]).keys[0].is_aws


def test_no_form_of_a_key_shows_it() -> None:
    keys = [KeyConfig.model_validate("hunter2"), SecretConfig.model_validate("hunter2")]
    config = Config.model_validate({"providers": [{"name": "a", "type": "openai", "keys": ["hunter2"]}]})
    for shown in (repr(keys), str(keys), config.model_dump_json(), repr(config)):
        assert "hunter2" not in shown
    assert b"keys" not in config.for_workers(), "they travel beside it"


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "X-Api-Key",
        "cookie",
        "Host",
        "content-length",
        "transfer-encoding",
        "proxy-user",
        "anthropic-version",
        "openai-organization",
        "x-amz-date",
        "x-goog-user-project",
        "x-coder-ai-governance-token",
        "x-forwarded-for",
        "traceparent",
        "sec-fetch-mode",
        "a b",
        "a:b",
        "x-ä",
    ],
)
def test_headers_with_a_meaning_cannot_name_a_user(name: str) -> None:
    with pytest.raises(ValidationError):
        ActorHeadersConfig(id=name)


def test_actor_headers_are_off_and_have_coder_s_names() -> None:
    actor = ActorHeadersConfig()
    assert not actor.enabled
    assert (actor.id, actor.username) == ("x-ai-bridge-actor-id", "x-ai-bridge-actor-metadata-username")
    assert ActorHeadersConfig(id="X-User", username="", groups="x-groups").id == "x-user"
    with pytest.raises(ValidationError, match="same header"):
        ActorHeadersConfig(id="x-user", username="X-User")
