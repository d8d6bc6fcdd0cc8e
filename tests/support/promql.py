"""What a PromQL expression asks for, as far as tests need it: the metrics it names, and the labels it uses of each."""

import re
from collections.abc import Iterable

from aiproxyd.telemetry import bifrost, coder, gen_ai, own, worker_processes
from aiproxyd.telemetry.exposed import legacy_name
from aiproxyd.telemetry.families import Family, Kind

_METRIC = re.compile(r"\b((?:coder_ai|bifrost|gen_ai|http_re|process|up)\w*)\b(?![:(])(\{[^}]*\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")

_OF_PROMETHEUS = {"job", "instance"}


def families() -> dict[str, Family]:
    """Return every family of every dialect by its name, and Coder's by their former names, too."""
    all_of_them = (*coder.FAMILIES, *own.FAMILIES, *worker_processes.FAMILIES, *bifrost.FAMILIES, *gen_ai.FAMILIES)
    return {family.name: family for family in all_of_them} | {legacy_name(family.name): family for family in coder.FAMILIES}


def series_of(family: Family) -> dict[str, set[str]]:
    """Return the names of a family's series, each with its labels."""
    labels = set(family.labels) | _OF_PROMETHEUS
    if family.kind is not Kind.HISTOGRAM:
        return {family.name: labels}
    return {f"{family.name}_bucket": labels | {"le"}, f"{family.name}_sum": labels, f"{family.name}_count": labels}


def known_series() -> dict[str, set[str]]:
    """Return the name of every series that a scrape may hold, with its labels."""
    known: dict[str, set[str]] = {"up": _OF_PROMETHEUS}
    for family in families().values():
        known |= series_of(family)
    for name in (
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ):
        known[name] = _OF_PROMETHEUS
    return known


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    return {name for name, _ in _METRIC.findall(_GROUPING.sub(" ", _STRING.sub('""', expression)))}


def mistakes_in(expression: str, recorded: Iterable[str] = ()) -> list[str]:
    """Return what an expression asks for that is not there: metrics, and labels that none of its metrics has."""
    known = known_series()
    mistakes = []
    plain = _STRING.sub('""', expression)
    labels_of_all = {"le", "name", *_OF_PROMETHEUS}
    for name in metrics_of(expression):
        if name in known:
            labels_of_all |= known[name]
        elif name not in recorded:
            mistakes.append(f"no metric is called {name}")
    for name, selector in _METRIC.findall(_GROUPING.sub(" ", plain)):
        mistakes += [
            f"{name} has no label {label}" for label in _LABEL.findall(selector) if label not in known.get(name, {label})
        ]
    for grouping in _GROUPING.findall(plain):
        words = [word.strip() for word in grouping.split(",") if word.strip()]
        mistakes += [f"nothing in it has the label {label}" for label in words if label not in labels_of_all]
    return mistakes
