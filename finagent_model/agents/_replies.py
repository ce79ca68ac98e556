"""What each role must answer: one JSON object of the role's shape, parsed once and strictly.

Numbers written as words, NaN, repeated keys, missing keys and prose are refused, with a sentence
that a model can act on; nothing is filled in. `reply_schema` is the part of a shape that a provider
is sent where it enforces JSON schemas itself.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finagent_model._base import first_error_message
from finagent_model.config.roster import Role
from finagent_model.decision.signal import Action, Trend

MAX_CHARS = 100_000
"""Length of a reply that is parsed; a longer one is refused."""
# Bounds such as `maximum` are left out, since providers differ in which of them they understand;
# `parse_reply` checks them, whoever answered.
SCHEMA_KEYWORDS = (
    "type",
    "anyOf",
    "enum",
    "items",
    "properties",
    "required",
    "additionalProperties",
)
Factor = Annotated[str, Field(max_length=4000)]


class ReplyError(ValueError):
    """A reply that can't be used; the message tells the model what to repair."""


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class AnalystReply(_Reply):
    """An opinion on the next weeks."""

    trend: Trend
    score: float = Field(ge=-1, le=1)
    """-1 certain fall, 0 no opinion, 1 certain rise."""
    summary: str = Field(min_length=10, max_length=2000)
    key_factors: list[Factor] = Field(max_length=20)


class RiskReply(_Reply):
    """Terms on which a trade would be sound; prices null when none is."""

    direction: Literal["long", "short", "none"]
    stop_loss: float | None = Field(gt=0)
    take_profit: float | None = Field(gt=0)
    position_size_percent: float | None = Field(ge=0, le=100)
    summary: str = Field(min_length=10, max_length=2000)


class ExecutorReply(_Reply):
    """The decision."""

    action: Action
    confidence_score: float = Field(ge=0, le=100)
    reasoning: str = Field(min_length=10, max_length=4000)
    key_factors: list[Factor] = Field(max_length=20)
    trend: Trend
    support_level: float | None = Field(gt=0)
    resistance_level: float | None = Field(gt=0)
    suggested_entry_price: float | None = Field(gt=0)
    suggested_stop_loss: float | None = Field(gt=0)
    suggested_take_profit: float | None = Field(gt=0)
    position_size_percent: float | None = Field(ge=0, le=100)


Reply = AnalystReply | RiskReply | ExecutorReply
REPLIES: dict[Role, type[AnalystReply] | type[RiskReply] | type[ExecutorReply]] = {
    "analyst": AnalystReply,
    "debater": AnalystReply,
    "risk": RiskReply,
    "executor": ExecutorReply,
}


def parse_reply(text: str, role: Role) -> Reply:
    """Return the typed reply of an agent of `role`. Raises ReplyError."""
    if not text.strip():
        raise ReplyError("the reply is empty; answer with the JSON object")
    if len(text) > MAX_CHARS:
        raise ReplyError(f"the reply has {len(text)} characters; answer in fewer than {MAX_CHARS}")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"the reply is not one JSON object: {error}") from None
    try:
        return REPLIES[role].model_validate(value)
    except ValidationError as error:
        raise ReplyError(first_error_message(error)) from None


@cache
def reply_schema(role: Role) -> dict[str, Any]:
    """Return the JSON schema of a role's reply: all keys required, no others allowed, no bounds."""
    schema: dict[str, Any] = _without_bounds(REPLIES[role].model_json_schema())
    return schema | {"additionalProperties": False, "required": list(schema["properties"])}


def schema_model(role: Role) -> type[BaseModel]:
    """Return a pydantic model whose JSON schema is `reply_schema(role)`.

    AutoGen's clients take a schema as a model; nothing is ever parsed by this one.
    """

    class SchemaModel(BaseModel):
        @classmethod
        def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
            return reply_schema(role)

    return SchemaModel


def _without_bounds(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {key: _without_bounds(item) for key, item in schema.items() if key in SCHEMA_KEYWORDS}
    if "properties" in schema:
        # The keys in here are names of fields, not keywords.
        bare["properties"] = {
            name: _without_bounds(field) for name, field in schema["properties"].items()
        }
    return bare


def _refuse_constant(name: str) -> None:
    raise ReplyError(f"{name} is no number; use null where a value is not known")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ReplyError("a key is given twice; answer once")
    return dict(pairs)
