"""Templates, links to MLflow and Airflow, and how numbers, moments and JSON are written on pages.

Whatever a page shows is escaped: news and replies of models are text, never markup. Values of
foreign records may be of any type; what can't be written as a number or a moment is `UNDEFINED`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import finagent_model
from finagent_model.market.bars import show_as_of
from finagent_model.reports.signal_summary import HEADLINES, STATUS_MEANINGS
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import FAILED_STATUSES

Tone = Literal["good", "bad", "warn", "calm"]


@dataclass(frozen=True)
class Badge:
    """How one value is shown."""

    word: str
    sign: str
    tone: Tone
    meaning: str = ""
    """What the word means; a page shows it as a tooltip."""


UNKNOWN = Badge("unknown", "?", "calm", "nobody said")
_STATUS_WORDS: Mapping[str, tuple[str, str, Tone]] = {
    "ok": ("decided", "✓", "calm"),
    "abstained": ("abstained", "○", "calm"),
    "approval_rejected": ("rejected", "◇", "warn"),
    "approval_expired": ("expired", "◇", "warn"),
    "parse_failed": ("failed: reply unreadable", "✕", "bad"),
    "data_missing": ("failed: data missing", "✕", "bad"),
    "model_error": ("failed: model error", "✕", "bad"),
    "budget_exceeded": ("failed: over budget", "✕", "bad"),
    "levels_rejected": ("failed: levels rejected", "✕", "bad"),
    "upstream_error": ("failed: upstream error", "✕", "bad"),
}
STATUSES: Mapping[str, Badge] = {
    status: Badge(word, sign, tone, STATUS_MEANINGS[status])
    for status, (word, sign, tone) in _STATUS_WORDS.items()
}
ACTIONS: Mapping[str, Badge] = {
    "BUY": Badge("BUY", "▲", "good"),
    "SELL": Badge("SELL", "▼", "bad"),
    "HOLD": Badge("HOLD", "■", "calm"),
}
SUMMARIES: Mapping[str, Badge] = {
    "act": Badge(HEADLINES["act"], "✓", "good"),
    "care": Badge(HEADLINES["care"], "!", "warn"),
    "wait": Badge(HEADLINES["wait"], "◆", "warn"),
    "hold": Badge(HEADLINES["hold"], "○", "calm"),
    "past": Badge(HEADLINES["past"], "○", "calm"),
    "no": Badge(HEADLINES["no"], "✕", "bad"),
}
STANCES: Mapping[str, Badge] = {
    "up": Badge("up", "▲", "good"),
    "down": Badge("down", "▼", "bad"),
    "flat": Badge("flat", "■", "calm"),
}
VERDICTS: Mapping[str, Badge] = {
    "passed": Badge("gate passed", "✓", "good"),
    "refused": Badge("gate refused", "✕", "bad"),
}
GRADES: Mapping[str, Badge] = {
    "none": Badge("no evidence", "○", "calm", "what was earned may well be chance"),
    "weak": Badge("weak evidence", "◐", "warn", "not every check against chance passed"),
    "strong": Badge("strong evidence", "●", "good", "every check against chance passed"),
}
RUNS: Mapping[str, Badge] = {
    "RUNNING": Badge("running", "…", "calm"),
    "SCHEDULED": Badge("scheduled", "…", "calm"),
    "FINISHED": Badge("finished", "✓", "good"),
    "FAILED": Badge("failed", "✕", "bad"),
    "KILLED": Badge("killed", "✕", "bad"),
    "DELETED": Badge("deleted", "✕", "bad"),  # no status of MLflow's: a deleted run keeps its own
}
APPROVALS: Mapping[str, Badge] = {
    "pending": Badge("waits for you", "◆", "warn"),
    "approved": Badge("approved", "✓", "good"),
    "rejected": Badge("rejected", "◇", "warn"),
    "expired": Badge("expired", "◇", "warn"),
}


def badge(badges: Mapping[str, Badge], value: str | None) -> Badge:
    """Return the badge of `value`; a value without one is shown as it is written."""
    if value is None:
        return UNKNOWN
    return badges.get(value) or Badge(value, "?", "calm")


def is_failed(status: str | None) -> bool:
    """Return whether there is no decision behind a signal's action."""
    return status in FAILED_STATUSES


UNDEFINED = "\N{EN DASH}"
"""Text for a value that is undefined or missing; never 0."""
NUMBER_LIST = re.compile(r"""\[\n([^][{}"]*)\n *\]""")
"""A list of numbers in indented JSON; no string there has a line break of its own."""
JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')
"""A token of valid JSON."""
MAX_JSON_DEPTH = 40
"""Levels that are indented; each makes every line of its contents longer."""
SELECTED_ID = "found"
"""Target of the requests in which htmx asks for a whole page, and selects this element of it."""


LABELS = SimpleNamespace(
    ACTIONS=ACTIONS,
    APPROVALS=APPROVALS,
    GRADES=GRADES,
    RUNS=RUNS,
    STANCES=STANCES,
    STATUSES=STATUSES,
    SUMMARIES=SUMMARIES,
    VERDICTS=VERDICTS,
    badge=badge,
    is_failed=is_failed,
)
"""What templates call `labels`."""


class Links:
    """Addresses in MLflow's and Airflow's own pages.

    They are None unless FINAGENT_MLFLOW_UI_URL or FINAGENT_AIRFLOW_UI_URL says where those are.
    """

    def __init__(self, settings: Settings) -> None:
        self._mlflow = _strip_slash(settings.mlflow_ui_url)
        self._airflow = _strip_slash(settings.airflow_ui_url)

    def run(self, experiment_id: str | None, run_id: str | None) -> str | None:
        """Return MLflow's page of a run."""
        if not (self._mlflow and experiment_id and run_id):
            return None
        return f"{self._mlflow}/#/experiments/{_quote(experiment_id)}/runs/{_quote(run_id)}"

    def version(self, model_uri: str | None) -> str | None:
        """Return MLflow's page of the version `models:/NAME/NUMBER`."""
        name, _, number = (model_uri or "").removeprefix("models:/").partition("/")
        if not (self._mlflow and name and number.isdigit()):
            return None
        return f"{self._mlflow}/#/models/{_quote(name)}/versions/{number}"

    def task(
        self,
        dag_id: str | None,
        dag_run_id: object,
        task_id: str | None = None,
        map_index: object = None,
    ) -> str | None:
        """Return Airflow's page of a task, or of the DAG's run if the task is unknown."""
        if not (self._airflow and dag_id and dag_run_id and isinstance(dag_run_id, str)):
            return None
        url = f"{self._airflow}/dags/{_quote(dag_id)}/runs/{_quote(dag_run_id)}"
        if task_id:
            url += f"/tasks/{_quote(task_id)}"
            if isinstance(map_index, int) and map_index >= 0:
                url += f"/mapped/{map_index}"
        return url


class Renderer:
    """Renders the templates of `templates/`, with the values that all pages share."""

    def __init__(
        self, settings: Settings, count_pending: Callable[[], int | None] = lambda: None
    ) -> None:
        """`count_pending` returns how many decisions wait for a human; None: unknown."""
        folder = Path(__file__).with_name("templates")
        self._env = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,  # texts are foreign: news, replies, rows of other systems
            undefined=StrictUndefined,  # a misspelt name is an error, not an empty page
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters |= {
            "day": format_day,
            "as_of": format_as_of,
            "moment": format_moment,
            "number": format_number,
            "measure": format_measure,
            "percent": format_percent,
            "age": format_age,
            "brief": shorten_id,
            "pretty": format_json,
        }
        self._env.globals |= {
            "labels": LABELS,
            "links": Links(settings),
            "release": finagent_model.__version__,
            "has_login": settings.api_token is not None,
            "with_query": with_query,
            "count_pending": count_pending,
        }

    def page(
        self, request: Request, template: str, status: int = 200, /, **context: Any
    ) -> Response:
        """Return a rendered template."""
        text = self._env.get_template(template).render(current_path=request.url.path, **context)
        return HTMLResponse(text, status)

    def part(
        self,
        request: Request,
        template: str,
        title: str,
        parent: tuple[str, str],
        status: int = 200,
        /,
        **context: Any,
    ) -> Response:
        """Return a part of the page `parent`, given by its path and its name.

        For htmx it is the part alone; without scripts it is a page with nothing but this part and
        a link to `parent`.
        """
        if is_part_request(request):
            return self.page(request, template, status, title=title, **context)
        context |= {"title": title, "parent": parent, "part": template}
        return self.page(request, "standalone.html", status, **context)


def is_part_request(request: Request) -> bool:
    """Return whether htmx asks for a part of a page."""
    # The filter of the list asks htmx for the whole page, and selects a part of it itself.
    return "hx-request" in request.headers and request.headers.get("hx-target") != SELECTED_ID


def with_query(path: str, query: Mapping[str, Any], **changes: Any) -> str:
    """Return a link with `query` and the changes to it; empty values are left out."""
    params = {k: v for k, v in {**query, **changes}.items() if v not in (None, "")}
    return f"{path}?{urlencode(params)}" if params else path


def finite_number(value: object) -> int | float | None:
    """Return `value` if it is a finite number that fits a float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # JSON's integers have any size; a page's numbers must fit a float.
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def format_day(value: object) -> str:
    """Return the day of a moment in UTC."""
    stamp = _parse_moment(value)
    return stamp.strftime("%Y-%m-%d") if stamp else UNDEFINED


def format_as_of(value: object) -> str:
    """Return the day that a decision was asked about, or the moment, in UTC."""
    stamp = _parse_moment(value)
    return show_as_of(stamp) if stamp else UNDEFINED


def format_moment(value: object) -> str:
    """Return a moment to the second, in UTC; pages say so once."""
    stamp = _parse_moment(value)
    return stamp.strftime("%Y-%m-%d %H:%M:%S") if stamp else UNDEFINED


def format_number(value: object, digits: int = 2) -> str:
    """Return a float with `digits` decimals, an integer without."""
    number = finite_number(value)
    if number is None:
        return UNDEFINED
    return f"{number:,.{digits}f}" if isinstance(number, float) else f"{number:,}"


def format_measure(value: object) -> str:
    """Return a metric of any size, with as many digits as are informative."""
    number = finite_number(value)
    if number is None:
        return UNDEFINED
    if number == round(number):
        return f"{number:,.0f}"
    if abs(number) >= 100:
        return f"{number:,.1f}"
    return f"{number:.4f}" if abs(number) >= 0.001 else f"{number:.2g}"


def format_percent(value: object, digits: int = 1) -> str:
    """Return a fraction as percent, with its sign."""
    number = finite_number(value)
    return UNDEFINED if number is None else f"{number:+.{digits}%}"


def shorten_id(value: str) -> str:
    """Return the beginning of a long hexadecimal id; any other text as it is."""
    return f"{value[:12]}…" if re.fullmatch(r"[0-9a-f]{24,}", value) else value


def format_age(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3 h 20 min`."""
    whole = max(0, int(seconds))
    for unit, size, smaller_unit, smaller_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size} {smaller_unit}"
    return f"{whole} s"


def format_json(text: str) -> str:
    """Return JSON indented, with a list of numbers on one line; any other text as it is.

    Only space between tokens changes. JSON deeper than `MAX_JSON_DEPTH` stays as it is, too.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    # Not `json.dumps`: it would drop repeated keys and write numbers in another way.
    lines = _indent(JSON_TOKEN.findall(text))
    if lines is None:
        return text
    return NUMBER_LIST.sub(lambda match: f"[{' '.join(match[1].split())}]", lines)


def _indent(tokens: list[str]) -> str | None:
    """Return the tokens of valid JSON, indented; None if it is too deep to be readable."""
    parts: list[str] = []
    depth, previous = 0, ""
    for token in tokens:
        is_first = previous in ("{", "[")
        depth -= token in ("}", "]")
        if token in ("}", "]"):
            parts.append(token if is_first else "\n" + "  " * depth + token)
        elif is_first or previous == ",":
            parts.append("\n" + "  " * depth + token)
        else:
            parts.append(" " + token if previous == ":" else token)
        depth += token in ("{", "[")
        if depth > MAX_JSON_DEPTH:
            return None
        previous = token
    return "".join(parts)


def _parse_moment(value: object) -> datetime | None:
    """Return a moment, in UTC if it has a zone; None for a value that is none."""
    try:
        stamp = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(stamp, datetime):
            return None
        return stamp.astimezone(UTC) if stamp.tzinfo else stamp
    except (ValueError, OverflowError):
        return None


def _strip_slash(url: str | None) -> str | None:
    return url.rstrip("/") if url else None


def _quote(text: str) -> str:
    return quote(text, safe="")
