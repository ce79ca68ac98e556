"""Signals by execution: what one run of a workflow came to, over all of its symbols."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, select

from finagent_model.store.artifacts import FAILURES
from finagent_model.store.database import Database
from finagent_model.store.schema import artifacts as table
from finagent_model.store.wanted import Wanted


@dataclass(frozen=True)
class ExecutionSummary:
    """Of those signals that were asked for. An action counts where it was decided, a failure is
    none.
    """

    execution_id: str | None
    """None: what persons asked for, all of it."""
    dag_id: str | None
    signals: int
    buys: int
    sells: int
    holds: int
    failed: int
    first_as_of: datetime | None
    last_as_of: datetime | None
    created_at: datetime
    """Of the newest."""


def executions(
    database: Database, wanted: Wanted, limit: int = 50, offset: int = 0
) -> tuple[list[ExecutionSummary], int]:
    """The newest first, and how many there are. Raises StoreError."""
    clauses = wanted.clauses()
    is_failure = table.c.finagent_status.in_(FAILURES)

    def times(condition: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.sum(case((condition, 1), else_=0))

    def decided(action: str) -> ColumnElement[Any]:
        # A row of another system has no status.
        return times((table.c.action == action) & func.coalesce(~is_failure, True))

    rows = (
        select(
            table.c.execution_id,
            func.max(table.c.dag_id).label("dag_id"),
            func.count().label("signals"),
            decided("BUY").label("buys"),
            decided("SELL").label("sells"),
            decided("HOLD").label("holds"),
            times(is_failure).label("failed"),
            func.min(table.c.finagent_as_of).label("first_as_of"),
            func.max(table.c.finagent_as_of).label("last_as_of"),
            func.max(table.c.created_at).label("created_at"),
        )
        .where(*clauses)
        .group_by(table.c.execution_id)
        .order_by(func.max(table.c.id).desc())
    )
    with database.reading() as connection:
        found = connection.execute(rows.limit(limit).offset(offset)).mappings().all()
        counted = select(func.count()).select_from(rows.order_by(None).subquery())
        total: int = connection.execute(counted).scalar_one()
    return [ExecutionSummary(**row) for row in found], total
