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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme
import uvloop

from tests.bench.cases import Measurement, Values, ceiling
from tests.bench.peers import LOAD_CORE, Product, installed, pinned
from tests.bench.report import write_report
from tests.bench.scaling import scaling

ROOT = Path(__file__).resolve().parents[2]

# Of the 22nd Fibonacci number, worked out the slow way.
_CALLS = 57_313


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} ({_CALLS:,} calls of a function in {_milliseconds_of_calls():.2g} ms)",
        "load_average": round(os.getloadavg()[0], 1),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python -m tests.bench {' '.join(sys.argv[1:])}".strip(),
    }


def _milliseconds_of_calls() -> float:
    """Return what `_CALLS` calls of a Python function take here and now, the best of many: builds of one version differ, and so do hours."""

    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    took = []
    for _ in range(50):
        started = time.perf_counter()
        fibonacci(22)
        took.append(time.perf_counter() - started)
    return min(took) * 1000


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start everything, measure, stop everything, and return the whole result."""
    authority = trustme.CA()
    certificate, roots = folder / "origin.pem", folder / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    peers = [peer for peer in installed() if not arguments.only or any(word in peer.name for word in arguments.only)]
    rounds: list[dict[str, Values]] = []
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does: what was started ends as well.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
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
        with pinned(LOAD_CORE):
            straight = await ceiling(ports)
            for number in range(arguments.rounds):
                order = peers[number % len(peers) :] + peers[: number % len(peers)]
                measured = {}
                for peer in order:
                    print(f"round {number + 1} of {arguments.rounds}: {peer.name}", file=sys.stderr, flush=True)
                    measured[peer.name] = await Measurement(peer, ports, scale=arguments.scale).run()
                rounds.append(measured)
        for peer in peers:
            peer.stop()
        workers = []
        if not arguments.only or any(word in Product("relay").name for word in arguments.only):
            for number in range(arguments.rounds):
                print(f"round {number + 1} of {arguments.rounds}: one worker and two", file=sys.stderr, flush=True)
                workers.append(await scaling(folder / str(number), ports, roots, origin.pid, scale=arguments.scale))
    finally:
        for peer in peers:
            peer.stop()
        origin.kill()
        origin.communicate()
    return {
        "machine": facts,
        "ceiling": straight,
        "workers": workers,
        "peers": [peer.name for peer in peers],
        "versions": {peer.name: peer.version for peer in peers},
        "rounds": rounds,
    }


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
        try:
            result = uvloop.run(run(arguments, Path(folder)))
        except asyncio.CancelledError:
            sys.exit("stopped before it was done; nothing is written")
    write_report(result, output=arguments.output, page=None if arguments.no_docs else arguments.docs)


if __name__ == "__main__":
    main()
