"""Measures CPU time per unit of work for the product and its peers in one run: `make bench`, or `python -m tests.bench --rounds 3`.

Strategy

* The proxy's process tree is pinned to one core, origin and load to another. What counts is the CPU time of the proxy's tree for
  a number of units, so a load that does not saturate it changes nothing; the load's own ceiling, straight to the origin, is said.
* Peers take turns within a round, in an order that rotates, because machines drift. A ratio is taken within a round.
* The product authenticates, taps, parses, records with content and stores; the peers only forward. Its CPU time includes the
  control process, and is read when it rests again: what it does after the answer counts.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trustme
import uvloop

from tests.bench import load as work
from tests.bench.peers import LOAD_CORE, Peer, Product, installed, pinned
from tests.bench.report import write_report

ROOT = Path(__file__).resolve().parents[2]

type Values = dict[str, float]


class Bench:
    """One run over all peers."""

    def __init__(self, ports: dict[str, int], *, scale: float) -> None:
        self._ports = ports
        self._scale = scale

    def _scaled(self, count: int) -> int:
        return max(1, int(count * self._scale))

    async def measure(self, peer: Peer) -> Values:
        """Return every figure of one round for `peer`."""
        load = work.Load(peer.port, token=peer.token)
        https, source, tls_source = (self._ports[name] for name in ("https", "source", "tls_source"))
        values: Values = {}

        async def cpu_of(name: str, units: float, job: Callable[[], Awaitable[Any]]) -> Any:
            before = peer.settled_cpu_seconds()
            result = await job()
            values[name] = (peer.settled_cpu_seconds() - before) / units * 1000
            return result

        # Imports, caches and certificates of the first request are nobody's steady state.
        await work.kept_alive(load, https, requests=self._scaled(200), connections=4)

        # First, while the process has no freed memory that the tunnels could move into unseen.
        count = 1000
        before_bytes = peer.memory_bytes()

        async def hold() -> int:
            async with work.idle_tunnels(load, source, count=count):
                return peer.memory_bytes()

        held_bytes = await cpu_of("idle_tunnel", count, hold)
        values["idle_tunnel_kilobytes"] = max(0, held_bytes - before_bytes) / count / 1024

        count = self._scaled(3000)
        durations = await cpu_of(
            "kept_alive_request", count, lambda: work.kept_alive(load, https, requests=count, connections=16)
        )
        values["latency_16_p50"], values["latency_16_p99"] = percentiles(durations)
        durations = await work.kept_alive(load, https, requests=self._scaled(500), connections=1)
        values["latency_1_p50"], values["latency_1_p99"] = percentiles(durations)

        count = self._scaled(300)
        await cpu_of("new_connection", count, lambda: work.new_connections(load, https, requests=count, at_once=8))

        first, _ = await work.streams(load, https, count=1)
        values["first_byte_1"] = first[0] * 1000
        for number in (32, 128):
            first, stalled = await cpu_of(
                f"stream_{number}", number, lambda number=number: work.streams(load, https, count=number)
            )
            values[f"first_byte_{number}_p50"], values[f"first_byte_{number}_p99"] = percentiles(first)
            values[f"stalled_{number}"] = stalled

        megabytes = self._scaled(1024)
        await cpu_of(
            "raw_megabyte", megabytes, lambda: work.transfer(load, source, megabytes=megabytes, connections=4, tls=False)
        )
        megabytes = self._scaled(512)
        await cpu_of(
            "tls_megabyte", megabytes, lambda: work.transfer(load, tls_source, megabytes=megabytes, connections=4, tls=True)
        )
        return values

    async def ceiling(self) -> Values:
        """Return what the load reaches straight to the origin, in units a second."""
        direct = work.Load(None)
        clock = asyncio.get_running_loop().time
        https = self._ports["https"]
        result: Values = {}

        async def rate_of(name: str, units: int, job: Awaitable[Any]) -> None:
            started = clock()
            await job
            result[name] = units / (clock() - started)

        await work.kept_alive(direct, https, requests=500, connections=16)
        await rate_of("kept-alive requests", 5000, work.kept_alive(direct, https, requests=5000, connections=16))
        await rate_of("new connections", 500, work.new_connections(direct, https, requests=500, at_once=8))
        port = self._ports["source"]
        await rate_of("megabytes raw", 2048, work.transfer(direct, port, megabytes=2048, connections=4, tls=False))
        port = self._ports["tls_source"]
        await rate_of("megabytes in TLS", 512, work.transfer(direct, port, megabytes=512, connections=4, tls=True))
        first, stalled = await work.streams(direct, https, count=128)
        result["of 128 streams without a stall"] = 128 - stalled
        result["ms to the first byte of 128 streams, p99"] = percentiles(first)[1]
        return result


def percentiles(durations: list[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile in milliseconds."""
    ordered = sorted(durations)
    return statistics.median(ordered) * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python -m tests.bench {' '.join(sys.argv[1:])}".strip(),
    }


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start everything, measure, stop everything, and return the whole result."""
    authority = trustme.CA()
    certificate, roots = folder / "origin.pem", folder / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    peers = [peer for peer in installed() if not arguments.only or any(word in peer.name for word in arguments.only)]
    rounds: list[dict[str, Values]] = []
    # Before our own work shows in it.
    facts = machine()
    command = [sys.executable, "-m", "tests.bench.upstream", str(certificate)]
    with pinned(LOAD_CORE):
        origin = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert origin.stdout is not None
        ports = json.loads(origin.stdout.readline())
        for peer in list(peers):
            try:
                peer.start(folder, ports, roots)
            except (OSError, subprocess.SubprocessError) as exc:
                if isinstance(peer, Product):
                    raise
                print(f"{peer.name} is installed but cannot be measured: {exc}", file=sys.stderr)
                peers.remove(peer)
        bench = Bench(ports, scale=arguments.scale)
        with pinned(LOAD_CORE):
            ceiling = await bench.ceiling()
            for number in range(arguments.rounds):
                order = peers[number % len(peers) :] + peers[: number % len(peers)]
                measured = {}
                for peer in order:
                    print(f"round {number + 1} of {arguments.rounds}: {peer.name}", file=sys.stderr, flush=True)
                    measured[peer.name] = await bench.measure(peer)
                rounds.append(measured)
    finally:
        for peer in peers:
            peer.stop()
        origin.kill()
        origin.communicate()
    return {"machine": facts, "ceiling": ceiling, "peers": [peer.name for peer in peers], "rounds": rounds}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work of each measurement")
    parser.add_argument("--only", nargs="*", default=[], help="peers whose names contain one of these words")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "performance.md", help="page whose table is replaced")
    parser.add_argument("--no-docs", action="store_true", help="leave the page as it is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiproxyd-bench-") as folder:
        result = uvloop.run(run(arguments, Path(folder)))
    write_report(result, output=arguments.output, page=None if arguments.no_docs else arguments.docs)


if __name__ == "__main__":
    main()
