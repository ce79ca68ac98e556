"""What each role must answer: one JSON object of the role's shape, parsed once and strictly.

Numbers written as words, NaN, repeated keys, missing keys and prose are refused, with a sentence
that a model can act on; nothing is filled in. What a server or a model wraps around an answer is
taken off by `unwrap` before. `reply_schema` is what a provider is sent where it enforces JSON
schemas itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finagent_model._base import first_error_message
from finagent_model.config.roster import Role
from finagent_model.decision.signal import Action, Trend

MAX_CHARS = 100_000
"""Length of a reply that is parsed; a longer one is refused."""
SCHEMA_KEYWORDS = (
    "type",
    "anyOf",
    "enum",
    "items",
    "properties",
    "required",
    "additionalProperties",
)
BOUND_KEYWORDS = (
    *("minLength", "maxLength", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)
"""Sent only where they are known to be taken; `parse_reply` checks them, whoever answered."""
BRIEF_CHARS = 120
"""Of the sentence in a brief reply."""
BRIEF_FACTOR_CHARS = 30
BRIEF_FIELDS: dict[str, dict[str, Any]] = {
    "score": {"enum": [round(0.2 * step, 1) for step in range(-5, 6)]},
    "confidence_score": {"enum": list(range(0, 101, 5))},
}
"""Numbers of a brief reply. Grammars hold no range of a number, and a fraction of 1 in place of a
percentage is refused.
"""
PROSE = ("key_factors", "summary", "reasoning")
"""Keys that are asked for last: where a reply is cut, the decisive ones are whole."""
_THOUGHTS = re.compile(r"(<(think|thinking|thought|reasoning)>.*?</\2>\s*)+", re.DOTALL)
_UNOPENED_THOUGHTS = re.compile(r"[^{]*?</(think|thinking)>|.*</think>(?=\s*(```|\{))", re.DOTALL)
_SPECIAL_TOKEN = re.compile(
    r"(</s>|<eos>|<pad>|<end_of_turn>|<[|\uff5c][\w\u2581 -]{1,40}[|\uff5c]>)$"
)
LONGEST_TOKEN = 44
"""Characters of a special token."""
FENCE = "```"
Factor = Annotated[str, Field(max_length=4000)]


class ReplyError(ValueError):
    """A reply that can't be used; the message tells the model what to repair."""


@dataclass(frozen=True)
class ReplySize:
    """How long the prose of a reply may be, as its author is told."""

    prose_chars: int
    """Of a summary or a reasoning."""
    factors: int
    factor_chars: int
    """Of each factor."""
    brief: bool = False
    """Whether numbers are in steps, and prices null: see `reply_schema`."""

    @classmethod
    def within(cls, max_tokens: int, cuts: int = 0, *, brief: bool = False) -> Self:
        """Return what fits into `max_tokens` at two tokens for three characters.

        It is halved for each of the `cuts` that a reply has had.
        """
        if brief:
            return cls(BRIEF_CHARS >> cuts, 1, BRIEF_FACTOR_CHARS, brief=True)
        # Below 2,000, beyond which llama.cpp's grammars take no repetition.
        chars = max(40, min(1000, max_tokens * 3 // 4) >> cuts)
        return cls(chars, max(1, 5 >> cuts), max(40, chars // 5))

    def in_words(self, role: Role) -> str:
        """Return the size as a request to the author."""
        fields = REPLIES[role].model_fields
        prose = "reasoning" if "reasoning" in fields else "summary"
        words = f"`{prose}` in at most {self.prose_chars} characters"
        if "key_factors" not in fields:
            return words
        factors = f"at most {self.factors} `key_factors` of at most {self.factor_chars} characters"
        return f"{words}, {factors}"


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


def check_percent(reply: Reply) -> None:
    """Raise ReplyError for a confidence that looks like a fraction of 1, not of 100."""
    if isinstance(reply, ExecutorReply) and 0 < reply.confidence_score <= 1:
        raise ReplyError(
            f"confidence_score {reply.confidence_score:g} looks like a fraction; it is a "
            "percentage from 0 to 100, such as 70"
        )


def unwrap(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the answer without what is wrapped around it, and the names of the wrappings.

    Taken off are a byte order mark, a leading block of thoughts, special tokens at the end, and one
    code fence around the whole. Without any of them the text comes back as it is.
    """
    if len(text) > MAX_CHARS:
        return text, ()  # it is refused anyway
    names = []
    answer = text
    if answer.lstrip().startswith("\ufeff"):
        answer = answer.lstrip().removeprefix("\ufeff")
        names.append("byte order mark")
    for pattern in (_THOUGHTS, _UNOPENED_THOUGHTS):
        if thoughts := pattern.match(answer.lstrip()):
            answer = answer.lstrip()[thoughts.end() :]
            names.append("thoughts")
            break
    # A special token may stand behind the fence or in it.
    for name, take_off in (*_OUTER, *_OUTER[:1]):
        inner = take_off(answer.strip())
        if inner is not None:
            answer = inner
            names.append(name)
    return (answer.strip(), tuple(names)) if names else (text, ())


# Cut by hand: regular expressions take the square of a long run of spaces.


def _without_special_tokens(text: str) -> str | None:
    """Return the text without special tokens at its end; None where it has none."""
    rest = text
    while token := _SPECIAL_TOKEN.search(rest[-LONGEST_TOKEN:]):
        rest = rest[: len(rest) - len(token[0])].rstrip()
    return None if rest == text else rest


def _without_fence(text: str) -> str | None:
    """Return what stands in a code fence around the whole text; None where there is none."""
    if len(text) < 2 * len(FENCE) or not (text.startswith(FENCE) and text.endswith(FENCE)):
        return None
    language = re.compile(r"[\w-]*").match(text, len(FENCE))
    return text[language.end() if language else len(FENCE) : -len(FENCE)]


_OUTER = (("special tokens", _without_special_tokens), ("code fence", _without_fence))


@cache
def reply_schema(role: Role, size: ReplySize | None = None) -> dict[str, Any]:
    """Return the JSON schema of a role's reply: all keys required, no others allowed, prose last.

    With a `size` it has bounds; without one, none. A brief reply has its numbers in steps, one
    sentence without digits, and no price and no size of a position, which code derives from the
    policy.
    """
    keywords = SCHEMA_KEYWORDS + (BOUND_KEYWORDS if size else ())
    schema: dict[str, Any] = _with_keywords(REPLIES[role].model_json_schema(), keywords)
    fields = schema["properties"]
    order = [name for name in fields if name not in PROSE] + [n for n in PROSE if n in fields]
    if size:
        for name in ("summary", "reasoning"):
            if name in fields:
                fields[name]["maxLength"] = size.prose_chars
        if "key_factors" in fields:
            factors = fields["key_factors"]
            factors["maxItems"] = size.factors
            factors["items"] |= {"minLength": 1, "maxLength": size.factor_chars}
        if size.brief:
            fields = {name: _brief_field(name, field, size) for name, field in fields.items()}
    return schema | {
        "properties": {name: fields[name] for name in order},
        "additionalProperties": False,
        "required": order,
    }


def _brief_field(name: str, field: dict[str, Any], size: ReplySize) -> dict[str, Any]:
    if name in BRIEF_FIELDS:
        return BRIEF_FIELDS[name]
    if {"type": "null"} in field.get("anyOf", ()):
        return {"type": "null"}
    # A very small model that has begun with digits goes on with them to the end. Lengths stand in
    # the patterns, since llama.cpp reads no others beside one.
    if name in PROSE and field["type"] == "string":
        pattern = f"^[A-Za-z][A-Za-z ,']{{9,{size.prose_chars - 2}}}[.]$"
        return {"type": "string", "pattern": pattern}
    if field["type"] == "array":
        pattern = f"^[A-Za-z][A-Za-z _-]{{1,{size.factor_chars - 1}}}$"
        return {**field, "items": {"type": "string", "pattern": pattern}}
    return field


def schema_model(role: Role, size: ReplySize | None = None) -> type[BaseModel]:
    """Return a pydantic model whose JSON schema is `reply_schema(role, size)`.

    AutoGen's clients take a schema as a model; nothing is ever parsed by this one.
    """

    class SchemaModel(BaseModel):
        @classmethod
        def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
            return reply_schema(role, size)

    return SchemaModel


def _with_keywords(schema: Any, keywords: tuple[str, ...]) -> Any:
    """Return a schema with the given keywords alone."""
    if isinstance(schema, list):
        return [_with_keywords(item, keywords) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {key: _with_keywords(item, keywords) for key, item in schema.items() if key in keywords}
    if "properties" in schema:
        # The keys in here are names of fields, not keywords.
        bare["properties"] = {
            name: _with_keywords(field, keywords) for name, field in schema["properties"].items()
        }
    return bare


def _refuse_constant(name: str) -> None:
    raise ReplyError(f"{name} is not a number; use null where a value is not known")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ReplyError("a key is given twice; answer once")
    return dict(pairs)
