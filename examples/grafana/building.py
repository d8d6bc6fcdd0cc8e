"""What the dashboards' panels are put together from: common selections, sums with names, panels of one query."""

from aiproxyd.telemetry import own
from aiproxyd.telemetry.families import Family
from examples.grafana.panels import Panel, Query, legend_of, quantile

FAILED = {"outcome": "!~completed|client_aborted"}
"""A client that leaves is no error of anybody."""
DISJOINT = {"type": "=~input|output|cache_read_input_tokens|cache_write_input_tokens"}
"""Types of tokens that may be added up."""
INPUT = {"type": "=~input|cache_read_input_tokens|cache_write_input_tokens"}


def named(by_user: str) -> str:
    """Return a sum by `initiator_id` with the name of each."""
    return f"{by_user} * on (initiator_id) group_left (name) topk by (initiator_id) (1, {own.USER_INFO.name})"


def top(count: int, expression: str) -> str:
    """Return the largest series."""
    return f"topk({count}, {expression})"


def share(part: str, whole: str) -> str:
    """Return a ratio."""
    return f"{part} / {whole}"


def stat(title: str, expr: str, unit: str = "short", about: str = "", width: int = 4) -> Panel:
    """Return one number."""
    return Panel(title, (Query(expr),), "stat", unit, width, about)


def series(title: str, expr: str, by: tuple[str, ...] = (), unit: str = "short", **more: object) -> Panel:
    """Return one query over time."""
    return Panel(title, (Query(expr, legend_of(by)),), unit=unit, **more)  # type: ignore[arg-type]  # fields of a panel


def percentiles(title: str, family: Family, by: tuple[str, ...] = (), unit: str = "s", width: int = 8) -> Panel:
    """Return the median and the 95th percentile over time."""
    queries = tuple(Query(quantile(at, family, by), f"p{at * 100:.0f} {legend_of(by)}".strip()) for at in (0.5, 0.95))
    return Panel(title, queries, unit=unit, about=family.help, width=width)


BY_MODEL = ("provider", "model")
