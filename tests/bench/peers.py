"""The proxies that are measured: the product with each engine, bare `mitmdump`, and `squid` and a bare goproxy where installed."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from tests.support.daemon import Daemon, merged

START_TIMEOUT_SECONDS = 60.0

PROXY_CORE, LOAD_CORE = 0, 1


def pinned(core: int) -> AbstractContextManager[None]:
    """Run what is started inside on one core, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return on_cores({cores[core]} if len(cores) > 1 else set(cores))


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Run what is started inside on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Peer:
    """One proxy, as a process or a tree of them."""

    name = ""
    token = ""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def version(self) -> str:
        """What it is, with its version."""
        raise NotImplementedError

    def start(self, folder: Path, ports: Mapping[str, int], roots: Path) -> None:
        """Start on one core; the origin listens on `ports` and its certificate leads to `roots`."""
        raise NotImplementedError

    def stop(self) -> None:
        """End every process of it."""
        if self._process is None:
            return
        family = self.tree() if self._process.poll() is None else []
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait()

    def tree(self) -> list[psutil.Process]:
        """Return its processes."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return user and system time of all its processes."""
        total = 0.0
        for process in self.tree():
            # The clock of another process, by its number as the kernel makes it (CPUCLOCK_SCHED): it counts nanoseconds where
            # /proc/PID/stat counts hundredths of a second.
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~process.pid << 3) | 2)
        return total

    def memory_bytes(self) -> int:
        """Return the resident memory of all its processes."""
        return sum(process.memory_info().rss for process in self.tree())

    def settled_cpu_seconds(self) -> float:
        """Return the CPU time once it rests: what it does after an answer counts as well."""
        before = self.cpu_seconds()
        for _ in range(60):
            # Longer than any of them waits before it goes on: records are stored up to five quarters of a second later.
            time.sleep(1.5)
            after = self.cpu_seconds()
            # A hundredth of a core is what timers of an idle process may take.
            if after - before <= 0.015:
                return after
            before = after
        raise TimeoutError(f"{self.name} never rests")

    def _spawn(self, command: list[str], folder: Path, environ: Mapping[str, str] | None = None) -> None:
        path = folder / f"{self.name}.log"
        with path.open("ab") as log, pinned(PROXY_CORE):
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env={**os.environ, **(environ or {})}
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise TimeoutError(f"{self.name} did not start: {path.read_text()[-2000:]}") from None
                time.sleep(0.1)
            else:
                return


class Product(Peer):
    """This project with everything on: authentication, recording with content, metrics."""

    token = "bench-token"

    def __init__(
        self, engine: str, config: Mapping[str, Any] | None = None, *, workers: int = 1, cores: set[int] | None = None
    ) -> None:
        """Prepare.

        Args:
            engine: `decrypt.engine`.
            workers: Worker processes.
            cores: That all its processes may use; the proxy's core when absent.
            config: Laid over the bench's own configuration.
        """
        super().__init__()
        self.engine = engine
        self._config = config or {}
        self._workers = workers
        self._cores = cores
        self._config = dict(config or {})
        self.name = f"aiproxyd ({engine})"
        self._daemon: Daemon | None = None

    @property
    def version(self) -> str:
        return f"aiproxyd {importlib.metadata.version('aiproxyd')}"

    def start(self, folder: Path, ports: Mapping[str, int], roots: Path) -> None:
        config = {
            "decrypt": {"engine": self.engine},
            "providers": [{"name": "anthropic", "type": "anthropic", "base_url": f"https://localhost:{ports['https']}"}],
            "egress": {
                "allowed_ports": sorted(ports.values()),
                "allowed_private_cidrs": ["127.0.0.0/8", "::1/128"],
                "trusted_ca_file": str(roots),
            },
        }
        own = merged(config, self._config)
        self._daemon = Daemon(folder / self.engine, config=own, users=("bench",), workers=self._workers)
        with pinned(PROXY_CORE) if self._cores is None else on_cores(self._cores):
            self._daemon.start()
        self.port = self._daemon.port

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.kill_everything()

    def tree(self) -> list[psutil.Process]:
        assert self._daemon is not None
        return self._daemon.process_tree()

    @property
    def data_dir(self) -> Path:
        """Its folder."""
        assert self._daemon is not None
        return self._daemon.data_dir

    @property
    def records(self) -> int:
        """How many interceptions it has stored."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/aiproxyd.sqlite3?mode=ro", uri=True)) as store:
            (count,) = store.execute("SELECT count(*) FROM interceptions").fetchone()
        return int(count)

    def tasks(self) -> dict[int, int]:
        """Return how many tasks each process had when it last said so, by process id; SIGUSR1 to control asks for it."""
        assert self._daemon is not None
        assert self._daemon.process is not None
        tasks: dict[int, int] = {}
        for line in self._daemon.log().splitlines():
            if '"figures"' in line:
                said = json.loads(line)
                tasks[said.get("worker", self._daemon.process.pid)] = said["tasks"]
        return tasks


class Mitmdump(Peer):
    """mitmdump as it comes, told to be silent."""

    name = "mitmdump"

    @property
    def version(self) -> str:
        return f"mitmproxy {importlib.metadata.version('mitmproxy')}"

    def start(self, folder: Path, ports: Mapping[str, int], roots: Path) -> None:
        self.port = free_port()
        mitmdump = Path(sys.executable).with_name("mitmdump")
        tunnelled = f"localhost:({ports['source']}|{ports['tls_source']})"
        options = ["flow_detail=0", f"confdir={folder / 'mitmdump'}", f"ssl_verify_upstream_trusted_ca={roots}"]
        command = [
            str(mitmdump),
            "-q",
            "--listen-host",
            "127.0.0.1",
            "--listen-port",
            str(self.port),
            "--ignore-hosts",
            tunnelled,
        ]
        self._spawn([*command, *(word for option in options for word in ("--set", option))], folder)


class Squid(Peer):
    """squid with ssl-bump and one worker; decrypts the origin's port alone."""

    name = "squid"

    @property
    def version(self) -> str:
        # "Squid Cache: Version 5.7"
        return f"squid {_said('squid', '-v').split()[-1]}"

    def start(self, folder: Path, ports: Mapping[str, int], roots: Path) -> None:
        import trustme

        self.port = free_port()
        authority = trustme.CA()
        own = folder / "squid"
        own.mkdir(exist_ok=True)
        own.chmod(0o777)
        (own / "ca.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        (own / "ca.pem").chmod(0o644)
        generator = next(
            path
            for path in ("/usr/lib/squid/security_file_certgen", "/usr/lib64/squid/security_file_certgen")
            if Path(path).exists()
        )
        subprocess.run([generator, "-c", "-s", str(own / "certificates"), "-M", "4MB"], check=True, capture_output=True)
        # Started by root it becomes another user, who must read and write here.
        folder.chmod(0o711)
        for path in (own / "certificates", *(own / "certificates").rglob("*")):
            path.chmod(0o777)
        (own / "squid.conf").write_text(
            "\n".join(
                [
                    f"http_port 127.0.0.1:{self.port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB tls-cert={own}/ca.pem",
                    f"sslcrtd_program {generator} -s {own}/certificates -M 4MB",
                    f"acl decrypted port {ports['https']}",
                    "ssl_bump bump decrypted",
                    "ssl_bump splice all",
                    f"tls_outgoing_options cafile={roots}",
                    "http_access allow all",
                    "cache deny all",
                    "access_log none",
                    "cache_log /dev/null",
                    f"pid_filename {own}/squid.pid",
                    f"coredump_dir {own}",
                    "shutdown_lifetime 1 seconds",
                    "",
                ]
            )
        )
        self._spawn([shutil.which("squid") or "squid", "-N", "-f", str(own / "squid.conf")], folder)


class Goproxy(Peer):
    """A program of twenty lines around goproxy, the engine of Coder's proxy; compiled here, from Debian's package of its source."""

    name = "goproxy"

    @property
    def version(self) -> str:
        package = _said("dpkg-query", "--show", "--showformat=${Version}", "golang-github-elazarl-goproxy-dev")
        # "go version go1.19.8 linux/amd64"
        return f"goproxy {package} with {_said('go', 'version').split()[2]}"

    SOURCE = """package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/elazarl/goproxy"
)

// configFor keeps each host's leaf, as a real proxy does; without it every connection makes an RSA key.
var (
	lock    sync.Mutex
	configs = map[string]*tls.Config{}
	issue   = goproxy.TLSConfigFromCA(&goproxy.GoproxyCa)
)

func configFor(host string, ctx *goproxy.ProxyCtx) (*tls.Config, error) {
	lock.Lock()
	defer lock.Unlock()
	if config := configs[host]; config != nil {
		return config, nil
	}
	config, err := issue(host, ctx)
	configs[host] = config
	return config, err
}

func main() {
	proxy := goproxy.NewProxyHttpServer()
	decrypt := &goproxy.ConnectAction{Action: goproxy.ConnectMitm, TLSConfig: configFor}
	proxy.Tr = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256}
	proxy.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if strings.HasSuffix(host, ":"+os.Args[2]) {
			return decrypt, host
		}
		return goproxy.OkConnect, host
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], proxy))
}
"""

    def start(self, folder: Path, ports: Mapping[str, int], roots: Path) -> None:
        self.port = free_port()
        own = folder / "goproxy"
        own.mkdir(exist_ok=True)
        (own / "main.go").write_text(self.SOURCE)
        environ = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(own / "cache")}
        subprocess.run(["go", "build", "-o", "proxy", "main.go"], cwd=own, check=True, env={**os.environ, **environ})
        self._spawn([str(own / "proxy"), str(self.port), str(ports["https"])], folder, {"GOMAXPROCS": "1"})


def _said(*command: str) -> str:
    """Return the first line that a program prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n")[0]


def installed() -> list[Peer]:
    """Return every proxy that can be measured here, the product first."""
    peers: list[Peer] = [Product("relay"), Product("mitmproxy"), Mitmdump()]
    if shutil.which("squid"):
        peers.append(Squid())
    if shutil.which("go") and Path("/usr/share/gocode/src/github.com/elazarl/goproxy").exists():
        peers.append(Goproxy())
    return peers
