"""What the network's settings take, and what they say of mistakes."""

import base64
from pathlib import Path

import pytest
from pydantic import ValidationError

from aiproxyd.config.network import EgressConfig, ListenTlsConfig, parse_proxy_url
from aiproxyd.config.schema import Config
from aiproxyd.model.authority import Authority


@pytest.mark.parametrize(
    ("text", "authority", "is_tls", "pair"),
    [
        ("http://proxy.corp:3128", ("proxy.corp", 3128), False, None),
        ("http://proxy.corp", ("proxy.corp", 80), False, None),
        ("https://proxy.corp/", ("proxy.corp", 443), True, None),
        ("http://[::1]:3128", ("::1", 3128), False, None),
        ("http://user:pass@proxy.corp:1", ("proxy.corp", 1), False, b"user:pass"),
        ("http://user@proxy.corp:1", ("proxy.corp", 1), False, b"user:"),
        ("http://user:@proxy.corp:1", ("proxy.corp", 1), False, b"user:"),
        ("http://:pass@proxy.corp:1", ("proxy.corp", 1), False, b":pass"),
        ("http://us%40er:p%3A%C3%BC%2F@proxy.corp:1", ("proxy.corp", 1), False, "us@er:p:ü/".encode()),
        ("http://a:b@c@proxy.corp:1", ("proxy.corp", 1), False, b"a:b@c"),
    ],
)
def test_a_proxy_url_says_where_and_with_which_credentials(
    text: str, authority: tuple[str, int], is_tls: bool, pair: bytes | None
) -> None:
    url = parse_proxy_url(text)
    assert (url.authority, url.is_tls) == (Authority(*authority), is_tls)
    assert url.authorization == (f"Basic {base64.b64encode(pair).decode()}" if pair is not None else "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy.corp:3128",
        "socks5://hunter2@proxy.corp",
        "http://",
        "http://user:hunter2@",
        "http://@proxy.corp",
        "http://:@proxy.corp",
        "http://proxy.corp:0",
        "http://proxy.corp:99999",
        "http://proxy.corp/path",
        "http://proxy.corp?hunter2",
        "http://[::1",
    ],
)
def test_a_url_that_names_no_proxy_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|does|has)") as refused:
        parse_proxy_url(text)
    assert "hunter2" not in str(refused.value)


def test_the_url_may_stand_in_the_environment_or_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORP_PROXY", "http://u:p@proxy.corp:1")
    (tmp_path / "url").write_text("http://u:p@proxy.corp:1\n")
    for where in ({"env": "CORP_PROXY"}, {"file": str(tmp_path / "url")}):
        config = EgressConfig.model_validate({"upstream_proxy": where})
        assert config.upstream_proxy is not None
        assert config.upstream_proxy.get_secret_value() == "http://u:p@proxy.corp:1"


@pytest.mark.parametrize(
    "where", [{"env": "NO_SUCH_VARIABLE"}, {"file": "/nowhere/url"}, {"file": 1}, {"env": "A", "file": "B"}, {}]
)
def test_a_place_that_holds_no_url_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EgressConfig.model_validate({"upstream_proxy": where})


def test_workers_get_the_url_and_nobody_else_sees_it() -> None:
    config = Config.model_validate({"egress": {"upstream_proxy": "http://u:hunter2@proxy.corp:1"}})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.model_dump())
    handed = Config.model_validate_json(config.for_workers())
    assert handed.egress.upstream_proxy == config.egress.upstream_proxy


def test_a_tls_listener_is_whole_or_absent() -> None:
    whole = {"listen": "127.0.0.1:1", "cert_file": "/a", "key_file": "/b"}
    assert ListenTlsConfig.model_validate(whole).listen == ("127.0.0.1:1",)
    for missing in whole:
        with pytest.raises(ValidationError, match=r"go together|listen needs|needs listen"):
            ListenTlsConfig.model_validate({name: value for name, value in whole.items() if name != missing})


def test_construction_missing_and_empty_listen_address() -> None:
    with pytest.raises(ValidationError, match="no address"):
        Config.model_validate({"listen": []})
    tls = {"listen": "127.0.0.1:1", "cert_file": "/a", "key_file": "/b"}
    assert Config.model_validate({"listen": [], "listen_tls": tls}).listen == ()
    for address in ("", ":", "127.0.0.1", "localhost:80", "127.0.0.1:99999"):
        with pytest.raises(ValidationError):
            Config.model_validate({"listen": address})
