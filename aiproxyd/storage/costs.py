"""Puts costs on rows of tokens: on new ones as they are ingested, and again on stored ones. What a price is, `pricing` knows.

Pricing again never forgets: the amount before, with its source and version, goes to the row's history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.engine import Row as ResultRow
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproxyd.model.billing import Billing
from aiproxyd.model.observation import InterceptionEnded
from aiproxyd.model.usage import TokenUsage
from aiproxyd.pricing import Charge, Cost, Pricer
from aiproxyd.storage.figures import keeping_figures
from aiproxyd.storage.rows import Changes, Known, Row
from aiproxyd.storage.tables import interceptions, token_usages

FACTS: Final = ("provider", "provider_name", "host", "model", "billing")
"""Columns of an interception that say what it is charged as."""

PAGE_ROWS: Final = 500
"""Rows that are priced again in one transaction: a few milliseconds of a lock."""

MAX_HISTORY: Final = 20
"""Former amounts that a row keeps; the oldest go."""


def price_tokens(changes: Changes, known: Mapping[str, Known], pricer: Pricer) -> None:
    """Put a cost on each row of tokens of `changes`.

    Args:
        changes: Those of a run of lines.
        known: The interceptions that began before the run.
        pricer: Knows what a response costs.
    """
    for key, report in changes.reports.items():
        row = changes.tokens[key]
        id_ = row["interception_id"]
        started = changes.started.get(id_)
        facts = started if started is not None else known[id_].facts | changes.described.get(id_, {})
        charge = Charge(
            at=report.at,
            provider=facts["provider_name"],
            provider_type=facts["provider"],
            host=facts["host"],
            model=report.response_model or facts["model"],
            usage=report.usage,
            billing=billing(facts["billing"]),
            metadata=report.metadata if isinstance(report, InterceptionEnded) else {},
        )
        row.update(cost_columns(pricer.price(charge)))


def cost_columns(cost: Cost | None) -> Row:
    """Return the columns that tell a cost; all null when it is not known."""
    if cost is None:
        return dict.fromkeys(("cost_micros", "price_source", "price_version", "cost_basis", "cost_details"))
    return {
        "cost_micros": cost.micros,
        "price_source": cost.source,
        "price_version": cost.version,
        "cost_basis": cost.basis,
        "cost_details": dict(cost.details),
    }


def billing(word: str) -> Billing:
    """Return what a stored word means; a word of a newer program is taken as metered, which never hides a charge."""
    return Billing.SUBSCRIPTION if word == Billing.SUBSCRIPTION else Billing.METERED


@dataclass(slots=True)
class Repricing:
    """What pricing again found."""

    rows: int = 0
    """Rows that were looked at."""
    changed: int = 0
    unpriced: int = 0
    """Rows without a cost afterwards."""
    before_micros: int = 0
    """Sum of the changed rows before, nulls as 0."""
    after_micros: int = 0
    models: dict[str, int] = field(default_factory=dict)
    """Changed rows by model."""
    last: tuple[datetime, str, int] | None = None
    """Where to go on; None when there is no more."""


_columns = token_usages.c
_ORDER = (_columns.created_at, _columns.interception_id, _columns.position)
_SELECT = (
    select(
        token_usages,
        interceptions.c.metadata.label("facts"),
        interceptions.c.response_model,
        *(interceptions.c[name].label(f"i_{name}") for name in FACTS),
    )
    .join(interceptions, interceptions.c.id == _columns.interception_id)
    .order_by(*_ORDER)
    .limit(PAGE_ROWS)
)
_UPDATE = update(token_usages).where(_columns.interception_id == bindparam("id"), _columns.position == bindparam("place"))


async def reprice_page(
    connection: AsyncConnection, pricer: Pricer, since: datetime, report: Repricing, *, at: datetime, dry_run: bool
) -> None:
    """Price the next rows again and add what was found to `report`; `report.last` is None when there are no more.

    Args:
        connection: In a transaction.
        pricer: Knows today's prices of any day.
        since: Rows of responses from this time on.
        report: Of the pages before.
        at: The time to write into histories.
        dry_run: Whether nothing is written.
    """
    query = _SELECT.where(_columns.created_at >= since.astimezone(UTC))
    if report.last is not None:
        query = query.where(tuple_(*_ORDER) > tuple_(*report.last))
    rows = (await connection.execute(query)).all()
    updates = []
    for row in rows:
        report.rows += 1
        new = cost_columns(pricer.price(_charge_of(row)))
        if new["cost_micros"] is None:
            report.unpriced += 1
        old = (row.cost_micros, row.cost_basis)
        if old == (new["cost_micros"], new["cost_basis"]):
            continue
        report.changed += 1
        report.before_micros += row.cost_micros or 0
        report.after_micros += new["cost_micros"] or 0
        model = row.response_model or row.i_model
        report.models[model] = report.models.get(model, 0) + 1
        former = {
            "cost_micros": row.cost_micros,
            "price_source": row.price_source,
            "price_version": row.price_version,
            "cost_basis": row.cost_basis,
            "until": at.isoformat().replace("+00:00", "Z"),
        }
        history = [*(row.cost_history or ()), former][-MAX_HISTORY:]
        updates.append(new | {"cost_history": history, "id": row.interception_id, "place": row.position})
    if updates and not dry_run:
        async with keeping_figures(connection, {each["id"] for each in updates}):
            await connection.execute(_UPDATE, updates)
    last = rows[-1] if len(rows) == PAGE_ROWS else None
    report.last = (last.created_at, last.interception_id, last.position) if last is not None else None


def _charge_of(row: ResultRow[Any]) -> Charge:
    figures: dict[str, Any] = {name: value for name, value in row.metadata.items() if isinstance(value, int)}
    usage = TokenUsage(
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_input_tokens=row.cache_read_input_tokens,
        cache_write_input_tokens=row.cache_write_input_tokens,
        cache_write_5m_input_tokens=figures.get("cache_ephemeral_5m_input", 0),
        cache_write_1h_input_tokens=figures.get("cache_ephemeral_1h_input", 0),
        reasoning_output_tokens=figures.get("output_reasoning", 0),
        extra=figures,
    )
    return Charge(
        at=row.created_at.timestamp(),
        provider=row.i_provider_name,
        provider_type=row.i_provider,
        host=row.i_host,
        model=row.response_model or row.i_model,
        usage=usage,
        billing=billing(row.i_billing),
        metadata=row.facts,
    )
