"""Turn signals into equity and trades, after costs.

Everything is accounted in units of total return ("growth": splits and dividends reinvested), so
that a holder is paid what holders were paid and a split is no crash. A signal gives its levels as
traded on its own bar; they are carried into growth units before the kernel sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from finagent_model.backtesting import kernel
from finagent_model.backtesting.kernel import FillRules
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.bars import BarSeries, Floats

SIDES = {"BUY": 1, "SELL": -1, "HOLD": 0}
REASONS = ("open", "signal", "stop", "target", "ruin")
"""Why a trade ended, by the kernel's number."""


class Costs(BaseModel):
    """Costs of trading as fractions of the traded notional; by default 10 and 5 basis points."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    commission: float = Field(default=0.001, ge=0, lt=0.1)
    """Paid on every fill: 0.001 is 10 basis points."""
    slippage: float = Field(default=0.0005, ge=0, lt=0.1)
    """How much worse a market or stop fill is than its price; a target is a limit and has none."""


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """Equity curve, positions and trades of one backtest; arrays have one entry a bar, at its
    close.
    """

    equity: Floats
    """Money, starting with the cash before anything was traded; 0 from the bar of a ruin on."""
    invested: Floats
    """Signed value of the position over equity; 0 without a position."""
    trades: pd.DataFrame
    """One row a trade: bars, `side`, `shares` and prices as traded, `fees` and `pnl` in money,
    `reason` it ended; `exit_bar` -1 for a position still open, marked at the last close.
    """
    notional: float
    """Money that changed hands, both ways."""
    cancelled: int
    """Entries whose open lay beyond their own stop or target."""
    closed_at: npt.NDArray[np.datetime64]
    """UTC; when each bar closed."""
    unaffordable: int = 0
    """Entries whose share of the cash did not buy one whole share."""

    @property
    def ruined_at(self) -> int | None:
        """The bar on which a short lost all equity, which ends all trading; None for none."""
        is_gone = self.equity <= 0
        return int(np.argmax(is_gone)) if is_gone.any() else None

    def notes(self) -> list[str]:
        """Return, in words, why less was traded than was decided; empty where nothing was in the
        way.
        """
        notes = []
        if count := self.unaffordable:
            notes.append(
                f"{count} {'entry' if count == 1 else 'entries'} bought nothing: a share costs "
                "more than the cash; trade fractions of a share (--fractional), or start with more "
                "cash (--cash)"
            )
        if (bar := self.ruined_at) is not None:
            day = np.datetime_as_string(self.closed_at[bar], unit="D")
            notes.append(
                f"a short lost all equity on {day}: nothing was traded after it, and returns after "
                "it are undefined"
            )
        return notes


@dataclass(frozen=True, eq=False)
class Orders:
    """What was decided at each close; prices in growth units, `size` a fraction of equity."""

    action: npt.NDArray[np.int8]
    size: Floats
    stop: Floats
    target: Floats

    @classmethod
    def all_in(cls, action: npt.NDArray[np.int8]) -> Orders:
        """Return orders that put in all equity on each action, without stop or target."""
        no_level = np.full(len(action), np.nan)
        return cls(action, np.ones(len(action)), no_level, no_level)

    def delay_one_bar(self) -> Orders:
        """Return the same orders, each acted on one bar later than it could have been."""
        later = {name: np.roll(values, 1) for name, values in vars(self).items()}
        later["action"][:1] = 0  # the roll brings the last decision to the front
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
    """Trade one signal a bar, each at the next open, and return equity and trades.

    `cash` is money to start with; without `whole_shares` fractions of a share are traded. Raises
    ValueError for another number of signals than bars.

        >>> import finagent_model as fm
        >>> view = fm.market_view("FB", "2012-06-29")
        >>> hold = fm.make_decision(view, "HOLD", reasoning="nothing to do", author="me").signal
        >>> result = fm.run_backtest(view.bars, [hold] * len(view.bars), fm.Costs(), cash=100.0)
        >>> float(result.equity[-1]), len(result.trades)
        (100.0, 0)
    """
    rules = FillRules(costs.commission, costs.slippage, allow_short)
    orders = orders_from_signals(bars, signals)
    return run_orders(bars, orders, rules, cash=cash, whole_shares=whole_shares)


def buy_and_hold(
    bars: BarSeries, costs: Costs, *, cash: float, whole_shares: bool = False
) -> BacktestResult:
    """Put all the cash into the symbol at the second bar's open, and hold it to the end."""
    action = np.zeros(len(bars), dtype=np.int8)
    action[:1] = 1  # decided on the first bar, as a desk could have
    rules = FillRules(costs.commission, costs.slippage)
    return run_orders(bars, Orders.all_in(action), rules, cash=cash, whole_shares=whole_shares)


def orders_from_signals(
    bars: BarSeries, signals: Sequence[TradingSignal], positions: Sequence[int] | None = None
) -> Orders:
    """Convert signals to orders in growth units: one a bar, or those of the bars at `positions`.

    The other bars get no order. Raises ValueError for another number of signals than bars asked
    for.
    """
    at = np.arange(len(bars)) if positions is None else np.asarray(positions, dtype=np.int64)
    if len(signals) != len(at):
        raise ValueError(f"{len(signals)} signals for {len(at)} bars; give one a bar")
    action = np.zeros(len(bars), dtype=np.int8)
    action[at] = [SIDES[s.action] for s in signals]

    def to_column(values: list[float | None]) -> Floats:
        column = np.full(len(bars), np.nan)
        column[at] = [np.nan if v is None else v for v in values]
        return column

    factor = bars.growth_factor
    return Orders(
        action=action,
        size=to_column([s.position_size_percent for s in signals]) / 100.0,
        stop=to_column([s.suggested_stop_loss for s in signals]) * factor,
        target=to_column([s.suggested_take_profit for s in signals]) * factor,
    )


def run_orders(
    bars: BarSeries, orders: Orders, rules: FillRules, *, cash: float, whole_shares: bool
) -> BacktestResult:
    """Trade orders, one a bar of `bars`, whose prices are in growth units."""
    factor = bars.growth_factor
    # A share of bar i is 1 / factor[i] growth units: that is what can't be divided.
    lot = 1.0 / factor if whole_shares else np.zeros(len(bars))
    growth = bars.adjust_to_first_bar()
    equity, position, rows, cancelled, unaffordable = _simulate(growth, orders, rules, cash, lot)
    entry_bar, exit_bar = rows["entry_bar"], rows["exit_bar"]
    exit_price = rows["exit_price"]
    trades = pd.DataFrame(
        {
            "entry_bar": entry_bar,
            "exit_bar": exit_bar,
            "side": np.where(rows["side"] > 0, "long", "short"),
            # Reported as traded on their own day, not in growth units. An open trade's exit_bar of
            # -1 takes the factor of the last bar, at whose close it is marked.
            "shares": rows["units"] * factor[entry_bar],
            "entry_price": rows["entry_price"] / factor[entry_bar],
            "exit_price": exit_price / factor[exit_bar],
            "fees": rows["fees"],
            "pnl": rows["pnl"],
            "reason": [REASONS[r] for r in rows["reason"]],
        }
    )
    is_closed = exit_bar >= 0
    notional = rows["units"] * (rows["entry_price"] + np.where(is_closed, exit_price, 0.0))
    value = position * growth.close
    return BacktestResult(
        equity=equity,
        # After a ruin there is neither position nor equity.
        invested=np.divide(value, equity, out=np.zeros_like(equity), where=position != 0),
        trades=trades,
        notional=float(notional.sum()),
        cancelled=int(cancelled),
        closed_at=bars.closed_at,
        unaffordable=int(unaffordable),
    )


def simulate_equity(
    growth: BarSeries, orders: Orders, costs: Costs, cash: float, allow_short: bool
) -> Floats:
    """Return the equity curve only, of fractional units; `growth` is `bars.growth()`."""
    # The policy search calls this thousands of times: no table of trades, no conversion of bars.
    rules = FillRules(costs.commission, costs.slippage, allow_short)
    equity, *_ = _simulate(growth, orders, rules, cash, np.zeros(len(growth)))
    return equity


def _simulate(
    growth: BarSeries, orders: Orders, rules: FillRules, cash: float, lot: Floats
) -> tuple[Floats, Floats, npt.NDArray[np.void], int, int]:
    """Run the kernel; return equity, signed units, trades (`TRADE_DTYPE`), and how many entries
    were cancelled and how many bought no lot.
    """
    n = len(growth)
    equity, position = np.empty(n), np.empty(n)
    trades = np.zeros(n + 1, dtype=kernel.TRADE_DTYPE)
    count, cancelled, unaffordable = kernel.simulate(
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
    return equity, position, trades[:count], cancelled, unaffordable
