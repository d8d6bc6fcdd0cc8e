import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def listener() -> Iterator[str]:
    """Something that answers where the proxy should be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _exec(data_dir: Path, listen: str, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "AIPROXYD_DATA_DIR": str(data_dir), "AIPROXYD_LISTEN": listen, "AIPROXYD_TOKEN": "t"}
    command = [sys.executable, "-m", "aiproxyd", "exec", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False, **more)


def test_the_tool_has_the_variables_and_everything_else_it_had(data_dir: Path, listener: str) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    done = _exec(data_dir, listener, "--user", "me", "--", sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    environ = json.loads(done.stdout)
    assert environ["HTTPS_PROXY"] == f"http://me:t@{listener}"
    assert environ["SSL_CERT_FILE"] == str(data_dir / "ca" / "ca-bundle.pem")
    assert environ["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("separator", [["--"], []])
def test_options_after_the_command_are_the_commands(data_dir: Path, listener: str, separator: list[str]) -> None:
    done = _exec(
        data_dir, listener, *separator, sys.executable, "-c", "import sys; print(sys.argv[1:])", "--user", "-c", "--", "x"
    )
    assert done.stdout == "['--user', '-c', '--', 'x']\n"


def test_the_status_is_the_tools(data_dir: Path, listener: str) -> None:
    assert _exec(data_dir, listener, "--", "sh", "-c", "exit 42").returncode == 42
    assert _exec(data_dir, listener, "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_standard_input_and_output_are_the_tools(data_dir: Path, listener: str) -> None:
    assert _exec(data_dir, listener, "--", "cat", input="through").stdout == "through"


def test_it_takes_the_place_of_the_process(data_dir: Path, listener: str) -> None:
    environ = {**os.environ, "AIPROXYD_DATA_DIR": str(data_dir), "AIPROXYD_LISTEN": listener, "AIPROXYD_TOKEN": "t"}
    command = [sys.executable, "-m", "aiproxyd", "exec", "--", "sh", "-c", "echo $$; exec cat"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


def test_a_tool_ends_when_its_reader_leaves(data_dir: Path, listener: str) -> None:
    """Python ignores SIGPIPE, and a tool inherits that."""
    done = _exec(data_dir, listener, "--", "sh", "-c", "kill -PIPE $$; echo survived")
    assert done.returncode == -signal.SIGPIPE
    assert done.stdout == ""


def test_no_such_command_is_127(data_dir: Path, listener: str, tmp_path: Path) -> None:
    done = _exec(data_dir, listener, "--", "no-such-command-anywhere")
    assert done.returncode == 127
    assert done.stderr == "aiproxyd: there is no command 'no-such-command-anywhere'\n"
    assert _exec(data_dir, listener, "--", str(tmp_path / "nothing")).returncode == 127


def test_a_command_that_cannot_be_run_is_126(data_dir: Path, listener: str, tmp_path: Path) -> None:
    for name, content, mode in (("plain", "#!/bin/sh\n", 0o644), ("garbage", "\0\0\0", 0o755)):
        file = tmp_path / name
        file.write_text(content)
        file.chmod(mode)
        assert stat.S_IMODE(file.stat().st_mode) == mode
        done = _exec(data_dir, listener, "--", str(file))
        assert done.returncode == 126, done.stderr
        assert done.stderr.startswith(f"aiproxyd: {str(file)!r} cannot be run: ")
    assert _exec(data_dir, listener, "--", str(tmp_path)).returncode == 126


def test_without_a_proxy_the_tool_is_not_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = _exec(data_dir, f"127.0.0.1:{port}", "--", "echo", "started")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"aiproxyd: no proxy answers at 127.0.0.1:{port} (Connection refused); start it with `aiproxyd run`\n"
