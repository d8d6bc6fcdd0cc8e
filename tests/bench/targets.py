"""What the product is to reach, and how far a run is from it.

A figure belongs to its machine and its hour: the same core takes 1.3 to 1.8 times as long in some. So what goproxy took where the targets
were set stands beside what it takes in the run.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.bench.figures import figure, spread

PRODUCT = "aiproxyd (relay)"
YARDSTICK = "goproxy"


class Target(NamedTuple):
    """A bound of one figure."""

    case: str
    """The figure's key in a round, of the product or of its workers."""
    title: str
    bound: float
    goproxy_then: float = math.nan
    """What goproxy took on the machine for which the bound was set; NaN where that was not measured."""
    is_floor: bool = False
    """Whether more is better."""


CPU_TARGETS = (
    Target("kept_alive_16", "request on a kept-alive decrypted connection, ms", 0.4, 0.25),
    Target("new_connection", "new decrypted connection and one request, ms", 4.0, 2.0),
    Target("stream_32", "streamed answer on an open connection, 100 events 20 ms apart, one of 32, ms", 11.0, 7.0),
    # The bound was set without a word on whose connection it is.
    Target("stream_new_32", "the same with the making of its connection, ms", 11.0, 7.0),
    Target("tls_megabyte", "tunnel of TLS bytes, per MB, ms", 0.6, 0.78),
    Target("raw_megabyte", "tunnel of raw bytes, per MB, ms", 0.45, 0.5),
    Target("idle_tunnel", "new idle tunnel, ms", 0.4, 0.28),
)
TLS_BESIDE_GOPROXY = Target("tls_megabyte", "tunnel of TLS bytes, of what goproxy takes in the same round", 1.0)
MEMORY_TARGET = Target("idle_tunnel_kilobytes", "idle tunnel, the largest of the rounds, KB", 20.0, 18.0)
WORKERS_TARGETS = (
    Target("gain", "requests a second of two workers on two cores, of those of one", 1.8, is_floor=True),
    Target("flowing_128", "of 128 streams on two workers, those without a stall", 128, is_floor=True),
    Target("first_byte_128_p99", "added to their first byte, p99, ms", 5.0),
    Target("first_byte_1_p99", "added to the first byte of one stream, p99, ms", 1.2),
)


def standings(result: dict[str, Any]) -> list[str]:
    """Return the table of targets as Markdown; nothing without the product."""
    if PRODUCT not in result["peers"] or not result["workers"]:
        return []
    ours = [measured[PRODUCT] for measured in result["rounds"]]
    theirs = [measured[YARDSTICK] for measured in result["rounds"] if YARDSTICK in measured]
    rows = [_row(target, _values(ours, target), _values(theirs, target)) for target in CPU_TARGETS]
    if theirs:
        ratios = [
            mine[TLS_BESIDE_GOPROXY.case] / other[TLS_BESIDE_GOPROXY.case] for mine, other in zip(ours, theirs, strict=True)
        ]
        rows.append(_row(TLS_BESIDE_GOPROXY, ratios, []))
    largest = ([max(_values(each, MEMORY_TARGET))] if each else [] for each in (ours, theirs))
    rows.append(_row(MEMORY_TARGET, *largest))
    rows += [_row(target, _values(result["workers"], target), []) for target in WORKERS_TARGETS]
    return [
        "What is aimed at. Bounds were set on another machine, or in another hour: what goproxy took there stands beside what it takes here.",
        "",
        "| | aimed at | this run | | goproxy then | goproxy in this run |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _values(rounds: Sequence[dict[str, float]], target: Target) -> list[float]:
    return [each[target.case] for each in rounds]


def _row(target: Target, ours: Sequence[float], theirs: Sequence[float]) -> str:
    value = statistics.median(ours)
    is_reached = value >= target.bound if target.is_floor else value <= target.bound
    cells = (
        target.title,
        f"{'≥' if target.is_floor else '≤'} {figure(target.bound)}",
        spread(ours),
        "reached" if is_reached else "**missed**",
        "–" if math.isnan(target.goproxy_then) else figure(target.goproxy_then),
        spread(theirs) if theirs else "–",
    )
    return f"| {' | '.join(cells)} |"
