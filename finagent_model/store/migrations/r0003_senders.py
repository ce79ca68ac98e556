"""Add to the outbox who sends a row, and until when the platform asked for a pause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision = "r0002"


def upgrade() -> None:
    op.add_column("finagent_outbox", sa.Column("sender", sa.Text))
    op.add_column("finagent_outbox", sa.Column("not_before", sa.DateTime(timezone=True)))
