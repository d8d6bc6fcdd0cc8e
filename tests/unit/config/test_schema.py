from pathlib import Path

import pytest
from pydantic import ValidationError

from aiproxyd.config.schema import Config, default_data_dir, keeping_restart_fields, restart_fields_changed, seconds_of


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("0", 0),
        ("90s", 90),
        ("15m", 900),
        ("24h", 86400),
        ("60d", 60 * 86400),
        ("2w", 14 * 86400),
        ("1h30m", 5400),
        ("0.5h", 1800),
    ],
)
def test_a_duration_is_a_sum_of_numbers_with_units(duration: str, seconds: float) -> None:
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["", "60", "d", "1 d", "-1d", "1y", "1d!", "1d\n"])
def test_anything_else_is_no_duration(duration: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as"):
        seconds_of(duration)


@pytest.mark.parametrize("value", [False, 1, 1.5, None])
def test_only_a_zero_may_be_a_bare_number(value: object) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"recording": {"retention": value}})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0, -1])
def test_a_timeout_is_a_finite_positive_number(value: float) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"decrypt": {"idle_timeout_seconds": value}})


def test_the_data_folder_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_data_dir() == Path("/state/aiproxyd")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_data_dir() == Path.home() / ".local" / "state" / "aiproxyd"


@pytest.mark.parametrize("listen", ["127.0.0.1:8889", "[::1]:8889", "127.1.2.3:1"])
def test_an_admin_server_on_loopback_needs_no_token(listen: str) -> None:
    assert Config.model_validate({"admin": {"listen": listen}}).admin.listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:8889", ":8889", "[::]:8889", "10.0.0.1:8889"])
def test_an_admin_server_for_others_needs_a_token(listen: str) -> None:
    with pytest.raises(ValidationError, match=r"admin\.token: required"):
        Config.model_validate({"admin": {"listen": listen}})
    assert Config.model_validate({"admin": {"listen": listen, "token": "t"}})


@pytest.mark.parametrize("field", ["name", "token_sha256"])
def test_users_of_the_configuration_differ(field: str) -> None:
    users = [{"name": "a", "token_sha256": "a" * 64}, {"name": "b", "token_sha256": "b" * 64}]
    users[1][field] = users[0][field]
    with pytest.raises(ValidationError, match=f"two users have the same {field}"):
        Config.model_validate({"auth": {"users": users}})


@pytest.mark.parametrize("name", ["", "A", "a_b", "a--b", "-a", "a-", "a b", "ä", "a/b", "a\n"])
def test_a_providers_name_is_a_word_of_a_metric(name: str) -> None:
    with pytest.raises(ValidationError, match="is not lower-case letters, digits and single hyphens"):
        Config.model_validate({"providers": [{"name": name, "type": "openai"}]})


def test_the_store_is_a_file_in_the_data_folder_or_what_the_url_says() -> None:
    assert Config(data_dir=Path("/d")).store_url == "sqlite+aiosqlite:////d/aiproxyd.sqlite3"
    assert Config.model_validate({"store": {"url": "postgresql://h/d"}}).store_url == "postgresql://h/d"


def test_workers_get_what_they_need_and_no_secret() -> None:
    config = Config.model_validate(
        {
            "data_dir": "/d",
            "workers": 3,
            "admin": {"listen": "0.0.0.0:1", "token": "hidden"},
            "store": {"url": "postgresql://u:hidden@h/d"},
            "auth": {"users": [{"name": "a", "token_sha256": "a" * 64}]},
            "providers": [{"name": "x", "type": "openai", "base_url": "https://h/v1"}],
        }
    )
    text = config.for_workers()
    assert b"hidden" not in text
    assert b"a" * 64 not in text
    read = Config.model_validate_json(text)
    assert (read.data_dir, read.workers, read.providers, read.egress) == (config.data_dir, 3, config.providers, config.egress)


def test_changes_that_only_a_restart_applies_are_named() -> None:
    old = Config(data_dir=Path("/d"))
    new = Config.model_validate({"data_dir": "/e", "workers": 2, "decrypt": {"http2": True}, "auth": {"mode": "off"}})
    assert restart_fields_changed(old, new) == ["data_dir", "workers", "decrypt.http2"]
    assert restart_fields_changed(old, old) == []


def test_what_only_a_restart_applies_is_kept_at_a_reload():
    old = Config.model_validate({"data_dir": "/a", "workers": 1, "egress": {"connect_timeout_seconds": 3}})
    new = Config.model_validate(
        {"data_dir": "/b", "workers": 2, "decrypt": {"http2": True}, "egress": {"connect_timeout_seconds": 7}}
    )
    kept = keeping_restart_fields(old, new)
    assert restart_fields_changed(old, kept) == []
    assert (kept.data_dir, kept.workers, kept.decrypt.http2) == (old.data_dir, 1, False)
    assert kept.egress.connect_timeout_seconds == 7
