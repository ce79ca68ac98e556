"""Requests of a walk-forward, validated once, whether from a notebook, MLflow, Airflow or a shell.

`EvaluationRequest` holds what any decider is judged by. `TrainRequest` adds what fitting and
registering a desk needs. Field names are CLI options, MLflow params and keys of `request.json`.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, field_validator

from finagent_model._base import InputModel, Mode
from finagent_model.backtesting.engine import Costs
from finagent_model.backtesting.kernel import FillRules
from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_symbols

MAX_SCHEDULE_BARS = 250
"""Bars between two decisions."""


class EvaluationRequest(InputModel):
    """Symbols, windows, costs and seed of a walk-forward; `parse` makes one from loose values.

    Windows are in bars (sessions), money in the bars' currency, costs in fractions.
    """

    symbols: tuple[str, ...] = Field(("GOOG",), min_length=1, max_length=1000)
    """Tickers; a text is split at its commas."""
    train_bars: int = Field(504, ge=120, le=10_000)
    """Bars in each fit's training window: two years."""
    test_bars: int = Field(126, ge=5, le=5_000)
    """Out-of-sample bars that each fit then decides on: half a year."""
    purge_bars: int = Field(5, ge=1, le=500)
    """Bars left out between the two windows, so that no outcome straddles them."""
    schedule: int | Literal["change"] = 1
    """Bars from one decision to the next, or `change`; the position is kept in between."""
    seed: int = Field(7, ge=0, lt=2**32)
    """Seed of the search and of the bootstrap."""
    cash: float = Field(10_000.0, gt=0)
    """Starting capital of each symbol, in the currency of its bars."""
    commission: float = Field(0.001, ge=0, lt=0.1)
    """Fraction of the notional of every fill."""
    slippage: float = Field(0.0005, ge=0, lt=0.1)
    """Fraction of the price, on market and stop fills."""
    allow_short: bool = False
    """Whether a SELL may open a short position; else it only closes a long one."""

    @field_validator("symbols", mode="before")
    @classmethod
    def _parse_symbols(cls, value: object) -> object:
        if not isinstance(value, str | list | tuple):
            return value
        try:
            return parse_symbols(value)
        except BadInputError as error:
            # Pydantic turns a ValueError, and only that, into a message that names the field.
            raise ValueError(str(error)) from None

    @field_validator("schedule", mode="before")
    @classmethod
    def _parse_schedule(cls, value: object) -> object:
        # The shell and MLflow hand over text; MLflow Projects also sends numbers as text.
        text = str(value)
        if text == "change":
            return text
        if not text.isdecimal() or not 1 <= int(text) <= MAX_SCHEDULE_BARS:
            raise ValueError(f"write 'change' or a number of bars from 1 to {MAX_SCHEDULE_BARS}")
        return int(text)

    @property
    def costs(self) -> Costs:
        """Commission and slippage, for the engine."""
        return Costs(commission=self.commission, slippage=self.slippage)

    @property
    def rules(self) -> FillRules:
        """Costs and allowed sides, for the kernel."""
        # Stop and target stay unset: each signal brings its own.
        return FillRules(self.commission, self.slippage, self.allow_short)


class TrainRequest(EvaluationRequest):
    """A walk-forward, and how its desk is configured, fitted and registered."""

    config: str = "default"
    """A preset's name or a YAML file."""
    mode: Mode = "cached"
    """Where replies of chat models come from: `cached` (recorded, else asked for), `live` (always
    asked for) or `replay` (recorded alone).
    """
    pooled: bool = True
    """True: one policy for all symbols. False: one for each symbol."""
    candidates: int = Field(96, ge=2, le=20_000)
    """Policies scored in each fold."""
    register_as: str = Field("finagent", pattern=r"^[A-Za-z0-9_\-]{1,100}$")
    """Name of the registered model."""

    def digest(self, *facts: str) -> str:
        """Return the SHA-256 (hex) of the request and of `facts`, the hashes of desk and data."""
        # A training that is requested again below the same workflow is found by this digest.
        return hashlib.sha256("\n".join([self.model_dump_json(), *facts]).encode()).hexdigest()
