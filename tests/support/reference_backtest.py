"""The documented rules once more, in plain Python; the compiled kernel must equal it to the bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finagent_model.backtesting.kernel import OPEN, RUIN, SIGNAL, STOP, TARGET, FillRules


@dataclass
class Position:
    """Units held since `bar`, with the levels that end it."""

    bar: int
    side: int
    units: float
    price: float
    stop: float
    target: float
    paid: float

    def touched(self, opened: float, high: float, low: float, slip: float) -> Any:
        """Price and reason, or None: gaps first, then the stop, then the target."""
        worst, best = (low, high) if self.side > 0 else (high, low)
        if self._beyond(self.stop, opened):
            return opened * (1 - self.side * slip), STOP
        if self._beyond(opened, self.target):
            return opened, TARGET
        if self._beyond(self.stop, worst):
            return self.stop * (1 - self.side * slip), STOP
        if self._beyond(best, self.target):
            return self.target, TARGET
        return None

    def _beyond(self, one: float, other: float) -> bool:
        return one >= other if self.side > 0 else one <= other


@dataclass
class Loop:
    """One account."""

    rules: FillRules
    cash: float
    position: Position | None = None
    ruined: bool = False
    cancelled: int = 0
    unaffordable: int = 0
    equity: list[float] = field(default_factory=list)
    trades: list[tuple[Any, ...]] = field(default_factory=list)

    def leave(self, bar: int, price: float, reason: int) -> None:
        p = self.position
        assert p is not None
        if price >= self.ruin_price():
            price, reason, self.ruined = self.ruin_price(), RUIN, True
            fees = p.paid + p.units * price * self.rules.commission
            self._book(p, bar, price, fees, reason)
            self.cash, self.position = 0.0, None
            return
        self.cash = self.cash + p.side * p.units * price - p.units * price * self.rules.commission
        fees = p.paid + p.units * price * self.rules.commission
        self._book(p, bar, price, fees, reason)
        self.position = None

    def ruin_price(self) -> float:
        """Where buying back the short takes all the cash; infinite for a long."""
        p = self.position
        if p is None or p.side > 0:
            return math.inf
        return self.cash / (p.units * (1 + self.rules.commission))

    def _book(self, p: Position, bar: int, price: float, fees: float, reason: int) -> None:
        pnl = p.side * p.units * (price - p.price) - fees
        self.trades.append((p.bar, bar, p.side, p.units, p.price, price, fees, pnl, reason))

    def enter(
        self,
        bar: int,
        side: int,
        market: float,
        size: float,
        stop: float,
        target: float,
        lot: float,
    ) -> None:
        price = market * (1 + side * self.rules.slippage)
        if math.isnan(stop):
            stop = price * (1 - side * self.rules.stop_distance)
        if math.isnan(target):
            target = price * (1 + side * self.rules.target_distance)
        inside_stop = not (price <= stop if side > 0 else price >= stop)
        inside_target = not (price >= target if side > 0 else price <= target)
        if not (inside_stop and inside_target):
            self.cancelled += 1
            return
        units = size * self.cash / (price * (1 + self.rules.commission))
        if lot > 0:
            units = math.floor(units / lot + 1e-9) * lot
            self.unaffordable += units == 0 and size > 0
        if units > 0:
            paid = units * price * self.rules.commission
            self.cash -= side * units * price + paid
            self.position = Position(bar, side, units, price, stop, target, paid)

    def check(self, t: int, opened: float, high: float, low: float, live: bool) -> bool:
        """Leave at a level, if levels are live, or in ruin, which is watched on every bar."""
        p = self.position
        assert p is not None
        stop, target = (p.stop, p.target) if live else (math.nan, math.nan)
        if p.side < 0:
            stop = min(self.ruin_price(), math.inf if math.isnan(stop) else stop)
        hit = replace(p, stop=stop, target=target).touched(opened, high, low, self.rules.slippage)
        if hit is None:
            return False
        self.leave(t, *hit)
        return True


def run(
    columns: Sequence[Sequence[float]],
    action: Sequence[int],
    size: Sequence[float],
    stop: Sequence[float],
    target: Sequence[float],
    lot: Sequence[float],
    cash: float,
    rules: FillRules,
) -> Loop:
    opens, highs, lows, closes = columns
    loop = Loop(rules, cash)
    for t in range(len(closes)):
        bar = (opens[t], highs[t], lows[t])
        wanted = 0 if t == 0 or loop.ruined else action[t - 1]
        market, at = opens[t], t
        if rules.fill_at_close and t:
            market, at = closes[t - 1], t - 1
        held = loop.position
        if held and not rules.open_exit_first and loop.check(t, *bar, live=True):
            wanted = 0
        if loop.position and wanted == -loop.position.side:
            loop.leave(at, market * (1 - loop.position.side * rules.slippage), SIGNAL)
        if wanted and not loop.position and not loop.ruined and (wanted > 0 or rules.allow_short):
            loop.enter(at, wanted, market, size[t - 1], stop[t - 1], target[t - 1], lot[t])
        now = loop.position
        if now:
            fresh = now is not held
            loop.check(t, *bar, live=rules.entry_bar_stops if fresh else rules.open_exit_first)
        p = loop.position
        loop.equity.append(loop.cash + (p.side * p.units * closes[t] if p else 0.0))
    if loop.position:
        last = loop.position
        loop._book(last, -1, closes[-1], last.paid, OPEN)
    return loop
