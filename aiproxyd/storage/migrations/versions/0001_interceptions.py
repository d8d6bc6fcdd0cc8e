"""Interceptions with their tokens, prompts, tools and thoughts; users; how far the journal is applied."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A step of its own vocabulary: what the tables of later versions look like must not change it.
TIME = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
STILL_OPEN = sa.text("ended_at IS NULL")
STILL_UNLINKED = sa.text("correlating_tool_call_id IS NOT NULL AND thread_parent_id IS NULL")


def upgrade() -> None:
    op.create_table(
        "interceptions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Text(), nullable=False),
        sa.Column("initiator_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_name", sa.Text(), nullable=False),
        sa.Column("api", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("streaming", sa.Boolean(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("client_version", sa.Text(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("client_request_id", sa.Text(), nullable=False),
        sa.Column("client_session_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("correlating_tool_call_id", sa.Text(), nullable=True),
        sa.Column("thread_parent_id", sa.Text(), nullable=True),
        sa.Column("thread_root_id", sa.Text(), nullable=True),
        sa.Column("credential_kind", sa.Text(), nullable=False),
        sa.Column("credential_hint", sa.Text(), nullable=False),
        sa.Column("has_prompt", sa.Boolean(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("described_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("usage_source", sa.Text(), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("response_model", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("request_anomaly", sa.Text(), nullable=False),
        sa.Column("response_anomaly", sa.Text(), nullable=False),
        sa.Column("request_bytes", sa.BigInteger(), nullable=False),
        sa.Column("response_bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_byte_seconds", sa.Float(), nullable=True),
        sa.Column("first_output_seconds", sa.Float(), nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("output_characters", sa.BigInteger(), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_interceptions"),
    )
    op.create_index("ix_interceptions_client", "interceptions", ["client", "started_at"])
    op.create_index("ix_interceptions_initiator_id", "interceptions", ["initiator_id", "started_at"])
    op.create_index("ix_interceptions_model", "interceptions", ["model", "started_at"])
    op.create_index(
        "ix_interceptions_open", "interceptions", ["worker_id"], sqlite_where=STILL_OPEN, postgresql_where=STILL_OPEN
    )
    op.create_index("ix_interceptions_provider", "interceptions", ["provider", "started_at"])
    op.create_index("ix_interceptions_provider_name", "interceptions", ["provider_name", "started_at"])
    op.create_index("ix_interceptions_session_id", "interceptions", ["session_id", "started_at"])
    op.create_index("ix_interceptions_started_at_id", "interceptions", ["started_at", "id"])
    op.create_index("ix_interceptions_thread_root_id", "interceptions", ["thread_root_id"])
    op.create_index(
        "ix_interceptions_unlinked",
        "interceptions",
        ["correlating_tool_call_id"],
        sqlite_where=STILL_UNLINKED,
        postgresql_where=STILL_UNLINKED,
    )
    op.create_table(
        "journal_positions",
        sa.Column("daemon_id", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("daemon_id", "segment", name="pk_journal_positions"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("groups", DOCUMENT, nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("token_sha256", name="uq_users_token_sha256"),
    )
    op.create_index("ix_users_name", "users", ["name"])
    op.create_table(
        "model_thoughts",
        sa.Column("interception_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["interception_id"], ["interceptions.id"], name="fk_model_thoughts_interception_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("interception_id", "position", name="pk_model_thoughts"),
    )
    op.create_table(
        "token_usages",
        sa.Column("interception_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("provider_response_id", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("price_source", sa.Text(), nullable=True),
        sa.Column("price_version", sa.Text(), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["interception_id"], ["interceptions.id"], name="fk_token_usages_interception_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("interception_id", "position", name="pk_token_usages"),
    )
    op.create_table(
        "tool_usages",
        sa.Column("interception_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("provider_response_id", sa.Text(), nullable=False),
        sa.Column("provider_tool_call_id", sa.Text(), nullable=False),
        sa.Column("provider_item_id", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("tool_kind", sa.Text(), nullable=False),
        sa.Column("server_url", sa.Text(), nullable=False),
        sa.Column("input", sa.Text(), nullable=True),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("injected", sa.Boolean(), nullable=False),
        sa.Column("invocation_error", sa.Text(), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["interception_id"], ["interceptions.id"], name="fk_tool_usages_interception_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("interception_id", "position", name="pk_tool_usages"),
    )
    op.create_index("ix_tool_usages_provider_tool_call_id", "tool_usages", ["provider_tool_call_id", "created_at"])
    op.create_table(
        "user_prompts",
        sa.Column("interception_id", sa.Text(), nullable=False),
        sa.Column("provider_response_id", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["interception_id"], ["interceptions.id"], name="fk_user_prompts_interception_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("interception_id", name="pk_user_prompts"),
    )


def downgrade() -> None:
    for table in (
        "user_prompts",
        "tool_usages",
        "token_usages",
        "model_thoughts",
        "users",
        "journal_positions",
        "interceptions",
    ):
        op.drop_table(table)
