"""Figures of the worker processes, read from /proc when they are scraped. Those of control are the library's `process_*`."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from aiproxyd.telemetry.coder import PROXY
from aiproxyd.telemetry.families import Family, Kind, counter, gauge

_WORKERS = ((256, "workers"),)
CPU_SECONDS = counter(
    PROXY + "worker_process_cpu_seconds_total", "Processor seconds of a worker process.", ("worker",), _WORKERS
)
RESIDENT = gauge(PROXY + "worker_process_resident_memory_bytes", "Resident memory of a worker process.", ("worker",), _WORKERS)
OPEN_FDS = gauge(PROXY + "worker_process_open_fds", "Open file descriptors of a worker process.", ("worker",), _WORKERS)
VIRTUAL = gauge(PROXY + "worker_process_virtual_memory_bytes", "Virtual memory of a worker process.", ("worker",), _WORKERS)
MAX_FDS = gauge(
    PROXY + "worker_process_max_fds", "So many file descriptors a worker process may have open.", ("worker",), _WORKERS
)
STARTED = gauge(
    PROXY + "worker_process_start_time_seconds", "Unix time at which a worker process started.", ("worker",), _WORKERS
)
FAMILIES: tuple[Family, ...] = (CPU_SECONDS, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, STARTED)

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
        boot = self._boot_time()
        metrics: dict[Family, CounterMetricFamily | GaugeMetricFamily] = {
            family: (CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily)(
                family.name, family.help, labels=family.labels
            )
            for family in FAMILIES
        }
        for number, pid in sorted(self._pids().items()):
            process = self._proc / str(pid)
            try:
                # The name in parentheses may hold spaces; what follows it does not. See proc_pid_stat(5).
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                open_fds = len(os.listdir(process / "fd"))  # noqa: PTH208  (a count, no paths)
                limits = (process / "limits").read_text()
            except OSError:
                continue
            figures = {
                CPU_SECONDS: (int(fields[11]) + int(fields[12])) / _TICKS,
                RESIDENT: int(fields[21]) * _PAGE,
                VIRTUAL: int(fields[20]),
                OPEN_FDS: open_fds,
                STARTED: boot + int(fields[19]) / _TICKS,
            }
            # The soft limit is in the fourth column; `unlimited` is no figure.
            soft = next((line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")), "")
            if soft.isdigit():
                figures[MAX_FDS] = int(soft)
            for family, figure in figures.items():
                metrics[family].add_metric([str(number)], figure)
        yield from metrics.values()

    def _boot_time(self) -> int:
        lines = (self._proc / "stat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("btime")), 0)
