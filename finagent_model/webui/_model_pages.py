"""Pages of registered versions: what the gate said, which one is champion, promote and roll back.

A change is made by `registry`, which writes down who made it, when and why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from finagent_model.approvals import MAX_NAME_CHARS, MAX_WHY_CHARS
from finagent_model.errors import BadInputError, TrackingError, UnknownRunError
from finagent_model.evaluation.gate import GateReport
from finagent_model.market.news import sanitize_text
from finagent_model.model.loading import sign_version
from finagent_model.pipeline.run_metadata import MODEL_URI
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from finagent_model.tracking.queries import RunRecord, list_stage_runs, read_run, read_runs
from finagent_model.tracking.runs import RunLog, raise_tracking_errors
from finagent_model.webui._login import FormFields
from finagent_model.webui._rendering import Renderer
from finagent_model.webui._run_pages import MAX_RUNS, REPORT
from finagent_model.webui._run_records import RUN_ID_PATTERN, group_checks, read_gate

DEFAULT_NAME = "finagent"
MAX_VERSIONS = 25
"""Versions on a page of the list."""
EVIDENCE_WORDS = {
    "none": "there is no evidence of an edge",
    "weak": "evidence of an edge is weak",
    "strong": "evidence of an edge is strong",
}
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
        request: Request,
        name: str = DEFAULT_NAME,
        changed: bool = False,
        before: Annotated[int | None, Query(ge=1, le=10**9)] = None,
    ) -> Response:
        if not re.fullmatch(NAME_PATTERN, name):
            raise BadInputError(
                f"no model can be named {name[:100]!r} here; a name has letters, digits, '_', '.' "
                "and '-', 100 at most"
            )
        with raise_tracking_errors():
            versions = registry.list_versions(name)
        champion = next((v for v in versions if registry.CHAMPION in v.aliases), None)
        # The champion stays on the page however old it is: it is what the others are beside.
        shown = [v for v in versions if before is None or int(v.version) < before][:MAX_VERSIONS]
        listed = [v for v in versions if v in shown or v == champion]
        return renderer.page(
            request,
            "models.html",
            name=name,
            rows=_list_rows(listed),
            older=shown[-1].version if shown and shown[-1] != versions[-1] else None,
            has_versions=bool(versions),
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
        run = read_training_run(version)
        gate = read_gate(run) if run else None
        with raise_tracking_errors():
            champion = registry.find_champion(name)
        uri = f"models:/{name}/{number}"
        return renderer.page(
            request,
            "version.html",
            name=name,
            version=version,
            uri=uri,
            run=run,
            gate=gate,
            check_groups=group_checks(gate),
            verdict=state_verdict(version, run, gate),
            tiles=version_tiles(run) if run else (),
            champion=champion if champion and champion.version != number else None,
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


@dataclass(frozen=True)
class VersionRow:
    """A version in the list, with what its training recorded."""

    version: registry.Version
    run: RunRecord | None
    """None: unknown, or removed."""
    refusals: str | None
    """Why the gate refused it; None where it passed, or where nobody recorded it."""

    def metric(self, name: str) -> float | None:
        """Return a metric of its training; None: undefined, or not recorded."""
        return self.run.metrics.get(name) if self.run else None


def _list_rows(versions: Sequence[registry.Version]) -> list[VersionRow]:
    """Return the rows of the list. Raises TrackingError."""
    ids = [v.run_id for v in versions if v.run_id and re.fullmatch(RUN_ID_PATTERN, v.run_id)]
    runs = read_runs(ids)
    rows = []
    for version in versions:
        run = runs.get(version.run_id or "")
        # Only for a refused version: each is a file of the store.
        gate = read_gate(run) if run and version.verdict == "refused" else None
        rows.append(VersionRow(version, run, gate.refusals if gate else None))
    return rows


@dataclass(frozen=True)
class Tile:
    """One number of a version, and what it stands beside."""

    name: str
    value: str
    note: str


def state_verdict(version: registry.Version, run: RunRecord | None, gate: GateReport | None) -> str:
    """Return one sentence: what the gate said, the evidence, and what was earned."""
    said = {"passed": "The gate let it pass", "refused": "The gate refused it"}
    grade = gate.evidence.grade if gate else version.evidence
    evidence = EVIDENCE_WORDS.get(grade or "", "nobody recorded the evidence of an edge")
    metrics = run.metrics if run else {}
    desk, held = metrics.get("total_return"), metrics.get("benchmark_total_return")
    if metrics.get("failed_share") == 1:
        result = "every decision failed, so nothing was traded"
    elif desk is None or held is None:
        result = "what it earned on out-of-sample days is unknown"
    else:
        rank = "more than" if desk > held else "less than" if desk < held else "as much as"
        result = (
            f"on out-of-sample days it earned {desk:+.1%} after costs, {rank} buying and holding "
            f"({held:+.1%})"
        )
    return f"{said.get(version.verdict or '', 'No gate judged it')}; {evidence}; {result}."


def version_tiles(run: RunRecord) -> tuple[Tile, ...]:
    """Return the six numbers of a version; what is not recorded is said to be unknown."""
    m = run.metrics
    low, high = m.get("evidence/sharpe_low"), m.get("evidence/sharpe_high")
    interval = (
        "its interval is undefined"
        if low is None or high is None
        else f"95 % interval {low:.2f} to {high:.2f}"
    )
    trades, failed = m.get("closed_trades"), m.get("failed_share")
    cost = m.get("model_cost_usd")
    return (
        Tile(
            "Return",
            _text(m.get("total_return"), "+.1%"),
            f"holding {_text(m.get('benchmark_total_return'), '+.1%')}",
        ),
        Tile(
            "Sharpe ratio",
            _text(m.get("sharpe"), ".2f"),
            f"{interval}; holding {_text(m.get('benchmark_sharpe'), '.2f')}",
        ),
        Tile(
            "Max drawdown",
            _text(_minus(m.get("max_drawdown")), ".1%"),
            f"holding {_text(_minus(m.get('benchmark_max_drawdown')), '.1%')}",
        ),
        Tile(
            "Closed trades",
            _text(trades, ",.0f"),
            f"{_text(m.get('hit_rate'), '.0%')} of them made money" if trades else "no hit rate",
        ),
        Tile(
            "Failed decisions",
            _text(failed, ".1%"),
            f"{_text(m.get('hold_share'), '.0%')} chose to hold",
        ),
        Tile(
            "Cost of its models",
            "unknown" if cost is None else f"{cost:,.4g} USD",
            "at list price, for all its decisions",
        ),
    )


def _text(value: float | None, how: str) -> str:
    return "undefined" if value is None or not math.isfinite(value) else format(value, how)


def _minus(value: float | None) -> float | None:
    """Return a loss as a negative fraction; 0 stays 0."""
    return None if value is None else 0.0 - value


def read_training_run(version: registry.Version) -> RunRecord | None:
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
