"""The dashboard for a glance: what is asked of which provider, how it goes, how long it takes."""

from aiproxyd.telemetry import coder, own
from examples.grafana.building import BY_MODEL, DISJOINT, FAILED, percentiles, series, share, stat, top
from examples.grafana.panels import Dashboard, Panel, Query, Row, increase, now, rate

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
                percentiles("Duration", coder.INTERCEPTIONS_DURATION, BY_MODEL),
                percentiles("Until the first output", own.FIRST_OUTPUT, BY_MODEL),
                percentiles("Between output tokens", own.BETWEEN_TOKENS, BY_MODEL),
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
