"""An index for the records of a user by a model: by one of the two alone, a week of the other's would be read as well."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_interceptions_initiator_id_model", "interceptions", ["initiator_id", "model", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_interceptions_initiator_id_model", "interceptions")
