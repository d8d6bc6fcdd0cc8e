"""The dashboard for who pays: who asks how much of what, and what it costs."""

from aiproxyd.telemetry import coder, own
from examples.grafana.building import BY_MODEL, DISJOINT, INPUT, named, series, share, stat, top
from examples.grafana.panels import Dashboard, Panel, Query, Row, increase, rate


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
                    (Query(increase(own.UNPRICED, BY_MODEL)),),
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
