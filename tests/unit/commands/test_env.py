import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from aiproxyd.commands.env import Shell, client_variables, proxy_authority, rendered, shell_of
from aiproxyd.config.loader import load
from aiproxyd.config.schema import Config
from aiproxyd.exceptions import AiproxydError
from aiproxyd.identity.users import FIRST_USER_TOKEN_NAME, login_name

AWKWARD = {"A": "it's", "B": 'say "hi" $HOME `id` \\ !', "C": "ü\tx", "D": "", "E": "a%20b&c|d;e"}


def _config(data_dir: Path, **environ: str) -> Config:
    return load(None, {"AIPROXYD_DATA_DIR": str(data_dir), **environ})


def test_the_variables_are_those_that_cover_every_tool(tmp_path: Path) -> None:
    variables = client_variables(_config(tmp_path), user="me", token="t", environ={})
    proxy, certificate, bundle = (
        "http://me:t@127.0.0.1:8888",
        str(tmp_path / "ca" / "ca-cert.pem"),
        str(tmp_path / "ca" / "ca-bundle.pem"),
    )
    assert variables == {
        "HTTPS_PROXY": proxy,
        "HTTP_PROXY": proxy,
        "https_proxy": proxy,
        "http_proxy": proxy,
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
        "NODE_EXTRA_CA_CERTS": certificate,
        "CODEX_CA_CERTIFICATE": certificate,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "AWS_CA_BUNDLE": bundle,
        "GIT_SSL_CAINFO": bundle,
        "NODE_USE_ENV_PROXY": "1",
    }
    assert Path(certificate).read_text() in Path(bundle).read_text()


@pytest.mark.parametrize(("user", "token"), [("a b", "p@ss:w/rd"), ("ü@x", "%41+"), ("a:b", "#?&")])
def test_credentials_are_percent_encoded(tmp_path: Path, user: str, token: str) -> None:
    proxy = urlsplit(client_variables(_config(tmp_path), user=user, token=token, environ={})["HTTPS_PROXY"])
    assert (proxy.hostname, proxy.port) == ("127.0.0.1", 8888)
    assert (unquote(proxy.username or ""), unquote(proxy.password or "")) == (user, token)


def test_the_token_is_the_options_then_the_variables_then_the_first_users(tmp_path: Path) -> None:
    (tmp_path / FIRST_USER_TOKEN_NAME).write_text("first\n")

    def token(given: str | None, environ: dict[str, str], user: str | None = None) -> str | None:
        return urlsplit(client_variables(_config(tmp_path), user=user, token=given, environ=environ)["HTTPS_PROXY"]).password

    assert token("option", {"AIPROXYD_TOKEN": "variable"}) == "option"
    assert token(None, {"AIPROXYD_TOKEN": "variable"}) == "variable"
    assert token(None, {"AIPROXYD_TOKEN": ""}) == "first"
    assert token(None, {}, login_name()) == "first"
    with pytest.raises(AiproxydError, match=r"there is no user 'some body'; `aiproxyd user add 'some body'` makes one"):
        token(None, {}, "some body")


def test_a_user_whose_token_is_not_kept_is_told_what_works(aiproxyd, data_dir: Path) -> None:
    assert aiproxyd("user", "add", "ada").status == 0
    said = aiproxyd("env", "--user", "ada").err
    assert said.startswith(
        "aiproxyd: the token of 'ada' is not kept anywhere; give it with --token or AIPROXYD_TOKEN, or make another"
    )
    for command in re.findall(r"`aiproxyd (.*?)`", said):
        assert aiproxyd(*command.split()).status == 0
    assert aiproxyd("user", "revoke", "ada").status == 0
    assert "is revoked; `aiproxyd user add ada` makes another one" in aiproxyd("env", "--user", "ada").err


def test_without_any_token_the_way_to_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(AiproxydError, match=r"no token is known: .*first `aiproxyd run` makes it"):
        client_variables(_config(tmp_path), user=None, token=None, environ={})


def test_a_proxy_that_asks_nobody_gets_no_credentials(tmp_path: Path) -> None:
    config = _config(tmp_path, AIPROXYD_AUTH__MODE="off")
    assert client_variables(config, user=None, token=None, environ={})["HTTPS_PROXY"] == "http://127.0.0.1:8888"
    assert client_variables(config, user="me", token="t", environ={})["HTTPS_PROXY"] == "http://me:t@127.0.0.1:8888"


@pytest.mark.parametrize(
    ("listen", "authority"),
    [
        ("127.0.0.1:8888", "127.0.0.1:8888"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        (":1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[::1]:1", "[::1]:1"),
        ("10.0.0.1:1,127.0.0.1:2", "10.0.0.1:1"),
    ],
)
def test_a_listener_on_every_address_is_named_by_the_loopback_one(tmp_path: Path, listen: str, authority: str) -> None:
    assert proxy_authority(_config(tmp_path, AIPROXYD_LISTEN=listen)) == authority


def test_the_running_daemon_knows_its_port_best(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"pid": os.getpid(), "listen": ["0.0.0.0:4321"], "admin": "127.0.0.1:1"}))
    assert proxy_authority(_config(tmp_path, AIPROXYD_LISTEN="0.0.0.0:0")) == "127.0.0.1:4321"


def _ask_shell(shell: Shell, command: list[str], printer: str) -> dict[str, str]:
    script = rendered(AWKWARD, shell) + "\n" + printer
    done = subprocess.run([*command, script], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    found: dict[str, str] = json.loads(done.stdout)
    return found


_PRINTER = "python3 -c 'import json, os; print(json.dumps({name: os.environ[name] for name in \"ABCDE\"}))'"


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        (Shell.BASH, ["bash", "-c"]),
        (Shell.SH, ["sh", "-c"]),
        (Shell.ZSH, ["zsh", "-c"]),
        (Shell.FISH, ["fish", "-c"]),
        (Shell.POWERSHELL, ["pwsh", "-Command"]),
    ],
    ids=str,
)
def test_a_shell_reads_back_what_was_meant(shell: Shell, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    assert _ask_shell(shell, command, _PRINTER) == AWKWARD


def test_the_other_syntaxes() -> None:
    assert rendered({"A": "it's \\"}, Shell.FISH) == r"set -gx A 'it\'s \\'"
    assert rendered({"A": "it's $x"}, Shell.POWERSHELL) == "$env:A = 'it''s $x'"
    assert rendered({"A": "it's", "B": "2"}, Shell.DOTENV) == "A=it's\nB=2"
    with pytest.raises(AiproxydError, match="A has a line break"):
        rendered({"A": "1\n2"}, Shell.DOTENV)
    assert json.loads(rendered(AWKWARD, Shell.JSON)) == AWKWARD


@pytest.mark.parametrize(
    ("path", "shell"),
    [
        ("/bin/bash", Shell.BASH),
        ("/usr/bin/zsh", Shell.ZSH),
        ("/usr/bin/fish", Shell.FISH),
        ("/usr/bin/pwsh", Shell.POWERSHELL),
        ("/bin/sh", Shell.SH),
        ("/bin/csh", Shell.BASH),
        ("", Shell.BASH),
    ],
)
def test_the_shell_is_that_of_the_person(path: str, shell: Shell) -> None:
    assert shell_of({"SHELL": path}) is shell


def test_the_command_prints_the_exports(aiproxyd, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    done = aiproxyd("env", "--token", "t", "--user", "me")
    assert done.status == 0
    assert done.out.startswith("set -gx HTTPS_PROXY 'http://me:t@127.0.0.1:8888'\n")
    assert json.loads(aiproxyd("env", "--token", "t", "--shell", "json").out)["NODE_USE_ENV_PROXY"] == "1"
    assert aiproxyd("env").status == 1


def test_the_help_shows_a_container_in_lines_that_a_shell_takes(aiproxyd, tmp_path: Path) -> None:
    # Click breaks lines at 80 characters where nothing says otherwise, and a broken command is none.
    help_ = aiproxyd("env", "--help").out
    example = [line.strip() for line in help_.splitlines()]
    start = example.index("docker run --network host --env-file proxy.env \\")
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SSL_CERT_FILE": "/b u.pem", "NODE_EXTRA_CA_CERTS": "/c.pem"}
    command = "\n".join(example[start : start + 3])
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=True, timeout=30)
    words = [
        "run",
        "--network",
        "host",
        "--env-file",
        "proxy.env",
        "-v",
        "/b u.pem:/b u.pem:ro",
        "-v",
        "/c.pem:/c.pem:ro",
        "IMAGE",
    ]
    assert done.stdout.splitlines() == words
