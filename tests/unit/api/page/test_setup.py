"""Twin of aiproxyd/api/page/setup.py."""

import shutil
import subprocess

import pytest

from aiproxyd.api.page.setup import (
    TOOLS,
    Shell,
    Trust,
    certificate_lines,
    export_lines,
    proxy_url,
    shell_of,
    tool_of,
    variables,
)


def test_credentials_are_percent_encoded() -> None:
    assert proxy_url("127.0.0.1:8888", "zoë s/x", 'a"$b') == "http://zo%C3%AB%20s%2Fx:a%22%24b@127.0.0.1:8888"
    assert proxy_url("127.0.0.1:8888", "", "") == "http://127.0.0.1:8888"


@pytest.mark.parametrize("shell", Shell)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.key)
def test_each_tool_gets_what_it_trusts_by(tool, shell: Shell) -> None:
    found = variables("http://a:b@127.0.0.1:1", tool)
    assert ("NODE_EXTRA_CA_CERTS" in found) == (Trust.NODE in tool.trust)
    assert ("CODEX_CA_CERTIFICATE" in found) == (Trust.CODEX in tool.trust)
    assert ("SSL_CERT_FILE" in found) == (Trust.BUNDLE in tool.trust)
    fetch = "\n".join(certificate_lines("http://127.0.0.1:2", tool, shell))
    assert "http://127.0.0.1:2/ca-cert.pem" in fetch
    assert ("bundle.pem" in fetch) == (Trust.BUNDLE in tool.trust), "what replaces the store holds its roots, too"


@pytest.mark.parametrize(("shell", "program"), [(Shell.BASH, "bash"), (Shell.FISH, "fish"), (Shell.POWERSHELL, "pwsh")])
def test_a_shell_reads_the_lines(shell: Shell, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    url = proxy_url("127.0.0.1:8888", "it's `x` $y \\ z", 'a"b')
    script = "\n".join(export_lines(variables(url, TOOLS[0]), shell)) + "\nenv"
    done = subprocess.run([program, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert f"HTTPS_PROXY={url}" in done.stdout.splitlines()


def test_what_is_not_known_is_the_first() -> None:
    assert tool_of("<script>") == TOOLS[0]
    assert shell_of("<script>") is Shell.BASH
