"""Addresses of the pages that MLflow and Airflow have about the same things; None where nobody said
where those are, and then the id stands there as text.

Numbers of foreign records, as far as they are numbers.

Templates, and how numbers and moments are written. Whatever a page shows is escaped: news and
replies of models are text, never markup.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import finagent_model
from finagent_model.settings import Settings
from finagent_model.webui import labels as words


class Links:
    """By FINAGENT_MLFLOW_UI_URL and FINAGENT_AIRFLOW_UI_URL."""

    def __init__(self, settings: Settings) -> None:
        self._mlflow = _base(settings.mlflow_ui_url)
        self._airflow = _base(settings.airflow_ui_url)

    def run(self, experiment_id: str | None, run_id: str | None) -> str | None:
        if not (self._mlflow and experiment_id and run_id):
            return None
        return f"{self._mlflow}/#/experiments/{_part(experiment_id)}/runs/{_part(run_id)}"

    def version(self, model_uri: str | None) -> str | None:
        """Of `models:/NAME/VERSION`."""
        name, _, number = (model_uri or "").removeprefix("models:/").partition("/")
        if not (self._mlflow and name and number.isdigit()):
            return None
        return f"{self._mlflow}/#/models/{_part(name)}/versions/{number}"

    def task(
        self,
        dag_id: str | None,
        dag_run_id: object,
        task_id: str | None = None,
        map_index: object = None,
    ) -> str | None:
        """The task's page, or the run's where it is not known."""
        if not (self._airflow and dag_id and dag_run_id and isinstance(dag_run_id, str)):
            return None
        found = f"{self._airflow}/dags/{_part(dag_id)}/runs/{_part(dag_run_id)}"
        if task_id:
            found += f"/tasks/{_part(task_id)}"
            if isinstance(map_index, int) and map_index >= 0:
                found += f"/mapped/{map_index}"
        return found


def _base(url: str | None) -> str | None:
    return url.rstrip("/") if url else None


def _part(text: str) -> str:
    return quote(text, safe="")


def finite_number(value: object) -> int | float | None:
    """None for what is none, is not finite, or is larger than a float can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


NONE = "\N{EN DASH}"
"""Undefined, or not said; never 0."""
NUMBERS = re.compile(r"""\[\n([^][{}"]*)\n *\]""")
"""A list in indented JSON; no string there has a line break of its own."""
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')
"""Of JSON that can be read."""
DEEPEST = 40
"""Levels; each makes every line of its contents longer."""
FOUND = "found"
"""What htmx takes out of a whole page; any other request of its asks for a part of one."""


class Renderer:
    """Every template of `templates/`, with what all pages know."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(__file__).with_name("templates")
        self._env = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters |= {
            "day": day,
            "moment": moment,
            "number": number,
            "measure": measure,
            "percent": percent,
            "age": age,
            "pretty": pretty,
        }
        self._env.globals |= {
            "words": words,
            "links": Links(settings),
            "release": finagent_model.__version__,
            "guarded": settings.api_token is not None,
            "with_query": with_query,
        }

    def page(self, request: Request, template: str, status: int = 200, /, **known: Any) -> Response:
        text = self._env.get_template(template).render(here=request.url.path, **known)
        return HTMLResponse(text, status)

    def part(
        self,
        request: Request,
        template: str,
        title: str,
        of: tuple[str, str],
        status: int = 200,
        /,
        **known: Any,
    ) -> Response:
        """A part of a page where htmx asks for it, else a page that has nothing but this part and
        the way to the page `of` which it is, by path and name.
        """
        if is_part(request):
            return self.page(request, template, status, title=title, **known)
        known |= {"title": title, "of": of, "part": template}
        return self.page(request, "alone.html", status, **known)


def is_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return "hx-request" in request.headers and request.headers.get("hx-target") != FOUND


def day(value: object) -> str:
    found = _read(value)
    return found.strftime("%Y-%m-%d") if found else NONE


def moment(value: object) -> str:
    """To the second; pages say that it is UTC."""
    found = _read(value)
    return found.strftime("%Y-%m-%d %H:%M:%S") if found else NONE


def number(value: object, digits: int = 2) -> str:
    known = finite_number(value)
    if known is None:
        return NONE
    return f"{known:,.{digits}f}" if isinstance(known, float) else f"{known:,}"


def measure(value: object) -> str:
    """A metric of any size, with as many digits as tell something."""
    known = finite_number(value)
    if known is None:
        return NONE
    if known == round(known):
        return f"{known:,.0f}"
    if abs(known) >= 100:
        return f"{known:,.1f}"
    return f"{known:.4f}" if abs(known) >= 0.001 else f"{known:.2g}"


def percent(value: object, digits: int = 1) -> str:
    """Of a fraction, with its sign."""
    known = finite_number(value)
    return NONE if known is None else f"{known:+.{digits}%}"


def age(seconds: float) -> str:
    """`3 h 20 min`; two units, so that it can be read at a glance."""
    left = max(0, int(seconds))
    for unit, size, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if left >= size:
            return f"{left // size} {unit} {left % size // part} {smaller}"
    return f"{left} s"


def pretty(text: str) -> str:
    """JSON with its lines, but for lists of numbers; any other text as it is. Nothing changes but
    the space between its parts: a key that repeats stays, and a number is as it was written.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    lines = _indented(TOKEN.findall(text))
    if lines is None:
        return text
    return NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", lines)


def _indented(tokens: list[str]) -> str | None:
    """None: it is too deep to be read anyway."""
    parts: list[str] = []
    depth, before = 0, ""
    for token in tokens:
        opened = before in ("{", "[")
        depth -= token in ("}", "]")
        if token in ("}", "]"):
            parts.append(token if opened else "\n" + "  " * depth + token)
        elif opened or before == ",":
            parts.append("\n" + "  " * depth + token)
        else:
            parts.append(" " + token if before == ":" else token)
        depth += token in ("{", "[")
        if depth > DEEPEST:
            return None
        before = token
    return "".join(parts)


def with_query(path: str, given: Mapping[str, Any], **changes: Any) -> str:
    """A link that keeps what was asked, but for the changes; what is empty is left out."""
    asked = {k: v for k, v in {**given, **changes}.items() if v not in (None, "")}
    return f"{path}?{urlencode(asked)}" if asked else path


def _read(value: object) -> datetime | None:
    """None for what is no moment: another system may have written it."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(found, datetime):
            return None
        return found.astimezone(UTC) if found.tzinfo else found
    except (ValueError, OverflowError):
        return None
