"""The policy that training fits, and the book of fits with the dates from which each is valid.

A policy turns features into votes in [-1, 1] and the votes into one score. The same arithmetic
serves one bar (scalars) and a whole history (arrays), so that what the search scored is what the
desk decides by. `PolicyBook.at` returns only fits that were valid then: no look-ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finagent_model.errors import BeforeFirstFitError, UnknownSymbolError
from finagent_model.market.timeframe import DAILY

Number = npt.NDArray[np.float64] | float
EXTERNAL_WEIGHT_KEY: Final = "upstream_weight"
"""Key of the external analyst's weight, whichever it is; hashes of prompts and packages have it."""

ADVOCATES: Final = ("bull", "bear")
"""Prompts of debaters, who argue an assigned side: their scores are left out of the vote."""


class Policy(BaseModel):
    """Parameters of the rule-based analysts and of the risk rules; windows in bars."""

    # Closed to unknown keys: a misspelt parameter must not silently be the default.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True
    )

    fast: int = Field(20, ge=2, le=100)
    """Bars of the fast moving average, which the trend compares with the slow one."""
    slow: int = Field(100, ge=5, le=300)
    """Bars of the slow moving average, and of the momentum."""
    rsi: int = Field(14, ge=2, le=50)
    """Bars of the relative strength index (RSI)."""
    channel: int = Field(55, ge=5, le=250)
    """Bars of the highest high and lowest low that stand for resistance and support."""
    atr: int = Field(14, ge=2, le=50)
    """Bars of the average true range (ATR)."""
    trend_weight: float = Field(0.4, ge=0, le=1)
    """Weight of the trend in the technical score."""
    momentum_weight: float = Field(0.3, ge=0, le=1)
    """Weight of the momentum in the technical score."""
    reversion_weight: float = Field(0.1, ge=0, le=1)
    """Weight of mean reversion (the RSI) in the technical score."""
    breakout_weight: float = Field(0.2, ge=0, le=1)
    """Weight of the place in the channel in the technical score."""
    news_weight: float = Field(0.1, ge=0, le=1)
    """Weight of the news analyst's score beside the technical score's 1."""
    external_weight: float | None = Field(None, gt=0, le=4, alias=EXTERNAL_WEIGHT_KEY)
    """Weight of the external analyst's score beside the technical score's 1; None: not used."""
    threshold: float = Field(0.2, ge=0.02, le=0.95)
    """A score of at least this size, up or down, is a trade."""
    stop_atr: float = Field(3.0, ge=0.5, le=10)
    """Distance of the stop from the entry, in ATR."""
    target_atr: float = Field(9.0, ge=0.5, le=30)
    """Distance of the target from the entry, in ATR."""
    risk_fraction: float = Field(0.02, gt=0, le=0.1)
    """Fraction of equity lost if the stop is hit at its price."""
    max_position: float = Field(1.0, gt=0, le=1)
    """Largest position, as a fraction of equity."""

    @model_validator(mode="after")
    def _check_windows_and_weights(self) -> Self:
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
        # RSI and ATR begin with a difference, one bar late; momentum needs slow + 1 bars.
        return max(self.slow, self.channel, self.rsi + 1, self.atr + 1) + 1

    def votes(self, features: Mapping[str, Number]) -> dict[str, Number]:
        """Return each rule's opinion in [-1, 1] by name, positive is up; nan where a feature is."""
        # The divisors are the feature's values at which a rule is fully convinced.
        return {
            "trend": np.clip(features["trend_atr"] / 4.0, -1.0, 1.0),
            "momentum": np.clip(features["momentum_z"] / 2.0, -1.0, 1.0),
            "reversion": np.clip((50.0 - features["rsi"]) / 40.0, -1.0, 1.0),
            "breakout": np.clip(2.0 * features["channel_position"] - 1.0, -1.0, 1.0),
        }

    def technical_score(self, features: Mapping[str, Number]) -> Number:
        """Return the weighted mean of the votes, in [-1, 1]; nan where a feature is."""
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

    def analyst_weight(self, prompt: str, is_external: bool) -> float | None:
        """Return how an analyst's score counts in the combined score, the technical one's being 1.

        `prompt` names the analyst's prompt. None: a debater, whose score is left out.
        """
        if is_external:
            return self.external_weight or 1.0
        if prompt in ADVOCATES:
            return None
        return 1.0 if prompt == "technical" else self.news_weight

    def combine_scores(self, technical: Number | None, external: Number | None) -> Number:
        """Return the weighted mean of both scores, in [-1, 1], or the one that is not None.

        At least one must be given.
        """
        # With one score there is nothing to weigh, so `external_weight` does not matter.
        if technical is None or external is None:
            only = external if technical is None else technical
            assert only is not None
            return only
        weight = self.external_weight or 0.0
        return (technical + weight * external) / (1.0 + weight)

    def confidence(self, score: float, is_trade: bool) -> float:
        """Return the confidence of a decision in 0..100, before calibration.

        A trade has 50 at the threshold and 100 at a score of 1; a HOLD has 50 at a score of 0 and
        0 at the threshold.
        """
        if is_trade:
            return min(100.0, 50 + 50 * (abs(score) - self.threshold) / (1 - self.threshold))
        return 50 * max(0.0, 1 - abs(score) / self.threshold)

    def position_size(self, stop_distance: Number) -> Number:
        """Return the fraction of equity that loses `risk_fraction` at the stop.

        `stop_distance` is a fraction of the entry price; the result is at most `max_position`.
        """
        return np.minimum(self.risk_fraction / stop_distance, self.max_position)


class PolicyFit(BaseModel):
    """A policy, the span that it was fitted on, and the moment from which it is valid."""

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
    """All fits of one training, oldest first, each valid until the next one is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fits: tuple[PolicyFit, ...] = Field(min_length=1)
    pooled: bool = True
    """True: every fit is for all symbols; False: each is for its own symbols alone."""
    # Left out of a dump where it is a day: packages of daily bars stay as they were.
    timeframe: str = Field(DAILY.name, exclude_if=lambda name: name == DAILY.name)
    """Length of the bars that the policies were fitted on."""

    @model_validator(mode="after")
    def _check_dates(self) -> Self:
        # Two fits that start together would leave open which one decides.
        for group in self._groups():
            starts = [fit.valid_from for fit in group]
            if starts != sorted(set(starts)):
                raise ValueError("fits must have increasing valid_from")
        for fit in self.fits:
            if not fit.fit_until < fit.valid_from:
                raise ValueError(f"a fit until {fit.fit_until} can't speak from {fit.valid_from}")
        return self

    @property
    def start_times(self) -> tuple[datetime, ...]:
        """Moments from which a new fit is valid, oldest first, each once."""
        return tuple(sorted({fit.valid_from for fit in self.fits}))

    def fits_for(self, symbol: str) -> tuple[PolicyFit, ...]:
        """Return the fits for `symbol`, oldest first. Raises UnknownSymbolError."""
        if self.pooled:
            return self.fits
        own_fits = tuple(fit for fit in self.fits if symbol in fit.symbols)
        if not own_fits:
            symbols = sorted({name for fit in self.fits for name in fit.symbols})
            raise UnknownSymbolError(symbol, tuple(symbols), "this model's policies, one a symbol")
        return own_fits

    def at(self, as_of: datetime, symbol: str) -> PolicyFit:
        """Return the newest fit for `symbol` that was valid at `as_of`.

        Raises BeforeFirstFitError where none was, and UnknownSymbolError.
        """
        fits = self.fits_for(symbol)
        # By `valid_from`, not `fit_until`: the purge lies between them.
        valid_fits = [fit for fit in fits if fit.valid_from <= as_of]
        if not valid_fits:
            raise BeforeFirstFitError(as_of, fits[0].valid_from)
        return valid_fits[-1]

    def _groups(self) -> list[list[PolicyFit]]:
        if self.pooled:
            return [list(self.fits)]
        groups = {fit.symbols for fit in self.fits}
        return [[fit for fit in self.fits if fit.symbols == symbols] for symbols in groups]
