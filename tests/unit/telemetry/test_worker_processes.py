"""Twin of aiproxyd/telemetry/worker_processes.py."""

import os
import resource

import psutil
import pytest
from prometheus_client import CollectorRegistry

from aiproxyd.telemetry import worker_processes
from aiproxyd.telemetry.families import Family
from aiproxyd.telemetry.worker_processes import WorkerProcesses


def test_each_live_worker_has_its_figures() -> None:
    registry = CollectorRegistry()
    # No process has the highest id there may be.
    registry.register(WorkerProcesses(lambda: {0: os.getpid(), 1: 2**22 + 1}))
    figures = {
        (sample.name, sample.labels["worker"]): sample.value for metric in registry.collect() for sample in metric.samples
    }
    assert {worker for _, worker in figures} == {"0"}
    assert {name for name, _ in figures} == {family.name for family in worker_processes.FAMILIES}
    assert all(value > 0 for value in figures.values())


def test_the_figures_are_those_of_the_process() -> None:
    registry = CollectorRegistry()
    registry.register(WorkerProcesses(lambda: {3: os.getpid()}))

    def value(family: Family) -> float:
        found = registry.get_sample_value(family.name, {"worker": "3"})
        assert found is not None
        return found

    process = psutil.Process()
    assert value(worker_processes.STARTED) == pytest.approx(process.create_time(), abs=2)
    assert value(worker_processes.RESIDENT) == pytest.approx(process.memory_info().rss, rel=0.2)
    assert value(worker_processes.VIRTUAL) == pytest.approx(process.memory_info().vms, rel=0.2)
    assert value(worker_processes.MAX_FDS) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert value(worker_processes.OPEN_FDS) == pytest.approx(process.num_fds(), abs=3)
    assert value(worker_processes.CPU_SECONDS) == pytest.approx(sum(process.cpu_times()[:2]), abs=1)
