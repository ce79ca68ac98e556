"""Alembic revisions of the schema, oldest first. There are no downgrades; restore a backup."""
