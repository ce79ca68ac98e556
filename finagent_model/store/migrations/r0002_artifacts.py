"""Create the tables of artifacts and of the outbox.

A table `artifacts` that the platform made is adopted: it gets the columns that it lacks, none of
which the platform has to fill, and our indexes. Its own columns and rows are not changed.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from finagent_model.errors import StoreError

revision = "r0002"
down_revision = "r0001"
REQUIRED = ("id", "name", "type", "created_at")
"""Columns without which a table is not one of artifacts."""


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    if inspector.has_table("artifacts"):
        _adopt({column["name"] for column in inspector.get_columns("artifacts")})
    else:
        op.create_table(
            "artifacts",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("type", sa.Text, nullable=False),
            *_optional_columns(),
            sa.Column(
                "created_at",
                sa.DateTime(timezone=True),
                nullable=False,
                server_default=sa.func.now(),
            ),
        )
    op.create_index("ix_finagent_artifacts_key", "artifacts", ["finagent_key"], unique=True)
    for name, column in {
        "type": "type",
        "symbol": "symbol",
        "execution": "execution_id",
        "run": "run_id",
        "status": "finagent_status",
        "as_of": "finagent_as_of",
        "created": "created_at",
    }.items():
        op.create_index(f"ix_finagent_artifacts_{name}", "artifacts", [column, "id"])
    op.create_table(
        "finagent_outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("artifact_id", sa.Integer, nullable=False, unique=True),
        sa.Column("execution", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("remote_id", sa.Text),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True)),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_finagent_outbox_waiting", "finagent_outbox", ["state", "execution", "id"])


def _adopt(existing: set[str]) -> None:
    """Add the missing columns. Raises StoreError for another program's table of that name."""
    if missing := [name for name in REQUIRED if name not in existing]:
        raise StoreError(
            f"the table 'artifacts' in this database has no column {missing[0]!r}, so it is "
            "another system's; name a separate database in FINAGENT_DATABASE"
        )
    for column in _optional_columns():
        if column.name not in existing:
            op.add_column("artifacts", column)


def _optional_columns() -> list[sa.Column[Any]]:
    text, number, stamp = sa.Text(), sa.Integer(), sa.DateTime(timezone=True)
    kinds: dict[str, sa.types.TypeEngine[Any]] = {
        "symbol": text,
        "run_id": text,
        "experiment_id": text,
        "workflow_id": text,
        "execution_id": text,
        "step_name": text,
        "dag_id": text,
        "task_id": text,
        "prompt": text,
        "response": text,
        "prompt_length": number,
        "response_length": number,
        "model_name": text,
        "image_path": text,
        "chart_type": text,
        "chart_data": sa.JSON(),
        "action": text,
        "confidence": sa.Float(),
        "signal_data": sa.JSON(),
        "artifact_metadata": sa.JSON(),
        "updated_at": stamp,
        "finagent_key": text,
        "finagent_status": text,
        "finagent_as_of": stamp,
    }
    return [sa.Column(name, kind) for name, kind in kinds.items()]
