"""What a training was asked to do. Every value is checked here, whoever asks: MLflow, Airflow or a
shell.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, field_validator

from finagent_model._base import InputModel, Mode
from finagent_model.backtesting.engine import Costs
from finagent_model.backtesting.kernel import FillRules

LONGEST_WAIT = 250
"""Bars between two decisions."""


class TrainRequest(InputModel):
    """Frozen. Windows in bars (sessions), money in the bars' currency, costs as fractions."""

    symbols: tuple[str, ...] = Field(("GOOG",), min_length=1, max_length=1000)
    config: str = "default"
    """A preset's name or a YAML file."""
    mode: Mode = "cached"
    train_bars: int = Field(504, ge=120, le=10_000)
    """Bars that each fit looks at: two years."""
    test_bars: int = Field(126, ge=5, le=5_000)
    """Bars that each fit then decides on, unseen: half a year."""
    purge_bars: int = Field(5, ge=1, le=500)
    """Bars left out between the two, so that no outcome straddles them."""
    pooled: bool = True
    """One policy for all symbols; false: one for each."""
    schedule: int | Literal["change"] = 1
    """The desk decides every so many bars; `change`: where the fitted policy's technical vote
    changes. Between decisions the position is kept.
    """
    candidates: int = Field(96, ge=2, le=20_000)
    """Policies scored in each fold."""
    seed: int = Field(7, ge=0, lt=2**32)
    cash: float = Field(10_000.0, gt=0)
    commission: float = Field(0.001, ge=0, lt=0.1)
    slippage: float = Field(0.0005, ge=0, lt=0.1)
    allow_short: bool = False
    register_as: str = Field("finagent", pattern=r"^[A-Za-z0-9_\-]{1,100}$")

    @field_validator("symbols", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        if isinstance(names, list | tuple):
            bad = [n for n in names if not isinstance(n, str) or not n or n != n.upper()]
            if bad:
                raise ValueError(f"{bad[0]!r} is not an upper-case ticker such as GOOG")
            if len(set(names)) != len(names):
                raise ValueError("a symbol is named twice")
            return tuple(names)
        return value

    @field_validator("schedule", mode="before")
    @classmethod
    def _bars_or_change(cls, value: object) -> object:
        text = str(value)
        if text == "change":
            return text
        if not text.isdecimal() or not 1 <= int(text) <= LONGEST_WAIT:
            raise ValueError(f"write 'change' or a number of bars from 1 to {LONGEST_WAIT}")
        return int(text)

    @property
    def costs(self) -> Costs:
        return Costs(commission=self.commission, slippage=self.slippage)

    @property
    def rules(self) -> FillRules:
        """By which the backtest trades."""
        return FillRules(self.commission, self.slippage, self.allow_short)

    def digest(self, *facts: str) -> str:
        """SHA-256 of the request and of what else it depends on (data, desk)."""
        return hashlib.sha256("\n".join([self.model_dump_json(), *facts]).encode()).hexdigest()
