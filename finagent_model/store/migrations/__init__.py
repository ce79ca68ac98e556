"""Revisions of the schema, oldest first; each says what it adds. There is no way back but a backup."""
