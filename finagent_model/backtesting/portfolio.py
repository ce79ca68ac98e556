"""Pool the accounts of several symbols: the one definition that charts, tables and evidence share.

A pool gives every account the same money at the start of each bar: its return is the mean of theirs
(equal weights, rebalanced daily). An account without a return then (not there yet, no bar that day,
or ruined) is left out of that mean. What is counted is added up, and ratios of trades are those of
all trades together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.metrics import measure_curve, measure_trades
from finagent_model.market.bars import Floats

Times = npt.NDArray[np.datetime64]
Day = TypeVar("Day", np.datetime64, np.int64)
"""How a calendar counts: moments, or whole numbers such as milliseconds since 1970."""
_SUMMED = ("closed_trades", "cancelled_entries", "model_cost_usd")


@dataclass(frozen=True, eq=False)
class PooledAccount:
    """What a pool needs to know of one symbol's backtest."""

    metrics: Mapping[str, float]
    """By name; the benchmark's as `benchmark_...`."""
    pnl: Floats
    """What each closed trade earned, in money."""
    cash: float
    """Money that it started with."""
    decisions: int


def pool_returns(closed_at: Sequence[Times], returns: Sequence[Floats]) -> tuple[Times, Floats]:
    """Return the union of the accounts' calendars and the mean of their returns on it.

    Each account gives the close of every bar but its first, and its return then, which may be nan.
    Raises ValueError without any return.
    """
    known = [np.isfinite(own) for own in returns]
    days = [times[defined] for times, defined in zip(closed_at, known, strict=True)]
    return pool_by_day(days, [own[at] for own, at in zip(returns, known, strict=True)])


def pool_by_day(
    days: Sequence[npt.NDArray[Day]], values: Sequence[Floats]
) -> tuple[npt.NDArray[Day], Floats]:
    """Return the calendar of all symbols (T,), and the mean of their values (T, ...) on each day.

    `days` (n,) and `values` (n, ...) are by symbol; a mean is over the symbols that have the day.
    """
    calendar = np.unique(np.concatenate(days))
    # A symbol without a bar on a day is left out of that day's mean: 0 would be a return.
    count, total = np.zeros(len(calendar)), np.zeros((len(calendar), *values[0].shape[1:]))
    for own_days, own_values in zip(days, values, strict=True):
        positions = np.searchsorted(calendar, own_days)
        count[positions] += 1
        total[positions] += own_values
    return calendar, total / count.reshape(-1, *[1] * (total.ndim - 1))


def pool_metrics(
    accounts: Sequence[PooledAccount], closed_at: Times, desk: Floats, benchmark: Floats
) -> dict[str, float]:
    """Return the metrics of a pool by name; nan where undefined.

    `closed_at` (n + 1,) are the pool's closes from the first bar on, `desk` and `benchmark` (n,)
    its returns at all but the first. Raises ValueError where no account is given.
    """
    if not accounts:
        raise ValueError("no account to pool; give one or more")
    if len(accounts) == 1:
        return dict(accounts[0].metrics)
    weights = [account.decisions for account in accounts]
    pooled = {}
    for name in accounts[0].metrics:
        values = [account.metrics[name] for account in accounts]
        if name.removeprefix("benchmark_") in _SUMMED:
            pooled[name] = math.fsum(values)
        elif name in ("hold_share", "failed_share"):
            pooled[name] = math.fsum(np.multiply(values, weights)) / sum(weights)
        else:
            pooled[name] = math.fsum(values) / len(values)
    for prefix, returns in (("", desk), ("benchmark_", benchmark)):
        curve = measure_curve(np.cumprod(np.append(1.0, 1.0 + returns)), closed_at)
        pooled |= {f"{prefix}{name}": value for name, value in curve.items()}
    pooled |= measure_trades(np.concatenate([account.pnl for account in accounts]))
    cost = pooled["model_cost_usd"] / math.fsum(account.cash for account in accounts)
    return {**pooled, "total_return_after_model_cost": pooled["total_return"] - cost}
