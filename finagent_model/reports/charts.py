"""Draw a backtest, a signal's levels, an agent graph and an ablation, as files or text.

Charts of a backtest and of a signal come twice: a PNG to glance at and an HTML page to look into.
matplotlib is imported where it draws, since most commands don't need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import TradingSignal
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.market.bars import PRICES, BarSeries, Floats, show_as_of, symbol_file_name
from finagent_model.market.timeframe import DAILY
from finagent_model.market.view import MarketView
from finagent_model.reports.figures import (
    CREDIT,
    ChartNumbers,
    describe_outside,
    equity_figure,
    price_svg,
    render_page,
    split_levels,
)

AblationRow = Mapping[str, Any]
DESK_COLOUR, BENCHMARK_COLOUR = "#1f6feb", "#8b949e"
CHART_BARS = 126
"""Bars of a price chart: half a year of days."""
LEVELS = {
    "suggested_entry_price": ("entry", "#1f6feb"),
    "suggested_stop_loss": ("stop", "#cf222e"),
    "suggested_take_profit": ("target", "#1a7f37"),
    "support_level": ("support", "#8b949e"),
    "resistance_level": ("resistance", "#8b949e"),
}
"""Label and colour by field of the signal."""
ABLATION_COLUMNS = (
    "variant",
    "return a year, less the whole desk's",
    "95 % interval",
    "Sharpe",
    "same action",
    "HOLD",
    "statuses",
    "tokens",
    "cost",
    "seconds a decision",
)
ABLATION_DETAILS = ("statuses", "seconds a decision", "tokens", "HOLD")
"""Columns that matter least, the least of them first."""
ABLATION_CHART = "ablation.png"
DPI = 110
"""Pixels of an inch in pictures."""


def write_equity_charts(out_of_sample: OutOfSampleBacktest, folder: Path) -> tuple[Path, Path]:
    """Draw desk against buy-and-hold; write `equity_<SYMBOL>.png` and `.html` in `folder`, and
    return both paths.
    """
    name = f"equity_{symbol_file_name(out_of_sample.bars.symbol)}"
    png, page = folder / f"{name}.png", folder / f"{name}.html"
    _equity_png(out_of_sample, png)
    _equity_page(out_of_sample, page)
    return png, page


def drawdown(equity: Floats) -> Floats:
    """Return the loss from the running peak (n,), as a fraction <= 0."""
    return equity / np.maximum.accumulate(equity) - 1


def write_price_chart(view: MarketView, signal: TradingSignal, folder: Path) -> None:
    """Draw the last half year with the signal's levels; write `chart.png` and `chart.html` in
    `folder`.
    """
    # In units of the last bar's trades (earlier bars adjusted by the splits and dividends known by
    # then), so that the levels, which are as traded on that bar, lie where they belong.
    bars = view.bars.adjust_to_last_bar()[-CHART_BARS:]
    levels = {
        label: (float(price), colour)
        for field, (label, colour) in LEVELS.items()
        if (price := getattr(signal, field)) is not None
    }
    score = f"{signal.confidence} {signal.confidence_score:.0f}"
    title = f"{signal.symbol} as of {show_as_of(signal.as_of)}: {signal.action} ({score})"
    if signal.status != "ok":
        title = f"{signal.symbol} as of {show_as_of(signal.as_of)}: no decision ({signal.status})"
    _price_png(bars, levels, title, folder / "chart.png")
    _price_page(bars, levels, title, folder / "chart.html")


def market_data_snapshot(view: MarketView) -> dict[str, Any]:
    """Return the bars of the price chart, JSON-ready, as the trading platform draws them.

    Prices are those of `write_price_chart`: in units of the last bar's trades.
    """
    bars = view.bars.adjust_to_last_bar()[-CHART_BARS:]
    return {
        "symbol": view.symbol,
        "timeframe": "daily" if bars.timeframe == DAILY else bars.timeframe.name,
        "latest_price": float(view.bars.close[-1]),
        "bar_count": len(bars),
        "bars": [
            {
                "date": bars.show_time(i),
                # Ten digits: an adjustment leaves noise after them.
                **{name: float(f"{getattr(bars, name)[i]:.10g}") for name in PRICES},
                "volume": None if np.isnan(bars.volume[i]) else round(bars.volume[i]),
            }
            for i in range(len(bars))
        ],
    }


def render_mermaid(config: DeskConfig) -> str:
    """Return a desk's agent graph as a Mermaid flowchart, from the market view to the signal.

    A dashed box is an agent that takes part only with some input.
    """
    rows = config.roster
    lines = ["flowchart LR", "    view([market view])"]
    for row in rows:
        when = "" if row.when == "always" else f"<br/>only with {row.when}"
        lines.append(f"    {row.name}[{row.name}<br/>{row.role}{when}]")
        sources = row.after or ("view",)
        lines += [f"    {source} --> {row.name}" for source in sources]
        if row.when != "always":
            lines.append(f"    style {row.name} stroke-dasharray: 5 5")
    lines += [f"    {rows[-1].name} --> checks[levels and size<br/>checked by code]"]
    lines += ["    checks --> signal([trading signal])"]
    return "\n".join(lines) + "\n"


def render_ablation_table(
    rows: Sequence[AblationRow], left_out: Mapping[str, str] | None = None
) -> str:
    """Return the Markdown table of an ablation, one row a variant; None is shown as undefined.

    `left_out` are the reasons by variant without a result, one line each below the table.
    """
    lines = ["| " + " | ".join(ABLATION_COLUMNS) + " |", "|" + "---|" * len(ABLATION_COLUMNS)]
    lines += ["| " + " | ".join(cells) + " |" for cells in ablation_cells(rows)]
    if left_out:
        lines += ["", *(f"- left out: {name}: {reason}" for name, reason in left_out.items())]
    return "\n".join(lines) + "\n"


def ablation_cells(rows: Sequence[AblationRow]) -> list[tuple[str, ...]]:
    """Return the cells of an ablation's table by row, in the order of `ABLATION_COLUMNS`."""
    table: list[tuple[str, ...]] = []
    for row in rows:
        statuses = ", ".join(f"{name} {share:.1%}" for name, share in row["statuses"].items())
        low, high = _percent(row["low"]), _percent(row["high"])
        table.append(
            (
                row["variant"],
                _percent(row["annual_return_difference"]),
                "undefined" if row["low"] is None else f"{low} to {high}",
                "undefined" if row["sharpe"] is None else f"{row['sharpe']:.2f}",
                f"{row['same_action']:.1%}",
                f"{row['hold_share']:.1%}",
                statuses,
                f"{row['tokens']}",
                "unknown" if row["cost_usd"] is None else f"{row['cost_usd']:.4g} USD",
                f"{row['seconds_a_decision']:.4f}",
            )
        )
    return table


def ablation_chart_size(variants: int) -> tuple[int, int]:
    """Return width and height in pixels of a chart of so many variants with an interval."""
    # A page keeps this room before the picture is there.
    return 9 * DPI, round((1.6 + 0.45 * variants) * DPI)


def write_ablation_chart(rows: Sequence[AblationRow], folder: Path) -> Path:
    """Draw each variant's difference from the whole desk, with its interval; return the path."""
    from matplotlib.figure import Figure

    # The first row is the whole desk, the zero line.
    variants = [row for row in rows[1:] if row["low"] is not None]
    width, height = ablation_chart_size(len(variants))
    figure = Figure(figsize=(width / DPI, height / DPI), layout="constrained")
    axis = figure.subplots()
    for at, row in enumerate(reversed(variants)):
        low, high = 100 * row["low"], 100 * row["high"]
        # An interval that holds 0 may be chance.
        is_significant = low > 0 or high < 0
        colour = "#1f6feb" if is_significant else "#8b949e"
        axis.plot([low, high], [at, at], color=colour, linewidth=3, solid_capstyle="round")
        axis.plot(100 * row["annual_return_difference"], at, "o", color=colour)
    axis.axvline(0, color="#24292f", linewidth=1)
    axis.set_yticks(range(len(variants)), [row["variant"] for row in reversed(variants)])
    axis.set_ylim(-0.6, max(len(variants) - 0.4, 0.6))
    axis.set(
        title="What each variant earned a year beside the whole desk",
        xlabel="percentage points, 95 % interval; blue: beyond chance",
    )
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    path = folder / ABLATION_CHART
    _save_png(figure, path)
    return path


def _title(out_of_sample: OutOfSampleBacktest) -> str:
    bars = out_of_sample.bars
    first, last = bars.close_time(0), bars.close_time(-1)
    return f"{bars.symbol} out of sample, {first:%Y-%m-%d} to {last:%Y-%m-%d}, after costs"


def _equity_png(out_of_sample: OutOfSampleBacktest, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    days = out_of_sample.bars.closed_at
    for label, equity, colour in _curves(out_of_sample):
        top.plot(days, equity, label=label, color=colour, linewidth=1.4)
        bottom.plot(days, 100 * drawdown(equity), color=colour, linewidth=1.0)
    top.set(title=_title(out_of_sample), ylabel="equity")
    top.legend(frameon=False)
    bottom.set(ylabel="drawdown, %")
    for axis in (top, bottom):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    _save_png(figure, path)


def _equity_page(out_of_sample: OutOfSampleBacktest, path: Path) -> None:
    days = [str(day) for day in out_of_sample.bars.closed_at.astype("datetime64[D]")]
    tones = {DESK_COLOUR: "accent", BENCHMARK_COLOUR: "soft"}
    curves = [
        (label, tones[colour], equity / equity[0])
        for label, equity, colour in _curves(out_of_sample)
    ]
    title = _title(out_of_sample)
    chart = ChartNumbers().render(equity_figure(days, curves), title, "Both start with 1.")
    path.write_text(
        render_page(title, f"<h1>{escape(title)}</h1>{chart}<p class=small>{CREDIT}</p>"),
        encoding="utf-8",
    )


def _curves(out_of_sample: OutOfSampleBacktest) -> tuple[tuple[str, Floats, str], ...]:
    return (
        ("desk", out_of_sample.result.equity, DESK_COLOUR),
        ("buy and hold", out_of_sample.benchmark.equity, BENCHMARK_COLOUR),
    )


def _price_png(
    bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    axis.vlines(bars.closed_at, bars.low, bars.high, color="#8b949e", linewidth=0.8)
    axis.plot(bars.closed_at, bars.close, color="#24292f", linewidth=1.3)
    near, far = split_levels(bars, levels)
    for label, (price, colour) in near.items():
        axis.axhline(price, color=colour, linewidth=1.0, linestyle="--")
        axis.annotate(f" {label} {price:g}", (1.0, price), xycoords=("axes fraction", "data"))
    outside = ", ".join(describe_outside(bars, label, price) for label, (price, _) in far.items())
    axis.set(title=title, xlabel=outside, ylabel="price, in units of the last bar")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    _save_png(figure, path)


def _price_page(
    bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path
) -> None:
    # SVG without a script: one is kept for every decision, so that it has to be small.
    body = f"<h1>{escape(title)}</h1>{price_svg(bars, levels, title)}"
    note = "In units of the last bar, on which the desk decided. Point at a bar for its numbers."
    page = render_page(title, f"{body}<p class=small>{note}</p>", with_charts=False)
    path.write_text(page, encoding="utf-8")


def _save_png(figure: Any, path: Path) -> None:
    # Without the name of the library's version in it, the same picture has the same bytes.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2%}"
