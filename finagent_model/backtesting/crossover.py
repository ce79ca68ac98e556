"""Rules that need no desk, to try the engine on: `sma:10,30` is a crossover of two averages,
`upstream` another project's rating.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import Rules
from finagent_model.errors import BadInputError, ShortHistoryError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.indicators import sma


class TradingRule(Protocol):
    """What to do at the close of each bar."""

    def actions(self, bars: BarSeries) -> npt.NDArray[np.int8]:
        """1 to buy, -1 to sell, else 0; each from the bars up to its own."""


@dataclass(frozen=True)
class Crossover:
    """Buy where the fast average crosses above the slow one, sell where it crosses below."""

    fast: int
    slow: int

    @classmethod
    def read(cls, text: str) -> Crossover:
        """From `sma:FAST,SLOW`; raises BadInputError."""
        kind, _, windows = text.partition(":")
        parts = windows.split(",")
        if kind != "sma" or len(parts) != 2 or not all(p.strip().isdecimal() for p in parts):
            raise BadInputError(
                f"rule {text!r} is unknown; write sma:FAST,SLOW, such as sma:10,30, or upstream"
            )
        fast, slow = (int(part) for part in parts)
        if not 1 <= fast < slow:
            raise BadInputError(f"rule {text!r}: FAST must be at least 1 and shorter than SLOW")
        return cls(fast, slow)

    def actions(self, bars: BarSeries) -> npt.NDArray[np.int8]:
        """Raises ShortHistoryError where the slow average never is."""
        if len(bars) <= self.slow:
            raise ShortHistoryError(
                f"{bars.symbol} has {len(bars)} bars; sma:{self.fast},{self.slow} needs more than "
                f"{self.slow}"
            )
        return self.crossings(bars.adjust_to_first_bar().close)

    def crossings(self, close: Floats) -> npt.NDArray[np.int8]:
        """1 on a bar whose close made the fast average cross above the slow one, -1 below, else 0.

        Strictly below on the bar before and strictly above on this one: a tie is no side.
        """
        fast, slow = sma(close, self.fast), sma(close, self.slow)
        found = np.zeros(len(close), dtype=np.int8)
        found[1:] += (fast[:-1] < slow[:-1]) & (fast[1:] > slow[1:])
        found[1:] -= (fast[:-1] > slow[:-1]) & (fast[1:] < slow[1:])
        return found


def run_rule(
    bars: BarSeries, rule: TradingRule, rules: Rules, *, cash: float, whole_shares: bool
) -> BacktestResult:
    """All the cash on each action; in between the position is kept. Raises as the rule does."""
    none = np.full(len(bars), np.nan)
    orders = Orders(rule.actions(bars), np.ones(len(bars)), none, none)
    return run_orders(bars, orders, rules, cash=cash, whole_shares=whole_shares)
