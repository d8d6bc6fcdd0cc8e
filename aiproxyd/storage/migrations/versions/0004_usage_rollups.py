"""Figures by day, user, provider, model, client, project and outcome, made from what is stored."""

import hashlib
import itertools

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DIMENSIONS = ("day", "initiator_id", "provider", "provider_name", "model", "client", "project", "outcome")
_FIGURES = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "cost_micros",
    "priced",
    "unpriced",
)

_SUMMED_UP = """
SELECT {day} AS day, i.initiator_id, i.provider, i.provider_name, i.model, i.client, {project} AS project,
    coalesce(i.outcome, '') AS outcome,
    count(CASE WHEN coalesce(t.position, 0) = 0 THEN 1 END), coalesce(sum(t.input_tokens), 0),
    coalesce(sum(t.output_tokens), 0), coalesce(sum(t.cache_read_input_tokens), 0),
    coalesce(sum(t.cache_write_input_tokens), 0), coalesce(sum(t.cost_micros), 0), count(t.cost_micros),
    count(CASE WHEN t.cost_micros IS NULL THEN t.interception_id END)
FROM interceptions i LEFT JOIN token_usages t ON t.interception_id = i.id
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""

# Of each kind of database: the day in UTC, and the project.
_WORDS = {
    "sqlite": {
        "day": "substr(i.started_at, 1, 10)",
        "project": "coalesce(json_extract(i.metadata, '$.project'), json_extract(i.metadata, '$.repo'), '')",
    },
    "postgresql": {
        "day": "to_char(timezone('UTC', i.started_at), 'YYYY-MM-DD')",
        "project": "coalesce(i.metadata ->> 'project', i.metadata ->> 'repo', '')",
    },
}


def _id(key: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in key:
        encoded = value.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


def upgrade() -> None:
    table = op.create_table(
        "usage_rollups",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _DIMENSIONS),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _FIGURES[1:]),
        sa.PrimaryKeyConstraint("id", name="pk_usage_rollups"),
    )
    op.create_index("ix_usage_rollups_day", "usage_rollups", ["day"])
    op.create_index("ix_usage_rollups_initiator_id", "usage_rollups", ["initiator_id", "day"])
    connection = op.get_bind()
    found = connection.execute(sa.text(_SUMMED_UP.format(**_WORDS[connection.dialect.name])))
    for rows in itertools.batched(found.all(), 1000):
        made = []
        for row in rows:
            key, figures = tuple(row[: len(_DIMENSIONS)]), [int(value) for value in row[len(_DIMENSIONS) :]]
            named = dict(zip(_DIMENSIONS, key, strict=True)) | dict(zip(_FIGURES, figures, strict=True))
            made.append(named | {"id": _id(key), "kept": figures[0]})
        op.bulk_insert(table, made)


def downgrade() -> None:
    op.drop_table("usage_rollups")
