"""Render the report of a training: Markdown in plain words, and one HTML page with figures.

The grade of the evidence comes first, whatever it is; then what was earned, where, how it stands
beside chance, and every check. Undefined numbers are said to be undefined. The page needs no
network: plotly's script is inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import Evidence, SymbolFacts
from finagent_model.evaluation.gate import GateReport
from finagent_model.evaluation.memory_probes import MemoryReport
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.policy import PolicyBook
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.charts import BENCHMARK_COLOUR, DESK_COLOUR, drawdown
from finagent_model.reports.wording import (
    MAX_GRADE_CHARS,
    confidence_sentences,
    describe_purpose,
    escape_markdown,
    grade_sentence,
    memory_lines,
    memory_section,
    probe_lines,
    probe_section,
    trials_sentence,
    verdict_sentence,
    warning_sentences,
)
from finagent_model.statistics.reliability import reliability_bins
from finagent_model.statistics.resampling import COST_CURVE_BP
from finagent_model.training.walk_forward import policy_periods

NO_WARNINGS: Mapping[str, Sequence[str]] = MappingProxyType({})
WON_COLOUR, LOST_COLOUR = "#1a7f37", "#cf222e"
REPORT_METRICS = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "exposure",
    "turnover",
)
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


@dataclass(frozen=True)
class FoldRow:
    """What one fit earned on its own days; returns are fractions, after costs.

    The growth factors of all rows multiply to the whole.
    """

    decided_from: datetime
    decided_until: datetime
    fit_until: datetime
    desk_return: float
    benchmark_return: float
    """Of buying and holding."""
    trades: int
    """Entered within these days."""


def render_report(
    metrics: Mapping[str, Mapping[str, float]],
    model_used: str,
    evidence: Evidence,
    calibration: Calibration,
    bar_warnings: Mapping[str, Sequence[str]] = NO_WARNINGS,
    team_sentence: str | None = None,
    probes: MemoryReport | None = None,
) -> str:
    """Return the Markdown report: grade, a sentence a symbol, checks, a table of metrics a symbol.

    `metrics` are by symbol, and so is what `bar_warnings` says of the bars; `calibration` is the
    one in force from now on; `team_sentence` says what the package's AutoGen team repeated,
    `probes` what was found of a chat model's memory.
    """
    lines = [
        # The reason may name a model, whose name is anybody's words.
        escape_markdown(grade_sentence(evidence), MAX_GRADE_CHARS),
        "",
        *(verdict_sentence(escape_markdown(symbol), m) for symbol, m in metrics.items()),
    ]
    lines += ["", f"Decided by: {escape_markdown(model_used)}. {trials_sentence(evidence)}"]
    lines += ["", team_sentence] if team_sentence else []
    lines += memory_lines(evidence)
    if evidence.memory:
        lines += ["", probe_lines(probes)]
    lines += ["", "| check | for | found | needed | passed |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.name} | {describe_purpose(c)} | {escape_markdown(c.number_text)} "
        f"| {'>=' if c.at_least else '<='} {c.threshold:.4g} | {'yes' if c.passed else 'NO'} |"
        for c in evidence.checks
    ]
    lines += ["", *confidence_sentences(evidence, calibration)]
    if sentences := warning_sentences(bar_warnings):
        lines += ["", "Look at the bars before you trust this:", ""]
        lines += [f"- {sentence}" for sentence in sentences]
    for symbol, m in metrics.items():
        lines += [
            "",
            f"## {escape_markdown(symbol)}",
            "",
            "| metric | desk | buy and hold |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {_format(m[name])} | {_format(m[f'benchmark_{name}'])} |"
            for name in REPORT_METRICS
        ]
        lines += [
            "",
            f"HOLD share {_format(m['hold_share'])}, failed share {_format(m['failed_share'])}, "
            f"hit rate {_format(m['hit_rate'])}, profit factor {_format(m['profit_factor'])}.",
        ]
    return "\n".join(lines) + "\n"


def render_report_page(
    title: str,
    symbols: Sequence[SymbolPage],
    gate: GateReport,
    model_used: str,
    confidence: ConfidenceRecord,
    calibration: Calibration,
    bar_warnings: Mapping[str, Sequence[str]] = NO_WARNINGS,
    probes: MemoryReport | None = None,
) -> str:
    """Return the whole HTML page; `calibration` is the one in force from now on.

    `bar_warnings` says by symbol what is odd about the bars, `probes` what was found of a chat
    model's memory.
    """
    from plotly.offline import get_plotlyjs

    colour = {"none": LOST_COLOUR, "weak": "#9a6700", "strong": WON_COLOUR}[gate.evidence.grade]
    grade = grade_sentence(gate.evidence)
    parts = [
        f"<p class=small>{escape(title)}</p>",
        f'<div class=banner style="border-color:{colour}"><h1>{escape(grade)}</h1></div>',
        *(
            f"<p class=lead>{escape(verdict_sentence(p.bars.symbol, p.metrics))}</p>"
            for p in symbols
        ),
        f"<p>{trials_sentence(gate.evidence)}</p>",
        *memory_section(gate.evidence),
        *([probe_section(probes)] if gate.evidence.memory else []),
        f"<p>Decided by {escape(model_used)}. The gate {gate.verdict} this version; it asks for "
        f"integrity and for evidence: {gate.required}. {escape(gate.refusals)}</p>",
        *([f"<p>{escape(gate.team_sentence)}</p>"] if gate.team_sentence else []),
    ]
    if sentences := warning_sentences(bar_warnings):
        rows = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<p class=no>Look at the bars before you trust this:</p><ul>{rows}</ul>")
    for page in symbols:
        parts += _symbol_sections(page)
    parts += [
        "<h2>Confidence</h2>",
        *(
            f"<p>{escape(sentence)}</p>"
            for sentence in confidence_sentences(gate.evidence, calibration)
        ),
        *([_reliability_figure(confidence)] if len(confidence.calibrated) else []),
        "<h2>All checks</h2>",
        _check_table(gate),
        "<h2>Numbers</h2>",
        _number_table(gate.evidence.numbers),
    ]
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )


def fold_rows(
    bars: BarSeries, folds: Sequence[FoldSpan], facts: SymbolFacts, trades: pd.DataFrame
) -> list[FoldRow]:
    """Return one row a fit, oldest first.

    `bars`, `facts` and `trades` are those of one symbol's out-of-sample part. Fits after a ruin
    have no row: their returns are undefined.
    """
    entry_bar = trades["entry_bar"].to_numpy(dtype=np.int64)
    return [
        FoldRow(
            decided_from=bars.close_time(part.start),
            decided_until=bars.close_time(part.stop - 1),
            fit_until=fit_until,
            desk_return=_compound(facts.returns, part),
            benchmark_return=_compound(facts.benchmark_returns, part),
            trades=int(((entry_bar >= part.start) & (entry_bar < part.stop)).sum()),
        )
        for fit_until, _, part in folds
        if part.start <= len(facts.returns)
    ]


def _compound(returns: Sequence[float], part: slice) -> float:
    """Return the compound return over the bars of `part`."""
    # Shifted by one: the first bar has no return, so bar i has the return at i - 1.
    part_returns: Floats = np.array(returns[max(part.start - 1, 0) : part.stop - 1])
    return float(np.prod(1.0 + part_returns) - 1.0)


def _symbol_sections(page: SymbolPage) -> Iterable[str]:
    name = escape(page.bars.symbol)
    return [
        f"<h2>{name}: equity and drawdown</h2>",
        "<p class=small>Both start with 1, after costs, on days that no fit had seen. At a dotted "
        "line a newer fit takes over.</p>",
        _equity_figure(page),
        _fold_table(page),
        f"<h2>{name}: trades</h2>",
        "<p class=small>Prices as traded. A triangle is an entry, a dot its exit: green won, red "
        "lost.</p>",
        _trades_figure(page),
        f"<h2>{name}: beside chance</h2>",
        "<p class=small>Left: what the same trades earned at a thousand other times; the line is "
        "the desk. Right: what the same decisions earn at other commissions.</p>",
        _chance_figure(page),
    ]


def _fold_table(page: SymbolPage) -> str:
    cells = "".join(
        f"<tr><td>{row.decided_from:%Y-%m-%d} to {row.decided_until:%Y-%m-%d}</td>"
        f"<td>{row.fit_until:%Y-%m-%d}</td><td>{row.desk_return:+.1%}</td>"
        f"<td>{row.benchmark_return:+.1%}</td><td>{row.trades}</td></tr>"
        for row in fold_rows(page.bars, page.folds, page.facts, page.trades)
    )
    return (
        "<table class=folds><tr><th>decided</th><th>fitted until</th><th>return</th>"
        f"<th>buy and hold</th><th>trades entered</th></tr>{cells}</table>"
    )


def _check_table(gate: GateReport) -> str:
    # Names and findings may carry a model's own words, so that they are escaped below.
    rows = [("integrity", check.name, check.found, check.passed) for check in gate.integrity]
    for check in gate.evidence.checks:
        bound = f"{'at least' if check.at_least else 'at most'} {check.threshold:.4g}"
        kind = f"evidence, for {describe_purpose(check)}"
        rows.append((kind, check.name, f"{check.number_text}, needed {bound}", check.passed))
    if gate.champion:
        rows.append(("evidence", gate.champion.name, gate.champion.found, gate.champion.passed))
    cells = "".join(
        f"<tr><td>{kind}</td><td>{escape(name)}</td><td>{escape(found)}</td>"
        f"<td class={'yes' if passed else 'no'}>{'yes' if passed else 'NO'}</td></tr>"
        for kind, name, found, passed in rows
    )
    head = "<tr><th>kind</th><th>check</th><th>found</th><th>passed</th></tr>"
    return f"<table class=checks>{head}{cells}</table>"


def _number_table(numbers: Mapping[str, float | None]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}</td>"
        f"<td>{'undefined' if value is None or math.isnan(value) else f'{value:.6g}'}</td></tr>"
        for name, value in numbers.items()
    )
    return f"<table>{cells}</table>"


def _equity_figure(page: SymbolPage) -> str:
    """Return desk and buy-and-hold from 1, and their drawdowns; a dotted line at each fit."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28])
    days = page.bars.closed_at
    for label, returns, colour in (
        ("desk", page.facts.returns, DESK_COLOUR),
        ("buy and hold", page.facts.benchmark_returns, BENCHMARK_COLOUR),
    ):
        curve = np.cumprod(np.append(1.0, 1.0 + np.array(returns)))
        line = {"color": colour}
        figure.add_trace(go.Scatter(x=days, y=curve, name=label, line=line), row=1, col=1)
        drawdown_line = go.Scatter(
            x=days, y=drawdown(curve), line=line, showlegend=False, name=label
        )
        figure.add_trace(drawdown_line, row=2, col=1)
    # Only fits that took over within the drawn days: the first was in force before them.
    for fold in page.folds:
        moment = fold.valid_from
        if page.bars.close_time(0) <= moment <= page.bars.close_time(-1):
            figure.add_vline(x=moment, line={"color": "#d0d7de", "dash": "dot", "width": 1})
    figure.update_yaxes(tickformat=".0%", row=2)
    return _figure_html(figure, 460)


def _trades_figure(page: SymbolPage) -> str:
    """Return entries and exits on the price as traded."""
    from plotly import graph_objects as go

    days = page.bars.closed_at
    figure = go.Figure(go.Scatter(x=days, y=page.bars.close, line={"color": "#57606a", "width": 1}))
    for is_winner, colour in ((True, WON_COLOUR), (False, LOST_COLOUR)):
        trades = page.trades[(page.trades["pnl"] > 0) == is_winner]
        closed = trades[trades["exit_bar"] >= 0]
        shapes = np.where(trades["side"] == "long", "triangle-up", "triangle-down")
        entries = {"color": colour, "size": 9, "symbol": shapes}
        exits = {"color": colour, "size": 6, "symbol": "circle"}
        figure.add_scatter(
            x=days[trades["entry_bar"]], y=trades["entry_price"], mode="markers", marker=entries
        )
        figure.add_scatter(
            x=days[closed["exit_bar"]], y=closed["exit_price"], mode="markers", marker=exits
        )
    figure.update_layout(showlegend=False)
    return _figure_html(figure, 360)


def _chance_figure(page: SymbolPage) -> str:
    """Return what the trades earned at other times, and the decisions at other costs."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2)
    facts = page.facts
    if facts.random_returns is not None:
        histogram = go.Histogram(
            x=facts.random_returns, marker={"color": BENCHMARK_COLOUR}, nbinsx=40
        )
        figure.add_trace(histogram, row=1, col=1)
        figure.add_vline(
            x=facts.total_return, line={"color": DESK_COLOUR, "width": 3}, row=1, col=1
        )
    curve = go.Scatter(x=COST_CURVE_BP, y=facts.cost_curve, line={"color": DESK_COLOUR})
    figure.add_trace(curve, row=1, col=2)
    figure.add_hline(y=0, line={"color": "#d0d7de"}, row=1, col=2)
    figure.update_xaxes(title="total return", tickformat=".0%", row=1, col=1)
    figure.update_xaxes(title="commission, basis points of every fill", row=1, col=2)
    figure.update_yaxes(title="total return", tickformat=".0%", row=1, col=2)
    figure.update_layout(showlegend=False)
    return _figure_html(figure, 320)


def _reliability_figure(confidence: ConfidenceRecord) -> str:
    """Return how often calls came true by confidence, before and after calibration."""
    from plotly import graph_objects as go

    line = {"color": "#d0d7de", "dash": "dot"}
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, showlegend=False))
    for label, probability, colour in (
        ("as the desk said", confidence.raw, BENCHMARK_COLOUR),
        ("calibrated", confidence.calibrated, DESK_COLOUR),
    ):
        bins = reliability_bins(probability, confidence.outcome, confidence.weight)
        figure.add_scatter(
            x=[b.probability for b in bins],
            y=[b.outcome for b in bins],
            text=[f"worth {b.weight:.0f} independent calls" for b in bins],
            name=label,
            mode="lines+markers",
            line={"color": colour},
            marker={"size": [6 + 2 * math.sqrt(b.weight) for b in bins]},
        )
    figure.update_xaxes(title="confidence", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title="came true", tickformat=".0%", range=[0, 1])
    return _figure_html(figure, 380)


def _figure_html(figure: Any, height: int) -> str:
    figure.update_layout(
        template="plotly_white", height=height, margin={"t": 20, "b": 40, "l": 50, "r": 20}
    )
    text: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return text


def _format(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"
