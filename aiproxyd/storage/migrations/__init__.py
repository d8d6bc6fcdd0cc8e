"""Alembic's folder: `versions/` holds one file a step, run by `aiproxyd.storage.schema` and never edited once released."""
