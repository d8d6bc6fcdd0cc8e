"""What a second worker and a second core bring.

Load and origin need a core as well, and there may be two in all. So the whole system is moved: proxy with one worker, load and
origin together on one core, against proxy with two workers, load and origin together on two. Twice the rate is the ideal, because
the share of load and origin is the same in both.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import load as work
from tests.bench.cases import Values, percentiles
from tests.bench.peers import Product, on_cores

_CONNECTIONS = 64
# Fewer say little of two processes that share a machine.
_MIN_REQUESTS = 6000
_FIRST_BYTES = 300

_COUNT = (
    "import time; began = time.perf_counter(); sum(i * i % 7 for i in range(5_000_000)); print(time.perf_counter() - began)"
)


async def scaling(folder: Path, ports: Mapping[str, int], roots: Path, origin: int, *, scale: float) -> Values:
    """Return requests a second and memory with one worker and with two, and how 128 streams fare on two.

    Args:
        folder: For the daemons.
        ports: Of the origin.
        roots: PEM that the origin's certificate leads to.
        origin: Process id of the origin.
        scale: Amount of work.
    """
    values: Values = {}
    before = {process: os.sched_getaffinity(process) for process in (0, origin)}
    cores = sorted(before[0])
    try:
        for workers in (1, 2):
            product = Product("relay", workers=workers, cores=set(cores[:workers]))
            for process in (0, origin):
                os.sched_setaffinity(process, set(cores[:workers]))
            product.start(folder / f"workers-{workers}", ports, roots)
            try:
                load = work.Load(product.port, token=product.token)
                await work.kept_alive(load, ports["https"], requests=500, connections=_CONNECTIONS)
                count = max(_MIN_REQUESTS, int(10_000 * scale))
                clock = asyncio.get_running_loop().time
                started = clock()
                await work.kept_alive(load, ports["https"], requests=count, connections=_CONNECTIONS)
                values[f"rate_{workers}"] = count / (clock() - started)
                product.settled_cpu_seconds()
                values[f"megabytes_{workers}"] = product.memory_bytes() / 2**20
                if workers == 2:
                    await _streams(values, load, ports["https"])
            finally:
                product.stop()
    finally:
        for process, allowed in before.items():
            os.sched_setaffinity(process, allowed)
    values["gain"] = values["rate_2"] / values["rate_1"]
    values["machines_gain"] = _machines_gain(cores)
    return values


async def _streams(values: Values, load: work.Load, port: int) -> None:
    """Note what the proxy adds to the first byte of streams, one and 128 at once, and how many of the latter flow."""
    straight = work.Load(None)
    seen = await work.streams(load, port, count=128)
    values["flowing_128"] = 128 - seen.stalled
    pairs = {
        case: [await work.first_bytes(each, port, count=_FIRST_BYTES, is_new=case == "new") for each in (load, straight)]
        for case in ("1", "new")
    }
    pairs["128"] = [seen.first_bytes, (await work.streams(straight, port, count=128)).first_bytes]
    for case, (through, direct) in pairs.items():
        for name, with_proxy, without in zip(("p50", "p99"), percentiles(through), percentiles(direct), strict=True):
            values[f"first_byte_{case}_{name}"] = with_proxy - without


def _machines_gain(cores: Sequence[int]) -> float:
    """Return what two processes that only count gain over one: less than 2 where cores are shared with others or with each other."""
    alone, *_ = _counting(cores[:1])
    together = _counting(cores[:2])
    return len(together) * alone / max(together)


def _counting(cores: Sequence[int]) -> list[float]:
    processes = []
    for core in cores:
        with on_cores({core}):
            processes.append(subprocess.Popen([sys.executable, "-c", _COUNT], stdout=subprocess.PIPE))
    return [float(process.communicate()[0]) for process in processes]
