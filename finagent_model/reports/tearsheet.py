"""Show what all symbols of a training earned together: equity, months, rolling ratios, drawdowns,
contributions, and the returns as CSV.

Returns are simple and after costs, fractions of the value before; a day is one of UTC. Undefined is
nan or None, never 0.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model.backtesting.metrics import MIN_DEVIATION, measure_curve
from finagent_model.evaluation.evidence import SymbolFacts, pool_returns
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.timeframe import bars_per_year
from finagent_model.policy.policy import PolicyBook
from finagent_model.reports.figures import ChartNumbers, equity_figure, figure, line, render_table
from finagent_model.training.walk_forward import policy_periods

ROLLING_BARS = 126
"""Bars of a rolling window: half a year."""
WORST_DRAWDOWNS = 5
MAX_CHARTED = 20
"""Symbols with charts and trades of their own; the others are rows of the tables."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CURVE_METRICS = (
    ("total_return", "total return", "+.1%"),
    ("cagr", "return a year", "+.1%"),
    ("volatility", "volatility a year", ".1%"),
    ("sharpe", "Sharpe ratio", ".2f"),
    ("sortino", "Sortino ratio", ".2f"),
    ("calmar", "Calmar ratio", ".2f"),
    ("max_drawdown", "max drawdown", ".1%"),
)
"""Metric, its name, and its format."""
RETURNS_FILE = "returns.csv"
"""Artifact of a training: its pooled daily returns on out-of-sample days."""


class FoldSpan(NamedTuple):
    """The days that one fit decided on."""

    fit_until: datetime
    """Close of the last bar that the fit saw."""
    valid_from: datetime
    part: slice
    """Positions of its bars within the out-of-sample part."""


def fold_spans(bars: BarSeries, policies: PolicyBook) -> list[FoldSpan]:
    """Return the spans of a trained desk's fits within `bars`, oldest first."""
    return [
        FoldSpan(fit.fit_until, fit.valid_from, part)
        for fit, part in policy_periods(bars, policies)
    ]


@dataclass(frozen=True, eq=False)
class SymbolPage:
    """Out-of-sample result of one symbol that the page shows."""

    bars: BarSeries
    folds: Sequence[FoldSpan]
    facts: SymbolFacts
    trades: pd.DataFrame
    metrics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class DailyReturns:
    """Equal-weighted returns of a training's symbols on out-of-sample days, and of holding them."""

    closed_at: npt.NDArray[np.datetime64]
    """Close of each bar but the first, in UTC."""
    desk: Floats
    held: Floats
    first: np.datetime64 | None = None
    """Close of the first bar, at which both are worth 1; None: unknown."""

    @classmethod
    def pool(cls, facts: Sequence[SymbolFacts], first: np.datetime64 | None = None) -> DailyReturns:
        """Return the pool of some symbols, which is that of the evidence and the metrics.

        Of bars within a day each day's returns are compounded.
        """
        calendar, desk, held = pool_returns(facts)
        moments = calendar.astype("datetime64[ms]")
        starts = np.flatnonzero(np.diff(moments.astype("datetime64[D]").astype(int), prepend=-1))
        if len(starts) == len(moments):
            return cls(moments, desk, held, first)
        closed_at = moments[np.append(starts[1:], len(moments)) - 1]
        desk, held = (np.multiply.reduceat(1.0 + each, starts) - 1.0 for each in (desk, held))
        # A curve has one value a day.
        is_before = first is not None and first.astype("datetime64[D]") < closed_at[0]
        return cls(closed_at, desk, held, first if is_before else None)

    @property
    def days(self) -> list[str]:
        """Days of the curve that `curve` returns, as YYYY-MM-DD."""
        moments = self.closed_at if self.first is None else np.append(self.first, self.closed_at)
        return [str(day) for day in moments.astype("datetime64[D]")]

    def curve(self, returns: Floats) -> Floats:
        """Return the value of 1 invested at the first bar, at each of `days`."""
        grown = np.asarray(np.cumprod(1.0 + returns), dtype=np.float64)
        return grown if self.first is None else np.append(np.ones(1), grown)

    def to_csv(self) -> str:
        """Return CSV with a row a day: `date`, `desk` and `buy_and_hold`, as daily fractions.

        pandas reads it as `pd.read_csv(file, index_col="date", parse_dates=True)`; quantstats and
        pyfolio take the columns.
        """
        frame = pd.DataFrame({"desk": self.desk, "buy_and_hold": self.held})
        days = pd.Index(self.closed_at.astype("datetime64[D]").astype(str), name="date")
        daily = (1.0 + frame).groupby(days).prod() - 1.0
        text = io.StringIO()
        daily.to_csv(text, float_format="%.10g", lineterminator="\n")
        return text.getvalue()


@dataclass(frozen=True)
class YearOfMonths:
    """Returns of the months of one year, January first; None: no out-of-sample day in it."""

    year: int
    months: tuple[float | None, ...]
    whole: float
    """Compounded over the year's out-of-sample days."""


def monthly_returns(returns: Floats, closed_at: npt.NDArray[np.datetime64]) -> list[YearOfMonths]:
    """Return the compound return of each month with an out-of-sample day, by year, oldest first."""
    months = closed_at.astype("datetime64[M]").astype(int)
    years = []
    for year in np.unique(months // 12).tolist():
        cells = []
        for month in range(12):
            own = returns[months == 12 * year + month]
            cells.append(float(np.prod(1.0 + own) - 1.0) if len(own) else None)
        whole = float(np.prod(1.0 + returns[months // 12 == year]) - 1.0)
        years.append(YearOfMonths(1970 + year, tuple(cells), whole))
    return years


@dataclass(frozen=True)
class Drawdown:
    """A fall from a peak of a curve until the peak is reached again."""

    peak: str
    trough: str
    recovered: str | None
    """Days as YYYY-MM-DD; None: not reached again by the last day."""
    depth: float
    """Loss from the peak at the trough, a fraction below 0."""
    days: int
    """Calendar days from the peak to the recovery, or to the last day."""


def worst_drawdowns(
    curve: Floats, days: Sequence[str], count: int = WORST_DRAWDOWNS
) -> list[Drawdown]:
    """Return the deepest falls of a curve, deepest first; they don't overlap."""
    peak = np.maximum.accumulate(curve)
    # From what only rounding left below a peak no fall begins.
    below = np.append(curve < peak * (1.0 - MIN_DEVIATION), False)
    falls, start = [], None
    for i, is_below in enumerate(below):
        if is_below and start is None:
            start = i - 1
        elif not is_below and start is not None:
            falls.append((start, i))
            start = None
    found = []
    for start, end in falls:
        trough = start + int(np.argmin(curve[start:end]))
        recovered = days[end] if end < len(days) else None
        length = date.fromisoformat(recovered or days[-1]) - date.fromisoformat(days[start])
        depth = float(curve[trough] / curve[start] - 1.0)
        found.append(Drawdown(days[start], days[trough], recovered, depth, length.days))
    return sorted(found, key=lambda fall: fall.depth)[:count]


def rolling_ratios(
    returns: Floats, closed_at: npt.NDArray[np.datetime64], window: int = ROLLING_BARS
) -> tuple[Floats, Floats]:
    """Return annual Sharpe ratio and annual volatility (n,) of the last `window` returns.

    nan before there are as many, and a ratio where nothing varied.
    """
    periods = bars_per_year(closed_at)
    past = pd.Series(returns).rolling(window)
    mean = past.mean().to_numpy(dtype=np.float64)
    # A spread that only rounding left is none; pandas may give a tiny one of equal returns.
    spread = past.std(ddof=1).to_numpy(dtype=np.float64) * math.sqrt(periods)
    ratio = np.where(spread > 1e-8, mean * periods / np.where(spread > 0, spread, 1.0), math.nan)
    return ratio, spread


def contributions(facts: Sequence[SymbolFacts]) -> list[float]:
    """Return what each symbol added to the pool's total return, as fractions; they add up to it."""
    calendar, pooled, _ = pool_returns(facts)
    # What a symbol earns on a day is its part of the pool, which is worth `before` that day.
    before = np.append(1.0, np.cumprod(1.0 + pooled))[:-1]
    positions = [np.searchsorted(calendar, np.asarray(each.closed_at)) for each in facts]
    count = np.zeros(len(calendar))
    for own in positions:
        count[own] += 1
    return [
        float(np.sum(before[own] * np.asarray(each.returns) / count[own]))
        for own, each in zip(positions, facts, strict=True)
    ]


@dataclass(frozen=True)
class TradeRow:
    """One trade as it is shown; prices as traded."""

    entered: str
    exited: str | None
    """Days as YYYY-MM-DD; None: still open, and marked at the last close."""
    side: str
    shares: float
    entry_price: float
    exit_price: float
    pnl: float
    """Money, after costs."""
    earned: float | None
    """`pnl` as a fraction of what was paid, or got, at the entry; None: nothing was."""
    bars: int
    cause: str
    """Why it ended: signal, stop, target, ruin; open where it has not."""


def trade_rows(bars: BarSeries, trades: pd.DataFrame) -> Iterator[TradeRow]:
    """Yield the trades of one symbol's out-of-sample part, oldest first."""
    for trade in trades.sort_values("entry_bar").to_dict("records"):
        entry, end = int(trade["entry_bar"]), int(trade["exit_bar"])
        paid = float(trade["shares"] * trade["entry_price"])
        yield TradeRow(
            entered=f"{bars.close_time(entry):%Y-%m-%d}",
            exited=f"{bars.close_time(end):%Y-%m-%d}" if end >= 0 else None,
            side=str(trade["side"]),
            shares=float(trade["shares"]),
            entry_price=float(trade["entry_price"]),
            exit_price=float(trade["exit_price"]),
            pnl=float(trade["pnl"]),
            earned=float(trade["pnl"]) / paid if paid > 0 else None,
            bars=(end if end >= 0 else len(bars) - 1) - entry,
            cause=str(trade["reason"]),
        )


def portfolio_sections(symbols: Sequence[SymbolPage], charts: ChartNumbers) -> list[str]:
    """Return the equity, metrics, months, rolling ratios and drawdowns of all symbols together."""
    first = min(page.bars.closed_at[0] for page in symbols)
    pool = DailyReturns.pool([page.facts for page in symbols], first)
    name = symbols[0].bars.symbol if len(symbols) == 1 else f"{len(symbols)} symbols together"
    folds = sorted({f"{fold.valid_from:%Y-%m-%d}" for page in symbols for fold in page.folds})
    curves = [
        ("desk", "accent", pool.curve(pool.desk)),
        ("buy and hold", "soft", pool.curve(pool.held)),
    ]
    days = pool.days
    span = f"{days[0]} to {days[-1]}, {len(pool.desk):,} returns"
    caption = (
        f"{span}. Both start with 1, after costs, on days that no fit had seen"
        f"{'; symbols weigh the same' if len(symbols) > 1 else ''}. At a dotted line a newer fit "
        "takes over."
    )
    figure_data = equity_figure(days, curves, folds)
    return [
        f"<h2>{escape(name)}: equity and drawdown</h2>",
        charts.render(figure_data, "Equity and drawdown of desk and buy and hold", caption),
        _curve_table(pool),
        "<h2>Returns by month</h2>",
        _month_table(pool),
        "<h2>Rolling Sharpe ratio and volatility</h2>",
        _rolling_section(pool, charts),
        "<h2>Worst drawdowns</h2>",
        _drawdown_table(pool),
    ]


def _curve_table(pool: DailyReturns) -> str:
    first = pool.closed_at[0] if pool.first is None else pool.first
    closed_at = np.append(first, pool.closed_at)
    desk, held = (
        measure_curve(np.cumprod(np.append(1.0, 1.0 + returns)), closed_at)
        for returns in (pool.desk, pool.held)
    )
    cells = "".join(
        f"<tr><td>{words}</td><td class=n>{_format(desk[name], how)}</td>"
        f"<td class=n>{_format(held[name], how)}</td></tr>"
        for name, words, how in CURVE_METRICS
    )
    return render_table("curve", ("metric", "#desk", "#buy and hold"), cells)


def _month_table(pool: DailyReturns) -> str:
    years = monthly_returns(pool.desk, pool.closed_at)
    held = {each.year: each.whole for each in monthly_returns(pool.held, pool.closed_at)}
    most = max((abs(cell) for each in years for cell in each.months if cell is not None), default=0)
    rows = "".join(
        f"<tr><th>{each.year}</th>{''.join(_heat_cell(cell, most) for cell in each.months)}"
        f"<td><b>{each.whole:+.1%}</b></td><td>{held[each.year]:+.1%}</td></tr>"
        for each in years
    )
    return (
        "<p class=small>The desk, after costs, in percent of the month's start; the first and the "
        "last month may be parts. An empty cell has no out-of-sample day.</p>"
        f"{render_table('months', ('', *MONTHS, 'year', 'buy and hold'), rows)}"
    )


def _heat_cell(value: float | None, most: float) -> str:
    if value is None:
        return "<td></td>"
    # The number says it, too: colour alone is nothing for whoever can't tell red from green.
    share = round(60 * abs(value) / most) if most > 0 else 0
    tone = "good" if value > 0 else "bad"
    return (
        f'<td style="background:color-mix(in srgb,var(--{tone}) {share}%,transparent)">'
        f"{'0.0' if abs(value) < 0.0005 else f'{100 * value:+.1f}'}</td>"
    )


def _rolling_section(pool: DailyReturns, charts: ChartNumbers) -> str:
    if len(pool.desk) <= ROLLING_BARS:
        return (
            f"<p>{len(pool.desk)} out-of-sample days are too few for a window of "
            f"{ROLLING_BARS} bars: undefined.</p>"
        )
    ratios = {
        name: rolling_ratios(returns, pool.closed_at)
        for name, returns in (("desk", pool.desk), ("buy and hold", pool.held))
    }
    panes = [
        {
            "format": kind,
            "name": words,
            "series": [
                line(name, "accent" if name == "desk" else "soft", pair[index][ROLLING_BARS - 1 :])
                for name, pair in ratios.items()
            ],
            **({"level": 0} if index == 0 else {}),
        }
        for index, (words, kind) in enumerate((("Sharpe", "number"), ("volatility", "percent")))
    ]
    days = [str(day) for day in pool.closed_at.astype("datetime64[D]")[ROLLING_BARS - 1 :]]
    caption = (
        f"Each point is of the last {ROLLING_BARS} bars, half a year, annualised: Sharpe ratio "
        "above, volatility below. A gap is undefined: nothing varied."
    )
    return charts.render(figure(days, panes), "Rolling Sharpe ratio and volatility", caption, True)


def _drawdown_table(pool: DailyReturns) -> str:
    falls = worst_drawdowns(pool.curve(pool.desk), pool.days)
    if not falls:
        return "<p>The desk's curve never was below an earlier value.</p>"
    cells = "".join(
        f"<tr><td class=n>{fall.depth:.1%}</td><td>{fall.peak}</td><td>{fall.trough}</td>"
        f"<td>{fall.recovered or 'not yet'}</td><td class=n>{fall.days:,}</td></tr>"
        for fall in falls
    )
    heads = ("#depth", "peak", "lowest", "peak reached again", "#days")
    return render_table("drawdowns", heads, cells)


def contribution_section(symbols: Sequence[SymbolPage], added: Sequence[float]) -> list[str]:
    """Return a row a symbol; nothing for one symbol, which is the whole."""
    if len(symbols) == 1:
        return []
    ranked = sorted(zip(added, symbols, strict=True), key=lambda pair: -pair[0])
    cells = "".join(
        f"<tr><td>{escape(page.bars.symbol)}</td><td class=n>{part:+.1%}</td>"
        f"<td class=n>{_format(page.metrics['total_return'], '+.1%')}</td>"
        f"<td class=n>{_format(page.metrics['benchmark_total_return'], '+.1%')}</td>"
        f"<td class=n>{_format(page.metrics['sharpe'], '.2f')}</td>"
        f"<td class=n>{len(page.trades):,}</td></tr>"
        for part, page in ranked
    )
    more = (
        f" Charts and trades follow for the {MAX_CHARTED} that moved it most."
        if len(symbols) > MAX_CHARTED
        else ""
    )
    heads = ("symbol", "#contribution", "#return", "#buy and hold")
    return [
        "<h2>Contribution by symbol</h2>",
        "<p class=small>What each symbol added to the total return of all; the column adds up to "
        f"{sum(added):+.1%}.{more}</p>",
        render_table("contributions", (*heads, "#Sharpe", "#trades"), cells),
    ]


def _format(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "undefined"
