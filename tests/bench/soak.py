"""Half an hour of everything at once, and what the daemon's processes hold meanwhile: `make soak`.

Two workers, PostgreSQL as the store where it is installed (restarted every few minutes; else SQLite, locked for a while), and
clients of every kind: kept connections, new ones, streams read to their end, abandoned ones, slow readers, tunnels, wrong tokens.
The pressure is moderate, so that what grows is a leak and not a queue. Prints a table, and fails when something grew.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trustme
import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import load as work
from tests.bench.peers import Product
from tests.support.postgres import is_installed, running_postgres

ROOT = Path(__file__).resolve().parents[2]

_SAMPLE_SECONDS = 10.0
_STORE_AWAY_EVERY_SECONDS = 180.0
_STORE_AWAY_SECONDS = 15.0
# Caches fill and the allocator settles first.
_WARM_UP_SHARE = 0.2
# What a flat line may gain between its first and last quarter, as a share of it and at the least in absolute terms.
_GROWTH = {"memory_megabytes": (0.05, 4.0), "descriptors": (0.05, 12.0), "tasks": (0.05, 8.0)}


class Sample(msgspec.Struct):
    """One process at one time."""

    memory_megabytes: float
    descriptors: int
    tasks: int


class Soak:
    """The load, the disturbances and the samples of one run."""

    def __init__(self, product: Product, ports: dict[str, int], seconds: float) -> None:
        self._product = product
        self._https, self._source = ports["https"], ports["source"]
        self._load = work.Load(product.port, token=product.token)
        self._deadline = time.monotonic() + seconds
        self.done: Counter[str] = Counter()
        self.samples: dict[str, list[Sample]] = {}

    async def run(self, disturb: Callable[[], Awaitable[None]]) -> None:
        """Load, disturb and sample until the time is over."""
        kinds = {
            "kept connections": (self._kept, 2),
            "new connections": (self._new, 1),
            "streams": (self._streams, 1),
            "abandoned streams": (self._abandoned, 2),
            "slow readers": (self._slow, 2),
            "tunnels": (self._tunnels, 1),
            "wrong tokens": (self._wrong, 1),
        }
        async with asyncio.TaskGroup() as group:
            for name, (job, count) in kinds.items():
                for _ in range(count):
                    group.create_task(self._repeat(name, job))
            group.create_task(self._disturb(disturb))
            group.create_task(self._sample())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._deadline

    async def _repeat(self, name: str, job: Callable[[], Awaitable[int]]) -> None:
        while not self.is_over:
            self.done[name] += await job()
            await asyncio.sleep(random.uniform(0.1, 0.5))

    async def _kept(self) -> int:
        return len(await work.kept_alive(self._load, self._https, requests=40, connections=4))

    async def _new(self) -> int:
        return len(await work.new_connections(self._load, self._https, requests=8, at_once=2))

    async def _streams(self) -> int:
        return len((await work.streams(self._load, self._https, count=4)).first_bytes)

    async def _abandoned(self) -> int:
        return len(await work.first_bytes(self._load, self._https, count=4))

    async def _slow(self) -> int:
        """Read a stream, and a long transfer in a tunnel, in fits and starts."""
        for port, tls, question in (
            (self._https, True, work.request(work.STREAM_QUESTION, self._https)),
            (self._source, False, b"%d\n" % (8 << 20)),
        ):
            async with self._load.connection(port, tls=tls) as conversation:
                assert conversation.transport is not None
                reading = asyncio.ensure_future(conversation.ask(question) if tls else conversation.drain(question))
                for pause in itertools.repeat(0.3):
                    if reading.done():
                        break
                    conversation.transport.pause_reading()
                    await asyncio.sleep(pause)
                    conversation.transport.resume_reading()
                    await asyncio.wait([reading], timeout=0.05)
                await reading
        return 2

    async def _tunnels(self) -> int:
        async with work.idle_connections(self._load, self._source, count=20, decrypted=False):
            await asyncio.sleep(1)
        return 20

    async def _wrong(self) -> int:
        load = work.Load(self._product.port, token="not-a-token")
        with contextlib.suppress(ConnectionError):
            async with load.connection(self._https):
                raise AssertionError("a wrong token was let in")
        return 1

    async def _disturb(self, disturb: Callable[[], Awaitable[None]]) -> None:
        while not self.is_over:
            await asyncio.sleep(min(_STORE_AWAY_EVERY_SECONDS, max(0.0, self._deadline - time.monotonic()) + 0.1))
            if not self.is_over:
                await disturb()
                self.done["times the store was away"] += 1

    async def _sample(self) -> None:
        while not self.is_over:
            control, *workers = sorted(self._product.tree(), key=lambda process: process.pid)
            control.send_signal(signal.SIGUSR1)
            await asyncio.sleep(_SAMPLE_SECONDS)
            tasks = self._product.tasks()
            for name, process in (("control", control), *((f"worker {n}", worker) for n, worker in enumerate(workers, 1))):
                self.samples.setdefault(name, []).append(
                    Sample(process.memory_info().rss / 2**20, process.num_fds(), tasks.get(process.pid, 0))
                )


async def run(arguments: argparse.Namespace, folder: Path) -> Soak:
    """Start everything, soak, stop everything."""
    authority = trustme.CA()
    certificate, roots = folder / "origin.pem", folder / "roots.pem"
    certificate.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(roots)
    async with contextlib.AsyncExitStack() as stack:
        origin = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.upstream", str(certificate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        stack.callback(origin.communicate)
        stack.callback(origin.kill)
        assert origin.stdout is not None
        ports = json.loads(origin.stdout.readline())
        server = stack.enter_context(running_postgres()) if is_installed() else None
        store = {"url": server.new_database().replace("postgresql:", "postgresql+asyncpg:", 1)} if server is not None else {}
        product = Product("relay", workers=2, cores=os.sched_getaffinity(0), config={"store": store} if store else {})
        product.start(folder, ports, roots)
        stack.callback(product.stop)

        async def disturb() -> None:
            if server is not None:
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(_STORE_AWAY_SECONDS)
                await asyncio.to_thread(server.start)
            else:
                lock = sqlite3.connect(product.data_dir / "aiproxyd.sqlite3", isolation_level=None)
                lock.execute("BEGIN EXCLUSIVE")
                await asyncio.sleep(_STORE_AWAY_SECONDS)
                lock.execute("ROLLBACK")
                lock.close()

        soak = Soak(product, ports, arguments.minutes * 60)
        await soak.run(disturb)
        return soak


def report(soak: Soak) -> bool:
    """Print what was done and held; return whether everything stayed flat."""
    console = Console(width=128)
    console.print(", ".join(f"{count:,} {name}" for name, count in soak.done.items()))
    table = Table("process", "what", "at first", "in the middle", "at the end", "largest", "flat")
    is_flat = True
    for process, all_samples in soak.samples.items():
        samples = all_samples[int(len(all_samples) * _WARM_UP_SHARE) :]
        quarter = max(1, len(samples) // 4)
        for field, (share, least) in _GROWTH.items():
            values = [float(getattr(sample, field)) for sample in samples]
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            good = last - first <= max(first * share, least)
            is_flat = is_flat and good
            middle = statistics.median(values[len(values) // 2 - quarter // 2 :][:quarter])
            figures = (f"{value:,.1f}" for value in (first, middle, last, max(values)))
            table.add_row(process, field.replace("_", " "), *figures, "yes" if good else "NO")
    console.print(table)
    return is_flat


def main() -> int:
    """Soak and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiproxyd-soak-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        soak = uvloop.run(run(arguments, folder))
    return 0 if report(soak) else 1


if __name__ == "__main__":
    sys.exit(main())
