"""A daemon as a newcomer starts it: no configuration file, an empty home, whatever port is free."""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.daemon import ROOT, eventually, plain_environment
from tests.support.fake_provider import FakeProvider


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class FirstRun:
    """`aiproxyd run` with environment variables for the ports alone, and for the way to the fake provider."""

    def __init__(self, folder: Path, provider: FakeProvider) -> None:
        self.port = _free_port()
        self.state = folder / "state"
        self._log = folder / "first-run.log"
        self._environment = plain_environment(
            HOME=str(folder),
            XDG_STATE_HOME=str(self.state),
            AIPROXYD_LISTEN=f"127.0.0.1:{self.port}",
            AIPROXYD_ADMIN__LISTEN="127.0.0.1:0",
            AIPROXYD_EGRESS__HOSTS=json.dumps(provider.hosts()),
            AIPROXYD_EGRESS__TRUSTED_CA_FILE=str(provider.ca_file),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "aiproxyd", "run"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> str:
        """Return what it printed at start."""
        eventually(lambda: "is running" in self._log.read_text(), "the block of the start", 60)
        return self._log.read_text()

    def command(self, *arguments: str) -> str:
        """Return what `aiproxyd ARGUMENTS` prints beside it."""
        command = [sys.executable, "-m", "aiproxyd", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout
