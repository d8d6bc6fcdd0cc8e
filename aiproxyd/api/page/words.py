"""Says figures, times and JSON in words for people. Pure; the template engine escapes what comes out."""

import datetime as dt
import json
from typing import Any

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))

UNKNOWN = "\N{EN DASH}"
"""Stands where nothing is known."""

MAX_PRETTY_CHARACTERS = 200_000
"""Longer JSON is shown as it came: laying it out would take longer than anybody waits."""


def number(value: float | None) -> str:
    """Return a count with thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def short(value: float | None) -> str:
    """Return a count in three or four characters: `950`, `12.3k`, `4.5M`."""
    if value is None:
        return UNKNOWN
    for size, unit in _UNITS:
        # What would round up to a thousand of a unit is one of the next.
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def money(micros: int | None) -> str:
    """Return micro-USD as dollars; a dash where nothing is known."""
    if micros is None:
        return UNKNOWN
    dollars = micros / 1_000_000
    if 0 < dollars < 0.01:
        return f"${dollars:.4f}"
    return f"${dollars:,.2f}"


def seconds(value: float | None) -> str:
    """Return a duration in two units at most."""
    if value is None:
        return UNKNOWN
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = whole // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} d {minutes % 1440 // 60} h"


def between(start: str | None, end: str | None) -> str:
    """Return the duration between two RFC 3339 times."""
    if not start or not end:
        return UNKNOWN
    return seconds((dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds())


def minute(time: str | None) -> str:
    """Return an RFC 3339 time as `2026-01-31 08:00`, in UTC."""
    return UNKNOWN if not time else time[:16].replace("T", " ")


def clock(time: str | None) -> str:
    """Return the time of day of an RFC 3339 time, in UTC."""
    return UNKNOWN if not time else time[11:19]


def percent(part: float, whole: float) -> str:
    """Return a share."""
    return "0%" if not whole else f"{100 * part / whole:.0f}%"


def pretty(text: str | None) -> str:
    """Return JSON laid out, and anything else as it is."""
    if not text or len(text) > MAX_PRETTY_CHARACTERS or text.lstrip()[:1] not in {"{", "["}:
        return text or ""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def gist(text: str | None) -> str:
    """Return what tells one tool call from another in a line: its command, path, query, or first argument."""
    if not text:
        return ""
    try:
        arguments = json.loads(text) if len(text) <= MAX_PRETTY_CHARACTERS else None
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict) and arguments:
        for name in ("command", "cmd", "file_path", "pattern", "query", "path", "url", "description", "prompt"):
            if arguments.get(name):
                return _line(arguments[name])
        return _line(next(iter(arguments.values())))
    return _line(text)


def total_tokens(figures: dict[str, Any]) -> int:
    """Return all tokens of a usage together."""
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens")
    return sum(int(figures[name]) for name in names)


def _line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= 140 else line[:139] + "…"


FILTERS = {
    "number": number,
    "short": short,
    "money": money,
    "seconds": seconds,
    "minute": minute,
    "clock": clock,
    "pretty": pretty,
    "gist": gist,
    "total_tokens": total_tokens,
}
