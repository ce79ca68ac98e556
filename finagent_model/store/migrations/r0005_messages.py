"""Create the table of messages that the platform's own table has no place for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision = "r0004"


def upgrade() -> None:
    op.create_table(
        "finagent_messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("workflow_execution_id", sa.Text, nullable=False, index=True),
        sa.Column("run_id", sa.Text, index=True),
        sa.Column("agent_name", sa.Text, nullable=False),
        sa.Column("message_type", sa.Text, nullable=False),
        sa.Column("message_content", sa.Text, nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True)),
        sa.Column("tokens_used", sa.Integer),
    )
