"""What the tables of a run say, and what they leave out."""

import math
from typing import Any

from tests.bench.report import (
    CPU_CASES,
    FLOWING_CASES,
    LATENCY_CASES,
    MEMORY_CASES,
    RATE_CASES,
    WORKERS_CASES,
    tables,
)
from tests.bench.targets import PRODUCT

CASES = [case for cases in (CPU_CASES, LATENCY_CASES, FLOWING_CASES, RATE_CASES, MEMORY_CASES) for case, _ in cases]
RATES = ("kept_alive_rate", "new_connection_rate", "raw_rate", "tls_rate")


def a_run(*, rounds: int = 1) -> dict[str, Any]:
    """Return a result whose figures are told apart by proxy: 3 is ours, 4 is the baseline's, 2 is that of one that is better."""
    ours, baseline, better = (dict.fromkeys(CASES, figure) for figure in (3.0, 4.0, 2.0))
    baseline |= {"first_byte_1_p50": 2002.0, "flowing_512": 512.0}
    ours["flowing_512"], better["flowing_512"] = 14.0, 500.0
    keys = ("date", "processor", "cores", "kernel", "python", "command", "load_average")
    return {
        "machine": dict.fromkeys(keys, "?"),
        "ceiling": dict.fromkeys([*CASES, *RATES], 1.0),
        "workers": [{**dict.fromkeys((case for case, _ in WORKERS_CASES), 5.0), "megabytes_2": 95.0} for _ in range(rounds)],
        "peers": [PRODUCT, "mitmdump", "squid"],
        "versions": {PRODUCT: "aiproxyd 1", "mitmdump": "mitmproxy 12", "squid": "squid 5.7"},
        "rounds": [{PRODUCT: dict(ours), "mitmdump": dict(baseline), "squid": dict(better)} for _ in range(rounds)],
    }


def row_of(text: str, title: str) -> list[str]:
    """Return the cells behind a title."""
    return next(line for line in text.splitlines() if line.startswith(f"| {title} |")).strip("| ").split(" | ")[1:]


def test_one_round_has_no_ranges() -> None:
    text = tables(a_run())
    assert row_of(text, "the same, one connection") == ["**3**, 0.75 ×", "**4**", "**2**, 0.50 ×"]
    assert "smallest" not in text


def test_several_rounds_have_ranges() -> None:
    result = a_run(rounds=3)
    result["rounds"][0][PRODUCT]["kept_alive_1"] = 1.0
    text = tables(result)
    assert row_of(text, "the same, one connection")[0] == "**3** (1 to 3), 0.75 × (0.25 to 0.75)"
    assert "smallest" in text


def test_who_buffers_cannot_stall() -> None:
    assert row_of(tables(a_run()), "of 512") == ["**14**", "–", "**500**", "1"]


def test_the_versions_of_the_others_are_named() -> None:
    assert "squid: squid 5.7" in tables(a_run())


def test_the_answer_comes_first() -> None:
    text = tables(a_run())
    assert text.startswith("In short")
    summary = text.partition("?")[0]
    assert "333 a second sustained by one core" in summary
    assert "3 ms of CPU each (mitmdump 4, squid 2)." in summary
    assert "2 ms to a request" in summary
    assert "5 MB for control and one worker, 90 MB for one more worker" in summary


def test_the_summary_says_where_others_are_better() -> None:
    summary = tables(a_run()).partition("?")[0]
    assert f"squid takes less CPU in {len(CPU_CASES)} of {len(CPU_CASES)} rows" in summary
    assert "mitmdump takes less" not in summary
    assert "of 512 streams on one core 14 flow without a stall, with squid 500." in summary


def test_a_figure_that_is_missing_takes_the_summary_away() -> None:
    result = a_run()
    result["rounds"][0][PRODUCT]["stream_512"] = math.nan
    text = tables(result)
    assert "In short" not in text
    assert row_of(text, "streamed answer, 100 events 20 ms apart, one of 512")[0].startswith("**none**")


def test_without_the_product_there_is_no_summary() -> None:
    result = a_run() | {"peers": ["mitmdump", "squid"], "workers": []}
    assert "In short" not in tables(result)


def with_goproxy(*, rounds: int = 1) -> dict[str, Any]:
    """Return a result in which goproxy takes 2 of everything."""
    result = a_run(rounds=rounds)
    for measured in result["rounds"]:
        measured["goproxy"] = dict.fromkeys(CASES, 2.0)
    return result | {"peers": [*result["peers"], "goproxy"], "versions": result["versions"] | {"goproxy": "goproxy 1"}}


def test_each_target_says_whether_it_is_reached() -> None:
    text = tables(with_goproxy())
    assert row_of(text, "new decrypted connection and one request, ms") == ["≤ 4", "**3**", "reached", "2", "**2**"]
    assert row_of(text, "request on a kept-alive decrypted connection, ms") == ["≤ 0.4", "**3**", "**missed**", "0.25", "**2**"]
    assert row_of(text, "tunnel of TLS bytes, of what goproxy takes in the same round")[1:3] == ["**1.5**", "**missed**"]
    assert row_of(text, "requests a second of two workers on two cores, of those of one")[:3] == ["≥ 1.8", "**5**", "reached"]
    assert row_of(text, "of 128 streams on two workers, those without a stall")[2] == "**missed**"


def test_a_target_is_a_median_and_of_memory_the_largest() -> None:
    result = with_goproxy(rounds=3)
    result["rounds"][1][PRODUCT] |= {"new_connection": 400.0, "idle_tunnel_kilobytes": 21.0}
    text = tables(result)
    assert row_of(text, "new decrypted connection and one request, ms")[1:3] == ["**3** (3 to 400)", "reached"]
    assert row_of(text, "idle tunnel, the largest of the rounds, KB")[1:3] == ["**21**", "**missed**"]


def test_a_figure_that_is_missing_is_no_target_reached() -> None:
    result = with_goproxy()
    result["rounds"][0][PRODUCT]["stream_32"] = math.nan
    assert (
        row_of(tables(result), "streamed answer on an open connection, 100 events 20 ms apart, one of 32, ms")[2]
        == "**missed**"
    )


def test_targets_without_goproxy_stand_alone() -> None:
    text = tables(a_run())
    assert row_of(text, "new decrypted connection and one request, ms")[-1] == "–"
    assert "of what goproxy takes" not in text
