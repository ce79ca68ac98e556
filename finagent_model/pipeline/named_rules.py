"""Read the rule of `finagent backtest --rule`: a crossover, or an analyst's ratings."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from finagent_model.backtesting.crossover import Crossover
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.config.desk_config import load_preset
from finagent_model.decision.decision import Decider, Decision, make_decision
from finagent_model.decision.signal import Action
from finagent_model.desk.desk import Desk
from finagent_model.errors import ExternalAnalystError, ShortHistoryError
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView
from finagent_model.model.predictor import open_cassette
from finagent_model.settings import Settings


class Rule(Decider, Protocol):
    """A decider that needs a history of some length."""

    def require_history(self, bars: BarSeries) -> None:
        """Raise ShortHistoryError for bars on which it could never decide."""


class ExternalRating:
    """A rule that follows an external analyst's ratings; a `hold` keeps the position."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._name = str(desk.config.external_analyst)
        self._scores: dict[np.datetime64, float] = {}

    def require_history(self, bars: BarSeries) -> None:
        """Ask the analyst about every bar, and keep the scores for `decide`.

        Raises ExternalAnalystError where it fails on any bar, and ShortHistoryError where it has no
        opinion on any.
        """
        # All bars at once: each asks the same worker process, which is ended before the walk.
        result = self._desk.external_scores(bars)
        self._desk.close()
        # Stricter than a training: a failed bar would be a HOLD that nobody chose.
        if result.failed:
            day, reason = next(iter(result.failed.items()))
            raise ExternalAnalystError(
                self._name, "backtest", f"{len(result.failed)} bars failed; {day}: {reason}"
            )
        if np.isnan(result.scores).all():
            raise ShortHistoryError(
                f"{bars.symbol}: no bar has the history that {self._name} needs"
            )
        self._scores = dict(zip(bars.closed_at, result.scores.tolist(), strict=True))

    def decide(self, view: MarketView) -> Decision:
        """Return BUY or SELL where the analyst's score reaches the desk's threshold, else HOLD."""
        # nan, in the warm-up, fails both comparisons: HOLD.
        score = self._scores[view.bars.closed_at[-1]]
        threshold = self._desk.config.initial_policy.threshold
        action: Action = "BUY" if score >= threshold else "SELL" if score <= -threshold else "HOLD"
        return make_decision(
            view, action, reasoning=f"{self._name}'s score is {score:.2f}", author=self._name
        )


def read_rule(text: str, settings: Settings) -> Rule:
    """Return the rule named by `text`: an external analyst, or a crossover as in `sma:10,30`."""
    if text not in EXTERNAL_ANALYSTS:
        return Crossover.read(text)
    # An external analyst's preset has its name.
    desk = Desk(load_preset(text), None, settings, open_cassette(settings))
    desk.require_external()
    return ExternalRating(desk)
