"""Registered versions: what the gate said of each, which is champion, and the two ways to change
that. A change is made by `registry`, which writes down who, when and why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model.approvals import MAX_NAME_CHARS, MAX_WHY_CHARS
from finagent_model.errors import BadInputError, TrackingError, UnknownRunError
from finagent_model.market.news import sanitize_text
from finagent_model.pipeline.run_metadata import MODEL_URI
from finagent_model.tracking import registry
from finagent_model.tracking.queries import RunRecord, of_stage, read_run
from finagent_model.tracking.runs import RunLog, usable_store
from finagent_model.webui.login import Form
from finagent_model.webui.rendering import Renderer
from finagent_model.webui.run_pages import REPORT, SHOWN, read_gate

NAME = "finagent"
NAMES = r"^[A-Za-z0-9_.-]{1,100}$"
NOBODY = "none"
"""In a form: no version was champion."""
Name = Annotated[str, Path(pattern=NAMES)]
VersionNumber = Annotated[str, Path(pattern=r"^[0-9]{1,9}$")]


def model_routes(renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/models")

    @routes.get("")
    def models(request: Request, name: str = NAME, changed: bool = False) -> Response:
        if not re.fullmatch(NAMES, name):
            raise BadInputError(
                f"no model can be named {name[:100]!r} here; a name has letters, digits, '_', '.' "
                "and '-', 100 at most"
            )
        with usable_store():
            versions = registry.versions(name)
        champion = next((v for v in versions if registry.CHAMPION in v.aliases), None)
        return renderer.page(
            request,
            "models.html",
            name=name,
            versions=versions,
            champion=champion,
            nobody=NOBODY,
            changed=changed,
        )

    @routes.get("/{name}/{number}")
    def version(request: Request, name: Name, number: VersionNumber) -> Response:
        try:
            with usable_store():
                found = registry.find_version(name, number)
        except BadInputError as error:
            if isinstance(error, TrackingError):
                raise
            title = "There is no such version"
            return renderer.page(request, "error.html", 404, title=title, said=str(error))
        run = _trained_by(found)
        uri = f"models:/{name}/{number}"
        return renderer.page(
            request,
            "version.html",
            name=name,
            version=found,
            uri=uri,
            run=run,
            gate=read_gate(run) if run else None,
            has_report=run is not None and RunLog(run.run_id).has(REPORT),
            ablations=of_stage("ablate", SHOWN, tags={MODEL_URI: uri}),
        )

    @routes.post("/{name}/rollback")
    def rollback(name: Name, given: Form) -> Response:
        who, why, seen = _who(given), _why(given), _seen(given)
        with usable_store():
            registry.rollback(name, why, who=who, instead_of=seen)
        return _changed(name)

    @routes.post("/{name}/{number}/promote")
    def promote(name: Name, number: VersionNumber, given: Form) -> Response:
        who, why, seen = _who(given), _why(given), _seen(given)
        force = given.get("force") == "yes"
        with usable_store():
            registry.promote(name, number, force=force, why=why, who=who, instead_of=seen)
        return _changed(name)

    return routes


def _trained_by(version: registry.Version) -> RunRecord | None:
    """None: nobody knows, or the run was removed. Raises TrackingError."""
    try:
        return read_run(version.run_id) if version.run_id else None
    except UnknownRunError:
        return None


def _who(given: Mapping[str, str]) -> str:
    """Raises BadInputError for a change that nobody wants to have made."""
    who = sanitize_text(given.get("who", ""), MAX_NAME_CHARS)
    if not who:
        raise BadInputError(f"who {given.get('who', '')!r}: say who changes the champion")
    return who


def _why(given: Mapping[str, str]) -> str | None:
    return sanitize_text(given.get("why", ""), MAX_WHY_CHARS) or None


def _seen(given: Mapping[str, str]) -> str | None:
    """The champion that the page showed. Raises BadInputError for a form that doesn't say."""
    seen = given.get("instead_of")
    if seen != NOBODY and not re.fullmatch("[0-9]{1,9}", seen or ""):
        raise BadInputError(
            f"instead_of {seen!r}: the form doesn't say which version was champion; open the page "
            "of the versions again"
        )
    return None if seen == NOBODY else seen


def _changed(name: str) -> Response:
    return RedirectResponse(f"/models?{urlencode({'name': name, 'changed': 1})}", 303)
