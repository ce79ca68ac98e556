"""What every block of a desk's configuration is: frozen, closed to unknown keys, finite.

Loose values from MLflow, Airflow or a shell, checked at once and refused in words.

One question to a record or a version, and what was found.

How long work reports its progress, to whoever watches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from finagent_model.errors import BadInputError

Mode = Literal["cached", "live", "replay"]


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: where, what was given, what is allowed."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    given = first["input"]
    shown = f" (given: {given!r:.80})" if isinstance(given, str | int | float) else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}{shown}" if where else message


class FrozenModel(BaseModel):
    """A block of YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputModel(BaseModel):
    """Frozen; `read` is the way in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, **given: Any) -> Self:
        """From loose values; raises BadInputError naming the value and what is allowed."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise BadInputError(f"parameter {explain(error)}{cls._allowed(name)}") from None

    @classmethod
    def _allowed(cls, name: str) -> str:
        """What a parameter may be, for the message that refuses it."""
        schema = cls.model_json_schema()["properties"].get(name)
        if schema is None:
            return f"; there is: {', '.join(cls.model_fields)}"
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
        said = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
        return f"; allowed: {', '.join(said)}"


class Check(BaseModel):
    """`found` says in words what was looked at and what came out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    found: str


Progress = Callable[[str, int], Callable[[], object]]
"""Told that a piece of work of so many steps begins; gives back what to call after each."""


def no_progress(name: str, steps: int) -> Callable[[], object]:
    return lambda: None
