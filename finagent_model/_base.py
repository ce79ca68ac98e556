"""Pydantic bases, check results and quoted values that every room shares.

Models are frozen, closed to unknown keys, and hold finite numbers only.
"""

from __future__ import annotations

import json
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
        """Return the allowed values of a parameter, as the end of an error message."""
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
            "default": "default",
        }
        bounds = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
        return f"; allowed: {', '.join(bounds)}"


def first_error_message(error: ValidationError) -> str:
    """Return the first error in one line: the field, the problem, and the value given."""
    # One problem in one line: a list would not fit a shell, a status or a log.
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {show_value(field)}"
    value = first["input"]
    # Cut to 80 characters; larger values such as lists are left out.
    shown = f" (given: {value!r:.80})" if isinstance(value, str | int | float) else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}{shown}" if field else message


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
