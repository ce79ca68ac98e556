"""The trading signal: the one thing that every door of this package hands out.

Field names are those of the trading platform it plugs into, so that a stored signal needs no
mapping table.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from finagent_model.errors import BadInputError
from finagent_model.market.symbols import parse_symbol

Action = Literal["BUY", "SELL", "HOLD"]
Trend = Literal["bullish", "bearish", "neutral"]
Confidence = Literal["HIGH", "MEDIUM", "LOW"]


class Status(StrEnum):
    """How a decision came about. HOLD is only ever a choice: anything but OK is HOLD with
    confidence 0.
    """

    OK = "ok"
    ABSTAINED = "abstained"
    """The desk worked and came to no conclusion (no consensus within `max_rounds`)."""
    PARSE_FAILED = "parse_failed"
    DATA_MISSING = "data_missing"
    MODEL_ERROR = "model_error"
    BUDGET_EXCEEDED = "budget_exceeded"
    LEVELS_REJECTED = "levels_rejected"
    EXTERNAL_ERROR = "upstream_error"
    """An external analyst failed; named after the first one, since stored decisions have it."""
    APPROVAL_REJECTED = "approval_rejected"
    """The desk decided; a human said no."""
    APPROVAL_EXPIRED = "approval_expired"
    """The desk decided; no human answered in time."""

    @property
    def is_failure(self) -> bool:
        """Whether the desk could not do its work. To abstain is work done; so is a decision that a
        human held back.
        """
        return self not in (
            Status.OK,
            Status.ABSTAINED,
            Status.APPROVAL_REJECTED,
            Status.APPROVAL_EXPIRED,
        )


def confidence_label(score: float) -> Confidence:
    """HIGH from 80, MEDIUM from 50, else LOW; `score` in 0..100."""
    return "HIGH" if score >= 80 else "MEDIUM" if score >= 50 else "LOW"


def _symbol(value: str) -> str:
    try:
        return parse_symbol(value)
    except BadInputError as error:
        raise ValueError(str(error)) from None


class TradingSignal(BaseModel):
    """What to do about one symbol, decided at `as_of`. Prices: as traded on the last bar."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbol: Annotated[str, AfterValidator(_symbol)]
    action: Action
    confidence: Confidence
    confidence_score: float = Field(ge=0, le=100)
    raw_confidence_score: float = Field(ge=0, le=100)
    """What the desk said, before calibration."""
    calibrated: bool
    """Whether `confidence_score` was calibrated on past outcomes; if not it equals the raw score.
    """
    status: Status
    reasoning: str = Field(min_length=10)
    key_factors: tuple[str, ...] = ()
    trend: Trend | None = None
    support_level: float | None = Field(None, gt=0)
    resistance_level: float | None = Field(None, gt=0)
    suggested_entry_price: float | None = Field(None, gt=0)
    suggested_stop_loss: float | None = Field(None, gt=0)
    suggested_take_profit: float | None = Field(None, gt=0)
    r_multiple: float | None = Field(None, ge=0)
    """|target - entry| / |entry - stop|."""
    position_size_percent: float | None = Field(None, ge=0, le=100)
    """Percent of equity."""
    timeframe_analyzed: str = "1 day"
    model_used: str
    """Who spoke: 'rules' for the built-in policy, else the chat model's name. Rules are never
    called a model.
    """
    generated_at: datetime
    """UTC; the record's own stamp. Nothing is decided by it."""
    as_of: datetime
    fit_until: datetime | None = None
    """The last bar that the policy behind this signal was fitted on."""
    fit_symbols: tuple[str, ...] = ()
    evidence: Literal["none", "weak", "strong"] | None = None
    """What the gate found about an edge after costs; null when it was not assessed."""
    model_uri: str | None = None
    model_version: str | None = None
    run_id: str | None = None
    conversation_id: str
    """Hash of everything the decision was made from: the same question has the same id."""
    clamps: tuple[str, ...] = ()
    """Every number that code corrected or derived, and why."""
    warnings: tuple[str, ...] = ()
    tokens: int = Field(ge=0)
    cost_usd: float | None = Field(None, ge=0)
    """Null when a price is unknown; never a guess."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.confidence != confidence_label(self.confidence_score):
            raise ValueError(f"confidence {self.confidence} disagrees with {self.confidence_score}")
        if self.status is not Status.OK and (self.action != "HOLD" or self.confidence_score):
            raise ValueError(f"status {self.status} must be HOLD with confidence 0")
        entry, stop, target = (
            self.suggested_entry_price,
            self.suggested_stop_loss,
            self.suggested_take_profit,
        )
        # A rule may name no stop or target; a desk always does, which the gate holds it to.
        if self.action == "BUY" and not _rises(stop, entry, target):
            raise ValueError(f"BUY needs stop < entry < target, got {stop}, {entry}, {target}")
        if self.action == "SELL" and not _rises(target, entry, stop):
            raise ValueError(f"SELL needs target < entry < stop, got {target}, {entry}, {stop}")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_actionable(self) -> bool:
        """Not HOLD and not LOW."""
        return self.action != "HOLD" and self.confidence != "LOW"

    @property
    def signal_id(self) -> str:
        """The same for the same symbol, `as_of` and model version, whoever asks and how often. A
        desk that was never packaged has no version: then it is that of the conversation.
        """
        version = version_of(self.model_uri, self.run_id)
        return signal_id(self.symbol, self.as_of, version or self.conversation_id)


def version_of(model_uri: str | None, run_id: str | None) -> str | None:
    """Which version speaks: version 1 of a name is another one in another store, and its training's
    run tells them apart. None: nothing is known of it.
    """
    return " ".join(filter(None, (model_uri, run_id))) or None


def signal_id(symbol: str, as_of: datetime, author: str) -> str:
    """Of the signal that `author`, a version or a conversation, gives for `as_of`."""
    asked = f"{symbol} {as_of.astimezone(UTC).isoformat()} {author}"
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


class Column(NamedTuple):
    """A field of the signal as a table has it."""

    name: str
    kind: Literal["string", "number", "integer", "boolean", "array"]
    """JSON's word; a time is a string, an array one of strings."""
    optional: bool


def signal_columns() -> tuple[Column, ...]:
    """Every field of a signal, in order, for those who store or serve it as a table."""
    fields = TradingSignal.model_json_schema(mode="serialization")["properties"]
    columns = []
    for name, schema in fields.items():
        kinds = [option.get("type", "string") for option in schema.get("anyOf", [schema])]
        kind = next(k for k in kinds if k != "null")
        columns.append(Column(name, kind, optional="null" in kinds))
    return tuple(columns)


def _rises(low: float | None, entry: float | None, high: float | None) -> bool:
    """Whether there is an entry, and the levels that are given lie on their sides of it."""
    if entry is None:
        return False
    return (low is None or low < entry) and (high is None or entry < high)
