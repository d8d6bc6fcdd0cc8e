"""The harness that runs the real daemon: `python -m aiproxyd run` as a process of its own, with a folder of its own.

Everything a test learns about it comes the way an operator learns it: `run.json`, the admin server, the command line, the store.
"""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from aiproxyd.storage.queries import MAX_LIMIT, InterceptionFilter
from aiproxyd.storage.store import Store
from tests.support.fake_provider import FakeProvider

ROOT = Path(__file__).resolve().parents[2]

# Two processes that import everything, on a machine that runs tests besides.
START_TIMEOUT_SECONDS = 60.0

WAIT_TIMEOUT_SECONDS = 30.0

_POLL_SECONDS = 0.05

# For looks that cost nearly nothing: at a file, or at a few columns of the store.
_SHORT_POLL_SECONDS = 0.02

# What a proxy setting of the machine would change in the processes of a test.
_FOREIGN_VARIABLES = re.compile(r"(?i)(https?|all|no)_proxy|SSL_CERT_.*|.*_CA_BUNDLE|NODE_.*|AIPROXYD_.*|XDG_.*")


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return `first` with `second` laid over it, section by section."""
    result = dict(first)
    for key, value in second.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def eventually(predicate: Callable[[], Any], what: str, timeout_seconds: float = WAIT_TIMEOUT_SECONDS) -> Any:
    """Return the first true value of `predicate`.

    Raises:
        TimeoutError: There was none in time; the message says `what` was waited for, and the last value.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_seconds} s for {what}; last seen: {value!r}")
        time.sleep(_POLL_SECONDS)


def plain_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would lead a tool elsewhere."""
    return {name: value for name, value in os.environ.items() if not _FOREIGN_VARIABLES.fullmatch(name)} | more


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.types: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            self.types[family.name] = family.type
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the series of `name` that have all of `labels`."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of every series of `name`."""
        return [dict(has) for found, has in self.samples if found == name]


class Daemon:
    """One daemon with its folder. A context manager; may be stopped, killed and started again on the same folder and ports."""

    def __init__(
        self,
        folder: Path,
        provider: FakeProvider | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        users: tuple[str, ...] = ("alice", "bob"),
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Write the configuration; nothing runs before `start`.

        Args:
            folder: For the configuration, the log and `data_dir`; made when it is absent.
            provider: Where provider hosts lead; without it they lead where they lead.
            config: Laid over the harness's own configuration.
            users: Known by the configuration; the token of `alice` is `alice-token`.
            workers: Worker processes.
            environ: Further environment variables.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = folder / "data"
        self.config_file = folder / "config.yaml"
        self.log_file = folder / "daemon.log"
        own: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "data_dir": str(self.data_dir),
            "workers": workers,
            "drain_timeout_seconds": 10,
            "auth": {
                "users": [
                    {"name": user, "token_sha256": hashlib.sha256(f"{user}-token".encode()).hexdigest(), "groups": ["testers"]}
                    for user in users
                ]
            },
            "logging": {"format": "json", "level": "info"},
        }
        if provider is not None:
            own["egress"] = {"hosts": provider.hosts(), "trusted_ca_file": str(provider.ca_file)}
        self.config: dict[str, Any] = merged(own, config or {})
        self._environ = dict(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._families: list[psutil.Process] = []
        self.write_config()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is not None:
            sys.stderr.write(f"\n--- the daemon's log ({self.folder}) ---\n{self.log()[-20000:]}\n--- end of it ---\n")
        self.kill_everything()

    # Its life.

    def write_config(self, **changes: Any) -> None:
        """Write the configuration, with `changes` laid over it for good."""
        self.config = merged(self.config, changes)
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def start(self) -> None:
        """Start the daemon and return when it is ready.

        Raises:
            RuntimeError: It exited or was not ready in time; the message holds its log.
        """
        if self.process is not None:
            # The same ports as before, as after a crash.
            self.write_config()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aiproxyd", "run", "--config", str(self.config_file)],
                cwd=ROOT,
                env=plain_environment(**self._environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon exited with status {self.process.returncode}:\n{self.log()[-8000:]}")
            if time.monotonic() > deadline:
                self.kill_everything()
                raise RuntimeError(f"the daemon was not ready in {START_TIMEOUT_SECONDS} s:\n{self.log()[-8000:]}")
            time.sleep(_SHORT_POLL_SECONDS)
        self._families += self.process_tree()
        # Not written before the next start: a daemon notices changes of its file.
        if self.run["listen"]:
            self.config["listen"] = self.listen
        self.config["admin"]["listen"] = self.admin_listen

    def stop(self, timeout_seconds: float = 60.0) -> int:
        """Send SIGTERM and return the exit status.

        Raises:
            subprocess.TimeoutExpired: It did not exit in time.
        """
        self.terminate()
        return self.wait(timeout_seconds)

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def reload(self) -> None:
        """Send SIGHUP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def wait(self, timeout_seconds: float = 60.0) -> int:
        """Return the exit status once the control process has ended."""
        assert self.process is not None
        return self.process.wait(timeout_seconds)

    def kill_control(self) -> None:
        """SIGKILL the control process and wait for its end; the workers are left to themselves."""
        assert self.process is not None
        self._families += self.process_tree()
        self.process.kill()
        self.process.wait()

    def kill_worker(self) -> int:
        """SIGKILL one worker and return its pid."""
        pid = self.workers[0]
        with contextlib.suppress(psutil.NoSuchProcess):
            self._families.append(psutil.Process(pid))
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_everything(self) -> None:
        """Leave no process behind. Stops nothing in order: a test that is about that calls `stop`."""
        if self.process is None:
            return
        family = self._families
        if self.process.poll() is None:
            # Stopped first: it would start another worker for each that is killed.
            self.process.send_signal(signal.SIGSTOP)
            family = [*family, *self.process_tree()]
        for member in family:
            # `Process` compares creation times, so a pid that was given to somebody else is not killed.
            with contextlib.suppress(psutil.NoSuchProcess):
                if member.is_running():
                    member.kill()
        self.process.wait()
        self._families = []

    def process_tree(self) -> list[psutil.Process]:
        """Return control and every process below it."""
        assert self.process is not None
        try:
            control = psutil.Process(self.process.pid)
            return [control, *control.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    # What it says of itself.

    @property
    def run(self) -> dict[str, Any]:
        """`run.json` of the running daemon, `{}` before it is written."""
        try:
            described = json.loads((self.data_dir / "run.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        # Of an earlier life that was killed.
        return described if self.process is not None and described["pid"] == self.process.pid else {}

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that live."""
        return [pid for pid in self.run.get("workers", []) if _is_alive(pid)]

    @property
    def listen(self) -> str:
        """`host:port` of the proxy; while it is down, where it will be again."""
        return str(self.run.get("listen", [self.config["listen"]])[0])

    @property
    def listen_tls(self) -> str:
        """`host:port` of the proxy for clients that speak TLS with it."""
        return str(self.run["listen_tls"][0])

    @property
    def port(self) -> int:
        """Port of the proxy."""
        return int(self.listen.rpartition(":")[2])

    @property
    def gateway_url(self) -> str:
        """URL of the reverse listener, without a trailing slash."""
        return f"http://{self.run['listen_gateway'][0]}"

    @property
    def admin_listen(self) -> str:
        """`host:port` of the admin server; while it is down, where it will be again."""
        return str(self.run.get("admin", self.config["admin"]["listen"]))

    @property
    def admin_url(self) -> str:
        """URL of the admin server, without a trailing slash."""
        return f"http://{self.admin_listen}"

    @property
    def ca_file(self) -> Path:
        """The certificate that clients trust, as the admin server gives it."""
        path = self.folder / "ca-cert.pem"
        if not path.exists():
            path.write_bytes(self.get("/ca-cert.pem")[1])
        return path

    def proxy_url(self, user: str = "alice", token: str | None = None) -> str:
        """Return the URL for `HTTPS_PROXY`."""
        return f"http://{user}:{token or user + '-token'}@{self.listen}"

    def client_environment(self, user: str = "alice") -> dict[str, str]:
        """Return the environment of a tool that goes through the proxy."""
        return plain_environment(
            HTTPS_PROXY=self.proxy_url(user),
            HTTP_PROXY=self.proxy_url(user),
            SSL_CERT_FILE=str(self.ca_file),
            REQUESTS_CA_BUNDLE=str(self.ca_file),
            CURL_CA_BUNDLE=str(self.ca_file),
        )

    def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        """Return status and body of a GET to the admin server."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Not urllib: each of its openers reads the machine's roots, which takes longer than the answer.
        with contextlib.closing(http.client.HTTPConnection(self.admin_listen, timeout=10)) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def is_ready(self) -> bool:
        """Return whether /readyz says so."""
        if not self.run:
            return False
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def metrics(self) -> Metrics:
        """Return what /metrics says at this moment."""
        status, body = self.get("/metrics")
        assert status == 200, body
        return Metrics(body.decode())

    def log(self) -> str:
        """Return all that it wrote to standard output and standard error, in all its lives."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_for_log(self, text: str) -> None:
        """Return when the log holds `text`."""
        eventually(lambda: text in self.log(), f"{text!r} in the daemon's log")

    def wait_for_metric(self, expected: float, name: str, **labels: str) -> None:
        """Return when the sum of `name` over `labels` is `expected`."""
        seen: list[float] = []

        def is_there() -> bool:
            seen.append(self.metrics().total(name, **labels))
            return seen[-1] == expected

        try:
            eventually(is_there, name)
        except TimeoutError:
            raise TimeoutError(f"{name}{labels} is {seen[-1]}, expected {expected}") from None

    # What it recorded.

    def command(
        self, *arguments: str, check: bool = True, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `aiproxyd ARGUMENTS` with the daemon's configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "aiproxyd", *arguments],
            cwd=self.folder,
            env=plain_environment(**self._environ, AIPROXYD_CONFIG=str(self.config_file), **(environ or {})),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"aiproxyd {' '.join(arguments)} exited with {done.returncode}: {done.stderr}\n{done.stdout}")
        return done

    def interceptions(self, *flags: str) -> list[dict[str, Any]]:
        """Return what `aiproxyd interceptions list FLAGS` prints."""
        found: list[dict[str, Any]] = json.loads(self.command("interceptions", "list", *flags).stdout)
        return found

    def records(
        self, model: str = "", *, count: int | None = None, timeout_seconds: float = WAIT_TIMEOUT_SECONDS
    ) -> list[dict[str, Any]]:
        """Return the ended interceptions whose model begins with `model`, oldest first, as the command line would print them.

        Args:
            model: Beginning of the request's model.
            count: Wait until there are so many.
            timeout_seconds: For that wait.

        Raises:
            TimeoutError: There were not so many in time.
            AssertionError: There are more.
        """
        if count is not None:
            deadline = time.monotonic() + timeout_seconds
            while self._count_ended(model) < count:
                if time.monotonic() > deadline:
                    shown = [
                        (record["id"], record["model"], record["ended_at"], record["outcome"]) for record in self.stored(model)
                    ]
                    raise TimeoutError(f"waited for {count} ended records of {model!r}; what there is: {shown}")
                time.sleep(_SHORT_POLL_SECONDS)
        found = self.stored(model)
        assert count is None or len(found) == count, f"expected {count} records of {model!r}, there are {len(found)}"
        return [record for record in found if record["ended_at"]]

    def record(self, model: str) -> dict[str, Any]:
        """Return the one record of `model`, once it has ended."""
        return self.records(model, count=1)[0]

    def stored(self, model: str = "") -> list[dict[str, Any]]:
        """Return every interception whose model begins with `model`, oldest first, ended or not."""
        return [record for record in self._query(model) if (record["model"] or "").startswith(model)]

    def _count_ended(self, model: str) -> int:
        """Return how many records of `model` have ended, as one looks again and again: without what belongs to them."""
        return int(self._look(model, "count(ended_at)"))

    def _look(self, model: str, expression: str) -> Any:
        """Return one value over the records whose model begins with `model`."""
        query = f"SELECT {expression} FROM interceptions WHERE substr(coalesce(model, ''), 1, ?) = ?"
        with contextlib.closing(sqlite3.connect(f"file:{self.store_file}?mode=ro", uri=True)) as store:
            return store.execute(query, (len(model), model)).fetchone()[0]

    @property
    def store_file(self) -> Path:
        return self.data_dir / "aiproxyd.sqlite3"

    def _query(self, model: str) -> list[dict[str, Any]]:
        """Read the store in this process, from the first record of `model` on: the command line's own query without its start-up time."""
        first = self._look(model, "min(started_at)")
        if first is None:
            return []
        since = datetime.fromisoformat(first).replace(tzinfo=UTC)

        async def read() -> list[dict[str, Any]]:
            store = await Store.open(f"sqlite+aiosqlite:///{self.store_file}", create=False)
            found: list[dict[str, Any]] = []
            try:
                while True:
                    after = found[-1]["id"] if found else ""
                    filter_ = InterceptionFilter(started_after=since, after_id=after, limit=MAX_LIMIT)
                    page = await store.interceptions(filter_)
                    found += page
                    if len(page) < MAX_LIMIT:
                        return found[::-1]
            finally:
                await store.close()

        return asyncio.run(read())


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_metrics(text: str) -> Metrics:
    """Return `text` as a scrape."""
    return Metrics(text)
