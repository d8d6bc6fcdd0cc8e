"""The figures of the overview: reports of the last days, summed up in several ways. What reads the store is `read_overview`."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.storage.selection import Selection
from aiproxyd.storage.usage_report import Dimension, usage_of

PERIODS = (1, 7, 30, 90)
"""Days that can be shown."""

LEADERS = 8
"""Rows of a leaderboard."""

CHART_WIDTH = 600
CHART_HEIGHT = 120

_FIGURES = ("requests", "failures", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")

_Row = dict[str, Any]


@dataclass(slots=True)
class Figures:
    """A sum of rows."""

    requests: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cost_micros: int | None = None
    users: set[str] = field(default_factory=set)

    @property
    def total_tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens + self.cache_read_input_tokens + self.cache_write_input_tokens

    def add(self, row: _Row) -> None:
        """Count a row of a usage report in."""
        for name in _FIGURES:
            setattr(self, name, getattr(self, name) + row[name])
        if row["cost_micros"] is not None:
            self.cost_micros = (self.cost_micros or 0) + row["cost_micros"]
        if "user" in row:
            self.users.add(row["user"]["id"])


@dataclass(frozen=True, slots=True)
class Bar:
    """A day of a chart, in the chart's own units."""

    day: str
    value: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure over the days."""

    title: str
    kind: str
    """How values are said: `short` or `money`."""
    bars: list[Bar]
    highest: float


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows."""

    total: Figures
    charts: list[Chart]
    boards: dict[str, tuple[str, list[tuple[str, Figures]]]]
    """By title: the key by which sessions are searched, and who is first."""


# So many rows may stand behind a chart: days times users.
_MAX_REPORT_ROWS = 1_000_000


async def read_overview(connection: AsyncConnection, until: dt.date, days: int) -> Overview:
    """Return the figures of the last `days` days, the last one `until`."""
    selection = Selection(started_after=dt.datetime.combine(until - dt.timedelta(days=days - 1), dt.time(), dt.UTC))
    # Several reports of few rows each instead of one by everything, which has as many rows as all combinations.
    by_user = await usage_of(connection, selection, (Dimension.DAY, Dimension.USER), limit=_MAX_REPORT_ROWS)
    boards = {"Users": ("initiator", leaders(by_user, lambda row: row["user"]["name"] or row["user"]["id"]))}
    for title, dimension in (("Models", Dimension.MODEL), ("Clients", Dimension.CLIENT), ("Projects", Dimension.PROJECT)):
        rows = await usage_of(connection, selection, (dimension,), limit=LEADERS + 1)
        key = "" if dimension is Dimension.PROJECT else str(dimension)
        boards[title] = (key, leaders(rows, lambda row, name=str(dimension): str(row[name])))  # type: ignore[misc]  # bound at once
    return Overview(sum_of(by_user), charts(by_user, until, days), boards)


def sum_of(rows: Iterable[_Row]) -> Figures:
    """Return all rows together."""
    figures = Figures()
    for row in rows:
        figures.add(row)
    return figures


def leaders(rows: Iterable[_Row], name_of: Callable[[_Row], str]) -> list[tuple[str, Figures]]:
    """Return who is first: by cost, then by tokens, then by requests; what has no name is left out."""
    sums: dict[str, Figures] = {}
    for row in rows:
        name = name_of(row)
        if name:
            sums.setdefault(name, Figures()).add(row)
    order = sorted(
        sums.items(), key=lambda item: (-(item[1].cost_micros or 0), -item[1].total_tokens, -item[1].requests, item[0])
    )
    return order[:LEADERS]


def charts(rows: Sequence[_Row], until: dt.date, days: int) -> list[Chart]:
    """Return requests, tokens, cost and active users over the last `days` days, the last one `until`."""
    by_day: dict[str, Figures] = {}
    for row in rows:
        by_day.setdefault(row["day"], Figures()).add(row)
    names = [(until - dt.timedelta(days=days - 1 - place)).isoformat() for place in range(days)]
    of_days = [by_day.get(name, Figures()) for name in names]
    kinds: list[tuple[str, str, list[float]]] = [
        ("Requests", "short", [figures.requests for figures in of_days]),
        ("Tokens", "short", [figures.total_tokens for figures in of_days]),
        ("Cost", "money", [figures.cost_micros or 0 for figures in of_days]),
        ("Active users", "short", [len(figures.users) for figures in of_days]),
    ]
    return [_chart(title, kind, names, values) for title, kind, values in kinds]


def _chart(title: str, kind: str, names: Sequence[str], values: Sequence[float]) -> Chart:
    highest = max(values, default=0)
    step = CHART_WIDTH / max(1, len(values))
    gap = min(6.0, step * 0.25)
    bars = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        # A day with anything at all can be seen.
        height = max(2.0, CHART_HEIGHT * value / highest) if value else 0.0
        bars.append(Bar(name, value, round(place * step + gap / 2, 2), CHART_HEIGHT - height, round(step - gap, 2), height))
    return Chart(title, kind, bars, highest)
