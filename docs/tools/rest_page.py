"""The reference page of REST: every route, with requests and the answers that the code gives."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.routing import Route
from starlette.testclient import TestClient

from docs.tools.markdown import code, kind_of, page, require_words, table
from finagent_model.config.rules import ApprovalRequest, ApprovalRules
from finagent_model.decision.signal import TradingSignal
from finagent_model.model.predictor import Predictor
from finagent_model.serving.scoring import scoring_app
from finagent_model.settings import Settings
from finagent_model.store.api import api_app

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
"""Stands for the clock in the samples, which are equal each time."""
TOKENS = {
    "POST /invocations": "`FINAGENT_SERVE_TOKEN`",
    "GET /ping": "none",
    "GET /health": "none",
    "GET /version": "`FINAGENT_SERVE_TOKEN`",
    "GET /openapi.json": "`FINAGENT_SERVE_TOKEN`",
    "GET /approvals": "`FINAGENT_APPROVAL_TOKEN`",
    "POST /approvals/{key}/approve": "`FINAGENT_APPROVAL_TOKEN`",
    "POST /approvals/{key}/reject": "`FINAGENT_APPROVAL_TOKEN`",
    "GET /api/openapi.json": "any token for artifacts",
    "GET /api/artifacts": "`FINAGENT_API_READ_TOKEN`, `FINAGENT_API_WRITE_TOKEN` or `FINAGENT_API_TOKEN`",
    "GET /api/artifacts/{number}": "as above",
    "POST /api/artifacts": "`FINAGENT_API_WRITE_TOKEN` or `FINAGENT_API_TOKEN`",
    "PATCH /api/artifacts/{number}": "as above",
}
MEANINGS = {
    "POST /invocations": "Decide about one or several symbols.",
    "GET /ping": "200 while the server is up.",
    "GET /health": "200 while the server is up.",
    "GET /version": "Versions of package and MLflow, and the model that answers.",
    "GET /openapi.json": "Description of these routes.",
    "GET /approvals": "Approvals, pending ones first.",
    "POST /approvals/{key}/approve": "Approve a decision as it was proposed.",
    "POST /approvals/{key}/reject": "Reject it: HOLD leaves the desk.",
    "GET /api/openapi.json": "Description of these routes.",
    "GET /api/artifacts": "Artifacts, the newest first.",
    "GET /api/artifacts/{number}": "One artifact by its id.",
    "POST /api/artifacts": "Store an artifact.",
    "PATCH /api/artifacts/{number}": "Change some fields of an artifact.",
}


def routes(app: Any) -> list[str]:
    """Return `METHOD path` of each route."""
    found = []
    for route in app.routes:
        if isinstance(route, Route) and route.methods:
            found += [f"{m} {route.path}" for m in sorted(route.methods - {"HEAD"})]
    return found


def show_json(value: Any) -> str:
    """Return indented JSON as a block."""
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def sample_signal(settings: Settings) -> TradingSignal:
    """Return what the untrained default desk decides on the bundled bars."""
    desk = Predictor.from_config("default", settings)
    signal = desk.decide("GOOG", as_of="2012-08-15").signal
    return signal.model_copy(update={"generated_at": MOMENT})


def sample_artifacts(settings: Settings) -> tuple[dict[str, Any], Any, Any]:
    """Return a new artifact, the answer to it, and a page of the list."""
    new = {"name": "a note", "type": "llm", "response": "seen", "metadata": {"key": "note-1"}}
    with TestClient(api_app(settings), client=("127.0.0.1", 1), base_url="http://127.0.0.1") as api:
        made = api.post("/api/artifacts", json=new).json()
        listed = api.get("/api/artifacts", params={"type": "llm", "limit": 1}).json()
    for row in (made, *listed["artifacts"]):
        row["created_at"] = MOMENT.isoformat()
    return new, made, listed


def parameters(api: Any) -> str:
    """Return the table of the list's parameters."""
    schema = api.openapi()
    found = schema["paths"]["/api/artifacts"]["get"]["parameters"]
    rows = []
    for each in found:
        kind = kind_of(each["schema"], schema["components"]["schemas"], {}).replace(" or null", "")
        default = each["schema"].get("default")
        shown = "" if default is None else code(default)
        rows.append((code(each["name"]), kind, shown, each.get("description", "")))
    return table(("parameter", "type", "default", "meaning"), rows)


def render() -> str:
    """Return the page of REST."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load({"FINAGENT_HOME": folder})
        signal = sample_signal(settings)
        new, made, listed = sample_artifacts(settings)
        api = api_app(settings)
        stub: Any = SimpleNamespace(predictor=SimpleNamespace(approvals=None))
        serving = scoring_app(
            stub, "models:/finagent@champion", Settings.load({"FINAGENT_HOME": str(Path(folder))})
        )
        paths = routes(serving), routes(api)
        query = parameters(api)
    require_words("routes", [*paths[0], *paths[1]], MEANINGS)
    reason = ApprovalRules(above_size_percent=10).approval_reason(signal)
    assert reason is not None
    request = ApprovalRequest(
        id="0123456789abcdef",
        signal=signal,
        reason=reason,
        asked_at=MOMENT,
        deadline=MOMENT + timedelta(seconds=300),
        state="pending",
    )
    question = {"dataframe_records": [{"symbol": "GOOG", "as_of": "2012-08-15"}]}
    head = ("route", "token", "meaning")
    rows = [[(code(r), TOKENS[r], MEANINGS[r]) for r in part] for part in paths]
    return page(
        "REST",
        "Two servers speak HTTP. `finagent serve` answers questions and settles approvals; "
        "`finagent ui` has the artifacts. A token is sent as `Authorization: Bearer TOKEN`; where "
        "the variable is not set, only callers on the same machine may ask. "
        "[Serving over REST](../serving.md) has limits and errors, [Artifacts](../artifacts.md) the "
        "rules for rows.",
        "## finagent serve\n\n" + table(head, rows[0]),
        "### POST /invocations\n\n`mlflow models serve` answers the same request. Fields are in "
        "[Signal fields](signal.md); the signal below is of a desk that was never trained.\n\n"
        + show_json(question)
        + "\n\n"
        + show_json({"predictions": [signal.model_dump(mode="json")]}),
        "An error is:\n\n"
        + show_json({"error_code": "INVALID_PARAMETER_VALUE", "message": "one sentence"}),
        "### GET /approvals\n\n" + show_json([request.to_json(MOMENT)]),
        "### POST /approvals/{key}/approve\n\nThe answer is the row as it is now; `reject` is alike. "
        'An error is `{"message": ...}`.\n\n'
        + show_json({"by": "your name", "why": "the size is fine"}),
        "## Artifacts\n\n" + table(head, rows[1]),
        "### GET /api/artifacts\n\n" + query + "\n\n" + show_json(listed),
        "### POST /api/artifacts\n\nThe answer is 201 for a new artifact, and 200 with the stored "
        "one where `metadata.key` is known.\n\n" + show_json(new) + "\n\n" + show_json(made),
        "An error is:\n\n"
        + show_json({"error": "not_found", "message": "one sentence", "fields": []}),
    )
