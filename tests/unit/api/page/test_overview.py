"""Twin of aiproxyd/api/page/overview.py."""

import datetime as dt
from typing import Any

from aiproxyd.api.page.overview import CHART_HEIGHT, LEADERS, charts, leaders, sum_of


def _row(day: str, user: str, *, cost: int | None = 5, requests: int = 2) -> dict[str, Any]:
    return {
        "day": day,
        "user": {"id": user, "name": user},
        "requests": requests,
        "failures": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 3,
        "cache_write_input_tokens": 4,
        "cost_micros": cost,
    }


def test_rows_are_summed_and_users_counted_once() -> None:
    figures = sum_of([_row("2026-01-30", "a"), _row("2026-01-31", "a"), _row("2026-01-31", "b", cost=None)])
    assert (figures.requests, figures.total_tokens, figures.cost_micros, figures.users) == (6, 30, 10, {"a", "b"})
    assert sum_of([]).cost_micros is None


def test_the_dearest_come_first_and_what_has_no_name_is_left_out() -> None:
    rows = [_row("d", f"u{number:02}", cost=number) for number in range(20)] + [_row("d", "", cost=99)]
    board = leaders(rows, lambda row: row["user"]["name"])
    assert [name for name, _ in board] == [f"u{number}" for number in range(19, 19 - LEADERS, -1)]


def test_every_day_has_its_place_and_one_with_anything_can_be_seen() -> None:
    rows = [_row("2026-01-29", "a", requests=10_000), _row("2026-01-31", "a", requests=1), _row("2025-01-01", "a")]
    requests, tokens, cost, users = charts(rows, dt.date(2026, 1, 31), 3)
    assert [bar.day for bar in requests.bars] == ["2026-01-29", "2026-01-30", "2026-01-31"]
    assert [bar.height for bar in requests.bars] == [CHART_HEIGHT, 0, 2]
    assert [bar.value for bar in users.bars] == [1, 0, 1]
    assert (tokens.highest, cost.kind) == (10, "money")
    assert charts([], dt.date(2026, 1, 31), 7)[0].highest == 0
