"""Equity and drawdown of the desk against buy-and-hold: a PNG to glance at, an HTML page to look
into.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finagent_model.domain.bars import Floats
from finagent_model.training.out_of_sample import OutOfSample

DESK, BENCHMARK = "#1f6feb", "#8b949e"


def write_charts(unseen: OutOfSample, folder: Path) -> tuple[Path, Path]:
    """`equity_<SYMBOL>.png` and `.html` in `folder`."""
    name = f"equity_{unseen.bars.symbol}"
    png, page = folder / f"{name}.png", folder / f"{name}.html"
    _png(unseen, png)
    _page(unseen, page)
    return png, page


def drawdown(equity: Floats) -> Floats:
    """Loss from the running peak, as a fraction <= 0."""
    return equity / np.maximum.accumulate(equity) - 1


def _title(unseen: OutOfSample) -> str:
    first, last = unseen.bars.closed(0), unseen.bars.closed(-1)
    return f"{unseen.bars.symbol} out of sample, {first:%Y-%m-%d} to {last:%Y-%m-%d}, after costs"


def _png(unseen: OutOfSample, path: Path) -> None:
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


def _page(unseen: OutOfSample, path: Path) -> None:
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
