"""Measures what telemetry costs: CPU time per request with exemplars, users' labels and traces, against none of them.

Run `python -m tests.bench.telemetry`. Two daemons that differ in nothing else take turns within a round, and a ratio is taken
within a round, because machines drift. The collector is a real one in a process of its own; its CPU time is nobody's, that of
encoding and sending is the daemon's.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import trustme
import uvloop

from tests.bench import load as work
from tests.bench.peers import LOAD_CORE, Product, pinned
from tests.support.otlp import grpc_collector, http_collector

ROOT = Path(__file__).resolve().parents[2]

STREAMS_AT_ONCE = 50

# Spans leave in batches, so often; whoever reads the clock earlier does not see what sending costs.
SENDING_SECONDS = 3.0

OFF: Mapping[str, Any] = {"metrics": {"exemplars": False, "per_user": False}, "tracing": {"enabled": False}}


def on(endpoint: str, protocol: str) -> Mapping[str, Any]:
    """Return what switches everything on, every request traced."""
    return {
        "metrics": {"exemplars": True, "per_user": True},
        "tracing": {"enabled": True, "endpoint": endpoint, "protocol": protocol, "sample_ratio": 1.0},
    }


class Telemetry:
    """Measures both daemons in turns."""

    def __init__(self, port: int, daemons: Mapping[str, Product]) -> None:
        self._port = port
        self._daemons = daemons

    async def stream_milliseconds(self, name: str, waves: int) -> float:
        """Return the CPU milliseconds of a streamed answer, one of `STREAMS_AT_ONCE`."""
        return await self._measure(name, waves * STREAMS_AT_ONCE, self._streams(name, waves))

    async def request_milliseconds(self, name: str, requests: int) -> float:
        """Return the CPU milliseconds of a request on a kept-alive connection."""
        return await self._measure(
            name, requests, work.kept_alive(self._load(name), self._port, requests=requests, connections=16)
        )

    def _load(self, name: str) -> work.Load:
        return work.Load(self._daemons[name].port, token=self._daemons[name].token)

    async def _streams(self, name: str, waves: int) -> None:
        for _ in range(waves):
            await work.streams(self._load(name), self._port, count=STREAMS_AT_ONCE)

    async def _measure(self, name: str, units: int, job: Any) -> float:
        peer = self._daemons[name]
        before = peer.settled_cpu_seconds()
        await job
        await asyncio.sleep(SENDING_SECONDS)
        return (peer.settled_cpu_seconds() - before) / units * 1000


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Start everything, measure, stop everything; return each round's CPU milliseconds, by unit of work."""
    authority = trustme.CA()
    certificate, roots = folder / "origin.pem", folder / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    daemons: dict[str, Product] = {}
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(_child("tests.bench.upstream", str(certificate)))
        collector = stack.enter_context(_child("tests.bench.telemetry", "--collect", arguments.protocol))
        for name, more in (("off", OFF), ("on", on(collector["endpoint"], arguments.protocol))):
            daemon = daemons[name] = Product("relay", more)
            stack.callback(daemon.stop)
            daemon.start(folder / name, ports, roots)
        bench = Telemetry(ports["https"], daemons)
        units = {
            f"streamed answer, one of {STREAMS_AT_ONCE}": (bench.stream_milliseconds, arguments.waves),
            "request on a kept-alive connection": (bench.request_milliseconds, arguments.requests),
        }
        result: dict[str, list[dict[str, float]]] = {unit: [] for unit in units}
        with pinned(LOAD_CORE):
            for number in range(-1, arguments.rounds):
                order = ("off", "on") if number % 2 else ("on", "off")
                for unit, (job, count) in units.items():
                    # The round before the first is for imports and caches.
                    measured = {name: await job(name, count if number >= 0 else 1 + count // 10) for name in order}
                    if number >= 0:
                        result[unit].append(measured)
                        print(f"round {number + 1}: {unit}: {measured}", file=sys.stderr, flush=True)
    return result


@contextlib.contextmanager
def _child(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a module on the load's core until the block ends; yield what its first line says."""
    with pinned(LOAD_CORE):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def collect(protocol: str) -> None:
    """Be a collector until standard input closes."""
    with (grpc_collector if protocol == "grpc" else http_collector)() as (endpoint, received):
        print(json.dumps({"endpoint": endpoint}), flush=True)
        received.keeps = False
        sys.stdin.read()


def report(result: Mapping[str, list[dict[str, float]]]) -> str:
    """Return the result as a table."""
    lines = ["| CPU milliseconds | off | on | on / off, within a round |", "|---|---|---|---|"]
    for unit, rounds in result.items():
        off, on_ = ([measured[name] for measured in rounds] for name in ("off", "on"))
        ratios = [measured["on"] / measured["off"] for measured in rounds]
        lines.append(
            f"| {unit} | {statistics.median(off):.3f} | {statistics.median(on_):.3f} |"
            f" {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--waves", type=int, default=3, help=f"times {STREAMS_AT_ONCE} streams a round")
    parser.add_argument("--requests", type=int, default=3000, help="requests on kept-alive connections a round")
    parser.add_argument("--protocol", choices=("grpc", "http"), default="grpc")
    parser.add_argument("--collect", metavar="PROTOCOL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.collect:
        collect(arguments.collect)
        return
    with tempfile.TemporaryDirectory(prefix="aiproxyd-bench-") as folder:
        print(report(uvloop.run(measure(arguments, Path(folder)))))


if __name__ == "__main__":
    main()
