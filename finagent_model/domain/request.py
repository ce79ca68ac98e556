"""Loose values from MLflow, Airflow or a shell, checked at once and refused in words."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from finagent_model.domain.desk_config import explain
from finagent_model.errors import BadInputError


class Request(BaseModel):
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
