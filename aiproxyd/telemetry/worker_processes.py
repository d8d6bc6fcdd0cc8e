"""Figures of the worker processes, read from /proc when they are scraped. Those of control are the library's `process_*`."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aiproxyd.telemetry.coder import PROXY
from aiproxyd.telemetry.families import Family, counter, gauge

_WORKERS = ((256, "workers"),)
CPU_SECONDS = counter(
    PROXY + "worker_process_cpu_seconds_total", "Processor seconds of a worker process.", ("worker",), _WORKERS
)
RESIDENT = gauge(PROXY + "worker_process_resident_memory_bytes", "Resident memory of a worker process.", ("worker",), _WORKERS)
OPEN_FDS = gauge(PROXY + "worker_process_open_fds", "Open file descriptors of a worker process.", ("worker",), _WORKERS)
FAMILIES: tuple[Family, ...] = (CPU_SECONDS, RESIDENT, OPEN_FDS)

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class WorkerProcesses(Collector):
    """The families above."""

    def __init__(self, pids: Callable[[], Mapping[int, int]], proc: Path = Path("/proc")) -> None:
        """Read nothing yet.

        Args:
            pids: Gives the process ids by the workers' numbers.
            proc: Where the kernel shows processes.
        """
        self._pids = pids
        self._proc = proc

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of those that live; a process that just died has none."""
        cpu = CounterMetricFamily(CPU_SECONDS.name, CPU_SECONDS.help, labels=CPU_SECONDS.labels)
        resident = GaugeMetricFamily(RESIDENT.name, RESIDENT.help, labels=RESIDENT.labels)
        fds = GaugeMetricFamily(OPEN_FDS.name, OPEN_FDS.help, labels=OPEN_FDS.labels)
        for number, pid in sorted(self._pids().items()):
            try:
                # The name in parentheses may hold spaces; what follows it does not. See proc_pid_stat(5).
                fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
                open_fds = len(os.listdir(self._proc / str(pid) / "fd"))  # noqa: PTH208  (a count, no paths)
            except OSError:
                continue
            worker = [str(number)]
            cpu.add_metric(worker, (int(fields[11]) + int(fields[12])) / _TICKS)
            resident.add_metric(worker, int(fields[21]) * _PAGE)
            fds.add_metric(worker, open_fds)
        yield from (cpu, resident, fds)
