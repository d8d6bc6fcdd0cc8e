"""Floor 3: the database. The only folder that knows SQLAlchemy."""
