"""Revisions of the schema, oldest first. There is no way back but a backup."""
