import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.config.loader import config_file, load
from aiproxyd.config.schema import AuthMode, Config
from aiproxyd.config.watching import files_named
from aiproxyd.exceptions import ConfigError


def _load(tmp_path: Path, text: str, **environ: str) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def _refusal(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text, **environ)
    assert (
        caught.value.__cause__ is None
        or not isinstance(caught.value.__cause__, ValueError)
        or "secret" not in str(caught.value)
    )
    return str(caught.value).replace(str(tmp_path), "")


def test_without_a_file_the_defaults_hold() -> None:
    config = load(None, {})
    assert config == Config()
    assert [provider.name for provider in config.providers] == ["anthropic", "openai", "chatgpt", "copilot", "google"]


def test_the_file_is_the_option_and_then_the_variable(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("workers: 3\n")
    (tmp_path / "b.yaml").write_text("workers: 4\n")
    environ = {"AIPROXYD_CONFIG": str(tmp_path / "b.yaml")}
    assert load(tmp_path / "a.yaml", environ).workers == 3
    assert load(None, environ).workers == 4
    assert config_file(None, {"AIPROXYD_CONFIG": ""}) is None


def test_an_empty_file_and_keys_without_values_mean_defaults(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == Config()
    text = "admin:\nauth:\n  mode:\nworkers:\nproviders:\n"
    assert _load(tmp_path, text) == Config()


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert _load(tmp_path, "\N{ZERO WIDTH NO-BREAK SPACE}workers: 2\n").workers == 2


def test_words_that_yaml_1_1_took_for_booleans_are_words(tmp_path: Path) -> None:
    assert _load(tmp_path, "auth: {mode: off}").auth.mode is AuthMode.OFF


def test_one_listen_address_needs_no_list(tmp_path: Path) -> None:
    assert _load(tmp_path, "listen: '[::1]:8888'").listen == ("[::1]:8888",)


def test_retention_may_be_a_bare_zero(tmp_path: Path) -> None:
    assert _load(tmp_path, "recording: {retention: 0}").recording.retention == "0"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = _load(
        tmp_path, "data_dir: state\nca: {cert_file: a.pem, key_file: /k.pem}\negress: {trusted_ca_file: ~/roots.pem}\n"
    )
    assert config.data_dir == tmp_path / "state"
    assert config.ca.cert_file == tmp_path / "a.pem"
    assert config.ca.key_file == Path("/k.pem")
    assert config.egress.trusted_ca_file == Path.home() / "roots.pem"


def test_every_reference_to_a_file_is_relative_to_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        (place / "secrets").mkdir(parents=True)
    for name, text in (("proxy", "http://u:p@proxy.corp:1"), ("key", "sk-1"), ("id", "AKIA1"), ("secret", "s1")):
        (folder / "secrets" / name).write_text(text + "\n")
    (folder / "c.yaml").write_text(
        "egress: {upstream_proxy: {file: secrets/proxy}, upstream_proxy_ca_file: secrets/ca.pem}\n"
        "auth: {jwt: {issuer: i, audience: a, jwks_file: secrets/keys.json}, coder: {ca_file: secrets/coder.pem}}\n"
        "listen_tls: {listen: '127.0.0.1:1', cert_file: secrets/c.pem, key_file: secrets/k.pem}\n"
        "providers:\n- {name: a, type: openai, keys: [{file: secrets/key}]}\n"
        "- {name: b, type: bedrock, keys: [{access_key_id: {file: secrets/id}, secret_access_key: {file: secrets/secret}}]}\n"
    )
    monkeypatch.chdir(elsewhere)
    config = load(folder / "c.yaml", {})
    assert config.egress.upstream_proxy is not None
    assert config.egress.upstream_proxy.get_secret_value() == "http://u:p@proxy.corp:1"
    named = {path.relative_to(folder / "secrets").name for path in files_named(config)}
    assert named == {"proxy", "ca.pem", "keys.json", "coder.pem", "c.pem", "k.pem", "key", "id", "secret"}
    # What a variable says is relative to where the daemon was started, as in a shell.
    config = load(folder / "c.yaml", {"AIPROXYD_EGRESS__UPSTREAM_PROXY_CA_FILE": "ca.pem"})
    assert config.egress.upstream_proxy_ca_file == elsewhere / "ca.pem"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrokers: 1", "/config.yaml, line 1: wrokers: is no setting; did you mean 'workers'?"),
        ("auth:\n  relm: x", "/config.yaml, line 2: auth.relm: is no setting; did you mean 'realm'?"),
        ("store:\n  password: x", "/config.yaml, line 2: store.password: is no setting here; there are url"),
        ("workers: 1\nworkers: 2", "/config.yaml, line 2: 'workers' is already set in line 1"),
        ("workers: lots", "/config.yaml, line 1: workers: 'lots' should be a valid integer"),
        ("workers: -1", "/config.yaml, line 1: workers: -1 should be greater than or equal to 0"),
        ("workers: true", "/config.yaml, line 1: workers: 'true' should be a valid integer"),
        ("\nauth:\n  mode: of", "/config.yaml, line 3: auth.mode: 'of' should be 'required', 'decrypted' or 'off'"),
        ("listen: localhost", "/config.yaml, line 1: listen[0]: 'localhost' is not ADDRESS:PORT"),
        ("listen: 8888", "/config.yaml, line 1: listen[0]: '8888' is a port without an address; write 127.0.0.1:8888"),
        ("listen: ['8888']", "/config.yaml, line 1: listen[0]: '8888' is a port without an address; write 127.0.0.1:8888"),
        (
            "admin: {listen: 8889}",
            "/config.yaml, line 1: admin.listen: '8889' is a port without an address; write 127.0.0.1:8889",
        ),
        (
            "listen: 127.0.0.1:99999",
            "/config.yaml, line 1: listen[0]: '127.0.0.1:99999': 99999 is no port, the highest is 65535",
        ),
        (
            "listen: [localhost:80]",
            "/config.yaml, line 1: listen[0]: 'localhost' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            "recording: {retention: soon}",
            "/config.yaml, line 1: recording.retention: 'soon' is not a duration such as 60d, 2w, 12h or 0",
        ),
        ("recording: {retention: 7}", "/config.yaml, line 1: recording.retention: 7 should be text; put it in quotes"),
        ("auth: [1]", "/config.yaml, line 1: auth: a list should be a mapping"),
        ("decrypt: [1]", "/config.yaml, line 1: decrypt: a list should be a mapping"),
        ("decrypt: x", "/config.yaml, line 1: decrypt: 'x' should be a mapping"),
        ("providers: {a: b}", "/config.yaml, line 1: providers: a mapping should be a list"),
        ("providers:\n- {name: a}", "/config.yaml, line 2: providers[0].type: is required"),
        (
            "providers:\n- {name: a, type: openai}\n- {name: a, type: openai}",
            "/config.yaml: providers: two entries are named 'a'",
        ),
        ("ca: {cert_file: a}", "/config.yaml, line 1: ca: cert_file and key_file go together"),
        (
            "egress: {allowed_ports: [443, 0]}",
            "/config.yaml, line 1: egress.allowed_ports[1]: 0 should be greater than or equal to 1",
        ),
        (
            "egress: {allowed_private_cidrs: [10.0.0.1/8]}",
            "/config.yaml, line 1: egress.allowed_private_cidrs: 10.0.0.1/8 has host bits set",
        ),
        ("admin: {listen: '0.0.0.0:1'}", "/config.yaml: admin.token: required because admin.listen is not a loopback address"),
        ("- a\n- b", "/config.yaml: should hold a mapping of settings, not a list"),
        ("hello", "/config.yaml: should hold a mapping of settings, not a single value"),
        (
            "recording:\n  1: 2",
            (
                "/config.yaml, line 2: recording.1: is no setting here; there are content, on_journal_failure, journal_max_bytes, "
                "max_request_body_bytes, max_response_body_bytes, project, retention, content_retention, figures_retention"
            ),
        ),
        (
            "a: [",
            "/config.yaml, line 1: not well-formed YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_a_mistake_names_file_line_path_value_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    assert _refusal(tmp_path, text) == message


def test_all_mistakes_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, "workers: x\nauth:\n  mode: no\nlisten: 1:2:3:x\n", AIPROXYD_AUTH__MOD="off")
    assert refusal.splitlines() == [
        "/config.yaml: 4 mistakes",
        "  AIPROXYD_AUTH__MOD: auth.mod is no setting; did you mean 'mode'?",
        "  line 1: workers: 'x' should be a valid integer",
        "  line 3: auth.mode: 'no' should be 'required', 'decrypted' or 'off'",
        "  line 4: listen[0]: '1:2:3:x' is not ADDRESS:PORT",
    ]


def test_a_mistake_in_an_option_names_the_option_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("workers: 1")
    with pytest.raises(ConfigError) as refused:
        load(file, {"AIPROXYD_LISTEN": "[18780]"}, options={"AIPROXYD_LISTEN": "--listen"})
    assert str(refused.value) == "--listen: '18780' is a port without an address; write 127.0.0.1:18780"


def test_a_port_with_a_colon_is_every_address(tmp_path: Path) -> None:
    assert _load(tmp_path, "listen: ':8888'").listen == (":8888",)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        load(tmp_path / "missing.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml, line 2: not UTF-8 text"):
        load(tmp_path / "latin.yaml", {})


@pytest.mark.parametrize(
    "text",
    [
        "admin: {token: [my-secret]}",
        "admin: {token: {a: my-secret}}",
        "admin: my-secret",
        "admin: {tokn: my-secret}",
        "store: my-secret",
        "store: {url: [my-secret]}",
        "auth: {users: [{name: a, token_sha256: my-secret}]}",
        "auth: {users: my-secret}",
        "auth: {users: [my-secret]}",
        "auth: {token: my-secret}",
        "api_key: my-secret",
        "providers: [{name: a, type: openai, keys: my-secret}]",
        "providers: [{name: a, type: openai, keys: [[my-secret]]}]",
        "providers: [{name: a, type: openai, keys: [{valu: my-secret}]}]",
        "providers: [{name: a, type: openai, keys: [{value: [my-secret]}]}]",
        "providers: [{name: a, type: openai, keys: [{env: my-secret}]}]",
        "providers: [{name: a, type: openai, keys: [{value: my-secret, env: A}]}]",
        "providers: [{name: a, type: copilot, keys: [my-secret]}]",
        "providers: [{name: a, type: bedrock, keys: [{access_key_id: my-secret}]}]",
        "providers: [{name: a, type: bedrock, keys: [{access_key_id: my-secret, secret_access_key: {env: my-secret}}]}]",
        "providers: [{name: a, type: openai, keys: [my-secret, my-secret, a, b, c, d]}]",
        "egress: {trusted_ca_file: [my-secret]}",
    ],
)
def test_no_message_repeats_what_may_be_a_secret(tmp_path: Path, text: str) -> None:
    assert "my-secret" not in _refusal(tmp_path, text)


def test_credentials_in_a_url_are_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in _refusal(tmp_path, "listen: https://me:hunter2@host")


def test_a_secret_stays_hidden_in_the_configuration(tmp_path: Path) -> None:
    config = _load(tmp_path, "admin: {token: my-secret}\nstore: {url: 'postgresql+asyncpg://u:my-secret@h/d'}")
    assert "my-secret" not in repr(config)
    assert config.admin.token is not None
    assert config.admin.token.get_secret_value() == "my-secret"


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        "workers: 1\nauth: {mode: required, realm: kept}\nadmin:\n",
        AIPROXYD_WORKERS="2",
        AIPROXYD_LISTEN="127.0.0.1:1, [::1]:2",
        AIPROXYD_DATA_DIR="/var/lib/x",
        AIPROXYD_DRAIN_TIMEOUT_SECONDS="1.5",
        AIPROXYD_AUTH__MODE="off",
        AIPROXYD_ADMIN__TOKEN="0123",
        AIPROXYD_EGRESS__ALLOWED_PORTS="[443, 8443]",
        AIPROXYD_EGRESS__HOSTS="{api.openai.com: '127.0.0.1:9'}",
        AIPROXYD_DECRYPT__HTTP2="true",
        AIPROXYD_RECORDING__RETENTION="0",
        AIPROXYD_EGRESS__TRUSTED_CA_FILE="/roots.pem",
        AIPROXYD_PROVIDERS="[{name: a, type: openai}]",
    )
    assert config.workers == 2
    assert config.listen == ("127.0.0.1:1", "[::1]:2")
    assert config.data_dir == Path("/var/lib/x")
    assert config.drain_timeout_seconds == 1.5
    assert config.auth.mode is AuthMode.OFF
    assert config.auth.realm == "kept"
    assert config.admin.token is not None
    assert config.admin.token.get_secret_value() == "0123"
    assert config.egress.allowed_ports == (443, 8443)
    assert config.egress.hosts == {"api.openai.com": "127.0.0.1:9"}
    assert config.decrypt.http2 is True
    assert config.recording.retention == "0"
    assert config.egress.trusted_ca_file == Path("/roots.pem")
    assert [provider.name for provider in config.providers] == ["a"]


@pytest.mark.parametrize("text", ["443,8443", "443, 8443", "[443, 8443]"])
def test_a_list_in_a_variable_has_commas_or_brackets(text: str) -> None:
    assert load(None, {"AIPROXYD_EGRESS__ALLOWED_PORTS": text}).egress.allowed_ports == (443, 8443)


def test_one_ipv6_address_in_a_variable_is_not_taken_for_a_list() -> None:
    assert load(None, {"AIPROXYD_LISTEN": "[::1]:8888"}).listen == ("[::1]:8888",)


def test_an_empty_variable_counts_as_absent(tmp_path: Path) -> None:
    assert _load(tmp_path, "workers: 3", AIPROXYD_WORKERS="", AIPROXYD_ADMIN__TOKEN="").workers == 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "AIPROXYD_AUTHH__MODE",
            "off",
            "configuration: AIPROXYD_AUTHH__MODE: authh.mode is no setting; did you mean the section 'auth'?",
        ),
        ("AIPROXYD_X__Y", "", "configuration: AIPROXYD_X__Y: x.y is no setting"),
        ("AIPROXYD_AUTH__MODE__X", "", "configuration: AIPROXYD_AUTH__MODE__X: auth.mode.x is no setting"),
        ("AIPROXYD_WORKERS", "x", "configuration: AIPROXYD_WORKERS: workers: 'x' should be a valid integer"),
        ("AIPROXYD_LISTEN", "a", "configuration: AIPROXYD_LISTEN: listen[0]: 'a' is not ADDRESS:PORT"),
        ("AIPROXYD_WORKERS", "[", "configuration: AIPROXYD_WORKERS: not well-formed YAML"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    assert str(caught.value).startswith(message)


def test_other_variables_of_that_beginning_are_left_alone() -> None:
    assert load(None, {"AIPROXYD_TOKEN": "x", "AIPROXYD_ADMIN": "x", "OTHER__X": "y"}) == Config()


def test_a_section_that_is_no_mapping_is_the_files_mistake(tmp_path: Path) -> None:
    refusal = _refusal(tmp_path, "decrypt: 3\n", AIPROXYD_DECRYPT__HTTP2="true")
    assert refusal == "/config.yaml, line 1: decrypt: 3 should be a mapping"


@given(
    st.fixed_dictionaries(
        {
            "workers": st.integers(0, 256),
            "drain_timeout_seconds": st.floats(0, 1e6),
            "auth": st.fixed_dictionaries({"mode": st.sampled_from(AuthMode).map(str), "cache_seconds": st.floats(0, 300)}),
            "egress": st.fixed_dictionaries({"allowed_ports": st.lists(st.integers(1, 65535), max_size=4)}),
            "recording": st.fixed_dictionaries({"retention": st.sampled_from(["0", "60d", "1h30m"])}),
        }
    )
)
def test_what_is_dumped_is_loaded_again(tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]) -> None:
    expected = Config.model_validate(data)
    file = tmp_path_factory.mktemp("dump") / "config.yaml"
    file.write_text(yaml.safe_dump(expected.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    assert load(file, {}) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["auth", "mode", "providers", "name", "type", "listen", "egress", "hosts", "ca"])
                | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_is_a_configuration_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    file = tmp_path_factory.mktemp("any") / "config.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    # Whatever else it raises fails the test.
    with contextlib.suppress(ConfigError):
        load(file, {})
