"""Pydantic bases, check results and quoted values that every room shares.

Models are frozen, closed to unknown keys, and hold finite numbers only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from finagent_model.errors import BadInputError

Mode = Literal["cached", "live", "replay"]
"""Where replies come from: the cassette first, always the model, or the cassette alone."""
DATED_PAUSE_S = 10.0
"""How long to wait until a date, where a response does not say what time it is."""
MAX_SHOWN_CHARS = 40
"""Characters of a caller's value that a message repeats."""


class FrozenModel(BaseModel):
    """Base of a block of configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputModel(FrozenModel):
    """Base of parameters that come from outside (MLflow, Airflow, HTTP, a shell); see `parse`."""

    @classmethod
    def parse(cls, /, **params: Any) -> Self:
        """Validate loose values. Raises BadInputError naming the value and what is allowed."""
        try:
            return cls.model_validate(params)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            message = first_error_message(error)
            raise BadInputError(f"parameter {message}{cls._describe_allowed(name)}") from None

    @classmethod
    def _describe_allowed(cls, name: str) -> str:
        """Return the bounds and default of a parameter, as the end of an error message."""
        schema = cls.model_json_schema()["properties"].get(name)
        if schema is None:
            return f"; there is: {', '.join(cls.model_fields)}"
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


def first_error_message(error: ValidationError) -> str:
    """Return the first error in one line: the field, what it must be, and the value given."""
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
        return f"unknown key {show_value(field)}"
    if first["type"] in _REQUIREMENTS:
        if first["type"] not in _OF_A_KEY:
            # As YAML and JSON write it, not as Python does.
            is_word = value is None or isinstance(value, bool)
            message += f", not {json.dumps(value) if is_word else show_value(value)}"
    # A validator's own sentence may quote the value; larger ones such as lists are left out.
    elif isinstance(value, str | int | float):
        shown = show_value(value)
        if not re.search(rf"(?<!\w){re.escape(shown)}(?!\w)", message):
            message += f" (given: {shown})"
    return f"{field}: {message}" if field else message


def show_value(value: object) -> str:
    """Quote a caller's value for a message: at most `MAX_SHOWN_CHARS` characters of it, one line.

    Lists and objects are not looked into.
    """
    # Cut before it is quoted: the value may be a megabyte, or nested deeper than `repr` can go.
    if isinstance(value, str):
        is_cut, text = len(value) > MAX_SHOWN_CHARS, repr(value[:MAX_SHOWN_CHARS])
        return f"{text}..." if is_cut else text
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
