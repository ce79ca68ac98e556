"""The trading signal, which every interface of this package returns (CLI, REST, DAG, Spark).

Field names are those of the trading platform it plugs into, so that a stored signal needs no
mapping table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_symbol
from finagent_model.market.timeframe import DAILY

Action = Literal["BUY", "SELL", "HOLD"]
Trend = Literal["bullish", "bearish", "neutral"]
Confidence = Literal["HIGH", "MEDIUM", "LOW"]


class Status(StrEnum):
    """Outcome of a decision; anything but OK is a HOLD with confidence 0.

    A HOLD with status OK is always a choice of the desk.
    """

    OK = "ok"
    ABSTAINED = "abstained"
    """The desk reached no conclusion (no consensus within `max_rounds`)."""
    PARSE_FAILED = "parse_failed"
    DATA_MISSING = "data_missing"
    MODEL_ERROR = "model_error"
    BUDGET_EXCEEDED = "budget_exceeded"
    LEVELS_REJECTED = "levels_rejected"
    EXTERNAL_ERROR = "upstream_error"
    """An external analyst failed; named after the first one, since stored decisions have it."""
    APPROVAL_REJECTED = "approval_rejected"
    """The desk decided; a human rejected it."""
    APPROVAL_EXPIRED = "approval_expired"
    """The desk decided; no human answered in time."""

    @property
    def is_failure(self) -> bool:
        """Whether the desk could not do its work.

        Abstaining is no failure, and neither is a decision that a human held back.
        """
        return self not in (
            Status.OK,
            Status.ABSTAINED,
            Status.APPROVAL_REJECTED,
            Status.APPROVAL_EXPIRED,
        )


GATE_REFUSED = "the gate refused"
"""Beginning of the warning on each signal of a version that the gate did not let pass."""
LEAST_TO_ACT = 50.0
"""Confidence score from which a BUY or SELL is actionable; below it confidence is LOW."""


def confidence_label(score: float) -> Confidence:
    """Return HIGH from a score of 80, MEDIUM from 50, else LOW; `score` in 0..100."""
    return "HIGH" if score >= 80 else "MEDIUM" if score >= LEAST_TO_ACT else "LOW"


def _symbol(value: str) -> str:
    try:
        return parse_symbol(value)
    except BadInputError as error:
        raise ValueError(str(error)) from None


class TradingSignal(BaseModel):
    """What to do about one symbol, decided at `as_of`. Prices are as traded on the last bar."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbol: Annotated[str, AfterValidator(_symbol)]
    """Ticker, as the source of bars writes it."""
    action: Action
    """Advice: BUY opens or keeps a long position, SELL closes one, HOLD changes nothing. Where
    shorts are allowed, BUY also closes a short one first, and SELL also opens one.
    """
    confidence: Confidence
    """Label of `confidence_score`: HIGH from 80, MEDIUM from 50, else LOW."""
    confidence_score: float = Field(ge=0, le=100)
    """Calibrated confidence, 0 to 100; 0 where the status is not `ok`."""
    raw_confidence_score: float = Field(ge=0, le=100)
    """Confidence of the desk, before calibration."""
    calibrated: bool
    """Whether `confidence_score` was calibrated on past outcomes; if not it equals the raw score.
    """
    status: Status
    """Outcome of the decision; anything but `ok` is a HOLD that no agent chose."""
    reasoning: str = Field(min_length=10)
    """The reason in words; for a failure, what went wrong."""
    key_factors: tuple[str, ...] = ()
    """The facts that decided, in words."""
    trend: Trend | None = None
    """Direction of the trend; null where no agent named one."""
    support_level: float | None = Field(None, gt=0)
    """Price of the nearest support; null where it is not known."""
    resistance_level: float | None = Field(None, gt=0)
    """Price of the nearest resistance; null where it is not known."""
    suggested_entry_price: float | None = Field(None, gt=0)
    """Price at which to enter; null for a HOLD."""
    suggested_stop_loss: float | None = Field(None, gt=0)
    """Price at which the loss is taken: below the entry for a BUY, above it for a SELL; null where
    none was named.
    """
    suggested_take_profit: float | None = Field(None, gt=0)
    """Price at which the profit is taken: above the entry for a BUY, below it for a SELL; null
    where none was named.
    """
    r_multiple: float | None = Field(None, ge=0)
    """Planned reward over risk, |target - entry| / |entry - stop|; null without both levels."""
    position_size_percent: float | None = Field(None, ge=0, le=100)
    """Size of the position in percent of equity; null for a HOLD."""
    timeframe_analyzed: str = DAILY.label
    """How long a bar is, in words."""
    model_used: str
    """The author: 'rules' for the built-in policy, else the chat models' names."""
    generated_at: datetime
    """Moment when the record was made, UTC; nothing is decided by it."""
    as_of: datetime
    """The moment of the decision, UTC; nothing later was used."""
    fit_until: datetime | None = None
    """Close of the last bar that the policy behind this signal was fitted on; null where the policy
    is untrained, or nothing was decided.
    """
    fit_symbols: tuple[str, ...] = ()
    """Symbols on which that policy was fitted."""
    evidence: Literal["none", "weak", "strong"] | None = None
    """The gate's grade of an edge after costs; null when it was not assessed."""
    model_uri: str | None = None
    """MLflow URI of the version that decided; null for an untrained desk."""
    model_version: str | None = None
    """Number of that version; null where the model was loaded by a URI without one."""
    anchored: bool | None = None
    """Whether the registry vouches for every file of the version that decided; null for an
    untrained desk, which has no version.
    """
    knowledge_cutoff: date | Literal["unknown"] | None = None
    """Last day that the models behind the signal have read about, as declared or stated by their
    makers; null where no chat model is part of the desk. A day up to it may be remembered.
    """
    run_id: str | None = None
    """MLflow run that trained the version; null for an untrained desk."""
    conversation_id: str
    """Hash of everything the decision was made from: equal questions have equal ids."""
    clamps: tuple[str, ...] = ()
    """One sentence for each number that code corrected or derived, with the reason."""
    warnings: tuple[str, ...] = ()
    """Facts that a reader should know before acting, one sentence each."""
    tokens: int = Field(ge=0)
    """Tokens that the chat models used, prompt and reply together; recorded replies count as well.
    """
    cost_usd: float | None = Field(None, ge=0)
    """List price of all replies in US dollars; null when a price is unknown, never a guess."""

    @classmethod
    def from_dump(cls, dump: Mapping[str, Any]) -> Self:
        """Return the signal whose `model_dump` is given, in Python or JSON form.

        Raises pydantic's ValidationError.
        """
        # A dump has the computed field, which validation refuses as an unknown key.
        return cls.model_validate({k: v for k, v in dump.items() if k != "is_actionable"})

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.confidence != confidence_label(self.confidence_score):
            raise ValueError(f"confidence {self.confidence} disagrees with {self.confidence_score}")
        # A failure must not look like a decision of the desk.
        if self.status is not Status.OK and (self.action != "HOLD" or self.confidence_score):
            raise ValueError(f"status {self.status} must be HOLD with confidence 0")
        entry, stop, target = (
            self.suggested_entry_price,
            self.suggested_stop_loss,
            self.suggested_take_profit,
        )
        # A rule may name no stop or target; a desk always does, which the gate holds it to.
        # A level on the wrong side of the entry makes size and R multiple meaningless.
        if self.action == "BUY" and not _surrounds_entry(stop, entry, target):
            raise ValueError(f"BUY needs stop < entry < target, got {stop}, {entry}, {target}")
        if self.action == "SELL" and not _surrounds_entry(target, entry, stop):
            raise ValueError(f"SELL needs target < entry < stop, got {target}, {entry}, {stop}")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_actionable(self) -> bool:
        """Whether the action is not HOLD and the confidence not LOW."""
        return self.action != "HOLD" and self.confidence != "LOW"

    def with_warnings(self, *warnings: str) -> Self:
        """Return a copy with `warnings` added at the end."""
        return self.model_copy(update={"warnings": (*self.warnings, *warnings)})

    @property
    def signal_id(self) -> str:
        """Id that is equal for equal symbol, `as_of` and model version, however often it is asked.

        A desk that was never packaged has no version: its conversation stands for it.
        """
        author = version_key(self.model_uri, self.run_id)
        return compute_signal_id(self.symbol, self.as_of, author or self.conversation_id)


def fill_later_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a stored signal, with null for optional fields that it does not have.

    Older code wrote signals without fields that came later.
    """
    optional = [name for name, f in TradingSignal.model_fields.items() if f.default is None]
    return {**dict.fromkeys(optional), **record}


def version_key(model_uri: str | None, run_id: str | None) -> str | None:
    """Return a key of the model version that decided; None where both parts are unknown."""
    # A URI alone is not enough: version 1 of a name is another version in another store.
    return " ".join(filter(None, (model_uri, run_id))) or None


def compute_signal_id(symbol: str, as_of: datetime, author: str) -> str:
    """Return 16 hexadecimal characters for the signal that `author` gives for `as_of`.

    `author` is a version's key or a conversation's id.
    """
    text = f"{symbol} {as_of.astimezone(UTC).isoformat()} {author}"
    # 64 bits: a store holds far fewer signals than would make a collision likely.
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SignalColumn(NamedTuple):
    """A field of the signal as a column of a table."""

    name: str
    kind: Literal["string", "number", "integer", "boolean", "array"]
    """JSON's type; a time is a string, an array holds strings."""
    optional: bool


def signal_columns() -> tuple[SignalColumn, ...]:
    """Return every field of a signal, in order, for storing or serving signals as a table."""
    fields = TradingSignal.model_json_schema(mode="serialization")["properties"]
    columns = []
    for name, schema in fields.items():
        # An optional field is `anyOf` its type and null.
        kinds = [option.get("type", "string") for option in schema.get("anyOf", [schema])]
        kind = next(k for k in kinds if k != "null")
        columns.append(SignalColumn(name, kind, optional="null" in kinds))
    return tuple(columns)


def _surrounds_entry(low: float | None, entry: float | None, high: float | None) -> bool:
    """Whether there is an entry, and the levels that are given lie on their sides of it."""
    if entry is None:
        return False
    return (low is None or low < entry) and (high is None or entry < high)
