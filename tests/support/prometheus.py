"""The real Prometheus, as a process of its own: scrapes daemons of a test and answers its queries. Debian's `prometheus` package has it."""

import contextlib
import json
import math
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.support.daemon import eventually

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="it is in Debian's prometheus package")

SCRAPE_INTERVAL_SECONDS = 1


class QueryError(Exception):
    """Prometheus did not take an expression; `args[0]` says why."""


class Prometheus:
    """One server. A context manager; `start` returns when it answers."""

    def __init__(
        self,
        folder: Path,
        target: str,
        *,
        rule_files: Iterable[Path] = (),
        scrape: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the configuration; nothing runs before `start`.

        Args:
            folder: For the configuration, the log and the data; made when it is absent.
            target: `host:port` to scrape, as the job `aiproxyd`.
            rule_files: Rules to evaluate.
            scrape: Laid over the job.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        job = {"job_name": "aiproxyd", "static_configs": [{"targets": [target]}]}
        interval = f"{SCRAPE_INTERVAL_SECONDS}s"
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [job | dict(scrape or {})],
        }
        self._config_file = folder / "prometheus.yml"
        self._config_file.write_text(yaml.safe_dump(configuration))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it is ready."""
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._config_file}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self._is_ready, "Prometheus")

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self._folder / "prometheus.log").read_text())
        with contextlib.suppress(OSError):
            return b"Ready" in self._read("/-/ready")
        return False

    def _read(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = urllib.parse.urlencode(parameters).encode() if parameters else None
        try:
            with opener.open(self.url + path, data=data, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.read()

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the API.

        Raises:
            QueryError: It is none.
        """
        answer = json.loads(self._read(f"/api/v1/{path}", parameters))
        if answer["status"] != "success":
            raise QueryError(answer.get("error", str(answer)))
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of an expression at this moment; what is not a number is left out."""
        data = self.ask("query", query=expression)
        found = [({}, float(data["result"][1]))] if data["resultType"] == "scalar" else []
        if data["resultType"] == "vector":
            found = [(dict(each["metric"]), float(each["value"][1])) for each in data["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def value(self, expression: str) -> float | None:
        """Return the only value of an expression; None when there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def wait_for(self, expression: str, expected: float) -> None:
        """Return when the only value of an expression is `expected`."""
        eventually(lambda: self.value(expression) == expected, f"{expression} == {expected}")

    def wait_for_scrapes(self, count: int = 2) -> None:
        """Return when so many further scrapes have come in."""
        before = self.value('count_over_time(up{job="aiproxyd"}[1h])') or 0
        eventually(
            lambda: (self.value('count_over_time(up{job="aiproxyd"}[1h])') or 0) >= before + count, f"{count} further scrapes"
        )
