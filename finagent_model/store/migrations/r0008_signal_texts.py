"""Create the table of our signals' texts, which a search for words reads, and the index of lists of
executions.

With 200,000 signals a search took 0.5 s of CPU, and seconds for a word that many of them have: it
read the whole JSON of each, and took apart whatever had the word anywhere. A page of executions
took 0.6 s, since it read all rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "r0008"
down_revision = "r0007"
BATCH = 500


def upgrade() -> None:
    texts = op.create_table(
        "finagent_signal_texts",
        sa.Column("artifact_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("texts", sa.Text, nullable=False),
    )
    _fill(op.get_bind(), texts)
    op.create_index(
        "ix_finagent_artifacts_executions",
        "artifacts",
        [
            *("type", "execution_id", "id", "finagent_origin", "finagent_status", "action"),
            *("finagent_as_of", "created_at", "dag_id"),
        ],
    )


def _fill(connection: sa.Connection, texts: sa.Table) -> None:
    names, data = ("id", "type", "finagent_origin"), sa.column("signal_data", sa.JSON)
    artifacts = sa.table("artifacts", *map(sa.column, names), data)
    is_ours = (artifacts.c.type == "signal") & (artifacts.c.finagent_origin == "finagent")
    stored = sa.select(artifacts.c.id, sa.cast(data, sa.Text)).where(is_ours)
    last = 0
    # By parts, since all of them may be more than fits into memory.
    while rows := connection.execute(
        stored.where(artifacts.c.id > last).order_by(artifacts.c.id).limit(BATCH)
    ).all():
        last = rows[-1][0]
        values = [{"artifact_id": number, "texts": _texts_of(content)} for number, content in rows]
        connection.execute(texts.insert(), values)


def _texts_of(content: str | None) -> str:
    try:
        data = json.loads(content or "null")
    except ValueError:
        return ""  # somebody broke the row; it is in no list
    return "\n".join(_walk(data)).casefold()


def _walk(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else ():
        yield from _walk(item)
    for item in value if isinstance(value, list) else ():
        yield from _walk(item)
