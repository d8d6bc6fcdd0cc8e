"""From the figures of a run to a JSON file, a table on the terminal, and the same table in `docs/performance.md`."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import CONNECTION_COUNTS, P99_BOUNDS_MILLISECONDS, STREAM_COUNTS

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

BASELINE = "mitmdump"

_HOW_TO_READ = (
    "CPU milliseconds of the proxy's processes per unit of work: median (smallest to largest), and the ratio to bare "
    f"{BASELINE} within a round. Compare within this run only."
)

CPU_CASES = (
    ("kept_alive_16", "request on a kept-alive decrypted connection, 16 connections"),
    ("kept_alive_1", "the same, one connection"),
    ("kept_alive_128", "the same, 128 connections"),
    ("new_connection", "new decrypted connection and one request"),
    *((f"stream_{count}", f"streamed answer, 100 events 20 ms apart, one of {count}") for count in STREAM_COUNTS if count > 1),
    ("tls_megabyte", "tunnel of TLS bytes, per MB"),
    ("raw_megabyte", "tunnel of raw bytes, per MB"),
    ("idle_tunnel", "new idle tunnel"),
    ("idle_second", "a second of nothing to do"),
)
MEMORY_CASES = (
    ("idle_tunnel_kilobytes", "idle tunnel"),
    ("idle_connection_kilobytes", "idle decrypted connection after a request"),
    ("stream_128_kilobytes", "stream, one of 128"),
    ("stream_512_kilobytes", "stream, one of 512"),
)
RATE_CASES = tuple((f"rate_at_{bound}", f"p99 of {bound} ms") for bound in P99_BOUNDS_MILLISECONDS)
# Here what the load sees straight at the origin stands beside the proxies.
LATENCY_CASES = (
    *(
        (f"latency_{count}_{point}", f"{'one connection' if count == 1 else f'{count} connections'}, {point}")
        for count in CONNECTION_COUNTS
        for point in ("p50", "p99")
    ),
    *(
        (f"first_byte_{count}_{point}", f"first byte, {'one stream' if count == 1 else f'{count} streams'}, {point}")
        for count in STREAM_COUNTS
        for point in ("p50", "p99")
    ),
    *((f"first_byte_new_{point}", f"first byte, one stream on a connection just made, {point}") for point in ("p50", "p99")),
    *(
        (f"event_{count}_{point}", f"an event's way, {'one stream' if count == 1 else f'{count} streams'}, {point}")
        for count in STREAM_COUNTS
        for point in ("p50", "p99")
    ),
)
FLOWING_CASES = tuple((f"flowing_{count}", f"of {count}") for count in STREAM_COUNTS if count > 1)
STRAIGHT = "straight to the origin"


def write_report(result: dict[str, Any], *, output: Path, page: Path | None) -> None:
    """Write the JSON file into `output`, print the tables, and put them between the markers of `page`."""
    output.mkdir(parents=True, exist_ok=True)
    name = result["machine"]["date"].replace(" ", "_").replace(":", "")
    (output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    text = tables(result)
    print(text)
    print(f"written: {output / name}.json")
    if page is not None:
        page.parent.mkdir(exist_ok=True)
        old = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
        before, _, rest = old.partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def tables(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    facts = result["machine"]
    where = f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}, Python {facts['python']}"
    straight = result["ceiling"]
    return "\n".join(
        [
            f"{where}, {len(result['rounds'])} rounds: `{facts['command']}`. Load average before it began: {facts['load_average']}.",
            "",
            _HOW_TO_READ,
            "",
            *_table(result, CPU_CASES, ratios=True),
            "",
            "Latency in milliseconds; the last column is the same load without a proxy, and what a proxy adds is the difference:",
            "",
            *_table(result, LATENCY_CASES, straight=True),
            "",
            "Streams that flowed without a stall, on one core:",
            "",
            *_table(result, FLOWING_CASES, straight=True),
            "",
            "Requests a second on kept-alive connections, on one core, at the highest pressure whose latency stays within:",
            "",
            *_table(result, RATE_CASES),
            "",
            "Memory of all processes of the proxy, KB for each:",
            "",
            *_table(result, MEMORY_CASES),
            "",
            *_workers(result["workers"]),
            _ceiling(straight),
            "",
        ]
    )


def _ceiling(straight: dict[str, float]) -> str:
    return (
        "The load's own ceiling, straight to the origin, both on one core, a second: "
        f"{straight['kept_alive_rate']:,.0f} kept-alive requests; {straight['new_connection_rate']:,.0f} new connections; "
        f"{straight['raw_rate']:,.0f} megabytes raw; {straight['tls_rate']:,.0f} megabytes in TLS."
    )


def _workers(rounds: list[dict[str, float]]) -> list[str]:
    if not rounds:
        return []
    cases = (
        ("rate_1", "requests a second, one worker, all on one core"),
        ("rate_2", "requests a second, two workers, all on two cores"),
        ("gain", "gain"),
        ("machines_gain", "gain of two processes that only count"),
        ("flowing_128", "streams of 128 on two workers without a stall"),
        ("first_byte_1_p50", "added to the first byte of one stream, p50, ms"),
        ("first_byte_1_p99", "added to the first byte of one stream, p99, ms"),
        ("first_byte_new_p50", "the same on a connection just made, p50, ms"),
        ("first_byte_new_p99", "the same on a connection just made, p99, ms"),
        ("first_byte_128_p50", "added to the first byte of 128 streams, p50, ms"),
        ("first_byte_128_p99", "added to the first byte of 128 streams, p99, ms"),
    )
    return [
        "A second worker: proxy, load and origin together on one core, and then on two:",
        "",
        "| | aiproxyd (relay) |",
        "|---|---|",
        *(f"| {title} | {_spread([values[case] for values in rounds])} |" for case, title in cases),
        "",
    ]


def _table(
    result: dict[str, Any], cases: Sequence[tuple[str, str]], *, ratios: bool = False, straight: bool = False
) -> list[str]:
    peers = result["peers"]
    columns = [*peers, STRAIGHT] if straight else peers
    rows = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for case, title in cases:
        cells = [_cell(result["rounds"], peer, case, ratio=ratios and peer != BASELINE and BASELINE in peers) for peer in peers]
        if straight:
            cells.append(f"{result['ceiling'][case]:.3g}")
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def _cell(rounds: list[dict[str, dict[str, float]]], peer: str, case: str, *, ratio: bool) -> str:
    cell = _spread([measured[peer][case] for measured in rounds])
    if ratio:
        ratios = [measured[peer][case] / measured[BASELINE][case] for measured in rounds if measured[BASELINE][case] > 0]
        if ratios:
            cell += f", {statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
    return cell


def _spread(values: list[float]) -> str:
    return f"**{_figure(statistics.median(values))}** ({_figure(min(values))} to {_figure(max(values))})"


def _figure(value: float) -> str:
    if math.isnan(value):
        return "none"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
