"""Tell our rows from everybody else's, name the audit of each decision, and add the claims.

A key was unique among all rows, so whoever wrote it first had the place of our signal. Now it is
unique among the rows of one origin. Rows of older code are ours where the run that they name has a
row in `finagent_decisions`; other rows with a key came over REST.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from finagent_model.decision.signal import TradingSignal

revision = "r0004"
down_revision = "r0003"


def upgrade() -> None:
    op.add_column("finagent_decisions", sa.Column("signal_id", sa.Text))
    op.add_column("finagent_decisions", sa.Column("audit_head", sa.Text))
    op.create_index("ix_finagent_decisions_signal_id", "finagent_decisions", ["signal_id"])
    op.add_column("artifacts", sa.Column("finagent_origin", sa.Text))
    _name_signals(op.get_bind())
    op.execute("update artifacts set finagent_origin = 'rest' where finagent_key is not null")
    op.execute(
        "update artifacts set finagent_origin = 'finagent' where finagent_key is not null and "
        "exists (select 1 from finagent_decisions d where d.run_id = artifacts.run_id and "
        "(d.signal_id = artifacts.finagent_key or artifacts.finagent_key like d.run_id || '/%'))"
    )
    op.drop_index("ix_finagent_artifacts_key", "artifacts")
    op.create_index("ix_finagent_artifacts_key", "artifacts", ["finagent_key", "id"])
    unique = ["finagent_origin", "finagent_key"]
    op.create_index("ix_finagent_artifacts_origin", "artifacts", unique, unique=True)
    op.create_table(
        "finagent_claims",
        sa.Column("signal_id", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text),
        sa.Column("heartbeats", sa.Integer, nullable=False),
        sa.Column("last_holder", sa.Text),
        sa.Column("run_id", sa.Text),
    )


def _name_signals(connection: sa.Connection) -> None:
    """Write the id of each decision's signal beside it; null where the signal can't be read."""
    decisions = sa.table(
        "finagent_decisions", *(sa.column(name) for name in ("id", "signal", "signal_id"))
    )
    rows = connection.execute(sa.select(decisions.c.id, decisions.c.signal)).all()
    for key, signal in rows:
        if (signal_id := _signal_id(signal)) is not None:
            update = decisions.update().where(decisions.c.id == key)
            connection.execute(update.values(signal_id=signal_id))


def _signal_id(signal: Any) -> str | None:
    try:
        # PostgreSQL's driver reads JSON, SQLite's gives the text.
        row = json.loads(signal) if isinstance(signal, str) else signal
        return TradingSignal.from_dump(row).signal_id
    except (ValueError, AttributeError, TypeError):
        return None
