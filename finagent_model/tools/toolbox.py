"""The tools of one decision: a whitelist by name, bound to the one view.

Whatever a model sends comes back as JSON: an answer, or `{"error": ...}` that names what is
allowed. Nothing here reaches the network, the disk, another symbol or another day.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finagent_model.context import Context
from finagent_model.domain.desk_config import explain
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.untrusted import plain
from finagent_model.errors import ConfigError
from finagent_model.tools import bars, indicators, levels, news, size
from finagent_model.tools.tool import Answer, Tool

_ALL: dict[str, Tool[Any]] = {
    tool.name: tool for tool in (indicators.TOOL, bars.TOOL, size.TOOL, levels.TOOL, news.TOOL)
}
TOOLS: tuple[str, ...] = tuple(_ALL)
"""Every name there is."""

ARGUMENTS_LIMIT = 2000
"""Characters; nobody needs more for a few numbers and words."""
ERROR_LIMIT = 400


@dataclass(frozen=True)
class ToolResult:
    """What goes back to the model."""

    content: str
    """A JSON object."""
    is_error: bool


class Toolbox:
    """The tools named, for one view and the context that was made of it."""

    def __init__(self, view: MarketView, context: Context, names: Sequence[str]) -> None:
        """Raises ConfigError for a name that isn't one of TOOLS."""
        self._view = view
        self._context = context
        self._tools = _chosen(names)

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """What a chat client is told of them."""
        return schemas(self._tools)

    def call(self, name: str, arguments_json: str) -> ToolResult:
        """Never raises for what a model can send; equal calls have equal results."""
        tool = self._tools.get(name)
        if tool is None:
            allowed = ", ".join(self._tools) or "none"
            return _refused(f"unknown tool {plain(name, 40)!r}; allowed: {allowed}")
        takes = f"{name} takes {', '.join(tool.arguments.model_fields)}"
        if len(arguments_json) > ARGUMENTS_LIMIT:
            return _refused(f"arguments longer than {ARGUMENTS_LIMIT} characters; {takes}")
        try:
            answer = tool.answer(self._view, self._context, arguments_json)
        except ValidationError as error:
            return _refused(f"{plain(explain(error), ERROR_LIMIT // 2)}; {takes}")
        return ToolResult(_json(answer), is_error=False)


def schemas(names: Iterable[str]) -> list[dict[str, Any]]:
    """What a chat client is told of the tools named; raises ConfigError for an unknown one."""
    return [tool.schema() for tool in _chosen(names).values()]


def _chosen(names: Iterable[str]) -> dict[str, Tool[Any]]:
    chosen = {}
    for name in names:
        if name not in _ALL:
            raise ConfigError(f"unknown tool {name!r}; use any of: {', '.join(TOOLS)}")
        chosen[name] = _ALL[name]
    return chosen


def _refused(why: str) -> ToolResult:
    return ToolResult(_json({"error": why[:ERROR_LIMIT]}), is_error=True)


def _json(answer: Answer) -> str:
    return json.dumps(answer, ensure_ascii=False, allow_nan=False)
