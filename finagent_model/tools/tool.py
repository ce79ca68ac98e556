"""What a tool is: a name, checked arguments, and a pure function of one view.

A tool is given the market view and the context of one decision and nothing else. Which symbol and
which day it speaks about is settled by them; there is no argument to ask for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from finagent_model.context import Context
from finagent_model.domain.market_view import MarketView

Answer = dict[str, Any]
"""JSON; every number in it is finite or null."""

_LEFT_TO_CODE = ("title", "default", "minLength", "maxLength")
"""Words of JSON Schema that strict function calling doesn't take."""


class Arguments(BaseModel):
    """Of one call. Nothing is converted and nothing unknown is let pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True)
class Tool(Generic[A]):
    """One row of the whitelist."""

    name: str
    description: str
    arguments: type[A]
    run: Callable[[MarketView, Context, A], Answer]

    def answer(self, view: MarketView, context: Context, arguments_json: str) -> Answer:
        """Raises pydantic's ValidationError for arguments that are not its own."""
        return self.run(view, context, self.arguments.model_validate_json(arguments_json))

    def schema(self) -> dict[str, Any]:
        """In the shape of AutoGen's ToolSchema. Strict: a model must give every argument."""
        properties = self.arguments.model_json_schema()["properties"]
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {name: _known(told) for name, told in properties.items()},
                "required": list(properties),
                "additionalProperties": False,
            },
            "strict": True,
        }


def _known(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _known(v) for k, v in schema.items() if k not in _LEFT_TO_CODE}
    return schema
