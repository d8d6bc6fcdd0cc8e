from pathlib import Path

import pytest

from aiproxyd import sigv4
from aiproxyd.breaker import BreakerSettings
from aiproxyd.classify import ProviderStatus
from aiproxyd.config.keys import MAX_KEY_BYTES, problems_of, read_keys, upstream_rules
from aiproxyd.config.loader import load
from aiproxyd.config.providers import base_url_authorities, provider_table
from aiproxyd.config.schema import Config
from aiproxyd.model.authority import Authority
from aiproxyd.model.credential import UpstreamKey
from aiproxyd.upstream import ActorHeaders, Target


def _config(*keys: object, **more: object) -> Config:
    entry = {"name": "a", "type": "anthropic", "keys": keys} | more
    return Config.model_validate({"providers": [entry, {"name": "b", "type": "openai"}]})


def _problem(*keys: object, environ: dict[str, str] | None = None, **more: object) -> str:
    config = _config(*keys, **more)
    keys_ = read_keys(config, environ or {})
    provider = provider_table(config, problems_of(keys_)).by_name("a")
    assert provider is not None
    assert provider.status is ProviderStatus.ERROR
    assert not keys_["a"].keys
    other = provider_table(config, problems_of(keys_)).by_name("b")
    assert other is not None
    assert other.status is ProviderStatus.ENABLED, "the others go on"
    return provider.reason


def test_a_key_comes_from_the_file_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    keys = read_keys(_config("literal", {"env": "KEY"}, {"file": tmp_path / "key"}), {"KEY": " from-the-environment\r\n"})
    assert [key.secret for key in keys["a"].keys] == ["literal", "from-the-environment", "from-a-file"]
    assert not keys["a"].problem
    assert "b" not in keys


def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    config = _config({"file": tmp_path / "key"})
    assert "cannot be read: No such file" in read_keys(config, {})["a"].problem
    for secret in ("one", "two"):
        (tmp_path / "key").write_text(secret)
        assert read_keys(config, {})["a"].keys == (UpstreamKey(secret),)


def test_a_relative_file_is_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("providers: [{name: a, type: openai, keys: [{file: k}]}]")
    (tmp_path / "k").write_text("secret")
    assert read_keys(load(tmp_path / "c.yaml", {}), {})["a"].keys[0].secret == "secret"


def test_what_cannot_be_had_breaks_its_provider_alone_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfehunter2")
    (tmp_path / "two").write_text("hunter2\nhunter3")
    (tmp_path / "large").write_text("x" * (MAX_KEY_BYTES + 1))
    assert _problem({"env": "KEY"}) == "keys[0]: the environment variable KEY is not set"
    assert _problem({"env": "KEY"}, environ={"KEY": " "}) == "keys[0]: the environment variable KEY is empty"
    assert _problem("x", {"file": tmp_path / "empty"}) == f"keys[1]: the file {tmp_path / 'empty'} is empty"
    assert _problem({"file": tmp_path}) == f"keys[0]: the file {tmp_path} cannot be read: Is a directory"
    assert "is not text" in _problem({"file": tmp_path / "binary"})
    assert "is no key" in _problem({"file": tmp_path / "large"})
    for problem in (_problem({"file": tmp_path / "two"}), _problem("hunter2 hunter3"), _problem("hunter2-ä")):
        assert "characters that no key has" in problem
        assert "hunter" not in problem


def test_the_same_key_twice_is_a_mistake_that_is_not_repeated() -> None:
    problem = _problem("x", "hunter2", {"env": "KEY"}, environ={"KEY": "hunter2"})
    assert problem == "keys[2] is the same as keys[1]"


def test_aws_credentials_are_read_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = {
        "access_key_id": {"env": "ID"},
        "secret_access_key": {"env": "SECRET"},
        "session_token": {"env": "TOKEN"},
        "region": "eu-west-1",
    }
    config = _config(aws, type="bedrock")
    environ = {"ID": "AKIDEXAMPLE", "SECRET": "hunter2", "TOKEN": "hunter3"}
    assert read_keys(config, environ)["a"].keys == (UpstreamKey("hunter2", "AKIDEXAMPLE", "hunter3", "eu-west-1"),)
    del environ["TOKEN"]
    assert "keys[0].session_token: the environment variable TOKEN" in read_keys(config, environ)["a"].problem
    monkeypatch.setattr(sigv4, "is_available", lambda: False)
    assert "pip install 'aiproxyd[bedrock]'" in read_keys(config, environ)["a"].problem


def test_without_keys_and_rules_every_request_takes_the_short_way() -> None:
    config = Config()
    assert all(rules.is_plain for rules in upstream_rules(config, {}).values())


def test_the_settings_of_an_entry_become_its_rules() -> None:
    config = _config(
        byok=False,
        breaker={
            "enabled": True,
            "failure_threshold": 2,
            "interval_seconds": 1,
            "open_seconds": 3,
            "half_open_max_requests": 4,
        },
        timeouts={"connect_seconds": 5, "first_byte_seconds": 6, "idle_seconds": 7},
        retry_body_max_bytes=8,
        target="https://gateway.example.com:8443/api/v2/ai-gateway/",
        actor_headers={"enabled": True, "groups": "x-groups"},
    )
    rules = upstream_rules(config, {})["a"]
    assert rules.breaker == BreakerSettings(2, 1, 3, 4)
    assert (rules.connect_timeout_seconds, rules.first_byte_timeout_seconds, rules.idle_timeout_seconds) == (5, 6, 7)
    assert rules.retry_body_max_bytes == 8
    assert rules.target == Target("https", Authority("gateway.example.com", 8443), "/api/v2/ai-gateway")
    assert rules.actor_headers == ActorHeaders("x-ai-bridge-actor-id", "x-ai-bridge-actor-metadata-username", "x-groups")
    assert not rules.byok
    assert base_url_authorities(config) == {Authority("gateway.example.com", 8443)}
    assert not upstream_rules(_config(actor_headers={"id": "x-user"}), {})["a"].actor_headers.names, "they are off"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("https://me:hunter2@gateway.example.com", "holds credentials"),
        ("https://gateway.example.com/?token=hunter2", "has a query or a fragment"),
        ("https://gateway.example.com/#hunter2", "has a query or a fragment"),
        ("gateway.example.com", "does not begin with https:// or http://"),
        ("https://", "has no host"),
        ("https://gateway.example.com:99999", "has no usable host or port"),
    ],
)
def test_a_target_that_is_none_breaks_its_provider_and_is_not_shown_whole(target: str, sentence: str) -> None:
    config = _config(target=target)
    provider = provider_table(config).by_name("a")
    assert provider is not None
    assert provider.status is ProviderStatus.ERROR
    assert sentence in provider.reason
    assert "hunter2" not in provider.reason
    assert upstream_rules(config, {})["a"].target is None
