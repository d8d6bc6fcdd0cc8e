"""Views of registered metrics, made when they are scraped: Coder's former names, constant labels. They cost nothing in between."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from aiproxyd.classify import ProviderStatus
from aiproxyd.telemetry.coder import GATEWAY, PROXY
from aiproxyd.telemetry.instruments import Instrument

LEGACY_GATEWAY = "coder_aibridged_"
LEGACY_PROXY = "coder_aibridgeproxyd_"


def legacy_name(name: str) -> str:
    """Return the name that a metric of Coder's had before version 2.35."""
    if name.startswith(PROXY):
        return LEGACY_PROXY + name.removeprefix(PROXY)
    return LEGACY_GATEWAY + name.removeprefix(GATEWAY)


class LegacyNames(Collector):
    """The `coder_legacy` dialect: the same series again under their former names, with the values they have at that moment.

    One label differs: the former `provider_info` knows the three statuses of Coder's documents, and what is `proxy_excluded` here
    is an `error` there.
    """

    def __init__(self, metrics: Iterable[Collector]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterator[Metric]:
        """Yield every family under its former name."""
        for collector in self._metrics:
            for metric in collector.collect():
                legacy = Metric(legacy_name(metric.name), metric.documentation, metric.type)
                legacy.samples = [
                    sample._replace(name=legacy_name(sample.name), labels=_legacy_labels(sample.labels))
                    for sample in metric.samples
                ]
                yield legacy

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are known to be free."""
        return ()


def _legacy_labels(labels: dict[str, str]) -> dict[str, str]:
    excluded = labels.get("status") == ProviderStatus.PROXY_EXCLUDED
    return {**labels, "status": str(ProviderStatus.ERROR)} if excluded else labels


class LabelledRegistry(CollectorRegistry):
    """A registry with constant labels on every series."""

    def __init__(self, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._inner = registry
        self._labels = dict(labels)

    def collect(self) -> Iterator[Metric]:
        """Yield every family with the labels added."""
        for metric in self._inner.collect():
            labelled = Metric(metric.name, metric.documentation, metric.type)
            labelled.samples = [_with(sample, self._labels) for sample in metric.samples]
            yield labelled


def _with(sample: Sample, labels: Mapping[str, str]) -> Sample:
    # What a series says itself goes before what is said of all.
    return sample._replace(labels={**labels, **sample.labels})


def collectors_of(holder: object) -> Sequence[Instrument[Any]]:
    """Return the metrics that are attributes of `holder`, alone or in tuples."""
    found: list[Any] = []
    for value in vars(holder).values():
        found += value if isinstance(value, tuple) else (value,)
    return [value for value in found if isinstance(value, Instrument)]
