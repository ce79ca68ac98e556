"""Create the tables of decisions and conversations.

Existing tables, the platform's own or those of code without revisions, stay as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None


def upgrade() -> None:
    tables = sa.inspect(op.get_bind()).get_table_names()
    if "finagent_decisions" not in tables:
        op.create_table(
            "finagent_decisions",
            sa.Column("id", sa.Text, primary_key=True),
            sa.Column("conversation_id", sa.Text, nullable=False, index=True),
            sa.Column("run_id", sa.Text, nullable=False, index=True),
            sa.Column("workflow_execution_id", sa.Text, index=True),
            sa.Column("symbol", sa.Text, nullable=False),
            sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
            sa.Column("status", sa.Text, nullable=False),
            sa.Column("signal", sa.JSON, nullable=False),
        )
    if "agent_conversations" not in tables:
        op.create_table(
            "agent_conversations",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("workflow_execution_id", sa.Text, nullable=False, index=True),
            sa.Column("agent_name", sa.Text, nullable=False),
            sa.Column("message_type", sa.Text, nullable=False),
            sa.Column("message_content", sa.Text, nullable=False),
            sa.Column("timestamp", sa.DateTime(timezone=True), index=True),
            sa.Column("tokens_used", sa.Integer),
        )
