"""The first page: signals, the newest first, by execution, symbol, date, status and action; or the
executions that they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy import ColumnElement, or_

from finagent_model.domain.signal import Action, Status
from finagent_model.errors import BadInputError
from finagent_model.serving.approvals import Approvals
from finagent_model.store.artifacts import ArtifactStore
from finagent_model.store.database import Database
from finagent_model.store.executions import executions
from finagent_model.store.schema import artifacts as table
from finagent_model.store.wanted import Wanted
from finagent_model.webui.render import Renderer
from finagent_model.webui.signal_row import SignalRow

SHOWN = 50
"""Signals or executions on a page."""
LAST_PAGE = 1_000_000
FIELDS = ("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to")
GROUPED = "execution"


class WantedSignals(Wanted):
    """Signals alone: a platform keeps orders, trades and portfolios under the same type and says in
    `signal_data.artifact_type` what they are. A symbol is found in either case.
    """

    def clauses(self) -> list[ColumnElement[bool]]:
        kind = table.c.signal_data["artifact_type"].as_string()
        found = Wanted.clauses(self.model_copy(update={"symbol": None}))
        if self.symbol is not None:
            ways = (self.symbol, self.symbol.upper(), self.symbol.lower())
            found.append(table.c.symbol.in_(ways))
        return [*found, or_(kind.is_(None), kind == "signal")]


@dataclass(frozen=True)
class Query:
    """What the form said, and what is wrong with it, by field."""

    given: Mapping[str, str]
    wanted: WantedSignals
    page: int
    grouped: bool
    wrong: Mapping[str, str]

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Query:
        """An empty field asks for any."""
        given = {name: query.get(name, "").strip() for name in FIELDS}
        wanted, wrong = WantedSignals(type="signal"), {}
        try:
            asked = {name: text for name, text in given.items() if text}
            wanted = WantedSignals.model_validate({"type": "signal", **asked})
        except ValidationError as error:
            wrong = {str(e["loc"][0]): f"{e['input']!r} can't be used" for e in error.errors()}
        number = query.get("page", "1")
        page = min(int(number), LAST_PAGE) if number.isdecimal() and number.isascii() else 1
        return cls(given, wanted, max(page, 1), query.get("group") == GROUPED, wrong)

    @property
    def offset(self) -> int:
        return (self.page - 1) * SHOWN

    @property
    def kept(self) -> dict[str, str]:
        """What a link to another page of the same asks for."""
        return {**self.given, "group": GROUPED if self.grouped else ""}


@dataclass(frozen=True)
class Waiting:
    """Decisions that wait for a human."""

    count: int | None
    """None: it can't be read."""
    why: str = ""
    """Why it can't."""

    @classmethod
    def of(cls, approvals: Approvals) -> Waiting:
        try:
            return cls(sum(asked.state == "pending" for asked in approvals.listed()[0]))
        except BadInputError as error:
            return cls(None, str(error))


def signal_routes(database: Database, approvals: Approvals, renderer: Renderer) -> APIRouter:
    routes, store = APIRouter(), ArtifactStore(database)

    def found(asked: Query) -> tuple[Any, int]:
        if asked.wrong:
            return (), 0
        if asked.grouped:
            return executions(database, asked.wanted, SHOWN, asked.offset)
        page = store.page(asked.wanted, SHOWN, asked.offset)
        return [SignalRow.of(row) for row in page.artifacts], page.total

    @routes.get("/")
    def signals(request: Request) -> Response:
        asked = Query.read(request.query_params)
        rows, total = found(asked)
        return renderer.page(
            request,
            "signals.html",
            422 if asked.wrong else 200,
            asked=asked,
            rows=rows,
            total=total,
            statuses=[status.value for status in Status],
            actions=get_args(Action),
            waiting=Waiting.of(approvals),
        )

    return routes
