"""What the trading platform stores of a decision: a signal, a reply of a chat model, a chart.

Field names are the platform's. What it has no column for is in `metadata`. `metadata.key` names a
row of ours, here and on the platform, whatever number a database gave it: for a signal it is
`TradingSignal.signal_id`.
"""

from __future__ import annotations

import math
from datetime import MAXYEAR, MINYEAR, datetime
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from finagent_model.domain.row import Row
from finagent_model.domain.signal import Action

Kind = Literal["signal", "llm", "chart"]
NUMBER = 2**31 - 1
"""The largest that PostgreSQL's `integer` holds."""


class NewArtifact(Row):
    """An artifact before a database has it."""

    name: str = Field(min_length=1, max_length=200)
    type: Kind
    symbol: str | None = Field(None, max_length=50)  # the platform's column takes no more
    run_id: str | None = Field(None, description="MLflow run that holds the whole record.")
    experiment_id: str | None = Field(None, description="MLflow experiment of that run.")
    workflow_id: str | None = None
    execution_id: str | None = Field(None, description="Groups what one run of a workflow made.")
    step_name: str | None = Field(None, description="Orders the artifacts of one execution.")
    dag_id: str | None = None
    task_id: str | None = None

    prompt: str | None = Field(None, description="What a model was asked; null where it is large.")
    response: str | None = Field(None, description="What it said; null where it is large.")
    prompt_length: int | None = Field(None, ge=0, le=NUMBER, description="Characters.")
    response_length: int | None = Field(None, ge=0, le=NUMBER, description="Characters.")
    model_name: str | None = None

    image_path: str | None = Field(None, description="Path among the artifacts of the MLflow run.")
    chart_type: str | None = None
    chart_data: JsonValue = None

    action: Action | None = None
    confidence: float | None = Field(None, ge=0, le=1, description="0 to 1.")
    signal_data: dict[str, JsonValue] | None = Field(None, description="The whole TradingSignal.")

    metadata: dict[str, JsonValue] = Field(
        {}, description="Also `key`, `status`, `as_of`, `model_uri`, `model_version`, ..."
    )

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return storable(value)

    @field_validator("metadata")
    @classmethod
    def _searchable(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in ("key", "status"):
            if not isinstance(value.get(name), str | None):
                raise ValueError(f"{name} is no text")
        if value.get("as_of") is not None and _moment(value["as_of"]) is None:
            raise ValueError(
                "as_of is no moment of the years 2 to 9998; write it like 2012-06-29T20:00:00+00:00"
            )
        return value

    @property
    def key(self) -> str | None:
        """What names it wherever it is stored; None where another system made it."""
        key = self.metadata.get("key")
        return key if isinstance(key, str) else None

    @property
    def status(self) -> str | None:
        """How the decision came about; of a signal."""
        status = self.metadata.get("status")
        return status if isinstance(status, str) else None

    @property
    def as_of(self) -> datetime | None:
        """What was known to whoever decided."""
        return _moment(self.metadata.get("as_of"))


class Artifact(NewArtifact):
    """A row of the table `artifacts`. One that another system wrote is told as it stands there,
    whether or not it follows the rules for new ones.
    """

    id: int
    created_at: datetime
    updated_at: datetime | None = None


def storable(value: Any) -> Any:
    """The value, of text, lists and objects. Raises ValueError for what is in it that some database
    can't store: PostgreSQL has no NUL, JSON knows no NaN, no encoding has half a surrogate pair.
    """
    match value:
        case str():
            if "\0" in value:
                raise ValueError("holds a NUL character; leave it out")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("holds half a surrogate pair; send valid Unicode") from None
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is not finite, which JSON can't say; use null")
        case dict():
            for name, each in value.items():
                storable(name)
                storable(each)
        case list():
            for each in value:
                storable(each)
    return value


def has_date_everywhere(moment: datetime) -> bool:
    """Whether every zone has a date for it; a driver fails to tell one that has none."""
    return MINYEAR < moment.year < MAXYEAR


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo and has_date_everywhere(moment) else None
