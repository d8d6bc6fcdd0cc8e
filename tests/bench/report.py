"""From the figures of a run to a JSON file, a table on the terminal, and the same table in `docs/performance.md`."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import CONNECTION_COUNTS, P99_BOUNDS_MILLISECONDS, STREAM_COUNTS
from tests.bench.figures import figure, spread
from tests.bench.load import STREAM_SECONDS
from tests.bench.targets import PRODUCT, standings

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

BASELINE = "mitmdump"

CPU_CASES = (
    ("kept_alive_16", "request on a kept-alive decrypted connection, 16 connections"),
    ("kept_alive_1", "the same, one connection"),
    ("kept_alive_128", "the same, 128 connections"),
    ("new_connection", "new decrypted connection and one request"),
    *((f"stream_{count}", f"streamed answer, 100 events 20 ms apart, one of {count}") for count in STREAM_COUNTS if count > 1),
    *((f"stream_new_{count}", f"the same with its connection, one of {count}") for count in STREAM_COUNTS if count > 1),
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
WORKERS_CASES = (
    ("rate_1", "requests a second, one worker, all on one core"),
    ("rate_2", "requests a second, two workers, all on two cores"),
    ("gain", "gain"),
    ("machines_gain", "gain of two processes that only count"),
    ("megabytes_1", "memory of control and one worker afterwards, MB"),
    ("megabytes_2", "memory of control and two workers afterwards, MB"),
    ("flowing_128", "streams of 128 on two workers without a stall"),
    ("first_byte_1_p50", "added to the first byte of one stream, p50, ms"),
    ("first_byte_1_p99", "added to the first byte of one stream, p99, ms"),
    ("first_byte_new_p50", "the same on a connection just made, p50, ms"),
    ("first_byte_new_p99", "the same on a connection just made, p99, ms"),
    ("first_byte_128_p50", "added to the first byte of 128 streams, p50, ms"),
    ("first_byte_128_p99", "added to the first byte of 128 streams, p99, ms"),
)

# What a reader would otherwise ask of a table, below it.
CPU_NOTES = (
    "A stream costs less the more there are: a process that is behind finds several events at once and handles them together.",
    "With nothing to do it is control that looks: for new lines of the journal, dead workers, revoked users, changed files.",
)
FLOWING_NOTES = ("– : buffers the answer until it is complete, so there is nothing that could stall.",)
RATE_NOTES = (
    "These are bursts, whose records are stored after them. What a core sustains follows from the CPU time above.",
    "Equal rows: a few connections keep the core busy already; more of them bring no more requests, only longer waits.",
)
MEMORY_NOTES = (
    "Growth of resident memory. What was freed before and is used again is not seen, so a small figure, or 0, is a lower bound.",
    "128 streams find room that the connections before them left behind, 512 need new room: plan with the larger figure.",
)
WORKERS_NOTES = (
    (
        "A gain above 2 does not mean that two workers do more than twice the work of one. Load and origin, a process each, share the"
        " only core with the proxy in the first measurement; in the second there are two, and each process is interrupted less."
    ),
    "What is added is the percentile with the proxy less the one without, no percentile of differences: p99 may be below p50.",
)


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
    rounds = len(result["rounds"])
    how = f"{rounds} rounds" if rounds > 1 else "1 round"
    versions = ", ".join(f"{name}: {version}" for name, version in result["versions"].items())
    ranges = " (smallest to largest)" if rounds > 1 else ""
    return "\n".join(
        [
            *_summary(result),
            f"{where}, {how}: `{facts['command']}`. Load average before it began: {facts['load_average']}. {versions}.",
            "",
            *standings(result),
            (
                f"CPU milliseconds of the proxy's processes per unit of work: median{ranges}, and the ratio to bare {BASELINE}"
                " within a round. Compare within this run only."
            ),
            "",
            *_table(result, CPU_CASES, ratios=True),
            *_notes(CPU_NOTES),
            "Latency in milliseconds; the last column is the same load without a proxy, and what a proxy adds is the difference:",
            "",
            *_table(result, LATENCY_CASES, straight=True),
            "",
            "Streams that flowed without a stall, on one core:",
            "",
            *_table(result, FLOWING_CASES, straight=True, buffering=False),
            *_notes(FLOWING_NOTES),
            "Requests a second on kept-alive connections, on one core, at the highest pressure whose latency stays within:",
            "",
            *_table(result, RATE_CASES),
            *_notes(RATE_NOTES),
            "Memory of all processes of the proxy, KB for each:",
            "",
            *_table(result, MEMORY_CASES),
            *_notes(MEMORY_NOTES),
            *_workers(result["workers"]),
            _ceiling(result["ceiling"]),
            "",
        ]
    )


def _notes(notes: Sequence[str]) -> list[str]:
    return ["", *(f"- {note}" for note in notes), ""]


def _summary(result: dict[str, Any]) -> list[str]:
    """Return what a reader wants to know first, in medians of this run; nothing when one of them was not measured."""
    rounds, workers, straight = result["rounds"], result["workers"], result["ceiling"]
    if PRODUCT not in result["peers"] or not workers:
        return []
    ours = _medians([measured[PRODUCT] for measured in rounds])
    two = _medians(workers)
    others = {
        peer: _medians([measured[peer] for measured in rounds]) for peer in result["peers"] if not peer.startswith("aiproxyd")
    }
    if any(math.isnan(value) for value in (*ours.values(), *two.values())):
        return []

    def beside(case: str) -> str:
        figures = ", ".join(f"{peer} {figure(values[case])}" for peer, values in others.items() if not math.isnan(values[case]))
        return f" ({figures})" if figures else ""

    def added(case: str) -> str:
        return figure(ours[case] - straight[case])

    bound = P99_BOUNDS_MILLISECONDS[0]
    request, burst = "kept_alive_16", f"rate_at_{bound}"
    one_more = two["megabytes_2"] - two["megabytes_1"]
    # Only the first round finds no room that was freed before.
    connection, tunnel = (
        figure(max(measured[PRODUCT][case] for measured in rounds))
        for case in ("idle_connection_kilobytes", "idle_tunnel_kilobytes")
    )
    idle = ours["idle_second"]
    return [
        "In short (medians of this run; the other proxies only forward, this one authenticates, parses, records and counts):",
        "",
        (
            f"- **Requests**: {1000 / ours[request]:,.0f} a second sustained by one core, control and store included:"
            f" {figure(ours[request])} ms of CPU each{beside(request)}."
            f" In bursts {figure(ours[burst])} a second within a p99 of {bound} ms{beside(burst)}."
        ),
        (
            f"- **Latency added**, on one open connection: {added('latency_1_p50')} ms to a request (p99 {added('latency_1_p99')}),"
            f" {added('first_byte_1_p50')} ms to the first byte of a stream (p99 {added('first_byte_1_p99')})."
        ),
        (
            f"- **Memory**: {two['megabytes_1']:,.0f} MB for control and one worker, {one_more:,.0f} MB for one more worker,"
            f" {connection} KB for an idle decrypted connection, {tunnel} KB for an idle tunnel (the largest of the rounds)."
        ),
        f"- **Idle**: {figure(idle)} ms of CPU a second, {idle / 10:.2g} % of a core{beside('idle_second')}.",
        *_losses(ours, others),
        "",
    ]


def _losses(ours: dict[str, float], others: dict[str, dict[str, float]]) -> list[str]:
    """Return the line on where others do better, of CPU and of stalls."""
    cheaper = {
        peer: sum(not math.isnan(values[case]) and values[case] < ours[case] for case, _ in CPU_CASES)
        for peer, values in others.items()
    }
    said = [f"{peer} takes less CPU in {count} of {len(CPU_CASES)} rows" for peer, count in cheaper.items() if count]
    most = f"flowing_{max(STREAM_COUNTS)}"
    smoother = [
        f"{peer} {values[most]:.0f}" for peer, values in others.items() if not _buffers(values) and values[most] > ours[most]
    ]
    if smoother:
        said.append(
            f"of {max(STREAM_COUNTS)} streams on one core {ours[most]:.0f} flow without a stall, with {' and '.join(smoother)}"
        )
    return [f"- **Where it loses**: {'; '.join(said)}."] if said else []


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure, NaN where one round has none."""
    columns = {case: [values[case] for values in rounds] for case in rounds[0]}
    return {case: math.nan if any(map(math.isnan, column)) else statistics.median(column) for case, column in columns.items()}


def _buffers(values: dict[str, float]) -> bool:
    """Return whether the first byte of a stream came when its origin was done with it."""
    return values["first_byte_1_p50"] > STREAM_SECONDS * 1000 * 0.9


def _ceiling(straight: dict[str, float]) -> str:
    return (
        "The load's own ceiling, straight to the origin, both on one core, a second: "
        f"{straight['kept_alive_rate']:,.0f} kept-alive requests; {straight['new_connection_rate']:,.0f} new connections; "
        f"{straight['raw_rate']:,.0f} megabytes raw; {straight['tls_rate']:,.0f} megabytes in TLS."
    )


def _workers(rounds: list[dict[str, float]]) -> list[str]:
    if not rounds:
        return []
    return [
        "A second worker: proxy, load and origin together on one core, and then on two:",
        "",
        "| | aiproxyd (relay) |",
        "|---|---|",
        *(f"| {title} | {spread([values[case] for values in rounds])} |" for case, title in WORKERS_CASES),
        *_notes(WORKERS_NOTES),
    ]


def _table(
    result: dict[str, Any],
    cases: Sequence[tuple[str, str]],
    *,
    ratios: bool = False,
    straight: bool = False,
    buffering: bool = True,
) -> list[str]:
    """Return a table.

    Args:
        result: Of the run.
        cases: The rows, with their titles.
        ratios: Whether the ratio to the baseline stands beside each figure.
        straight: Whether the last column is the load without a proxy.
        buffering: Whether figures of proxies that buffer an answer mean anything here.
    """
    peers = result["peers"]
    columns = [*peers, STRAIGHT] if straight else peers
    rows = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    silent = set() if buffering else {peer for peer in peers if _buffers(_medians([each[peer] for each in result["rounds"]]))}
    for case, title in cases:
        cells = [
            "–"
            if peer in silent
            else _cell(result["rounds"], peer, case, ratio=ratios and peer != BASELINE and BASELINE in peers)
            for peer in peers
        ]
        if straight:
            cells.append(figure(result["ceiling"][case]))
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def _cell(rounds: list[dict[str, dict[str, float]]], peer: str, case: str, *, ratio: bool) -> str:
    cell = spread([measured[peer][case] for measured in rounds])
    if ratio:
        ratios = [measured[peer][case] / measured[BASELINE][case] for measured in rounds if measured[BASELINE][case] > 0]
        if ratios:
            cell += f", {statistics.median(ratios):.2f} ×"
            if len(rounds) > 1:
                cell += f" ({min(ratios):.2f} to {max(ratios):.2f})"
    return cell
