"""Derive metrics and evidence of an account again, by the textbook's formulas and nothing else.

`finagent verify --deep` compares them with the recorded ones. Returns are taken from the plain
account (`evaluation/accounting.py`), and how many bars a year has is counted again. Undefined is
nan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from finagent_model.backtesting.metrics import (
    MIN_DEVIATION,
    MIN_DEVIATION_YEARS,
    MIN_YEARS,
)
from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.accounting import Account
from finagent_model.evaluation.evidence import MIN_T_RATIO
from finagent_model.market.bars import BarSeries, Floats

USUAL_COUNTS = (252, 365, 52, 12, 4, 1)
"""Bars a year of trading days, all days, weeks, months, quarters and years."""
DAY_MS = 86_400_000
MIN_RETURNS = 20
"""Returns below which evidence is undefined."""
NAN = math.nan


def returns_of(equity: Sequence[float]) -> Floats:
    """Return each change over the value before; nan after all was lost."""
    return np.array([(b - a) / a if a > 0 else NAN for a, b in pairwise(equity)])


def count_bars_per_year(closed_at: Sequence[int]) -> float:
    """Return how many bars of a calendar a year has; its closes are milliseconds since 1970.

    One of the usual counts where the days of the bars are within a tenth of it.
    """
    counts = Counter(moment // DAY_MS for moment in closed_at)
    days, moments, per_day = sorted(counts), list(closed_at), 1.0
    # A second bar on some days is a clock that was put back; on half of them there are several.
    if len(closed_at) > 1.5 * len(days):
        # Days at the ends may have begun, or ended, outside.
        whole = days[1:-1] or days
        per_day = sum(counts[day] for day in whole) / len(whole)
        moments = [day * DAY_MS for day in days]
    if len(days) < 2:
        return per_day * USUAL_COUNTS[0]
    steps = sorted((b - a) / DAY_MS for a, b in pairwise(moments))
    middle = (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2
    # Longer pauses are missing bars.
    kept = [step for step in steps if step <= max(14.0, 3 * middle)]
    yearly = 365.25 * len(kept) / sum(kept)
    # The first day of 1970 was a Thursday.
    if 252 <= yearly < 366 and all((day + 3) % 7 < 5 for day in days):
        return per_day * 252
    return per_day * next((n for n in USUAL_COUNTS if abs(yearly / n - 1) < 0.1), yearly)


def measure_account(account: Account, bars: BarSeries) -> dict[str, float]:
    """Return the metrics of an account by name, as a training records them."""
    equity, years = account.equity, _years(bars)
    closed = [trade.pnl for trade in account.trades if trade.exit_bar >= 0]
    # What rounding left of the cash is neither won nor lost.
    pnl = [x if abs(x) > MIN_DEVIATION * equity[0] else 0.0 for x in closed]
    lost = -sum(x for x in pnl if x < 0)
    traded = sum(
        trade.units * (trade.entry_price + (trade.exit_price if trade.exit_bar >= 0 else 0.0))
        for trade in account.trades
    )
    return {
        **_measure_curve(equity, years, count_bars_per_year(close_times_ms(bars))),
        "exposure": sum(units != 0 for units in account.units) / len(account.units),
        "turnover": traded / (sum(equity) / len(equity)) / years if years >= MIN_YEARS else NAN,
        "hit_rate": sum(x > 0 for x in pnl) / len(pnl) if pnl else NAN,
        "profit_factor": sum(x for x in pnl if x > 0) / lost if lost > 0 else NAN,
        "expectancy": sum(pnl) / len(pnl) if pnl else NAN,
        "closed_trades": float(len(pnl)),
        "cancelled_entries": float(account.cancelled),
    }


def annual_sharpe(returns: Floats, periods: float) -> float:
    """Return mean over standard deviation (ddof 1), a year; nan where nothing varied."""
    if len(returns) < 2:
        return NAN
    spread = float(np.std(returns, ddof=1)) * math.sqrt(periods)
    return float(np.mean(returns)) * periods / spread if spread > MIN_DEVIATION else NAN


def alpha_by_day(returns: Floats, held: Floats) -> Floats:
    """Return the intercept beside holding, as each day's contribution to it (n,).

    Contributions are those of a least-squares intercept to first order, so that their spread is
    that of the estimate.
    """
    n = len(returns)
    if n < MIN_RETURNS or not np.std(held) > MIN_DEVIATION:
        return np.full(n, NAN)
    design = np.column_stack([np.ones(n), held])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ returns
    residual = returns - design @ coefficients
    residual[np.abs(residual) <= MIN_DEVIATION] = 0.0
    # n times a row of (X'X)^-1 X' is each day's influence on the intercept.
    influence: Floats = coefficients[0] + n * (design @ inverse[0]) * residual
    return influence


def hac_t_ratio(values: Floats) -> float:
    """Return the mean over its standard error: Newey and West, with Andrews' bandwidth."""
    n = len(values)
    if n < MIN_RETURNS or not np.std(values) > MIN_DEVIATION:
        return NAN
    off = values - values.mean()
    ratio = min(max(float(off[1:] @ off[:-1]) / float(off @ off), -0.97), 0.97)
    bandwidth = 1.1447 * (4 * ratio**2 / (1 - ratio**2) ** 2 * n) ** (1 / 3)
    variance = float(off @ off) / n
    for lag in range(1, min(int(bandwidth), n - 1) + 1):
        variance += 2 * (1 - lag / (bandwidth + 1)) * float(off[lag:] @ off[:-lag]) / n
    return float(values.mean()) * math.sqrt(n / variance) if variance > 0 else NAN


def pool_plainly(by_symbol: Sequence[tuple[Sequence[int], Floats]]) -> Floats:
    """Return the mean of all symbols' values on each day that any of them has, oldest first."""
    by_day: dict[int, list[float]] = {}
    for days, values in by_symbol:
        for day, value in zip(days, values.tolist(), strict=True):
            by_day.setdefault(day, []).append(value)
    return np.array([sum(by_day[day]) / len(by_day[day]) for day in sorted(by_day)])


def measure_evidence(
    returns: Floats, held: Floats, skill: Floats, periods: float
) -> dict[str, float]:
    """Return the numbers of the evidence that follow from pooled returns alone, by name.

    `held` are those of holding, `skill` the contributions to alpha; a year has `periods` of each.
    """
    t_ratio = hac_t_ratio(skill)
    spread = float(np.std(skill))
    return {
        "observations": float(len(returns)),
        "sharpe": _pooled_sharpe(returns, periods),
        "benchmark_sharpe": _pooled_sharpe(held, periods),
        "alpha": float(np.mean(skill)) * periods,
        "appraisal_ratio": _pooled_sharpe(skill, periods) if spread > MIN_DEVIATION else NAN,
        "t_alpha": t_ratio,
        "p_alpha": 1 - NormalDist().cdf(t_ratio),
    }


def grade_plainly(numbers: Mapping[str, float], rules: GateRules) -> Grade:
    """Return the grade that the thresholds of docs/evidence.md give these numbers."""
    significance = 1 - rules.confidence
    # Every comparison with nan is false: an undefined number fails.
    is_weak = (
        numbers["p_alpha"] <= significance / 2 and numbers["p_random_entry"] <= significance / 2
    )
    is_strong = (
        numbers["t_alpha"] >= MIN_T_RATIO
        and numbers["probabilistic_sharpe"] >= rules.confidence
        and numbers["p_sharpe_difference"] <= significance
        and numbers["deflated_sharpe"] >= rules.min_deflated
        and numbers["cost_margin"] >= rules.cost_margin
        and numbers["p_delay"] >= significance
    )
    return "none" if not is_weak else "strong" if is_strong else "weak"


def _pooled_sharpe(returns: Floats, periods: float) -> float:
    """Return the annual ratio of pooled returns with the deviation of the whole (ddof 0)."""
    spread = float(np.std(returns)) if len(returns) > 1 else NAN
    ratio = float(np.mean(returns)) / spread if spread > MIN_DEVIATION else NAN
    return ratio * math.sqrt(periods)


def _measure_curve(equity: Sequence[float], years: float, periods: float) -> dict[str, float]:
    returns, grew = returns_of(equity), NAN
    if len(equity) > 1 and equity[-1] > 0 and years >= MIN_YEARS:
        grew = (equity[-1] / equity[0]) ** (1 / years) - 1
    # A handful of returns would be blown up to hundreds of percent a year.
    varied = returns if years >= MIN_DEVIATION_YEARS else returns[:0]
    falls = np.minimum(varied, 0.0)
    down = math.sqrt(float(falls @ falls) / len(varied) * periods) if len(varied) > 1 else NAN
    deepest, longest = _drawdown(equity)
    return {
        "total_return": equity[-1] / equity[0] - 1 if len(equity) > 1 else NAN,
        "cagr": grew,
        "volatility": float(np.std(varied, ddof=1)) * math.sqrt(periods)
        if len(varied) > 1
        else NAN,
        "sharpe": annual_sharpe(varied, periods),
        "sortino": float(np.mean(varied)) * periods / down if down > MIN_DEVIATION else NAN,
        "max_drawdown": deepest,
        "max_drawdown_bars": longest,
        "calmar": grew / deepest if deepest > 0 else NAN,
        **_measure_tail(returns),
    }


def _measure_tail(returns: Floats) -> dict[str, float]:
    """Return value at risk and expected shortfall of the worst twentieth of returns."""
    if not len(returns) or np.isnan(returns).any():
        return {"value_at_risk_95": NAN, "expected_shortfall_95": NAN}
    worst_first = sorted(returns.tolist())
    place = 0.05 * (len(worst_first) - 1)
    below, above = worst_first[int(place)], worst_first[math.ceil(place)]
    worst = worst_first[: int(place) + 1]
    return {
        "value_at_risk_95": -(below + (above - below) * (place - int(place))),
        "expected_shortfall_95": -sum(worst) / len(worst),
    }


def _drawdown(equity: Sequence[float]) -> tuple[float, float]:
    """Return the deepest loss from a peak, and the bars of the longest time below one."""
    if len(equity) < 2:
        return NAN, NAN
    peak, since, deepest, longest = equity[0], 0, 0.0, 0
    for t, value in enumerate(equity):
        peak = max(peak, value)
        loss = 1 - value / peak
        if loss > MIN_DEVIATION:
            deepest, longest = max(deepest, loss), max(longest, t - since)
        else:
            # The bar that reaches the peak again ends the drawdown, and belongs to it.
            longest = max(longest, t - since) if t - since > 1 else longest
            since = t
    return deepest, float(longest)


def close_times_ms(bars: BarSeries) -> list[int]:
    """Return when each bar closed, in milliseconds since 1970."""
    milliseconds: list[int] = (bars.closed_at.astype(np.int64) // 1000).tolist()
    return milliseconds


def _years(bars: BarSeries) -> float:
    days = (bars.closed_at[-1] - bars.closed_at[0]) / np.timedelta64(1, "D")
    return float(days) / 365.25 if len(bars) > 1 else NAN
