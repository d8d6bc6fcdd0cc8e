"""How figures of a run are written."""

import math
import statistics
from collections.abc import Sequence


def spread(values: Sequence[float]) -> str:
    """Return the median, and of several rounds the range."""
    median = f"**{figure(statistics.median(values))}**"
    return f"{median} ({figure(min(values))} to {figure(max(values))})" if len(values) > 1 else median


def figure(value: float) -> str:
    """Return three digits of a figure, or more where they are whole."""
    if math.isnan(value):
        return "none"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
