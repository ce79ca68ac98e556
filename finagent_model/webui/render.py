"""Templates, and how numbers and moments are written. Whatever a page shows is escaped: news and
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
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import finagent_model
from finagent_model.settings import Settings
from finagent_model.webui import words
from finagent_model.webui.links import Links

NONE = "\N{EN DASH}"
"""Undefined, or not said; never 0."""
NUMBERS = re.compile(r"""\[\n([^][{}"]*)\n *\]""")
"""A list in indented JSON; no string there has a line break of its own."""


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


def day(value: object) -> str:
    found = _read(value)
    return found.strftime("%Y-%m-%d") if found else NONE


def moment(value: object) -> str:
    """To the second; pages say that it is UTC."""
    found = _read(value)
    return found.strftime("%Y-%m-%d %H:%M:%S") if found else NONE


def number(value: object, digits: int = 2) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def measure(value: object) -> str:
    """A metric of any size, with as many digits as tell something."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    if value == round(value):
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.2g}"


def percent(value: object, digits: int = 1) -> str:
    """Of a fraction, with its sign."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value:+.{digits}%}"


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
    """JSON with its lines, but for lists of numbers; any other text as it is."""
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        lines = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
    return NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", lines)


def with_query(path: str, given: Mapping[str, Any], **changes: Any) -> str:
    """A link that keeps what was asked, but for the changes; what is empty is left out."""
    asked = {k: v for k, v in {**given, **changes}.items() if v not in (None, "")}
    return f"{path}?{urlencode(asked)}" if asked else path


def _read(value: object) -> datetime | None:
    """None for what is no moment: another system may have written it."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(found, datetime):
        return None
    return found.astimezone(UTC) if found.tzinfo else found
