"""The first page: signals, the newest first, by execution, symbol, date, status and action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from finagent_model.domain.artifact import Artifact
from finagent_model.domain.signal import Action, Status
from finagent_model.errors import BadInputError
from finagent_model.serving.approvals import Approvals
from finagent_model.store.artifacts import ArtifactStore, Page, Wanted
from finagent_model.webui.render import Renderer

SHOWN = 50
"""Signals on a page."""
LAST_PAGE = 1_000_000
FIELDS = ("symbol", "execution_id", "status", "action", "as_of_from", "as_of_to")


@dataclass(frozen=True)
class Group:
    """Signals of one execution that stand together; None: of no execution, or not grouped."""

    execution_id: str | None
    signals: tuple[Artifact, ...]


@dataclass(frozen=True)
class Asked:
    """What the form said, and what is wrong with it, by field."""

    given: Mapping[str, str]
    wanted: Wanted
    page: int
    grouped: bool
    wrong: Mapping[str, str]

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Asked:
        """An empty field asks for any."""
        given = {name: query.get(name, "").strip() for name in FIELDS}
        given["symbol"] = given["symbol"].upper()
        wanted, wrong = Wanted(type="signal"), {}
        try:
            asked = {name: text for name, text in given.items() if text}
            wanted = Wanted.model_validate({"type": "signal", **asked})
        except ValidationError as error:
            wrong = {str(e["loc"][0]): f"{e['input']!r} can't be used" for e in error.errors()}
        number = query.get("page", "1")
        page = min(int(number), LAST_PAGE) if number.isdecimal() and number.isascii() else 1
        return cls(given, wanted, max(page, 1), query.get("group") == "execution", wrong)


def signal_routes(store: ArtifactStore, approvals: Approvals, renderer: Renderer) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    def signals(request: Request) -> Response:
        asked = Asked.read(request.query_params)
        offset = (asked.page - 1) * SHOWN
        page = Page((), 0) if asked.wrong else store.page(asked.wanted, SHOWN, offset)
        found, total = page.artifacts, page.total
        return renderer.page(
            request,
            "signals.html",
            422 if asked.wrong else 200,
            asked=asked,
            groups=grouped(found) if asked.grouped else [Group(None, found)] if found else [],
            total=total,
            first=offset + 1,
            last=offset + len(found),
            more=offset + len(found) < total,
            any_asked=any(asked.given.values()),
            statuses=[status.value for status in Status],
            actions=get_args(Action),
            waiting=waiting(approvals),
        )

    return routes


def grouped(signals: tuple[Artifact, ...]) -> list[Group]:
    """By execution, each where its newest signal is."""
    groups: dict[str | None, list[Artifact]] = {}
    for signal in signals:
        groups.setdefault(signal.execution_id, []).append(signal)
    return [Group(name, tuple(members)) for name, members in groups.items()]


def waiting(approvals: Approvals) -> int:
    """Decisions that wait for a human; 0 where that can't be read: the page of them says why."""
    try:
        return sum(asked.state == "pending" for asked in approvals.listed()[0])
    except BadInputError:
        return 0
