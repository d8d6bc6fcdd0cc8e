"""Rows of the table, and the comparison that fills them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.support.expectations import tokens_of


@dataclasses.dataclass
class Row:
    """What one client, or one set of requests, sent, and what became of it."""

    client: str
    requests: int = 0
    recorded: int = 0
    tokens_true: int = 0
    tokens_recorded: int = 0
    complaints: list[str] = dataclasses.field(default_factory=list)
    """A sentence for each request that is missing, doubled or off."""

    def compare(self, name: str, usage: Mapping[str, int], records: Sequence[dict[str, Any]]) -> None:
        """Count one request.

        Args:
            name: For a complaint.
            usage: The provider's own figures, under the names of the record's; empty when it told none.
            records: Of this request; there should be one.
        """
        self.requests += 1
        self.recorded += len(records)
        true = {key: count for key, count in usage.items() if key != "reasoning_output_tokens"}
        self.tokens_true += sum(true.values())
        if len(records) != 1:
            self.complaints.append(f"{name}: {len(records)} records")
        for record in records:
            # Estimates are no claim about what the provider bills.
            told = tokens_of(record) if record["usage_source"] == "reported" else {}
            self.tokens_recorded += sum(told.values())
            if {key: count for key, count in told.items() if count} != {key: count for key, count in true.items() if count}:
                self.complaints.append(f"{name}: recorded {told}, true {true}")

    @property
    def is_exact(self) -> bool:
        """Whether nothing was missed and nothing is off."""
        return not self.complaints and self.requests == self.recorded and self.tokens_true == self.tokens_recorded


def table(rows: Iterable[Row]) -> str:
    """Return the rows, and their sum, as text."""
    rows = list(rows)
    total = Row("all")
    for row in rows:
        for field in ("requests", "recorded", "tokens_true", "tokens_recorded"):
            setattr(total, field, getattr(total, field) + getattr(row, field))
    lines = [f"{'client':44} {'requests':>9} {'recorded':>9} {'tokens true':>12} {'tokens recorded':>16}"]
    lines += [
        f"{row.client:44} {row.requests:>9,} {row.recorded:>9,} {row.tokens_true:>12,} {row.tokens_recorded:>16,}"
        for row in [*rows, total]
    ]
    missed = sum(abs(row.requests - row.recorded) for row in rows)
    off = sum(abs(row.tokens_true - row.tokens_recorded) for row in rows)
    lines.append(f"{missed} requests missed, {off} tokens off")
    lines += [f"  {row.client}: {complaint}" for row in rows for complaint in row.complaints]
    return "\n".join(lines)
