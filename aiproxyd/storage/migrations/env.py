"""What Alembic runs for each command. The connection comes from `aiproxyd.storage.schema`; there is no ini file and no URL."""

from alembic import context

from aiproxyd.storage.tables import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema,
    # SQLite changes a column by making its table again.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
