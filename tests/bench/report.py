"""From the figures of a run to a JSON file, a table on the terminal, and the same table in `docs/performance.md`."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

BASELINE = "mitmdump"

_HOW_TO_READ = (
    "CPU milliseconds of the proxy's processes per unit of work: median (smallest to largest), and the ratio to bare "
    f"{BASELINE} within a round. Compare within this run only."
)

CPU_CASES = (
    ("kept_alive_request", "request on a kept-alive decrypted connection"),
    ("new_connection", "new decrypted connection and one request"),
    ("stream_32", "streamed answer, 100 events 20 ms apart, one of 32"),
    ("stream_128", "streamed answer, one of 128"),
    ("tls_megabyte", "tunnel of TLS bytes, per MB"),
    ("raw_megabyte", "tunnel of raw bytes, per MB"),
    ("idle_tunnel", "new idle tunnel"),
)
OTHER_CASES = (
    ("idle_tunnel_kilobytes", "memory of an idle tunnel, KB"),
    ("latency_1_p50", "latency of one connection, p50, ms"),
    ("latency_1_p99", "latency of one connection, p99, ms"),
    ("latency_16_p50", "latency of 16 connections, p50, ms"),
    ("latency_16_p99", "latency of 16 connections, p99, ms"),
    ("first_byte_1", "first byte of one stream, ms"),
    ("first_byte_32_p99", "first byte of 32 streams, p99, ms"),
    ("first_byte_128_p99", "first byte of 128 streams, p99, ms"),
    ("stalled_32", "streams of 32 that stalled"),
    ("stalled_128", "streams of 128 that stalled"),
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
    ceiling = "; ".join(f"{value:,.0f} {name}" for name, value in result["ceiling"].items())
    return "\n".join(
        [
            f"{where}, {len(result['rounds'])} rounds: `{facts['command']}`. Load average before it began: {facts['load_average']}.",
            "",
            _HOW_TO_READ,
            "",
            *_table(result, CPU_CASES, ratios=True),
            "",
            "Beside the CPU time:",
            "",
            *_table(result, OTHER_CASES, ratios=False),
            "",
            f"The load's own ceiling, straight to the origin on one core, a second: {ceiling}.",
            "",
        ]
    )


def _table(result: dict[str, Any], cases: Sequence[tuple[str, str]], *, ratios: bool) -> list[str]:
    peers = result["peers"]
    rows = ["| | " + " | ".join(peers) + " |", "|---|" + "---|" * len(peers)]
    for case, title in cases:
        cells = [_cell(result["rounds"], peer, case, ratio=ratios and peer != BASELINE and BASELINE in peers) for peer in peers]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def _cell(rounds: list[dict[str, dict[str, float]]], peer: str, case: str, *, ratio: bool) -> str:
    values = [measured[peer][case] for measured in rounds]
    cell = f"**{statistics.median(values):.3g}** ({min(values):.3g} to {max(values):.3g})"
    if ratio:
        ratios = [measured[peer][case] / measured[BASELINE][case] for measured in rounds if measured[BASELINE][case] > 0]
        if ratios:
            cell += f", {statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
    return cell
