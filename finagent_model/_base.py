"""Pydantic bases, check results and quoted values that every room shares.

Models are frozen, closed to unknown keys, and hold finite numbers only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from finagent_model.errors import BadInputError

Mode = Literal["cached", "live", "replay"]
"""Where replies come from: the cassette first, always the model, or the cassette alone."""
DATED_PAUSE_S = 10.0
"""How long to wait until a date, where a response does not say what time it is."""
UNKNOWN_KEY = "unknown key"
MIN_LIKENESS = 0.75
"""How alike (0 to 1, by difflib) an unknown key is to a known one that it may be meant for."""
MAX_SHOWN_CHARS = 40
"""Characters of a caller's value that a message repeats."""


class FrozenModel(BaseModel):
    """Base of a block of configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_true_as_number(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic takes true for 1: a `budget_usd: yes` would be a limit of one dollar.
        if isinstance(value, bool) and info.field_name:
            types = set(_plain_types(cls.model_fields[info.field_name].annotation))
            if bool not in types and types & {int, float}:
                kind: Any = "float_type" if float in types else "int_type"
                raise PydanticKnownError(kind)
        return value


class InputModel(FrozenModel):
    """Base of parameters that come from outside (MLflow, Airflow, HTTP, a shell); see `parse`."""

    @classmethod
    def parse(cls, /, **params: Any) -> Self:
        """Validate loose values. Raises BadInputError naming the value and what is allowed."""
        try:
            return cls.model_validate(params)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            message = first_error_message(error, cls)
            if message.startswith(UNKNOWN_KEY):
                message = f"unknown parameter{message.removeprefix(UNKNOWN_KEY)}"
                raise BadInputError(message) from None
            raise BadInputError(f"parameter {message}{cls._describe_allowed(name)}") from None

    @classmethod
    def _describe_allowed(cls, name: str) -> str:
        """Return the bounds and default of a parameter, as the end of an error message."""
        schema = cls.model_json_schema()["properties"].get(name)
        if schema is None:
            return ""  # an unknown key, whose message names the known ones
        # An optional parameter has its bounds in the first branch of `anyOf`.
        schema = {**next(iter(schema.get("anyOf", [])), {}), **schema}
        words = {
            "minimum": "at least",
            "exclusiveMinimum": "above",
            "maximum": "at most",
            "exclusiveMaximum": "below",
            "enum": "one of",
            "pattern": "letters, digits, - and _:",
        }
        bounds = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
        allowed = f"; allowed: {', '.join(bounds)}" if bounds else ""
        default = schema.get("default")
        if isinstance(default, list):
            default = ",".join(map(str, default))
        return allowed if default in (None, "") else f"{allowed}; default: {default}"


_REQUIREMENTS = {
    "missing": "is missing",
    "extra_forbidden": "is an unknown key",
    "invalid_key": "must have text as its keys",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text in UTF-8",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "bytes_type": "must be text",
    "path_type": "must be a path",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have at most {max_length} items",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "mapping_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dataclass_type": "must be a mapping of keys to values",
    "date_type": "must be a date such as 2012-06-29",
    "date_parsing": "must be a date such as 2012-06-29",
    "date_from_datetime_parsing": "must be a date such as 2012-06-29",
    "date_from_datetime_inexact": "must be a date such as 2012-06-29, without a time of day",
    "datetime_type": "must be a time such as 2012-06-29T20:00:00+00:00",
    "datetime_parsing": "must be a time such as 2012-06-29T20:00:00+00:00",
    "datetime_object_invalid": "must be a time such as 2012-06-29T20:00:00+00:00",
    "datetime_from_date_parsing": "must be a time such as 2012-06-29T20:00:00+00:00",
    "timezone_aware": "must be a time with its zone, such as 2012-06-29T20:00:00+00:00",
    "union_tag_invalid": "must have {expected_tags} as its {discriminator}",
    "union_tag_not_found": "must name its {discriminator}",
    "json_invalid": "must be JSON ({error})",
    "json_type": "must be JSON",
    "recursion_loop": "must not contain itself",
}
"""What a field must be, by pydantic's name of the error, with the error's context filled in."""
_OF_A_KEY = ("missing", "extra_forbidden")
"""Errors about the key, not about a value."""
_BRANCH = re.compile(r"bool|int|float|str|literal\[.*\]")
"""Pydantic's names of the branches of a union, which it puts behind the field's name."""


def requirement(error: Mapping[str, Any]) -> str:
    """Return what a field must be, such as "must be a whole number", by pydantic's details.

    A validator's own sentence is returned as it is.
    """
    template = _REQUIREMENTS.get(error.get("type", ""))
    if template is None:
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return template.format(**error.get("ctx", {}))


def first_error_message(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return the first error in one line: the field, what it must be, and the value given.

    With the `model` that was validated, an unknown key comes with those that are known.
    """
    # One problem in one line: a list would not fit a shell, a status or a log.
    first, *others = error.errors(include_url=False)
    where, value = first["loc"], first["input"]
    message = requirement(first)
    if len(where) > 1 and _BRANCH.fullmatch(str(where[-1])):
        # A union has an error for each of its branches.
        where = where[:-1]
        branches = [e for e in others if e["loc"][:-1] == where]
        alternatives = (requirement(e).removeprefix("must be ") for e in branches)
        message = " or ".join((message, *alternatives))
    field = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        return f"{UNKNOWN_KEY} {show_value(field)}{_hint_at_keys(model, where)}"
    if first["type"] in _REQUIREMENTS:
        if first["type"] not in _OF_A_KEY:
            # As YAML and JSON write it, not as Python does.
            is_word = value is None or isinstance(value, bool)
            message += f", not {json.dumps(value) if is_word else show_value(value)}"
            if first["type"] == "string_type" and isinstance(value, date):
                message += "; put it in quotes"
    # A validator's own sentence may quote the value; larger ones such as lists are left out.
    elif isinstance(value, str | int | float):
        shown = show_value(value)
        if not re.search(rf"(?<!\w){re.escape(shown)}(?!\w)", message):
            message += f" (given: {shown})"
    return f"{field}: {message}" if field else message


def _hint_at_keys(model: type[BaseModel] | None, where: Sequence[str | int]) -> str:
    """Return the key that an unknown one is a misspelling of, or all keys, as a message's end."""
    if model is None:
        return ""
    models = [model]
    for part in where[:-1]:
        fields = [f for each in models for name, f in each.model_fields.items() if name == part]
        # The number of an item and the key of a mapping lead to no other model.
        if fields:
            models = [inner for field in fields for inner in _find_models(field.annotation)]
    if not models:
        return ""  # of a mapping, whose keys a validator knows
    items = [item for each in models for item in each.model_fields.items()]
    key, known = str(where[-1]), [field.alias or name for name, field in items]
    for name, field in items:
        block = field.annotation
        # A key of a block that stands one level too high.
        if isinstance(block, type) and issubclass(block, BaseModel) and key in block.model_fields:
            return f"; did you mean {name!r} with {key!r} in it?"
    if alike := get_close_matches(key, known, n=1, cutoff=MIN_LIKENESS):
        return f"; did you mean {alike[0]!r}?"
    return f"; there is: {', '.join(known)}"


def _plain_types(annotation: Any) -> Iterator[type]:
    """Yield the types in the annotation of a field that has one value, such as `int | None`."""
    if isinstance(annotation, type):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _plain_types(part)


def _find_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in the annotation of a field, also those in lists and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _find_models(part)


def show_value(value: object) -> str:
    """Quote a caller's value for a message: at most `MAX_SHOWN_CHARS` characters of it, one line.

    Lists and objects are not looked into.
    """
    # Cut before it is quoted: the value may be a megabyte, or nested deeper than `repr` can go.
    if isinstance(value, str):
        is_cut, text = len(value) > MAX_SHOWN_CHARS, repr(value[:MAX_SHOWN_CHARS])
        return f"{text}..." if is_cut else text
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[...]" if value else "[]"
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


class Check(BaseModel):
    """The result of one check of a record or a model version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    found: str
    """What was compared and the result, in words."""


def dump_json(value: Any) -> str:
    """Return `value` as indented JSON with sorted keys and a final newline."""
    # Content hashes are taken of this text: any change of form changes them all.
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` asks for; None where neither does.

    A date in a response that has no `Date` to count from is `DATED_PAUSE_S`. `headers` has
    lower-case names, or ignores case. Not below 0.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    try:
        until = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    try:
        # A date counts from the response's own `Date`: the two machines' clocks may differ.
        return max(0.0, (until - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError):
        return DATED_PAUSE_S
