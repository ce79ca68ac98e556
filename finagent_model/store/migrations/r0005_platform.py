"""Create the table of messages that the platform's own has no place for, and name the levels of our
signals as the platform's pages read them.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "r0005"
down_revision = "r0004"
PLATFORM_NAMES = {
    "confidence_level": "confidence",
    "entry_price": "suggested_entry_price",
    "stop_loss": "suggested_stop_loss",
    "take_profit": "suggested_take_profit",
    "risk_reward_ratio": "r_multiple",
}


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
    _name_levels(op.get_bind())


def _name_levels(connection: sa.Connection) -> None:
    # Without this each signal would look changed, and be written again when it is next asked for.
    names = ("id", "type", "finagent_origin")
    data = sa.column("signal_data", sa.JSON)
    artifacts = sa.table("artifacts", *map(sa.column, names), data)
    is_ours = (artifacts.c.type == "signal") & (artifacts.c.finagent_origin == "finagent")
    # As text: a row that somebody broke stays as it is.
    stored = sa.select(artifacts.c.id, sa.cast(data, sa.Text)).where(is_ours)
    for number, content in connection.execute(stored).all():
        if (signal := _read_signal(content)) is not None:
            named = signal | {theirs: signal[ours] for theirs, ours in PLATFORM_NAMES.items()}
            update = artifacts.update().where(artifacts.c.id == number)
            connection.execute(update.values(signal_data=named))


def _read_signal(content: str | None) -> dict[str, Any] | None:
    """Return the signal; None for a row of another system."""
    try:
        signal = json.loads(content or "")
    except ValueError:
        return None
    is_whole = isinstance(signal, dict) and set(PLATFORM_NAMES.values()) <= signal.keys()
    return signal if is_whole else None
