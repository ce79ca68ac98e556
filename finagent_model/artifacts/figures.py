"""The figures of the report, as HTML that plotly's script draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finagent_model.artifacts.chart import BENCHMARK, DESK, drawdown
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.policy import PolicyBook
from finagent_model.statistics.chance import COSTS_BP
from finagent_model.statistics.reliability import reliability_bins
from finagent_model.training.evidence import SymbolFacts
from finagent_model.training.stated import Stated

WON, LOST = "#1a7f37", "#cf222e"


@dataclass(frozen=True, eq=False)
class SymbolPage:
    """One symbol's unseen part, as the page shows it."""

    bars: BarSeries
    policies: PolicyBook
    facts: SymbolFacts
    trades: pd.DataFrame
    metrics: Mapping[str, float]


def equity(page: SymbolPage) -> str:
    """Desk and buy-and-hold from 1, and their falls from the peak; a dotted line at each fit."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28])
    days = page.bars.closed_at
    for label, returns, colour in (
        ("desk", page.facts.returns, DESK),
        ("buy and hold", page.facts.benchmark_returns, BENCHMARK),
    ):
        curve = np.cumprod(np.append(1.0, 1.0 + np.array(returns)))
        line = {"color": colour}
        figure.add_trace(go.Scatter(x=days, y=curve, name=label, line=line), row=1, col=1)
        fall = go.Scatter(x=days, y=drawdown(curve), line=line, showlegend=False, name=label)
        figure.add_trace(fall, row=2, col=1)
    for fit in page.policies.of(page.bars.symbol):
        moment = fit.valid_from
        if page.bars.closed(0) <= moment <= page.bars.closed(-1):
            figure.add_vline(x=moment, line={"color": "#d0d7de", "dash": "dot", "width": 1})
    figure.update_yaxes(tickformat=".0%", row=2)
    return _drawn(figure, 460)


def trades(page: SymbolPage) -> str:
    """Entries and exits on the price as traded."""
    from plotly import graph_objects as go

    days, made = page.bars.closed_at, page.trades
    figure = go.Figure(go.Scatter(x=days, y=page.bars.close, line={"color": "#57606a", "width": 1}))
    for won, colour in ((True, WON), (False, LOST)):
        chosen = made[(made["pnl"] > 0) == won]
        closed = chosen[chosen["exit_bar"] >= 0]
        shapes = np.where(chosen["side"] == "long", "triangle-up", "triangle-down")
        entries = {"color": colour, "size": 9, "symbol": shapes}
        exits = {"color": colour, "size": 6, "symbol": "circle"}
        figure.add_scatter(
            x=days[chosen["entry_bar"]], y=chosen["entry_price"], mode="markers", marker=entries
        )
        figure.add_scatter(
            x=days[closed["exit_bar"]], y=closed["exit_price"], mode="markers", marker=exits
        )
    figure.update_layout(showlegend=False)
    return _drawn(figure, 360)


def chance(page: SymbolPage) -> str:
    """What the same trades earned at other times, and the same decisions at other costs."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2)
    facts = page.facts
    if facts.random_returns is not None:
        drawn = go.Histogram(x=facts.random_returns, marker={"color": BENCHMARK}, nbinsx=40)
        figure.add_trace(drawn, row=1, col=1)
        figure.add_vline(x=facts.total_return, line={"color": DESK, "width": 3}, row=1, col=1)
    curve = go.Scatter(x=COSTS_BP, y=facts.cost_curve, line={"color": DESK})
    figure.add_trace(curve, row=1, col=2)
    figure.add_hline(y=0, line={"color": "#d0d7de"}, row=1, col=2)
    figure.update_xaxes(title="total return", tickformat=".0%", row=1, col=1)
    figure.update_xaxes(title="commission, basis points of every fill", row=1, col=2)
    figure.update_yaxes(title="total return", tickformat=".0%", row=1, col=2)
    figure.update_layout(showlegend=False)
    return _drawn(figure, 320)


def reliability(confidence: Stated) -> str:
    """How often calls came true, by what their confidence said, before and after calibration."""
    from plotly import graph_objects as go

    line = {"color": "#d0d7de", "dash": "dot"}
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, showlegend=False))
    for label, said, colour in (
        ("as the desk said", confidence.raw, BENCHMARK),
        ("calibrated", confidence.said, DESK),
    ):
        bins = reliability_bins(said, confidence.true, confidence.weight)
        figure.add_scatter(
            x=[b.said for b in bins],
            y=[b.true for b in bins],
            text=[f"worth {b.weight:.0f} independent calls" for b in bins],
            name=label,
            mode="lines+markers",
            line={"color": colour},
            marker={"size": [6 + 2 * math.sqrt(b.weight) for b in bins]},
        )
    figure.update_xaxes(title="confidence", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title="came true", tickformat=".0%", range=[0, 1])
    return _drawn(figure, 380)


def _drawn(figure: Any, height: int) -> str:
    figure.update_layout(
        template="plotly_white", height=height, margin={"t": 20, "b": 40, "l": 50, "r": 20}
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return text
