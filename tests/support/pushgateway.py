"""The real Pushgateway, as a process of its own. Debian's `prometheus-pushgateway` package has it."""

import base64
import contextlib
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Metrics, eventually

needs_pushgateway = pytest.mark.skipif(
    shutil.which("prometheus-pushgateway") is None, reason="it is in Debian's prometheus-pushgateway package"
)

# `secret`, as bcrypt has it: the gateway knows no other form.
_PASSWORD_HASH = "$2b$04$UghaMumAiUOsuXTIGdf.ZOtKVmAikNQwwysaBoLwksAX9IepXXgMa"


class Pushgateway:
    """One gateway that runs."""

    def __init__(self, url: str, credentials: str) -> None:
        self.url = url
        self._credentials = credentials

    def metrics(self) -> Metrics:
        """Return what Prometheus would scrape of it."""
        return Metrics(self._get("/metrics"))

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self._get("/-/ready"))
        except urllib.error.URLError:
            return False

    def _get(self, path: str) -> str:
        request = urllib.request.Request(self.url + path)
        if self._credentials:
            request.add_header("authorization", "Basic " + base64.b64encode(self._credentials.encode()).decode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return str(answer.read().decode())


@contextlib.contextmanager
def pushgateway(folder: Path, *, port: int = 0, is_locked: bool = False) -> Iterator[Pushgateway]:
    """Run a gateway until the block ends.

    Args:
        folder: For its configuration and its log.
        port: Where it listens; any free one for 0.
        is_locked: Whether it wants the user `pusher` with the password `secret`.
    """
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    command = ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"]
    if is_locked:
        (folder / "web.yml").write_text(f'basic_auth_users: {{pusher: "{_PASSWORD_HASH}"}}\n')
        command.append(f"--web.config.file={folder / 'web.yml'}")
    with (folder / "pushgateway.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    gateway = Pushgateway(f"http://127.0.0.1:{port}", "pusher:secret" if is_locked else "")
    try:
        eventually(gateway.is_ready, "the gateway")
        yield gateway
    finally:
        process.kill()
        process.wait()
