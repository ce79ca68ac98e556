"""The report that people look at: one HTML page that needs no network. The verdict comes first, in
words; then what was earned, where, how it stands beside chance, and every check.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from finagent_model.artifacts.chart import BENCHMARK, DESK, drawdown
from finagent_model.artifacts.report import headline, verdict
from finagent_model.domain.bars import BarSeries
from finagent_model.statistics.chance import COSTS_BP
from finagent_model.training.evidence import SymbolFacts
from finagent_model.training.gate import GateReport

WON, LOST = "#1a7f37", "#cf222e"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #24292f; max-width: 1080px; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem }
p.lead { font-size: 1.1rem } p.small { color: #57606a; font-size: .9rem; margin: .2rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d0d7de }
.yes { color: #1a7f37 } .no { color: #cf222e; font-weight: 600 }
.banner { border-left: 6px solid; padding: .6rem 1rem; background: #f6f8fa; margin-bottom: 1rem }
"""


@dataclass(frozen=True, eq=False)
class SymbolPage:
    """One symbol's unseen part, as the page shows it."""

    bars: BarSeries
    facts: SymbolFacts
    trades: pd.DataFrame
    metrics: Mapping[str, float]


def report_page(
    title: str,
    symbols: Sequence[SymbolPage],
    fits: Sequence[datetime],
    gate: GateReport,
    model_used: str,
) -> str:
    """The whole page; `fits` are the moments from which another fit speaks."""
    from plotly.offline import get_plotlyjs

    colour = {"none": LOST, "weak": "#9a6700", "strong": WON}[gate.evidence.grade]
    parts = [
        f"<p class=small>{escape(title)}</p>",
        f'<div class=banner style="border-color:{colour}"><h1>{escape(headline(gate.evidence))}'
        "</h1></div>",
        *(f"<p class=lead>{escape(verdict(p.bars.symbol, p.metrics))}</p>" for p in symbols),
        f"<p>Decided by {escape(model_used)}. The gate {gate.verdict} this version; it asks for "
        f"integrity and for evidence: {gate.required}. {escape(gate.refusals)}</p>",
    ]
    for page in symbols:
        parts += _symbol(page, fits)
    parts += [
        "<h2>Confidence</h2>",
        "<p>It is not calibrated: what a signal calls 70 has not been held against how often 70 "
        "came true.</p>",
        "<h2>All checks</h2>",
        _table(gate),
        "<h2>Numbers</h2>",
        _numbers(gate.evidence.numbers),
    ]
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )


def _symbol(page: SymbolPage, fits: Sequence[datetime]) -> Iterable[str]:
    name = escape(page.bars.symbol)
    return [
        f"<h2>{name}: equity and drawdown</h2>",
        "<p class=small>Both start with 1, after costs, on days that no fit had seen. At a dotted "
        "line a newer fit takes over.</p>",
        _equity(page, fits),
        f"<h2>{name}: trades</h2>",
        "<p class=small>Prices as traded. A triangle is an entry, a dot its exit: green won, red "
        "lost.</p>",
        _trades(page),
        f"<h2>{name}: beside chance</h2>",
        "<p class=small>Left: what the same trades earned at a thousand other times; the line is "
        "the desk. Right: what the same decisions earn at other commissions.</p>",
        _chance(page),
    ]


def _equity(page: SymbolPage, fits: Sequence[datetime]) -> str:
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
    for moment in fits:
        if page.bars.closed(0) <= moment <= page.bars.closed(-1):
            figure.add_vline(x=moment, line={"color": "#d0d7de", "dash": "dot", "width": 1})
    figure.update_yaxes(tickformat=".0%", row=2)
    return _drawn(figure, 460)


def _trades(page: SymbolPage) -> str:
    from plotly import graph_objects as go

    days, trades = page.bars.closed_at, page.trades
    figure = go.Figure(go.Scatter(x=days, y=page.bars.close, line={"color": "#57606a", "width": 1}))
    for won, colour in ((True, WON), (False, LOST)):
        chosen = trades[(trades["pnl"] > 0) == won]
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


def _chance(page: SymbolPage) -> str:
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


def _drawn(figure: Any, height: int) -> str:
    figure.update_layout(
        template="plotly_white", height=height, margin={"t": 20, "b": 40, "l": 50, "r": 20}
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return text


def _table(gate: GateReport) -> str:
    rows = [("integrity", check.name, check.found, check.passed) for check in gate.integrity]
    for check in gate.evidence.checks:
        number = "undefined" if check.number is None else f"{check.number:.4g}"
        bound = f"{'at least' if check.at_least else 'at most'} {check.threshold:.4g}"
        rows.append(("evidence", check.name, f"{number}, needed {bound}", check.passed))
    if gate.champion:
        rows.append(("evidence", gate.champion.name, gate.champion.found, gate.champion.passed))
    cells = "".join(
        f"<tr><td>{kind}</td><td>{escape(name)}</td><td>{escape(found)}</td>"
        f"<td class={'yes' if passed else 'no'}>{'yes' if passed else 'NO'}</td></tr>"
        for kind, name, found, passed in rows
    )
    return (
        f"<table><tr><th>kind</th><th>check</th><th>found</th><th>passed</th></tr>{cells}</table>"
    )


def _numbers(numbers: Mapping[str, float | None]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}</td>"
        f"<td>{'undefined' if value is None or math.isnan(value) else f'{value:.6g}'}</td></tr>"
        for name, value in numbers.items()
    )
    return f"<table>{cells}</table>"
