"""The JSON schema that a provider is sent, where it holds replies to one itself.

It says which keys there are and of what kind; bounds are left out, since providers differ in which
they understand. Our own parser holds the reply to those, whoever answered.

What each role must answer: a JSON object and nothing around it, parsed once, strictly.

Numbers written as words, NaN, repeated keys, missing keys and prose are all refused, with a
sentence that a model can act on. Nothing is filled in.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, Literal

from autogen_core.models import ChatCompletionClient
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finagent_model._base import first_error_message
from finagent_model.config.roster import ModelConfig, Role
from finagent_model.decision.signal import Action, Trend

KEPT = ("type", "anyOf", "enum", "items", "properties", "required", "additionalProperties")


@cache
def reply_schema(role: Role) -> dict[str, Any]:
    """All keys required, no others allowed."""
    schema: dict[str, Any] = _bare(REPLIES[role].model_json_schema())
    return schema | {"additionalProperties": False, "required": list(schema["properties"])}


def asked_for(role: Role, model: ModelConfig, client: ChatCompletionClient) -> dict[str, Any]:
    """What `client.create` is given beside the messages, so that it answers in JSON: the schema
    where the model's row says that it takes one, else JSON mode where the client has it.
    """
    openai = type(client).__module__.startswith("autogen_ext.models.openai")
    usage = {"include_usage": True} if model.stream and openai else {}  # else it counts no tokens
    if model.client == "anthropic":
        return {}  # its client has neither
    if not model.sends_schema:
        return {"json_output": True, **usage}
    if openai:
        # Not as `json_output`: the SDK would parse the reply itself and raise for what we mend.
        form = {"name": role, "schema": reply_schema(role), "strict": True}
        asked = {"type": "json_schema", "json_schema": form}
        return {"extra_create_args": {"response_format": asked}, **usage}
    return {"json_output": _Bare.of(role)}


class _Bare(BaseModel):
    """A model whose JSON schema is the bare one; nothing is ever parsed by it."""

    @classmethod
    def of(cls, role: Role) -> type[BaseModel]:
        class Bare(BaseModel):
            @classmethod
            def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
                return reply_schema(role)

        return Bare


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _bare(value) for key, value in schema.items() if key in KEPT}
    if "properties" in schema:
        kept["properties"] = {name: _bare(each) for name, each in schema["properties"].items()}
    return kept


LONGEST = 100_000
"""Characters of a reply that are looked at; a longer one is refused."""


class ReplyError(ValueError):
    """A reply that is not what was asked for; the message says what to mend."""


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


Factor = Annotated[str, Field(max_length=4000)]


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
    """The typed reply; raises ReplyError."""
    if not text.strip():
        raise ReplyError("the reply is empty; answer with the JSON object")
    if len(text) > LONGEST:
        raise ReplyError(f"the reply has {len(text)} characters; answer in fewer than {LONGEST}")
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"the reply is not one JSON object: {error}") from None
    try:
        return REPLIES[role].model_validate(value)
    except ValidationError as error:
        raise ReplyError(first_error_message(error)) from None


def _no_constant(name: str) -> None:
    raise ReplyError(f"{name} is no number; use null where a value is not known")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ReplyError("a key is given twice; answer once")
    return dict(pairs)
