"""What training fits, and which fit may speak when.

A policy turns features into votes in [-1, 1] and the votes into one score. The same arithmetic
serves one bar (scalars) and a whole history (arrays), so that what the search scored is what the
desk says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finagent_model.errors import BeforeFirstFitError, UnknownSymbolError

Number = npt.NDArray[np.float64] | float
EXTERNAL_WEIGHT_KEY: Final = "upstream_weight"
"""Key of the external analyst's weight, whichever it is; hashes of prompts and packages have it."""


class Policy(BaseModel):
    """Parameters of the rule-based analysts and of the risk rules; windows in bars."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True
    )

    fast: int = Field(20, ge=2, le=100)
    slow: int = Field(100, ge=5, le=300)
    rsi: int = Field(14, ge=2, le=50)
    channel: int = Field(55, ge=5, le=250)
    """Bars of the highest high and lowest low that stand for resistance and support."""
    atr: int = Field(14, ge=2, le=50)
    trend_weight: float = Field(0.4, ge=0, le=1)
    momentum_weight: float = Field(0.3, ge=0, le=1)
    reversion_weight: float = Field(0.1, ge=0, le=1)
    breakout_weight: float = Field(0.2, ge=0, le=1)
    news_weight: float = Field(0.1, ge=0, le=1)
    external_weight: float | None = Field(None, gt=0, le=4, alias=EXTERNAL_WEIGHT_KEY)
    """Of the external analyst's opinion, where the technical score has 1; None: nobody hears it."""
    threshold: float = Field(0.2, ge=0.02, le=0.95)
    """A score beyond this, up or down, is a call to act."""
    stop_atr: float = Field(3.0, ge=0.5, le=10)
    target_atr: float = Field(9.0, ge=0.5, le=30)
    risk_fraction: float = Field(0.02, gt=0, le=0.1)
    """Fraction of equity lost if the stop is hit at its price."""
    max_position: float = Field(1.0, gt=0, le=1)
    """Fraction of equity at most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be shorter than slow ({self.slow})")
        if (
            self.trend_weight + self.momentum_weight + self.reversion_weight + self.breakout_weight
            <= 0
        ):
            raise ValueError("all technical weights are 0: nothing would ever be decided")
        return self

    @property
    def warm_up(self) -> int:
        """Bars needed before every feature is defined."""
        return max(self.slow, self.channel, self.rsi + 1, self.atr + 1) + 1

    def votes(self, features: Mapping[str, Number]) -> dict[str, Number]:
        """Each rule's opinion in [-1, 1], positive is up; nan where a feature is."""
        return {
            "trend": np.clip(features["trend_atr"] / 4.0, -1.0, 1.0),
            "momentum": np.clip(features["momentum_z"] / 2.0, -1.0, 1.0),
            "reversion": np.clip((50.0 - features["rsi"]) / 40.0, -1.0, 1.0),
            "breakout": np.clip(2.0 * features["channel_position"] - 1.0, -1.0, 1.0),
        }

    def technical_score(self, features: Mapping[str, Number]) -> Number:
        """Weighted mean of the votes, in [-1, 1]."""
        votes = self.votes(features)
        weights = {
            "trend": self.trend_weight,
            "momentum": self.momentum_weight,
            "reversion": self.reversion_weight,
            "breakout": self.breakout_weight,
        }
        total = sum(weights.values())
        score: Number = sum(votes[name] * weight for name, weight in weights.items()) / total
        return score

    def overall(self, technical: Number | None, external: Number | None) -> Number:
        """The two opinions as one, in [-1, 1]: their weighted mean, or the only one there is."""
        if technical is None or external is None:
            only = external if technical is None else technical
            assert only is not None
            return only
        weight = self.external_weight or 0.0
        return (technical + weight * external) / (1.0 + weight)

    def confidence(self, score: float, acts: bool) -> float:
        """From 50 at the threshold to 100, where the score is a call to act; otherwise from 50 at a
        score of 0 to 0 at the threshold.
        """
        if acts:
            return min(100.0, 50 + 50 * (abs(score) - self.threshold) / (1 - self.threshold))
        return 50 * max(0.0, 1 - abs(score) / self.threshold)

    def size(self, stop_distance: Number) -> Number:
        """Fraction of equity that risks `risk_fraction`; `stop_distance` as a fraction of the entry
        price.
        """
        return np.minimum(self.risk_fraction / stop_distance, self.max_position)


class PolicyFit(BaseModel):
    """A policy and the span it was fitted on; it may speak from `valid_from` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy
    symbols: tuple[str, ...]
    fit_from: datetime
    fit_until: datetime
    valid_from: datetime
    """The first `as_of` it may decide at: after `fit_until` plus the purge."""
    configurations: int = Field(ge=1)
    """How many policies were scored to choose this one."""


class PolicyBook(BaseModel):
    """All fits of one training, oldest first: a question about the past is answered with what was
    known then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fits: tuple[PolicyFit, ...] = Field(min_length=1)
    pooled: bool = True
    """False: a fit speaks about its own symbol alone."""

    @model_validator(mode="after")
    def _oldest_first(self) -> Self:
        for group in self._groups():
            starts = [fit.valid_from for fit in group]
            if starts != sorted(set(starts)):
                raise ValueError("fits must have increasing valid_from")
        for fit in self.fits:
            if not fit.fit_until < fit.valid_from:
                raise ValueError(f"a fit until {fit.fit_until} can't speak from {fit.valid_from}")
        return self

    @property
    def moments(self) -> tuple[datetime, ...]:
        """From which another fit speaks, oldest first."""
        return tuple(sorted({fit.valid_from for fit in self.fits}))

    def of(self, symbol: str) -> tuple[PolicyFit, ...]:
        """Those that may speak about `symbol`, oldest first. Raises UnknownSymbolError."""
        if self.pooled:
            return self.fits
        own = tuple(fit for fit in self.fits if symbol in fit.symbols)
        if not own:
            known = sorted({name for fit in self.fits for name in fit.symbols})
            raise UnknownSymbolError(symbol, tuple(known), "this model's policies, one a symbol")
        return own

    def at(self, as_of: datetime, symbol: str) -> PolicyFit:
        """The newest fit that may speak about `symbol` at `as_of`; raises BeforeFirstFitError or
        UnknownSymbolError.
        """
        fits = self.of(symbol)
        usable = [fit for fit in fits if fit.valid_from <= as_of]
        if not usable:
            raise BeforeFirstFitError(as_of, fits[0].valid_from)
        return usable[-1]

    def _groups(self) -> list[list[PolicyFit]]:
        if self.pooled:
            return [list(self.fits)]
        symbols = {fit.symbols for fit in self.fits}
        return [[fit for fit in self.fits if fit.symbols == own] for own in symbols]
