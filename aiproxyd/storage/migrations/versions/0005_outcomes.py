"""An index for what did not complete: few rows of many, and those that are looked for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOT_COMPLETED = sa.text("outcome <> 'completed'")


def upgrade() -> None:
    op.create_index(
        "ix_interceptions_outcome",
        "interceptions",
        ["outcome", "started_at"],
        sqlite_where=NOT_COMPLETED,
        postgresql_where=NOT_COMPLETED,
    )


def downgrade() -> None:
    op.drop_index("ix_interceptions_outcome", "interceptions")
