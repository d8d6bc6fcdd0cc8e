import json
import os
import subprocess
from pathlib import Path

import pytest

from aiproxyd.commands.running import Running, running_daemon
from aiproxyd.config.schema import Config


def _describe(folder: Path, content: object) -> Config:
    (folder / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return Config(data_dir=folder)


def test_a_daemon_that_lives_is_seen(tmp_path: Path) -> None:
    config = _describe(tmp_path, {"pid": os.getpid(), "listen": ["127.0.0.1:1"], "admin": "127.0.0.1:2", "workers": [1]})
    assert running_daemon(config) == Running(os.getpid(), ("127.0.0.1:1",), "127.0.0.1:2")


def test_a_daemon_that_was_killed_is_not(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert running_daemon(_describe(tmp_path, {"pid": gone.pid, "listen": ["127.0.0.1:1"], "admin": "x"})) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        {"pid": "x", "listen": ["a"], "admin": "b"},
        {"pid": 0, "listen": ["a"], "admin": "b"},
        {"pid": 10**30, "listen": ["a"], "admin": "b"},
        {"pid": 1, "listen": [], "admin": "b"},
    ],
)
def test_a_description_of_something_else_is_none(tmp_path: Path, content: object) -> None:
    assert running_daemon(_describe(tmp_path, content)) is None


def test_no_description_is_none(tmp_path: Path) -> None:
    assert running_daemon(Config(data_dir=tmp_path)) is None
