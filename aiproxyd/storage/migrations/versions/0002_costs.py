"""How requests are billed, and why a response costs what it does."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("interceptions", sa.Column("billing", sa.Text(), nullable=False, server_default="metered"))
    op.add_column("token_usages", sa.Column("cost_basis", sa.Text(), nullable=True))
    op.add_column("token_usages", sa.Column("cost_details", DOCUMENT, nullable=True))
    op.add_column("token_usages", sa.Column("cost_history", DOCUMENT, nullable=True))


def downgrade() -> None:
    for table, column in (
        ("token_usages", "cost_history"),
        ("token_usages", "cost_details"),
        ("token_usages", "cost_basis"),
        ("interceptions", "billing"),
    ):
        op.drop_column(table, column)
