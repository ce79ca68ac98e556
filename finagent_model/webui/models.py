"""Registered versions: what the gate said of each, which is champion, and the two ways to change
that. A change is made by `registry`, which writes down who, when and why.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model import registry
from finagent_model.run_records import of_stage, read_run
from finagent_model.tracking import RunLog, usable_store
from finagent_model.webui.login import Form
from finagent_model.webui.render import Renderer
from finagent_model.webui.runs import REPORT, SHOWN, gate_of

NAME = "finagent"
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Number = Annotated[str, Path(pattern=r"^[0-9]{1,9}$")]


def model_routes(renderer: Renderer) -> APIRouter:
    routes = APIRouter(prefix="/models")

    @routes.get("")
    def models(request: Request, name: str = NAME, changed: bool = False) -> Response:
        with usable_store():
            versions = registry.versions(name) if name.strip() else []
        champion = next((v for v in versions if registry.CHAMPION in v.aliases), None)
        return renderer.page(
            request,
            "models.html",
            name=name,
            versions=versions,
            champion=champion,
            changed=changed,
        )

    @routes.get("/{name}/{number}")
    def version(request: Request, name: Name, number: Number) -> Response:
        with usable_store():
            found = registry.find(name, number)
        run = read_run(found.run_id) if found.run_id else None
        uri = f"models:/{name}/{number}"
        return renderer.page(
            request,
            "version.html",
            name=name,
            version=found,
            uri=uri,
            run=run,
            gate=gate_of(run) if run else None,
            has_report=run is not None and RunLog(run.run_id).has(REPORT),
            ablations=[
                each
                for each in of_stage("ablate", SHOWN)
                if each.tags.get("finagent.model_uri") == uri
            ],
        )

    @routes.post("/{name}/rollback")
    def rollback(name: Name, given: Form) -> Response:
        with usable_store():
            registry.rollback(name, given.get("why") or None)
        return _changed(name)

    @routes.post("/{name}/{number}/promote")
    def promote(name: Name, number: Number, given: Form) -> Response:
        with usable_store():
            registry.promote(
                name, number, force=given.get("force") == "yes", why=given.get("why") or None
            )
        return _changed(name)

    return routes


def _changed(name: str) -> Response:
    return RedirectResponse(f"/models?{urlencode({'name': name, 'changed': 1})}", 303)
