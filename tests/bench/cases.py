"""What is measured of one proxy: CPU time per unit of work, latencies, memory, streams. The load is in `load`, the proxies in `peers`."""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from tests.bench import load as work
from tests.bench.peers import Peer

type Values = dict[str, float]

STREAM_COUNTS = (1, 32, 128, 512)
CONNECTION_COUNTS = (1, 16, 128)
# How many connections ask at once while the highest rate within a bound is sought.
PRESSURES = (1, 2, 4, 8, 16, 32, 64, 128)
P99_BOUNDS_MILLISECONDS = (5, 10, 20, 50)

_IDLE_SECONDS = 6.0
_FIRST_BYTES = 200
# A stream takes two seconds; what has not come after so long never comes.
_STREAMS_TIMEOUT_SECONDS = 60.0


class Measurement:
    """One round of everything, for one proxy."""

    def __init__(self, peer: Peer, ports: Mapping[str, int], *, scale: float) -> None:
        """Prepare.

        Args:
            peer: The proxy; runs.
            ports: Of the origin.
            scale: Amount of work; 1 is a full measurement.
        """
        self._peer = peer
        self._load = work.Load(peer.port, token=peer.token)
        self._https, self._source, self._tls_source = (ports[name] for name in ("https", "source", "tls_source"))
        self._scale = scale
        self._values: Values = {}

    async def run(self) -> Values:
        """Return every figure."""
        # Imports, caches and certificates of the first request are nobody's steady state.
        await work.kept_alive(self._load, self._https, requests=self._scaled(200), connections=4)
        # Memory first, while the process has none that was freed and could be used again unseen.
        await self._idle_tunnels()
        await self._idle_connections()
        await self._streams()
        await self._requests()
        await self._pressure()
        await self._tunnels()
        await self._idle()
        return self._values

    def _scaled(self, count: int) -> int:
        return max(1, int(count * self._scale))

    async def _cpu_of(self, name: str, units: float, job: Callable[[], Awaitable[Any]]) -> Any:
        before = self._peer.settled_cpu_seconds()
        result = await job()
        self._values[name] = (self._peer.settled_cpu_seconds() - before) / units * 1000
        return result

    async def _idle(self) -> None:
        # By the clock, and not as work is measured, which waits until the proxy rests: here that would be a part of it.
        before, began = self._peer.settled_cpu_seconds(), time.monotonic()
        await asyncio.sleep(_IDLE_SECONDS)
        self._values["idle_second"] = (self._peer.cpu_seconds() - before) / (time.monotonic() - began) * 1000

    async def _idle_tunnels(self) -> None:
        count = 1000
        self._values["idle_tunnel_kilobytes"] = await self._cpu_of(
            "idle_tunnel", count, lambda: self._held(count, decrypted=False)
        )

    async def _idle_connections(self) -> None:
        self._values["idle_connection_kilobytes"] = await self._held(200, decrypted=True)

    async def _held(self, count: int, *, decrypted: bool) -> float:
        before = self._peer.memory_bytes()
        port = self._https if decrypted else self._source
        async with work.idle_connections(self._load, port, count=count, decrypted=decrypted):
            return max(0, self._peer.memory_bytes() - before) / count / 1024

    async def _streams(self) -> None:
        values = self._values
        await _first_bytes(values, self._load, self._https)
        for count in STREAM_COUNTS:
            memory = self._peer.memory_bytes()
            during: list[int] = []
            opened: list[float] = []
            try:
                async with asyncio.timeout(_STREAMS_TIMEOUT_SECONDS):
                    before = self._peer.settled_cpu_seconds()
                    seen = await work.streams(
                        self._load,
                        self._https,
                        count=count,
                        opened=partial(self._note_cpu, opened),
                        during=partial(self._note_memory, during),
                    )
                    after = self._peer.settled_cpu_seconds()
            except TimeoutError:
                # Some were never answered to their end: there is no figure, and that is one.
                for name in (
                    "first_byte_{}_p50",
                    "first_byte_{}_p99",
                    "event_{}_p50",
                    "event_{}_p99",
                    "stream_{}",
                    "stream_new_{}",
                    "stream_{}_kilobytes",
                ):
                    values[name.format(count)] = math.nan
                values[f"flowing_{count}"] = 0
                continue
            # What a connection costs has a row of its own.
            values[f"stream_{count}"] = (after - opened[0]) / count * 1000
            values[f"stream_new_{count}"] = (after - before) / count * 1000
            _note_streams(values, count, seen)
            values[f"stream_{count}_kilobytes"] = max(0, during[0] - memory) / count / 1024

    def _note_cpu(self, into: list[float]) -> None:
        into.append(self._peer.settled_cpu_seconds())

    def _note_memory(self, into: list[int]) -> None:
        into.append(self._peer.memory_bytes())

    async def _requests(self) -> None:
        values = self._values
        for connections in CONNECTION_COUNTS:
            count = self._scaled(3000 if connections > 1 else 1000)
            opened: list[float] = []
            durations = await work.kept_alive(
                self._load, self._https, requests=count, connections=connections, opened=partial(self._note_cpu, opened)
            )
            values[f"kept_alive_{connections}"] = (self._peer.settled_cpu_seconds() - opened[0]) / count * 1000
            values[f"latency_{connections}_p50"], values[f"latency_{connections}_p99"] = percentiles(durations)
        count = self._scaled(300)
        await self._cpu_of(
            "new_connection", count, lambda: work.new_connections(self._load, self._https, requests=count, at_once=8)
        )

    async def _pressure(self) -> None:
        clock = asyncio.get_running_loop().time
        best = dict.fromkeys(P99_BOUNDS_MILLISECONDS, 0.0)
        for connections in PRESSURES:
            count = self._scaled(2000)
            opened: list[float] = []
            durations = await work.kept_alive(
                self._load,
                self._https,
                requests=count,
                connections=connections,
                opened=lambda: opened.append(clock()),
            )
            rate = count / (clock() - opened[0])
            _, p99 = percentiles(durations)
            for bound in best:
                if p99 <= bound:
                    best[bound] = max(best[bound], rate)
        for bound, rate in best.items():
            self._values[f"rate_at_{bound}"] = rate

    async def _tunnels(self) -> None:
        for name, port, tls, size in (("raw", self._source, False, 1024), ("tls", self._tls_source, True, 512)):
            megabytes = self._scaled(size)
            await self._cpu_of(
                f"{name}_megabyte",
                megabytes,
                partial(work.transfer, self._load, port, megabytes=megabytes, connections=4, tls=tls),
            )


async def ceiling(ports: Mapping[str, int]) -> Values:
    """Return what the load reaches straight to the origin: rates in units a second, latencies as those of a proxy."""
    direct = work.Load(None)
    clock = asyncio.get_running_loop().time
    https = ports["https"]
    values: Values = {}

    async def rate_of(name: str, units: int, job: Awaitable[Any]) -> None:
        started = clock()
        await job
        values[name] = units / (clock() - started)

    await work.kept_alive(direct, https, requests=500, connections=16)
    await rate_of("kept_alive_rate", 5000, work.kept_alive(direct, https, requests=5000, connections=16))
    await rate_of("new_connection_rate", 500, work.new_connections(direct, https, requests=500, at_once=8))
    await rate_of("raw_rate", 2048, work.transfer(direct, ports["source"], megabytes=2048, connections=4, tls=False))
    await rate_of("tls_rate", 512, work.transfer(direct, ports["tls_source"], megabytes=512, connections=4, tls=True))
    for connections in CONNECTION_COUNTS:
        durations = await work.kept_alive(direct, https, requests=2000, connections=connections)
        values[f"latency_{connections}_p50"], values[f"latency_{connections}_p99"] = percentiles(durations)
    await _first_bytes(values, direct, https)
    for count in STREAM_COUNTS:
        _note_streams(values, count, await work.streams(direct, https, count=count))
    return values


async def _first_bytes(values: Values, load: work.Load, port: int) -> None:
    for name, is_new in (("1", False), ("new", True)):
        seen = await work.first_bytes(load, port, count=_FIRST_BYTES, is_new=is_new)
        values[f"first_byte_{name}_p50"], values[f"first_byte_{name}_p99"] = percentiles(seen)


def _note_streams(values: Values, count: int, seen: work.Streams) -> None:
    if count > 1:
        values[f"first_byte_{count}_p50"], values[f"first_byte_{count}_p99"] = percentiles(seen.first_bytes)
    values[f"event_{count}_p50"], values[f"event_{count}_p99"] = percentiles(seen.delays)
    values[f"flowing_{count}"] = count - seen.stalled


def percentiles(durations: list[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile in milliseconds."""
    ordered = sorted(durations)
    return statistics.median(ordered) * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000
