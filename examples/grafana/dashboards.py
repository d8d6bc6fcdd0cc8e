"""Which dashboards there are: for a glance, for who pays, for who keeps it running."""

from aiproxyd.telemetry import coder, own, worker_processes
from aiproxyd.telemetry.families import Family
from examples.grafana.panels import (
    Dashboard,
    Panel,
    Query,
    Row,
    all_of,
    increase,
    legend_of,
    mean,
    now,
    quantile,
    rate,
    select,
)

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


_BY_MODEL = ("provider", "model")

OVERVIEW = Dashboard(
    "aiproxyd-overview",
    "aiproxyd: overview",
    "What is asked of which provider, how it goes, how long it takes.",
    ("instance", "provider", "model", "client", "user"),
    (
        Row(
            "Now",
            (
                stat("AI requests", rate(coder.INTERCEPTIONS), "reqps"),
                stat("In flight", now(coder.INTERCEPTIONS_INFLIGHT)),
                stat(
                    "Failed",
                    share(rate(own.OUTCOMES, **FAILED), rate(own.OUTCOMES)),
                    "percentunit",
                    "Outcomes other than completed and client_aborted.",
                ),
                stat("Tokens", increase(coder.TOKENS, **DISJOINT)),
                stat("Cost", increase(own.COST), "currencyUSD", "At list prices, of plans, too."),
                stat("Users", f"count({increase(coder.INTERCEPTIONS, ('initiator_id',))} > 0)"),
            ),
        ),
        Row(
            "Traffic",
            (
                series("Requests by provider", rate(coder.INTERCEPTIONS, ("provider",)), ("provider",), "reqps", stacked=True),
                series("Requests by client", rate(coder.INTERCEPTIONS, ("client",)), ("client",), "reqps", stacked=True),
                series("Requests by model", top(10, rate(coder.INTERCEPTIONS, ("model",))), ("model",), "reqps"),
                series(
                    "Requests by endpoint", rate(coder.INTERCEPTIONS, ("provider", "route")), ("provider", "route"), "reqps"
                ),
                series(
                    "Other requests to providers",
                    rate(coder.PASSTHROUGH, ("provider", "route")),
                    ("provider", "route"),
                    "reqps",
                    about=coder.PASSTHROUGH.help,
                ),
                series("Connections by kind", rate(coder.CONNECT_SESSIONS, ("type",)), ("type",), "cps"),
                series("Decrypted requests", rate(coder.MITM_REQUESTS, ("provider",)), ("provider",), "reqps"),
                series("In flight", now(coder.MITM_REQUESTS_INFLIGHT, ("provider",)), ("provider",), stacked=True),
                series("Status codes", rate(coder.MITM_RESPONSES, ("code",)), ("code",), "reqps", stacked=True),
            ),
        ),
        Row(
            "How it goes",
            (
                series("Outcomes", rate(own.OUTCOMES, ("outcome",)), ("outcome",), "reqps", stacked=True),
                series(
                    "Share that fails, by provider",
                    share(rate(own.OUTCOMES, ("provider",), **FAILED), rate(own.OUTCOMES, ("provider",))),
                    ("provider",),
                    "percentunit",
                ),
                series("Errors by class", rate(own.ERRORS, ("provider", "error_type")), ("provider", "error_type"), "reqps"),
            ),
        ),
        Row(
            "How long it takes",
            (
                percentiles("Duration", coder.INTERCEPTIONS_DURATION, _BY_MODEL),
                percentiles("Until the first output", own.FIRST_OUTPUT, _BY_MODEL),
                percentiles("Between output tokens", own.BETWEEN_TOKENS, _BY_MODEL),
                percentiles("Until the first byte", own.FIRST_BYTE, ("provider",)),
                percentiles("Request bodies", own.REQUEST_BODY, ("provider",), "bytes"),
                percentiles("Response bodies", own.RESPONSE_BODY, ("provider",), "bytes"),
            ),
        ),
        Row(
            "What is said",
            (
                series("Tokens by type", rate(coder.TOKENS, ("type",), **DISJOINT), ("type",), stacked=True),
                series("Prompts", rate(coder.PROMPTS, ("client",)), ("client",), stacked=True),
                Panel(
                    "Tools called",
                    (Query(top(15, increase(coder.NON_INJECTED_TOOL_SELECTIONS, ("name",))), "{{name}}"),),
                    "bargauge",
                ),
            ),
        ),
    ),
)


def leaders(title: str, **matchers: str) -> Panel:
    """Return who had most tokens of a kind."""
    expr = top(10, named(increase(coder.TOKENS, ("initiator_id",), **matchers)))
    return Panel(title, (Query(expr, "{{name}}"),), "bargauge", width=6)


def cost_table(title: str, by: str) -> Panel:
    """Return cost, requests and tokens by a label."""
    queries = [
        increase(own.COST, (by,)),
        increase(coder.INTERCEPTIONS, (by,)),
        increase(coder.TOKENS, (by,), **DISJOINT),
    ]
    if by == "initiator_id":
        queries = [named(query) for query in queries]
    return Panel(
        title, tuple(Query(query) for query in queries), "table", width=12, columns=("Cost in USD", "Requests", "Tokens")
    )


USERS_AND_COST = Dashboard(
    "aiproxyd-users-and-cost",
    "aiproxyd: users and cost",
    "Who asks how much of what, and what it costs at list prices.",
    ("instance", "provider", "model", "client", "user"),
    (
        Row(
            "Together",
            (
                stat("Cost", increase(own.COST, basis="=list_price"), "currencyUSD", "Billed by the token, at list prices."),
                stat(
                    "Covered by plans",
                    increase(own.COST, basis="=list_price_equivalent"),
                    "currencyUSD",
                    "What the traffic of plans would cost at list prices.",
                ),
                stat("Cost of a request", share(increase(own.COST), increase(coder.INTERCEPTIONS)), "currencyUSD"),
                stat(
                    "Input from caches",
                    share(increase(coder.TOKENS, type="=cache_read_input_tokens"), increase(coder.TOKENS, **INPUT)),
                    "percentunit",
                ),
                stat(
                    "Responses without a price",
                    increase(own.UNPRICED),
                    about="Their cost is missing in every sum. Add the model to pricing.overrides.",
                ),
                stat(
                    "Figures that are estimates",
                    share(increase(own.USAGE_SOURCES, source="=estimated"), increase(own.USAGE_SOURCES)),
                    "percentunit",
                    own.USAGE_SOURCES.help,
                ),
            ),
        ),
        Row(
            "Cost",
            (
                series("Cost by provider", increase(own.COST, ("provider",)), ("provider",), "currencyUSD"),
                series(
                    "Cost an hour by model", f"3600 * {rate(own.COST, ('model',))}", ("model",), "currencyUSD", stacked=True
                ),
                series(
                    "Cost an hour by client", f"3600 * {rate(own.COST, ('client',))}", ("client",), "currencyUSD", stacked=True
                ),
                cost_table("Users", "initiator_id"),
                cost_table("Models", "model"),
                cost_table("Clients", "client"),
                Panel(
                    "Models without a price",
                    (Query(increase(own.UNPRICED, _BY_MODEL)),),
                    "table",
                    width=12,
                    about=own.UNPRICED.help,
                    columns=("Responses",),
                ),
            ),
        ),
        Row(
            "Most tokens",
            (
                leaders("Input", type="=input"),
                leaders("Output", type="=output"),
                leaders("Read from caches", type="=cache_read_input_tokens"),
                leaders("Written to caches", type="=cache_write_input_tokens"),
            ),
        ),
        Row(
            "Most requests",
            (
                Panel(
                    "Models",
                    (Query(top(10, increase(coder.INTERCEPTIONS, ("model",))), "{{model}}"),),
                    "bargauge",
                ),
                Panel(
                    "Clients",
                    (Query(top(10, increase(coder.INTERCEPTIONS, ("client",))), "{{client}}"),),
                    "bargauge",
                ),
                Panel(
                    "Prompts of users",
                    (Query(top(10, named(increase(coder.PROMPTS, ("initiator_id",)))), "{{name}}"),),
                    "bargauge",
                ),
            ),
        ),
        Row(
            "Where the figures come from",
            (
                series("Sources of token figures", rate(own.USAGE_SOURCES, ("provider", "source")), ("provider", "source")),
                series("Estimated tokens", rate(own.ESTIMATED_TOKENS, ("provider", "type")), ("provider", "type")),
                series("Tokens of every type", rate(coder.TOKENS, ("type",)), ("type",), about=coder.TOKENS.help),
            ),
        ),
    ),
)

_EXPIRY = f"{select(own.CA_EXPIRY)} - time()"

PROXY_HEALTH = Dashboard(
    "aiproxyd-proxy-health",
    "aiproxyd: proxy health",
    "Whether it stands, what it adds, what it refuses, and whether everything is recorded.",
    ("instance", "provider"),
    (
        Row(
            "Now",
            (
                stat("Up", 'up{job="aiproxyd", instance=~"$instance"}'),
                stat("Workers", now(own.WORKERS)),
                stat("Workers restarted", increase(own.WORKER_RESTARTS)),
                stat("CA expires in", _EXPIRY, "s", own.CA_EXPIRY.help),
                stat("Not stored for", f"max({select(own.JOURNAL_LAG)})", "s", own.JOURNAL_LAG.help),
                stat("Lost observations", increase(own.JOURNAL_LOST), about=own.JOURNAL_LOST.help),
                Panel(
                    "Providers",
                    (Query(f"max by (provider_name, provider_type, status) ({select(coder.PROXY_PROVIDER_INFO)})"),),
                    "table",
                    width=12,
                    about=coder.PROXY_PROVIDER_INFO.help,
                ),
                series(
                    "From the last good configuration to the last attempt",
                    f"{select(coder.PROXY_LAST_RELOAD)} - {select(coder.PROXY_LAST_RELOAD_SUCCESS)}",
                    ("instance",),
                    "s",
                    width=6,
                    about="Above 0 for long: the last change was rejected, and the one before is in use.",
                ),
                Panel(
                    "Versions",
                    (Query(f"count by (version, python) ({select(own.BUILD_INFO)})"),),
                    "table",
                    width=6,
                    columns=("Daemons",),
                ),
            ),
        ),
        Row(
            "What it adds",
            (
                Panel(
                    "Overhead by part",
                    (
                        Query(quantile(0.5, own.OVERHEAD, ("part",)), "p50 {{part}}"),
                        Query(quantile(0.99, own.OVERHEAD, ("part",)), "p99 {{part}}"),
                    ),
                    unit="s",
                    about=own.OVERHEAD.help,
                ),
                percentiles("Verdict on a CONNECT", own.CONNECT_DECIDE),
                percentiles("Resolve and connect", own.UPSTREAM_CONNECT),
            ),
        ),
        Row(
            "What it refuses, and what fails",
            (
                series(
                    "Refused, by reason", rate(own.CONNECT_REFUSED, ("reason",)), ("reason",), about=own.CONNECT_REFUSED.help
                ),
                series(
                    "Clients without trust",
                    rate(own.CLIENT_TLS_FAILURES, ("host", "reason")),
                    ("host", "reason"),
                    about=own.CLIENT_TLS_FAILURES.help,
                ),
                series(
                    "TLS with providers",
                    rate(own.UPSTREAM_TLS_FAILURES, ("provider", "reason")),
                    ("provider", "reason"),
                    about=own.UPSTREAM_TLS_FAILURES.help,
                ),
                series(
                    "Not understood", rate(own.ANOMALIES, ("provider", "part")), ("provider", "part"), about=own.ANOMALIES.help
                ),
                series(
                    "New events of providers",
                    increase(own.UNKNOWN_EVENTS, ("provider", "event")),
                    ("provider", "event"),
                    about=own.UNKNOWN_EVENTS.help,
                ),
                series("Without a beginning", rate(own.ORPHANED), about=own.ORPHANED.help),
            ),
        ),
        Row(
            "Tunnels",
            (
                series("Bytes", rate(own.TUNNEL_BYTES, ("direction",)), ("direction",), "Bps"),
                series("Ended, by reason", rate(own.TUNNELS_CLOSED, ("reason",)), ("reason",)),
                percentiles("Lived", own.TUNNEL_DURATION),
            ),
        ),
        Row(
            "Records",
            (
                series("Journal", now(own.JOURNAL_BYTES, ("instance",)), ("instance",), "bytes", about=own.JOURNAL_BYTES.help),
                series("Behind", now(own.JOURNAL_LAG, ("instance",)), ("instance",), "s", about=own.JOURNAL_LAG.help),
                series("Stored observations", rate(own.STORE_OBSERVATIONS)),
                percentiles("One transaction", own.STORE_WRITE),
                series("Mean transaction", mean(own.STORE_WRITE), unit="s"),
                series("Failed transactions", rate(own.STORE_ERRORS), about=own.STORE_ERRORS.help),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "Processor",
                    (
                        Query(rate(worker_processes.CPU_SECONDS, ("instance", "worker")), "{{instance}} worker {{worker}}"),
                        Query(
                            'rate(process_cpu_seconds_total{job="aiproxyd", instance=~"$instance"}[$__rate_interval])',
                            "control",
                        ),
                    ),
                    unit="percentunit",
                    about="Of one core.",
                ),
                Panel(
                    "Memory",
                    (
                        Query(now(worker_processes.RESIDENT, ("instance", "worker")), "{{instance}} worker {{worker}}"),
                        Query('process_resident_memory_bytes{job="aiproxyd", instance=~"$instance"}', "control"),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "Open files",
                    (
                        Query(now(worker_processes.OPEN_FDS, ("instance", "worker")), "{{instance}} worker {{worker}}"),
                        Query('process_open_fds{job="aiproxyd", instance=~"$instance"}', "control"),
                    ),
                ),
            ),
        ),
    ),
)

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
