"""Where a request's time goes in a worker, by part, with the flame graph as a file: `make profile`.

The load of the benchmark runs against the real daemon while py-spy looks at its worker some hundred times a second. Only
samples that are on the processor count. Shares are of the worker's own CPU time; control (storing, metrics) is another process.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trustme
import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import load as work
from tests.bench.peers import LOAD_CORE, Product, pinned

ROOT = Path(__file__).resolve().parents[2]

_SAMPLES_A_SECOND = 400
_WARM_UP_REQUESTS = 500

# The innermost frame of one of these places says whose time it is; the first line that fits counts.
PARTS = (
    ("parsers and records", ("aiproxyd/providers/", "aiproxyd/assemble.py", "aiproxyd/clients.py", "aiproxyd/drift.py", "aiproxyd/project.py", "aiproxyd/purpose.py", "aiproxyd/redaction.py", "aiproxyd/wire/event_stream.py", "aiproxyd/wire/json_", "aiproxyd/wire/content_coding.py")),
    ("tap", ("aiproxyd/mitm/tap.py", "aiproxyd/mitm/interception.py", "aiproxyd/mitm/reading.py", "aiproxyd/mitm/websocket.py", "aiproxyd/classify.py", "aiproxyd/mitm/ending.py")),
    ("journal", ("aiproxyd/journal/", "aiproxyd/mitm/report.py")),
    ("following HTTP/1.1", ("aiproxyd/wire/http1",)),
    ("CONNECT and policy", ("aiproxyd/mitm/front.py", "aiproxyd/mitm/inbound.py", "aiproxyd/mitm/connect.py", "aiproxyd/mitm/engine.py", "aiproxyd/policy.py", "mitmproxy/")),
    ("dial", ("aiproxyd/mitm/egress.py",)),
    ("sockets and TLS", ("aiproxyd/mitm/stream.py", "aiproxyd/mitm/tls.py", "ssl.py", "socket.py")),
    ("relay", ("aiproxyd/mitm/relay.py", "aiproxyd/mitm/turns.py", "aiproxyd/mitm/gathering.py", "aiproxyd/mitm/pair.py", "aiproxyd/mitm/secured_pair.py", "aiproxyd/mitm/deadlines.py")),
    ("tunnel", ("aiproxyd/mitm/tunnel.py",)),
    ("garbage and the loop", ("",)),
)  # fmt: skip


class Work:
    """The jobs that can be profiled."""

    def __init__(self, load: work.Load, ports: dict[str, int], seconds: int) -> None:
        self._load = load
        self._ports = ports
        self.seconds = seconds
        """How long each is watched."""

    @property
    def jobs(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """Return them by name; each is repeated while it is watched."""
        load, https = self._load, self._ports["https"]
        return {
            "requests": lambda: work.kept_alive(load, https, requests=500, connections=16),
            "connections": lambda: work.new_connections(load, https, requests=100, at_once=8),
            "streams": lambda: work.streams(load, https, count=64),
            "tunnels": lambda: self._hold_tunnels(),
        }

    async def _hold_tunnels(self) -> None:
        async with work.idle_connections(self._load, self._ports["source"], count=200, decrypted=False):
            pass


def part_of(stack: str) -> str:
    """Return whose time a sample is.

    Args:
        stack: Frames from the outermost to the innermost, separated by `;`, each `function (file:line)`.
    """
    for frame in reversed(stack.split(";")):
        for part, places in PARTS[:-1]:
            if any(place in frame for place in places):
                return part
    return PARTS[-1][0]


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Counter[str]]:
    """Profile each job; return the samples by part."""
    authority = trustme.CA()
    certificate, roots = folder / "origin.pem", folder / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    with pinned(LOAD_CORE):
        origin = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.upstream", str(certificate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
    product = Product("relay")
    found: dict[str, Counter[str]] = {}
    try:
        assert origin.stdout is not None
        ports = json.loads(origin.stdout.readline())
        product.start(folder, ports, roots)
        load = work.Load(product.port, token=product.token)
        with pinned(LOAD_CORE):
            await work.kept_alive(load, ports["https"], requests=_WARM_UP_REQUESTS, connections=4)
            jobs = Work(load, ports, arguments.seconds)
            for name in arguments.only or jobs.jobs:
                print(f"{name}: {arguments.seconds} s, twice", file=sys.stderr, flush=True)
                found[name] = await _profiled(jobs, name, product, arguments.output)
    finally:
        product.stop()
        origin.kill()
        origin.communicate()
    return found


async def _profiled(jobs: Work, name: str, product: Product, output: Path) -> Counter[str]:
    (worker,) = [process for process in product.tree() if "aiproxyd.worker" in process.cmdline()]
    raw, graph = output / f"profile-{name}.txt", output / f"profile-{name}.svg"
    program = shutil.which("py-spy", path=Path(sys.executable).parent) or "py-spy"
    # One after the other: two would stop the process for each other.
    for kind, path in (("raw", raw), ("flamegraph", graph)):
        command = [program, "record", "--pid", str(worker.pid), "--rate", str(_SAMPLES_A_SECOND), "--format", kind]
        spy = await asyncio.create_subprocess_exec(
            *command, "--duration", str(jobs.seconds), "--output", str(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        watched = asyncio.ensure_future(spy.communicate())
        while not watched.done():
            await jobs.jobs[name]()
        _, said = await watched
        if spy.returncode != 0:
            raise RuntimeError(f"py-spy cannot look at the worker: {said.decode()}")
    samples: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        samples[part_of(stack)] += int(count)
    return samples


def main() -> None:
    """Profile, and print the shares."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=10, help="of each job, twice")
    parser.add_argument("--only", nargs="*", choices=["requests", "connections", "streams", "tunnels"], help="these jobs alone")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-results", help="folder of the flame graphs")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aiproxyd-profile-") as folder:
        found = uvloop.run(run(arguments, Path(folder)))
    table = Table("part", *found, title="share of the worker's CPU time, per cent")
    for part, _ in PARTS:
        table.add_row(part, *(f"{100 * samples[part] / max(1, samples.total()):.1f}" for samples in found.values()))
    console = Console()
    console.print(table)
    console.print(f"flame graphs: {arguments.output}/profile-*.svg")


if __name__ == "__main__":
    main()
