"""What trading costs, charged on every fill.

Signals in, equity and trades out; everything is accounted in units of total return.

Fills and marks use the growth series (splits and dividends reinvested), so that a holder is paid
what holders were paid; levels, which a signal gives as traded on its own bar, are carried into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from finagent_model.backtesting import kernel
from finagent_model.backtesting.kernel import Rules
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.bars import BarSeries, Floats


class Costs(BaseModel):
    """Fractions of the traded notional; the defaults are 10 and 5 basis points."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    commission: float = Field(0.001, ge=0, lt=0.1)
    """Paid on every fill: 0.001 is 10 basis points."""
    slippage: float = Field(0.0005, ge=0, lt=0.1)
    """How much worse a market or stop fill is than its price; a target is a limit and has none."""


SIDES = {"BUY": 1, "SELL": -1, "HOLD": 0}
REASONS = ("open", "signal", "stop", "target", "ruin")


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """One entry a bar in the arrays, marked at its close."""

    equity: Floats
    """Money, starting with the cash before anything was traded."""
    invested: Floats
    """Signed value of the position over equity."""
    trades: pd.DataFrame
    """One row a trade: bars, `side`, `shares` and prices as traded, `fees` and `pnl` in money,
    `reason` it ended; `exit_bar` -1 for a position still open, marked at the last close.
    """
    notional: float
    """Money that changed hands, both ways."""
    cancelled: int
    """Entries whose open lay beyond their own stop or target."""


@dataclass(frozen=True, eq=False)
class Orders:
    """What was decided at each close; prices in growth units, `size` a fraction of equity."""

    action: npt.NDArray[np.int8]
    size: Floats
    stop: Floats
    target: Floats

    def a_bar_later(self) -> Orders:
        """The same decisions, each acted on one bar after it could have been."""
        later = {name: np.roll(values, 1) for name, values in vars(self).items()}
        later["action"][:1] = 0
        return Orders(**later)


def run_backtest(
    bars: BarSeries,
    signals: Sequence[TradingSignal],
    costs: Costs,
    *,
    cash: float,
    allow_short: bool = False,
    whole_shares: bool = False,
) -> BacktestResult:
    """Trade one signal a bar. Raises ValueError when there are not as many as bars."""
    rules = Rules(costs.commission, costs.slippage, allow_short)
    orders = orders_of(bars, signals)
    return run_orders(bars, orders, rules, cash=cash, whole_shares=whole_shares)


def orders_of(
    bars: BarSeries, signals: Sequence[TradingSignal], positions: Sequence[int] | None = None
) -> Orders:
    """What the signals ask for, one a bar, or those of the bars at `positions`; on the other bars
    nothing is asked for. Raises ValueError when there are not as many signals.
    """
    at = np.arange(len(bars)) if positions is None else np.asarray(positions, dtype=np.int64)
    if len(signals) != len(at):
        raise ValueError(f"{len(signals)} signals for {len(at)} bars; give one a bar")
    action = np.zeros(len(bars), dtype=np.int8)
    action[at] = [SIDES[s.action] for s in signals]

    def column(values: list[float | None]) -> Floats:
        found = np.full(len(bars), np.nan)
        found[at] = [np.nan if v is None else v for v in values]
        return found

    factor = bars.growth_factor
    return Orders(
        action=action,
        size=column([s.position_size_percent for s in signals]) / 100.0,
        stop=column([s.suggested_stop_loss for s in signals]) * factor,
        target=column([s.suggested_take_profit for s in signals]) * factor,
    )


def buy_and_hold(
    bars: BarSeries, costs: Costs, *, cash: float, whole_shares: bool = False
) -> BacktestResult:
    """All the cash into the symbol at the second bar's open, as a decision on the first would."""
    action = np.zeros(len(bars), dtype=np.int8)
    action[:1] = 1
    none = np.full(len(bars), np.nan)
    orders = Orders(action, np.ones(len(bars)), none, none)
    rules = Rules(costs.commission, costs.slippage)
    return run_orders(bars, orders, rules, cash=cash, whole_shares=whole_shares)


def equity_of(
    growth: BarSeries, orders: Orders, costs: Costs, cash: float, allow_short: bool
) -> Floats:
    """The equity curve alone, of fractional units: what a search needs, many times over."""
    rules = Rules(costs.commission, costs.slippage, allow_short)
    equity, *_ = _simulate(growth, orders, rules, cash, np.zeros(len(growth)))
    return equity


def _simulate(
    growth: BarSeries, orders: Orders, rules: Rules, cash: float, lot: Floats
) -> tuple[Floats, Floats, npt.NDArray[np.void], int]:
    n = len(growth)
    equity, position = np.empty(n), np.empty(n)
    trades = np.zeros(n + 1, dtype=kernel.TRADE)
    count, cancelled = kernel.simulate(
        growth.open,
        growth.high,
        growth.low,
        growth.close,
        orders.action,
        orders.size,
        orders.stop,
        orders.target,
        lot,
        float(cash),
        rules,
        equity,
        position,
        trades,
    )
    return equity, position, trades[:count], cancelled


def run_orders(
    bars: BarSeries, orders: Orders, rules: Rules, *, cash: float, whole_shares: bool
) -> BacktestResult:
    """Trade orders, one a bar of `bars`, whose prices are in growth units."""
    factor = bars.growth_factor
    # A share of bar i is 1 / factor[i] growth units: that is what can't be divided.
    lot = 1.0 / factor if whole_shares else np.zeros(len(bars))
    growth = bars.adjust_to_first_bar()
    equity, position, rows, cancelled = _simulate(growth, orders, rules, cash, lot)
    entry, ended = rows["entry_bar"], rows["exit_bar"]
    exit_prices = rows["exit_price"]
    closed = ended >= 0
    trades = pd.DataFrame(
        {
            "entry_bar": entry,
            "exit_bar": ended,
            "side": np.where(rows["side"] > 0, "long", "short"),
            "shares": rows["units"] * factor[entry],
            "entry_price": rows["entry_price"] / factor[entry],
            "exit_price": exit_prices / factor[ended],
            "fees": rows["fees"],
            "pnl": rows["pnl"],
            "reason": [REASONS[r] for r in rows["reason"]],
        }
    )
    notional = rows["units"] * (rows["entry_price"] + np.where(closed, exit_prices, 0.0))
    return BacktestResult(
        equity=equity,
        invested=position * growth.close / equity,
        trades=trades,
        notional=float(notional.sum()),
        cancelled=int(cancelled),
    )
