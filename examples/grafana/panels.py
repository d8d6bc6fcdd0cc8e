"""How a dashboard is written down: queries from metric families, panels, rows, and Grafana's JSON of them. Not which there are.

A query takes its name, labels and unit from the family, so a metric that is renamed or loses a label cannot leave a panel behind
that shows nothing. Each selector has the variables of those labels that the family has.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from aiproxyd.telemetry.families import Family, Kind

VARIABLES = {
    "instance": "instance",
    "provider": "provider",
    "provider_name": "provider",
    "model": "model",
    "client": "client",
    "initiator_id": "user",
}
"""The variable that chooses a label's values."""

_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24
"""Columns of Grafana's grid."""
_HEIGHT = {"stat": 4, "timeseries": 8, "table": 9, "bargauge": 9}


@dataclasses.dataclass(frozen=True)
class Query:
    """One expression, and how its series are called."""

    expr: str
    legend: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    """`timeseries`, `stat`, `table` or `bargauge`."""
    unit: str = "short"
    width: int = 8
    about: str = ""
    stacked: bool = False
    columns: tuple[str, ...] = ()
    """Headings of a table's values, one a query."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    about: str
    variables: tuple[str, ...]
    rows: tuple[Row, ...]


# Expressions.


def select(family: Family, series: str = "", /, **matchers: str) -> str:
    """Return a selector of `family` with every variable of its labels.

    Args:
        family: Of the metric.
        series: `bucket`, `sum` or `count` of a histogram.
        matchers: Further ones, such as `type="=~input|output"`: operator and value in one.
    """
    chosen = [f'{label}=~"${VARIABLES[label]}"' for label in ("instance", *family.labels) if label in VARIABLES]
    for label, condition in matchers.items():
        operator = "".join(itertools.takewhile("=!~".__contains__, condition))
        chosen.append(f'{label}{operator}"{condition.removeprefix(operator)}"')
    return f"{family.name}{'_' + series if series else ''}{{{', '.join(chosen)}}}"


def total(inner: str, by: Sequence[str] = ()) -> str:
    """Return the sum of `inner` by labels."""
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def rate(family: Family, by: Sequence[str] = (), series: str = "", /, **matchers: str) -> str:
    """Return how much a second is added to a counter, summed by labels."""
    return total(f"rate({select(family, series, **matchers)}[$__rate_interval])", by)


def increase(family: Family, by: Sequence[str] = (), series: str = "", /, **matchers: str) -> str:
    """Return how much was added to a counter in the time that is shown, summed by labels."""
    return total(f"increase({select(family, series, **matchers)}[$__range])", by)


def now(family: Family, by: Sequence[str] = (), **matchers: str) -> str:
    """Return the value of a gauge, summed by labels."""
    return total(select(family, **matchers), by)


def quantile(share: float, family: Family, by: Sequence[str] = (), **matchers: str) -> str:
    """Return the value that this share of a histogram's observations stays below."""
    return f"histogram_quantile({share}, {rate(family, (*by, 'le'), 'bucket', **matchers)})"


def mean(family: Family, by: Sequence[str] = ()) -> str:
    """Return the mean of a histogram's observations."""
    return f"{rate(family, by, 'sum')} / {rate(family, by, 'count')}"


def unit_of(family: Family) -> str:
    """Return Grafana's word for what a gauge's or histogram's value is."""
    for ending, unit in (("_timestamp_seconds", "dateTimeFromNow"), ("_seconds", "s"), ("_bytes", "bytes")):
        if family.name.endswith(ending):
            return unit
    return "short"


def legend_of(by: Iterable[str]) -> str:
    """Return a legend of labels."""
    return " ".join(f"{{{{{label}}}}}" for label in by)


# Grafana's form.


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    ids = itertools.count(1)
    panels: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        panels.append(
            {
                "id": next(ids),
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > _WIDTH:
                top, left, tallest = top + tallest, 0, 0
            height = _HEIGHT[panel.kind]
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append({"id": next(ids), "gridPos": place, **_panel(_with(dashboard.variables, panel))})
            left, tallest = left + panel.width, max(tallest, height)
        top += tallest
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["aiproxyd"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "links": [{"type": "dashboards", "tags": ["aiproxyd"], "title": "aiproxyd", "asDropdown": False, "keepTime": True}],
        "annotations": {"list": []},
        "templating": {"list": [_data_source(), *(_variable(name) for name in dashboard.variables)]},
        "panels": panels,
    }


def _with(variables: tuple[str, ...], panel: Panel) -> Panel:
    """Return the panel without selectors of variables that its dashboard does not have."""
    absent = "|".join(set(VARIABLES.values()) - set(variables))
    if not absent:
        return panel
    queries = (dataclasses.replace(query, expr=re.sub(rf', \w+=~"\$({absent})"', "", query.expr)) for query in panel.queries)
    return dataclasses.replace(panel, queries=tuple(queries))


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind in {"table", "bargauge"}
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": {}}
    if panel.kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 5, "showPoints": "never"}
        defaults["custom"]["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    written: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATA_SOURCE,
        "targets": [
            _target(query, ref, panel.kind, instant=instant) for query, ref in zip(panel.queries, _refs(), strict=False)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.kind == "table":
        names = {"Value": panel.title} | {
            f"Value #{ref}": name for name, ref in zip(panel.columns or (panel.title,), _refs(), strict=False)
        }
        written["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
        ]
    return written


def _refs() -> Iterable[str]:
    return iter("ABCDEFGH")


def _target(query: Query, ref: str, kind: str, *, instant: bool) -> dict[str, Any]:
    return {
        "refId": ref,
        "datasource": _DATA_SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": instant,
        "range": not instant,
        "format": "table" if kind == "table" else "time_series",
        # The points that lead to a record.
        "exemplar": kind == "timeseries" and "histogram_quantile" in query.expr,
    }


def _options(kind: str) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match kind:
        case "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "stat":
            return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
        case _:
            return {"showHeader": True}


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


_VARIABLE_QUERIES = {
    "instance": ("label_values(coder_ai_gateway_build_info, instance)", ""),
    "provider": ('label_values(coder_ai_gateway_proxy_provider_info{instance=~"$instance"}, provider_name)', ""),
    "model": ('label_values(coder_ai_gateway_interceptions_total{provider=~"$provider"}, model)', ""),
    "client": ('label_values(coder_ai_gateway_interceptions_total{provider=~"$provider"}, client)', ""),
    # Ids are what series have; people choose by name.
    "user": ("query_result(coder_ai_gateway_user_info)", '/initiator_id="(?<value>[^"]*)".*name="(?<text>[^"]*)"/'),
}


def _variable(name: str) -> dict[str, Any]:
    query, regex = _VARIABLE_QUERIES[name]
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _DATA_SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "regex": regex,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def all_of(family: Family) -> Panel:
    """Return a panel of a family that no other panel shows: what its kind suggests, by the labels of few values."""
    by = tuple(label for label in family.labels if label not in {"initiator_id", "model", "client", "route"})
    match family.kind:
        case Kind.COUNTER:
            query, unit = rate(family, by), "short"
        case Kind.GAUGE:
            query, unit = now(family, by), unit_of(family)
        case Kind.HISTOGRAM:
            query, unit = quantile(0.95, family, by), unit_of(family)
    title = family.name.removeprefix("coder_ai_gateway_")
    return Panel(title, (Query(query, legend_of(by)),), unit=unit, about=family.help)
