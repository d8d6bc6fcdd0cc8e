"""What lists of sessions say, by session, day, provider, model and client, made from what is stored."""

import hashlib
import itertools
from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_DIMENSIONS = ("session_id", "initiator_id", "day", "provider", "provider_name", "model", "client")
_NUMBERS = (
    "interceptions",
    "threads",
    "failures",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "cost_micros",
    "priced",
)
_FILTERS = ("initiator_id", "provider", "provider_name", "model", "client")

_SUMMED_UP = """
SELECT i.session_id, i.initiator_id, {day} AS day, i.provider, i.provider_name, i.model, i.client,
    min(i.started_at) AS started_at, max(i.started_at) AS last_started_at,
    max(CASE WHEN i.has_prompt THEN i.started_at END) AS prompted_at, max(i.ended_at) AS ended_at,
    count(CASE WHEN coalesce(t.position, 0) = 0 THEN 1 END),
    count(CASE WHEN coalesce(t.position, 0) = 0 AND i.thread_root_id IS NULL THEN 1 END),
    count(CASE WHEN coalesce(t.position, 0) = 0 AND i.outcome <> 'completed' THEN 1 END),
    coalesce(sum(t.input_tokens), 0), coalesce(sum(t.output_tokens), 0), coalesce(sum(t.cache_read_input_tokens), 0),
    coalesce(sum(t.cache_write_input_tokens), 0), coalesce(sum(t.cost_micros), 0), count(t.cost_micros)
FROM interceptions i LEFT JOIN token_usages t ON t.interception_id = i.id
WHERE i.ended_at IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6, 7
"""

_DAY = {"sqlite": "substr(i.started_at, 1, 10)", "postgresql": "to_char(timezone('UTC', i.started_at), 'YYYY-MM-DD')"}


def _digest(values: Iterable[str], size: int) -> bytes:
    digest = hashlib.blake2b(digest_size=size)
    for value in values:
        encoded = value.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.digest()


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    table = op.create_table(
        "session_parts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_key", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _DIMENSIONS),
        sa.Column("active_at", time, nullable=False),
        sa.Column("started_at", time, nullable=False),
        sa.Column("last_started_at", time, nullable=False),
        sa.Column("prompted_at", time, nullable=True),
        sa.Column("ended_at", time, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _NUMBERS),
        sa.PrimaryKeyConstraint("id", name="pk_session_parts"),
    )
    connection = op.get_bind()
    # Times are written as they are read: text in SQLite.
    names = [column.name for column in table.columns]
    written = sa.table("session_parts", *(sa.column(name) for name in names))
    found = connection.execute(sa.text(_SUMMED_UP.format(day=_DAY[connection.dialect.name])))
    for rows in itertools.batched(found.all(), 1000):
        made = []
        for row in rows:
            key = tuple(row[:7])
            started_at, last_started_at, prompted_at, ended_at = row[7:11]
            made.append(
                dict(zip(_DIMENSIONS, key, strict=True))
                | dict(zip(_NUMBERS, map(int, row[11:]), strict=True))
                | {
                    "id": _digest(key, 16).hex(),
                    "session_key": int.from_bytes(_digest(key[:2], 8), signed=True),
                    "active_at": prompted_at or started_at,
                    "started_at": started_at,
                    "last_started_at": last_started_at,
                    "prompted_at": prompted_at,
                    "ended_at": ended_at,
                }
            )
        connection.execute(sa.insert(written), made)
    op.create_index("ix_session_parts_active_at", "session_parts", ["active_at", "session_key"])
    op.create_index("ix_session_parts_session_key", "session_parts", ["session_key"])
    for name in _FILTERS:
        op.create_index(f"ix_session_parts_{name}", "session_parts", [name, "active_at", "session_key"])


def downgrade() -> None:
    op.drop_table("session_parts")
