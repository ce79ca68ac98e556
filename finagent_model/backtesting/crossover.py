"""Decide by a rule that needs no desk: a crossover of two averages, written `sma:10,30`.

It is a decider like a desk, to try the engine on and to hold a desk against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.decision.decision import Decision, make_decision
from finagent_model.decision.signal import Action, Status
from finagent_model.errors import BadInputError, ShortHistoryError
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.indicators import sma
from finagent_model.market.view import MarketView


@dataclass(frozen=True)
class Crossover:
    """Buy with all the cash where the fast average crosses above the slow one, sell where below.

    `fast` and `slow` count bars. The rule names no stop and no target.

        >>> from finagent_model import Crossover, market_view
        >>> Crossover(10, 30).decide(market_view("GOOG", "2012-06-29")).signal.action
        'HOLD'
    """

    fast: int
    slow: int

    def __post_init__(self) -> None:
        if not 1 <= self.fast < self.slow:
            raise BadInputError(
                f"rule {self.name!r}: FAST must be at least 1 and shorter than SLOW"
            )

    @classmethod
    def read(cls, text: str) -> Crossover:
        """Return the rule that `sma:FAST,SLOW` names. Raises BadInputError."""
        kind, _, windows = text.partition(":")
        parts = windows.split(",")
        if kind != "sma" or len(parts) != 2 or not all(p.strip().isdecimal() for p in parts):
            raise BadInputError(
                f"rule {text!r} is unknown; write sma:FAST,SLOW, such as sma:10,30, or "
                f"{', '.join(EXTERNAL_ANALYSTS)}"
            )
        return cls(*(int(part) for part in parts))

    @property
    def name(self) -> str:
        """The rule as it is written on a command line."""
        return f"sma:{self.fast},{self.slow}"

    @property
    def warm_up(self) -> int:
        """Bars that a decision needs: both averages on this bar and on the one before."""
        return self.slow + 1

    def decide(self, view: MarketView) -> Decision:
        """Return BUY or SELL on a bar that made the averages cross, else HOLD."""
        close = view.bars.adjust_to_first_bar().close
        if len(close) <= self.slow:
            return make_decision(
                view,
                "HOLD",
                reasoning=f"{len(close)} bars; {self.name} needs more than {self.slow}",
                author=self.name,
                status=Status.DATA_MISSING,
            )
        crossing = int(self.crossings(close)[-1])
        actions: dict[int, tuple[Action, str]] = {
            1: ("BUY", "crossed above"),
            -1: ("SELL", "crossed below"),
            0: ("HOLD", "did not cross"),
        }
        action, event = actions[crossing]
        reasoning = f"the average of {self.fast} bars {event} the one of {self.slow}"
        return make_decision(view, action, reasoning=reasoning, author=self.name)

    def require_history(self, bars: BarSeries) -> None:
        """Raise ShortHistoryError where the slow average never is defined."""
        if len(bars) <= self.slow:
            raise ShortHistoryError(
                f"{bars.symbol} has {len(bars)} bars; {self.name} needs more than {self.slow}"
            )

    def crossings(self, close: Floats) -> npt.NDArray[np.int8]:
        """Return 1 on a bar whose close made the fast average cross above the slow one, -1 below.

        All else is 0. A crossing is strictly below on the bar before and strictly above on this
        one: a tie on either bar is no crossing.
        """
        fast, slow = sma(close, self.fast), sma(close, self.slow)
        signs = np.zeros(len(close), dtype=np.int8)
        signs[1:] += (fast[:-1] < slow[:-1]) & (fast[1:] > slow[1:])
        signs[1:] -= (fast[:-1] > slow[:-1]) & (fast[1:] < slow[1:])
        return signs
