"""Which dashboards there are."""

from aiproxyd.telemetry import coder, own, worker_processes
from examples.grafana.overview import OVERVIEW
from examples.grafana.panels import Dashboard, Row, all_of
from examples.grafana.proxy_health import PROXY_HEALTH
from examples.grafana.users_and_cost import USERS_AND_COST

TWINS = frozenset({coder.PROVIDER_INFO, coder.LAST_RELOAD, coder.LAST_RELOAD_SUCCESS})
"""Coder's gateway says of itself what its proxy says of itself; here it is one program, and one panel is enough."""


def dashboards() -> tuple[Dashboard, ...]:
    """Return every dashboard; what no panel shows has one in the last row of the last."""
    families = (*coder.FAMILIES, *own.FAMILIES, *worker_processes.FAMILIES)
    shown = " ".join(
        query.expr
        for page in (OVERVIEW, USERS_AND_COST, PROXY_HEALTH)
        for row in page.rows
        for panel in row.panels
        for query in panel.queries
    )
    others = tuple(all_of(family) for family in families if family not in TWINS and f"{family.name}" not in shown)
    health = PROXY_HEALTH
    if others:
        health = Dashboard(
            health.uid, health.title, health.about, health.variables, (*health.rows, Row("Everything else", others))
        )
    return OVERVIEW, USERS_AND_COST, health
