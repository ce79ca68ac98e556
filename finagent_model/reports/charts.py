"""Equity and drawdown of the desk against buy-and-hold: a PNG to glance at, an HTML page to look
into.

The last half year of one symbol with the signal's levels: what a reader of the signal looks at.

Prices in units of the last bar's trades (earlier bars adjusted by the splits and dividends known by
then), so that the levels, which are as traded, lie where they belong.

A desk's graph as Mermaid text: who listens to whom.

An ablation to read: a Markdown table, and a chart of what each variant earned more or less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finagent_model.config.desk_config import DeskConfig
from finagent_model.decision.signal import TradingSignal
from finagent_model.evaluation.out_of_sample import OutOfSample
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.symbols import symbol_file_name
from finagent_model.market.view import MarketView

DESK, BENCHMARK = "#1f6feb", "#8b949e"


def write_charts(unseen: OutOfSample, folder: Path) -> tuple[Path, Path]:
    """`equity_<SYMBOL>.png` and `.html` in `folder`."""
    name = f"equity_{symbol_file_name(unseen.bars.symbol)}"
    png, page = folder / f"{name}.png", folder / f"{name}.html"
    _equity_png(unseen, png)
    _equity_page(unseen, page)
    return png, page


def drawdown(equity: Floats) -> Floats:
    """Loss from the running peak, as a fraction <= 0."""
    return equity / np.maximum.accumulate(equity) - 1


def _title(unseen: OutOfSample) -> str:
    first, last = unseen.bars.close_time(0), unseen.bars.close_time(-1)
    return f"{unseen.bars.symbol} out of sample, {first:%Y-%m-%d} to {last:%Y-%m-%d}, after costs"


def _equity_png(unseen: OutOfSample, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    days = unseen.bars.closed_at
    for label, equity, colour in _curves(unseen):
        top.plot(days, equity, label=label, color=colour, linewidth=1.4)
        bottom.plot(days, 100 * drawdown(equity), color=colour, linewidth=1.0)
    top.set(title=_title(unseen), ylabel="equity")
    top.legend(frameon=False)
    bottom.set(ylabel="drawdown, %")
    for axis in (top, bottom):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _equity_page(unseen: OutOfSample, path: Path) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25])
    days = unseen.bars.closed_at
    for label, equity, colour in _curves(unseen):
        line = {"color": colour}
        figure.add_trace(go.Scatter(x=days, y=equity, name=label, line=line), row=1, col=1)
        fall = go.Scatter(x=days, y=drawdown(equity), name=label, line=line, showlegend=False)
        figure.add_trace(fall, row=2, col=1)
    figure.update_layout(title=_title(unseen), template="plotly_white", hovermode="x unified")
    figure.update_yaxes(title="equity", row=1)
    figure.update_yaxes(title="drawdown", tickformat=".0%", row=2)
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def _curves(unseen: OutOfSample) -> tuple[tuple[str, Floats, str], ...]:
    return (
        ("desk", unseen.result.equity, DESK),
        ("buy and hold", unseen.benchmark.equity, BENCHMARK),
    )


BARS_SHOWN = 126
LEVELS = {
    "suggested_entry_price": ("entry", "#1f6feb"),
    "suggested_stop_loss": ("stop", "#cf222e"),
    "suggested_take_profit": ("target", "#1a7f37"),
    "support_level": ("support", "#8b949e"),
    "resistance_level": ("resistance", "#8b949e"),
}


def write_price_chart(view: MarketView, signal: TradingSignal, folder: Path) -> None:
    """`chart.png` and `chart.html` in `folder`."""
    shown = view.bars.adjust_to_last_bar()[-BARS_SHOWN:]
    levels = {
        label: (float(price), colour)
        for field, (label, colour) in LEVELS.items()
        if (price := getattr(signal, field)) is not None
    }
    score = f"{signal.confidence} {signal.confidence_score:.0f}"
    title = f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}: {signal.action} ({score})"
    if signal.status != "ok":
        title = f"{signal.symbol} as of {signal.as_of:%Y-%m-%d}: no decision ({signal.status})"
    _price_png(shown, levels, title, folder / "chart.png")
    _price_page(shown, levels, title, folder / "chart.html")


def _price_png(
    bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axis = figure.subplots()
    axis.vlines(bars.closed_at, bars.low, bars.high, color="#8b949e", linewidth=0.8)
    axis.plot(bars.closed_at, bars.close, color="#24292f", linewidth=1.3)
    for label, (price, colour) in levels.items():
        axis.axhline(price, color=colour, linewidth=1.0, linestyle="--")
        axis.annotate(f" {label} {price:g}", (1.0, price), xycoords=("axes fraction", "data"))
    axis.set(title=title, ylabel="price, in units of the last bar")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _price_page(
    bars: BarSeries, levels: dict[str, tuple[float, str]], title: str, path: Path
) -> None:
    import plotly.graph_objects as go

    candles = go.Candlestick(
        x=bars.closed_at, open=bars.open, high=bars.high, low=bars.low, close=bars.close
    )
    figure = go.Figure(candles)
    for label, (price, colour) in levels.items():
        text = f"{label} {price:g}"
        figure.add_hline(y=price, line={"color": colour, "dash": "dash"}, annotation_text=text)
    figure.update_layout(title=title, template="plotly_white", xaxis_rangeslider_visible=False)
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def mermaid(config: DeskConfig) -> str:
    """A flowchart from the market view to the signal; a dashed box takes part only at times."""
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


AblationRow = Mapping[str, Any]
HEAD = (
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
CHART = "ablation.png"


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """Markdown; a difference whose interval holds 0 may be chance."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for row in rows:
        statuses = ", ".join(f"{name} {share:.1%}" for name, share in row["statuses"].items())
        low, high = _percent(row["low"]), _percent(row["high"])
        cells = (
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
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_ablation_chart(rows: Sequence[AblationRow], folder: Path) -> Path:
    """Each variant's difference with its interval, around the whole desk at 0."""
    from matplotlib.figure import Figure

    drawn = [row for row in rows[1:] if row["low"] is not None]
    figure = Figure(figsize=(9, 1.6 + 0.45 * len(drawn)), layout="constrained")
    axis = figure.subplots()
    for at, row in enumerate(reversed(drawn)):
        low, high = 100 * row["low"], 100 * row["high"]
        sure = low > 0 or high < 0
        colour = "#1f6feb" if sure else "#8b949e"
        axis.plot([low, high], [at, at], color=colour, linewidth=3, solid_capstyle="round")
        axis.plot(100 * row["annual_return_difference"], at, "o", color=colour)
    axis.axvline(0, color="#24292f", linewidth=1)
    axis.set_yticks(range(len(drawn)), [row["variant"] for row in reversed(drawn)])
    axis.set_ylim(-0.6, max(len(drawn) - 0.4, 0.6))
    axis.set(
        title="What each variant earned a year beside the whole desk",
        xlabel="percentage points, 95 % interval; blue: beyond chance",
    )
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    path = folder / CHART
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2%}"
