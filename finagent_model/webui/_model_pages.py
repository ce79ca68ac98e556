"""Pages of registered versions: what the gate said, which one is champion, promote and roll back.

A change is made by `registry`, which writes down who made it, when and why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model.approvals import MAX_NAME_CHARS, MAX_WHY_CHARS
from finagent_model.errors import BadInputError, TrackingError, UnknownRunError
from finagent_model.market.news import sanitize_text
from finagent_model.model.loading import sign_version
from finagent_model.pipeline.run_metadata import MODEL_URI
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.queries import RunRecord, list_stage_runs, read_run
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._login import FormFields
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_pages import MAX_RUNS, REPORT, read_gate

DEFAULT_NAME = "finagent"
NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,100}$"
NO_CHAMPION = "none"
"""Value of the form's field `instead_of` if no version was champion."""
ModelName = Annotated[str, Path(pattern=NAME_PATTERN)]
VersionNumber = Annotated[str, Path(pattern=r"^[0-9]{1,9}$")]


def model_routes(renderer: Renderer, settings: Settings) -> APIRouter:
    """Return the routes of the versions, and of the two ways to change the champion."""
    routes = APIRouter(prefix="/models")

    @routes.get("")
    def show_versions(
        request: Request, name: str = DEFAULT_NAME, changed: bool = False
    ) -> Response:
        if not re.fullmatch(NAME_PATTERN, name):
            raise BadInputError(
                f"no model can be named {name[:100]!r} here; a name has letters, digits, '_', '.' "
                "and '-', 100 at most"
            )
        with raise_tracking_errors():
            versions = registry.list_versions(name)
        champion = next((v for v in versions if registry.CHAMPION in v.aliases), None)
        return renderer.page(
            request,
            "models.html",
            name=name,
            versions=versions,
            champion=champion,
            no_champion=NO_CHAMPION,
            is_changed=changed,
        )

    @routes.get("/{name}/{number}")
    def show_version(request: Request, name: ModelName, number: VersionNumber) -> Response:
        try:
            with raise_tracking_errors():
                version = registry.find_version(name, number)
        except BadInputError as error:
            # TrackingError is a BadInputError, but about the store and not about the version.
            if isinstance(error, TrackingError):
                raise
            title = "There is no such version"
            return renderer.page(request, "error.html", 404, title=title, message=str(error))
        run = _read_training_run(version)
        uri = f"models:/{name}/{number}"
        return renderer.page(
            request,
            "version.html",
            name=name,
            version=version,
            uri=uri,
            run=run,
            gate=read_gate(run) if run else None,
            has_report=run is not None and RunLog(run.run_id).has_artifact(REPORT),
            ablations=list_stage_runs("ablate", MAX_RUNS, tags={MODEL_URI: uri}),
        )

    @routes.post("/{name}/rollback")
    def roll_back(name: ModelName, fields: FormFields) -> Response:
        who, why, champion = _read_who(fields), _read_why(fields), _read_champion(fields)
        with raise_tracking_errors():
            registry.rollback(name, why, who=who, instead_of=champion)
        return _redirect_to_versions(name)

    @routes.post("/{name}/{number}/promote")
    def promote(name: ModelName, number: VersionNumber, fields: FormFields) -> Response:
        who, why, champion = _read_who(fields), _read_why(fields), _read_champion(fields)
        force = fields.get("force") == "yes"
        with raise_tracking_errors():
            registry.promote(
                name,
                number,
                force=force,
                why=why,
                who=who,
                instead_of=champion,
                sign=partial(sign_version, name, number, settings),
            )
        return _redirect_to_versions(name)

    return routes


def _read_training_run(version: registry.Version) -> RunRecord | None:
    """Return the run that trained a version; None: unknown, or removed. Raises TrackingError."""
    try:
        return read_run(version.run_id) if version.run_id else None
    except UnknownRunError:
        return None


def _read_who(fields: Mapping[str, str]) -> str:
    """Return who makes the change. Raises BadInputError for a form without a name."""
    who = sanitize_text(fields.get("who", ""), MAX_NAME_CHARS)
    if not who:
        raise BadInputError(f"who {fields.get('who', '')!r}: say who changes the champion")
    return who


def _read_why(fields: Mapping[str, str]) -> str | None:
    return sanitize_text(fields.get("why", ""), MAX_WHY_CHARS) or None


def _read_champion(fields: Mapping[str, str]) -> str | None:
    """Return the champion that the page showed; None: it showed none.

    Raises BadInputError for a form that doesn't say.
    """
    # The registry compares it with the champion of now: nobody overwrites a change unawares.
    champion = fields.get("instead_of")
    if champion != NO_CHAMPION and not re.fullmatch("[0-9]{1,9}", champion or ""):
        raise BadInputError(
            f"instead_of {champion!r}: the form doesn't say which version was champion; open the "
            "page of the versions again"
        )
    return None if champion == NO_CHAMPION else champion


def _redirect_to_versions(name: str) -> Response:
    return RedirectResponse(f"/models?{urlencode({'name': name, 'changed': 1})}", 303)
