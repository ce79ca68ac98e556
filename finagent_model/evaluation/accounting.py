"""Keep one account in plain Python: the rules of docs/backtest.md once more, bar by bar.

`finagent verify --deep` derives fills, equity and outcomes again with it, from the bars as traded
and from what the ledger says. It calls neither the compiled kernel nor the engine, whose results it
is compared with: only the types of the kernel's rules and reasons are shared. Slow on purpose: each
line can be read beside the rule that it follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from finagent_model.backtesting.kernel import OPEN, RUIN, SIGNAL, STOP, TARGET, FillRules
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.bars import BarSeries

SIDES = {"BUY": 1, "SELL": -1, "HOLD": 0}
Row = list[float]


class PlainTrade(NamedTuple):
    """One round trip in growth units, with the fields of the kernel's own record."""

    entry_bar: int
    exit_bar: int
    """-1 while it is open; `exit_price` is the last close then."""
    side: int
    units: float
    entry_price: float
    exit_price: float
    fees: float
    pnl: float
    reason: int


class PlainOrders(NamedTuple):
    """What was decided at each close; prices in growth units, `size` a fraction of equity."""

    action: list[int]
    size: Row
    stop: Row
    target: Row

    def delayed(self) -> PlainOrders:
        """Return the same orders, each a bar later; the last is lost."""
        nan = math.nan
        return PlainOrders(
            [0, *self.action[:-1]],
            [nan, *self.size[:-1]],
            [nan, *self.stop[:-1]],
            [nan, *self.target[:-1]],
        )


class PlainBars(NamedTuple):
    """Prices of total return in units of the first bar, and the factor that made them."""

    open: Row
    high: Row
    low: Row
    close: Row
    factor: Row


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
    """Commission of the entry."""

    def find_exit(
        self, opened: float, high: float, low: float, slippage: float
    ) -> tuple[float, int] | None:
        """Return price and reason of an exit in this bar: gaps, then the stop, then the target."""
        worst, best = (low, high) if self.side > 0 else (high, low)
        if self._beyond(self.stop, opened):
            return opened * (1 - self.side * slippage), STOP
        if self._beyond(opened, self.target):
            return opened, TARGET
        if self._beyond(self.stop, worst):
            return self.stop * (1 - self.side * slippage), STOP
        if self._beyond(best, self.target):
            return self.target, TARGET
        return None

    def _beyond(self, one: float, other: float) -> bool:
        # A level of nan is no level, and compares false.
        return one >= other if self.side > 0 else one <= other


@dataclass
class Account:
    """Cash and at most one position; what happened to them, bar by bar."""

    rules: FillRules
    cash: float
    position: Position | None = None
    ruined: bool = False
    cancelled: int = 0
    unaffordable: int = 0
    equity: Row = field(default_factory=list)
    units: Row = field(default_factory=list)
    """Signed units held at each close."""
    trades: list[PlainTrade] = field(default_factory=list)

    def close(self, bar: int, price: float, reason: int) -> None:
        """Leave the position at `price`; a short never takes more than all the cash."""
        p = self.position
        assert p is not None
        is_ruin = price >= self.ruin_price()
        if is_ruin:
            price, reason, self.ruined = self.ruin_price(), RUIN, True
        fee = p.units * price * self.rules.commission
        self.book(p, bar, price, p.paid + fee, reason)
        self.cash = 0.0 if is_ruin else self.cash + p.side * p.units * price - fee
        self.position = None

    def ruin_price(self) -> float:
        """Return where buying back the short takes all the cash; infinite for a long."""
        p = self.position
        if p is None or p.side > 0:
            return math.inf
        return self.cash / (p.units * (1 + self.rules.commission))

    def book(self, p: Position, bar: int, price: float, fees: float, reason: int) -> None:
        """Note a round trip."""
        pnl = p.side * p.units * (price - p.price) - fees
        self.trades.append(
            PlainTrade(p.bar, bar, p.side, p.units, p.price, price, fees, pnl, reason)
        )

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
        """Open a position at the market, unless its own levels cancel it or it buys no lot."""
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

    def leave_at_level(self, t: int, opened: float, high: float, low: float, live: bool) -> bool:
        """Leave at a level, if levels are live, or in ruin, which is watched on every bar."""
        p = self.position
        assert p is not None
        stop, target = (p.stop, p.target) if live else (math.nan, math.nan)
        if p.side < 0:
            stop = min(self.ruin_price(), math.inf if math.isnan(stop) else stop)
        found = replace(p, stop=stop, target=target).find_exit(
            opened, high, low, self.rules.slippage
        )
        if found is None:
            return False
        self.close(t, *found)
        return True


def simulate_account(
    bars: Sequence[Sequence[float]],
    orders: PlainOrders,
    lot: Sequence[float],
    cash: float,
    rules: FillRules,
) -> Account:
    """Trade orders, one a bar, and return the account; `bars` are open, high, low and close."""
    opens, highs, lows, closes = bars
    action, size, stop, target = orders
    account = Account(rules, cash)
    for t in range(len(closes)):
        bar = (opens[t], highs[t], lows[t])
        # The decision of the bar before: nothing fills at the price that formed it.
        wanted = 0 if t == 0 or account.ruined else action[t - 1]
        market, at = opens[t], t
        if rules.fill_at_close and t:
            market, at = closes[t - 1], t - 1
        held = account.position
        if held and not rules.open_exit_first and account.leave_at_level(t, *bar, live=True):
            wanted = 0
        if account.position and wanted == -account.position.side:
            price = market * (1 - account.position.side * rules.slippage)
            account.close(at, price, SIGNAL)
        may_open = wanted > 0 or rules.allow_short
        if wanted and not account.position and not account.ruined and may_open:
            account.enter(at, wanted, market, size[t - 1], stop[t - 1], target[t - 1], lot[t])
        if now := account.position:
            is_fresh = now is not held
            live = rules.entry_bar_stops if is_fresh else rules.open_exit_first
            account.leave_at_level(t, *bar, live=live)
        p = account.position
        account.units.append(p.side * p.units if p else 0.0)
        account.equity.append(account.cash + (p.side * p.units * closes[t] if p else 0.0))
    if last := account.position:
        account.book(last, -1, closes[-1], last.paid, OPEN)
    return account


def adjust_plainly(bars: BarSeries) -> PlainBars:
    """Return total-return prices in units of the first bar, from prices and actions as traded."""
    split, dividend, close = bars.split.tolist(), bars.dividend.tolist(), bars.close.tolist()
    factor = [1.0] * len(close)
    for i in range(1, len(close)):
        # A split multiplies the units; a dividend buys more of them at the close before.
        before, paid = close[i - 1], dividend[i] * split[i]
        factor[i] = factor[i - 1] * (split[i] * (before / (before - paid)))

    def adjust(prices: Row) -> Row:
        return [price * f for price, f in zip(prices, factor, strict=True)]

    return PlainBars(
        adjust(bars.open.tolist()),
        adjust(bars.high.tolist()),
        adjust(bars.low.tolist()),
        adjust(close),
        factor,
    )


def read_orders(
    signals: Sequence[TradingSignal], positions: Sequence[int], factor: Sequence[float]
) -> PlainOrders:
    """Return the orders of a ledger, one a bar, none where nothing was decided.

    A level is a price as traded on its own bar, where one share is `factor` growth units.
    """
    n = len(factor)
    action, columns = [0] * n, [[math.nan] * n for _ in range(3)]
    for position, signal in zip(positions, signals, strict=True):
        action[position] = SIDES[signal.action]
        values = (
            None if (size := signal.position_size_percent) is None else size / 100.0,
            _times(signal.suggested_stop_loss, factor[position]),
            _times(signal.suggested_take_profit, factor[position]),
        )
        for column, value in zip(columns, values, strict=True):
            column[position] = math.nan if value is None else value
    return PlainOrders(action, *columns)


def hold_from_first_open(n: int) -> PlainOrders:
    """Return buy and hold: all the cash on the first bar's decision, filled at the second open."""
    none = [math.nan] * n
    return PlainOrders([1] + [0] * (n - 1), [1.0] * n, none, none)


class PlainOutcome(NamedTuple):
    """How a call of its own ended; nobody knew it before bar `exit_bar` had closed."""

    exit_bar: int
    reason: int
    """`OPEN`: neither a level but the end of the horizon."""
    earned: float


def follow_call(
    bars: PlainBars, t: int, orders: PlainOrders, rules: FillRules, horizon: int
) -> PlainOutcome | None:
    """Return what the call at the close of bar `t` came to; None while that is not known, or where
    its own levels cancelled it.
    """
    n, side = len(bars.close), orders.action[t]
    if t + 1 >= n:
        return None
    account = Account(rules, 1.0)
    account.enter(t + 1, side, bars.open[t + 1], 1.0, orders.stop[t], orders.target[t], 0.0)
    p = account.position
    if p is None:
        return None
    for k in range(t + 1, min(t + 1 + horizon, n)):
        found = p.find_exit(bars.open[k], bars.high[k], bars.low[k], rules.slippage)
        if found is None and k == t + horizon:
            found = bars.close[k] * (1 - side * rules.slippage), OPEN
        if found is not None:
            ratio = found[0] / p.price
            earned = side * (ratio - 1) - rules.commission * (1 + ratio)
            return PlainOutcome(k, found[1], max(earned, -1.0))
    return None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
