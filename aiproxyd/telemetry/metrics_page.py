"""Writes `docs/metrics.md` from the families. Run `python -m aiproxyd.telemetry.metrics_page > docs/metrics.md` after a change."""

import sys
from types import ModuleType

from aiproxyd.model.outcome import Outcome
from aiproxyd.telemetry import bifrost, coder, gen_ai, own, worker_processes
from aiproxyd.telemetry.exposed import LEGACY_GATEWAY, LEGACY_PROXY
from aiproxyd.telemetry.families import Family, Kind
from aiproxyd.telemetry.token_types import COMMON, OF_API

_LIMITS = coder.LIMITS

_HEAD = f"""\
# Metrics

<!-- Made from the code: python -m aiproxyd.telemetry.metrics_page > docs/metrics.md -->

`GET /metrics` of the admin server (`127.0.0.1:8889` by default) serves every metric of the daemon, all workers together, as OpenMetrics when
`Accept` asks for it and in Prometheus' text format otherwise. With `admin.token` set, a scrape needs it as a bearer token.

```yaml
scrape_configs:
  - job_name: aiproxyd
    static_configs: [{{targets: ["127.0.0.1:8889"]}}]
    # authorization: {{credentials_file: /etc/prometheus/aiproxyd.token}}
```

Counters begin at 0 when the daemon starts; the records in the store are what lasts. Besides the metrics below there are the `process_*` ones
of the control process.

## What adds up

- Each decrypted request counts once in `mitm_requests_total` and once in `mitm_responses_total`; `inflight_mitm_requests` is the difference.
- `interceptions_total` sums to the same as `accounting_outcomes_total`. Its `completed` is the outcome `completed`, its `failed` all others.
- `tokens_total` sums to the token figures in the store. The types `{"`, `".join(COMMON)}` are disjoint. The others repeat parts of them, so a
  sum must choose by `type`.

## Labels

- `provider`: the name of the entry in `providers`, not its type.
- `model`: the model that the request names, `unknown` when it names none.
- `initiator_id`: the id of the user.
- `client`: the tool, such as `Claude Code` or `Codex`; `Unknown` when it is none we know.
- `route`, `method`: the endpoint's pattern, and the request's method or `other`.
- `code`: the status the client got; `499` when the client left before an answer began, `0` when the proxy ended first.
- `outcome`: {", ".join(f"`{outcome}`" for outcome in Outcome)}.
- `type` of `tokens_total`: those above, and by API:
{"".join(f"  - {api}: {', '.join(f'`{name}`' for name in types)}{chr(10)}" for api, types in OF_API.items())}
## How many series there can be

Values that a client or a provider chooses are limited, in the order they come; what exceeds a limit is counted as `other`, and nothing is lost from
a sum. A *combination* is a distinct provider, route, method, model, user and client; there are at most {_LIMITS.combinations:,}, and at most
{_LIMITS.combinations_of_a_user} for one user, so that no user's inventions cost another one a series. There are at most {_LIMITS.models:,} models. Names of more than
100 characters, or with unprintable ones, are `other`.

The worst case beside each metric is what a hostile client can reach with {_LIMITS.providers} providers of {_LIMITS.endpoints} endpoints in all. A histogram has a series for each bucket,
for `+Inf`, the sum and the count.
"""


_LEGACY = f"""\
## Coder's names of before 2.35

With `metrics.dialects: [coder_legacy]` every metric of Coder's names above is there a second time, with the same values:
`{coder.GATEWAY}…` as `{LEGACY_GATEWAY}…`, `{coder.PROXY}…` as `{LEGACY_PROXY}…`. Without the dialect Prometheus can make them
of the new ones; not with it, or every series is there twice. One label differs: the former `provider_info` shows `error` for what is
`proxy_excluded`, a status that Coder's documents do not name:

```yaml
metric_relabel_configs:
  # The proxy's rule goes first: the other one matches its metrics too.
  - {{source_labels: [__name__], regex: "{coder.PROXY}(.*)", target_label: __name__, replacement: "{LEGACY_PROXY}${{1}}"}}
  - {{source_labels: [__name__], regex: "{coder.GATEWAY}(.*)", target_label: __name__, replacement: "{LEGACY_GATEWAY}${{1}}"}}
```
"""


def render() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    parts.append(
        _section(
            "Coder's names", "Names, types, labels and buckets of Coder's AI Gateway and AI Gateway Proxy.", coder.FAMILIES
        )
    )
    parts.append(
        _section("Our own", "What Coder does not have, under the same prefixes.", own.FAMILIES + worker_processes.FAMILIES)
    )
    parts.append(_LEGACY)
    parts.append(
        _section(
            "Bifrost's names",
            f"With `metrics.dialects: [bifrost]`; labels of `metrics.header_labels` come behind those shown. {_prose(bifrost)}",
            bifrost.FAMILIES,
        )
    )
    parts.append(
        _section(
            "OpenTelemetry's names",
            f"With `metrics.dialects: [gen_ai]`; labels of `metrics.header_labels` come behind those shown. {_prose(gen_ai)}",
            gen_ai.FAMILIES,
        )
    )
    return "\n".join(parts)


def _prose(module: ModuleType) -> str:
    """Return what a dialect's docstring says behind its first paragraph."""
    return (module.__doc__ or "").partition("\n\n")[2].strip()


def _section(title: str, about: str, families: tuple[Family, ...]) -> str:
    return f"## {title}\n\n{about}\n\n" + "\n".join(_entry(family) for family in families)


def _entry(family: Family) -> str:
    lines = [f"### `{family.name}`", "", family.help, "", f"- Type: {family.kind}"]
    if family.labels:
        lines.append("- Labels: " + ", ".join(f"`{label}`" for label in family.labels))
    if family.buckets:
        lines.append("- Buckets: " + ", ".join(f"{bound:g}" for bound in family.buckets))
    lines.append(f"- Worst case: {_worst_case(family)}")
    return "\n".join(lines) + "\n"


def _worst_case(family: Family) -> str:
    factors = [f"{count:,} {what}" for count, what in family.worst_case]
    if family.kind is Kind.HISTOGRAM:
        factors.append(f"{len(family.buckets) + 3} series of a histogram")
    if not factors:
        return "1 series"
    return f"{' \N{MULTIPLICATION SIGN} '.join(factors)} = {family.max_series:,} series"


if __name__ == "__main__":
    sys.stdout.write(render())
