"""The dashboard for who keeps it running: whether it stands, what it adds and refuses, whether everything is recorded."""

from aiproxyd.telemetry import coder, own, worker_processes
from examples.grafana.building import percentiles, series, share, stat
from examples.grafana.panels import Dashboard, Panel, Query, Row, increase, mean, now, quantile, rate, select

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
            "Keys and circuit breakers",
            (
                series(
                    "Keys by state",
                    now(coder.KEY_POOL_STATE, ("provider", "state")),
                    ("provider", "state"),
                    about=coder.KEY_POOL_STATE.help,
                ),
                series(
                    "Keys that became unusable",
                    rate(coder.KEY_POOL_STATE_TRANSITIONS, ("provider", "reason")),
                    ("provider", "reason"),
                    about=coder.KEY_POOL_STATE_TRANSITIONS.help,
                ),
                series(
                    "No key was left",
                    rate(coder.KEY_POOL_EXHAUSTIONS, ("provider", "outcome")),
                    ("provider", "outcome"),
                    about=coder.KEY_POOL_EXHAUSTIONS.help,
                ),
                series(
                    "Keys that a request tried",
                    mean(coder.KEY_POOL_FAILOVER_ATTEMPTS, ("provider",)),
                    ("provider",),
                    about=coder.KEY_POOL_FAILOVER_ATTEMPTS.help,
                ),
                series(
                    "Open circuit breakers",
                    f"max by (provider, endpoint, model) ({select(coder.CIRCUIT_BREAKER_STATE)})",
                    ("provider", "endpoint", "model"),
                    about=coder.CIRCUIT_BREAKER_STATE.help,
                ),
                Panel(
                    "Trips and refusals of breakers",
                    (
                        Query(rate(coder.CIRCUIT_BREAKER_TRIPS, ("provider",)), "{{provider}} trips"),
                        Query(rate(coder.CIRCUIT_BREAKER_REJECTS, ("provider",)), "{{provider}} refusals"),
                    ),
                    about=coder.CIRCUIT_BREAKER_REJECTS.help,
                ),
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
                series("Spans for the collector", rate(own.TRACE_SPANS, ("result",)), ("result",), about=own.TRACE_SPANS.help),
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
                        Query(now(worker_processes.VIRTUAL, ("instance", "worker")), "{{instance}} worker {{worker}}, virtual"),
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
                series(
                    "Share of the open files that may be",
                    share(
                        now(worker_processes.OPEN_FDS, ("instance", "worker")),
                        now(worker_processes.MAX_FDS, ("instance", "worker")),
                    ),
                    ("instance", "worker"),
                    "percentunit",
                    about=worker_processes.MAX_FDS.help,
                ),
                series(
                    "Age of workers",
                    f"time() - {now(worker_processes.STARTED, ('instance', 'worker'))}",
                    ("instance", "worker"),
                    "s",
                    about=worker_processes.STARTED.help,
                ),
            ),
        ),
    ),
)
