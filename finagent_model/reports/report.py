"""Render the report of a training as one HTML page, a tearsheet.

The grade of the evidence comes first, whatever it is; then what was earned, when, with which
trades, how it stands beside chance, and every check. Undefined numbers are said to be undefined.
The page needs no network: its scripts are inside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import numpy as np
import pandas as pd

from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.evaluation.gate import GateReport
from finagent_model.evaluation.memory_probes import MemoryReport
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.figures import (
    CREDIT,
    ChartNumbers,
    Figure,
    chance_plot,
    cost_plot,
    equity_figure,
    figure,
    line,
    reliability_plot,
    render_page,
    render_table,
)
from finagent_model.reports.tearsheet import (
    MAX_CHARTED,
    DailyReturns,
    FoldSpan,
    SymbolPage,
    contribution_section,
    contributions,
    portfolio_sections,
    trade_rows,
)
from finagent_model.reports.wording import (
    NO_WARNINGS,
    confidence_sentences,
    describe_purpose,
    grade_sentence,
    memory_section,
    probe_section,
    trials_sentence,
    verdict_sentence,
    warning_sentences,
)
from finagent_model.statistics.reliability import BINS, reliability_bins
from finagent_model.statistics.resampling import COST_CURVE_BP

GRADE_TONES = {"none": "bad", "weak": "warn", "strong": "good"}
TRADES_OPEN = 30
"""Trades of a symbol that are listed at once; more are folded."""


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
    added = contributions([page.facts for page in symbols])
    shown = [
        page for _, page in sorted(zip(added, symbols, strict=True), key=lambda pair: -abs(pair[0]))
    ][:MAX_CHARTED]
    charts = ChartNumbers()
    parts = [
        *_opening(title, symbols, gate, model_used, bar_warnings, probes),
        *portfolio_sections(symbols, charts),
        *contribution_section(symbols, added),
        *(part for page in shown for part in _symbol_sections(page, charts, len(symbols) > 1)),
        *_confidence_section(gate, confidence, calibration),
        "<h2>All checks</h2>",
        _check_table(gate),
        "<details><summary>All numbers of the evidence</summary>",
        f"{_number_table(gate.evidence.numbers)}</details>",
        f"<p class=small>{CREDIT}</p>",
    ]
    return render_page(title, "\n".join(parts))


def _opening(
    title: str,
    symbols: Sequence[SymbolPage],
    gate: GateReport,
    model_used: str,
    bar_warnings: Mapping[str, Sequence[str]],
    probes: MemoryReport | None,
) -> list[str]:
    """Return the grade, the verdicts, what a model remembers, and what is odd about the bars."""
    tone = GRADE_TONES[gate.evidence.grade]
    grade = grade_sentence(gate.evidence)
    lead = [verdict_sentence(page.bars.symbol, page.metrics) for page in symbols]
    parts = [
        f"<p class=small>{escape(title)}</p>",
        f'<div class=banner style="border-color:var(--{tone})"><h1>{escape(grade)}</h1></div>',
        *(f"<p class=lead>{escape(sentence)}</p>" for sentence in lead[:MAX_CHARTED]),
    ]
    if len(lead) > MAX_CHARTED:
        parts.append(f"<p>The other {len(lead) - MAX_CHARTED} symbols are in the table below.</p>")
    parts += [
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
    return parts


def _confidence_section(
    gate: GateReport, confidence: ConfidenceRecord, calibration: Calibration
) -> list[str]:
    parts = ["<h2>Confidence</h2>"]
    parts += [
        f"<p>{escape(sentence)}</p>"
        for sentence in confidence_sentences(gate.evidence, calibration)
    ]
    if not len(confidence.calibrated):
        return parts
    groups = {
        tone: reliability_bins(values, confidence.outcome, confidence.weight)
        for tone, values in (("soft", confidence.raw), ("accent", confidence.calibrated))
    }
    rows = "".join(
        f"<tr><td class=n>{b.probability:.0%}</td><td class=n>{b.outcome:.0%}</td>"
        f"<td class=n>{_count_calls(confidence, b.probability):,}</td>"
        f"<td class=n>{b.weight:.1f}</td></tr>"
        for b in groups["accent"]
    )
    table = render_table("reliability", ("#said", "#came true", "#calls", "#independent"), rows)
    return [
        *parts,
        "<p class=small>On the diagonal a confidence means what it says. <span class=tone-soft>Grey"
        "</span>: as the desk said; <span class=tone-accent>blue</span>: calibrated. A larger dot "
        "is worth more independent calls.</p>",
        f"<div class=halves>{reliability_plot(groups)}{table}</div>",
    ]


def _count_calls(confidence: ConfidenceRecord, probability: float) -> int:
    """Return how many calibrated calls lie in the tenth of the scale that holds `probability`."""
    tenths = np.minimum((confidence.calibrated * BINS).astype(int), BINS - 1)
    return int(np.sum(tenths == min(int(probability * BINS), BINS - 1)))


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


def _symbol_sections(page: SymbolPage, charts: ChartNumbers, with_equity: bool) -> list[str]:
    name, facts = escape(page.bars.symbol), page.facts
    parts = []
    if with_equity:
        pool = DailyReturns.pool([facts], page.bars.closed_at[0])
        curves = [
            ("desk", "accent", pool.curve(pool.desk)),
            ("buy and hold", "soft", pool.curve(pool.held)),
        ]
        parts += [
            f"<h2>{name}: equity and drawdown</h2>",
            charts.render(equity_figure(pool.days, curves), f"Equity of {page.bars.symbol}"),
        ]
    parts += [
        f"<h2>{name}: trades</h2>",
        charts.render(
            _trades_figure(page),
            f"Price of {page.bars.symbol} with entries and exits",
            "Closes as traded. An arrow is an entry (up: long, down: short), a dot its exit: green "
            "won, red lost, grey is still open.",
            low=True,
        ),
        _trade_table(page),
        f"<h2>{name}: fits</h2>",
        _fold_table(page),
        f"<h2>{name}: beside chance</h2>",
        "<p class=small>Left: what the same trades earned at other, random times; the line is the "
        "desk. Right: what the same decisions earn at other commissions.</p>",
        f"<div class=halves><div>{_chance_part(facts)}</div>"
        f"<div>{cost_plot(COST_CURVE_BP, facts.cost_curve)}</div></div>",
    ]
    return parts


def _chance_part(facts: SymbolFacts) -> str:
    if facts.random_returns is None:
        return "<p>There was no trade to place at random times.</p>"
    return chance_plot(facts.random_returns, facts.total_return)


def _trades_figure(page: SymbolPage) -> Figure:
    """Return the price as traded, with a mark at each entry and exit."""
    days = [str(day) for day in page.bars.closed_at.astype("datetime64[D]")]
    marks = []
    for trade in trade_rows(page.bars, page.trades):
        tone = "soft" if trade.exited is None else "good" if trade.pnl > 0 else "bad"
        shape = "arrowUp" if trade.side == "long" else "arrowDown"
        entry = f"{trade.side} {trade.shares:,.6g} at {trade.entry_price:,.2f}"
        marks.append((trade.entered, trade.entry_price, shape, tone, entry))
        if trade.exited is not None:
            words = f"{trade.cause} at {trade.exit_price:,.2f}: {trade.pnl:+,.2f}"
            marks.append((trade.exited, trade.exit_price, "circle", tone, words))
    rows = [
        {
            "time": day,
            "price": round(price, 4),
            "shape": shape,
            "tone": tone,
            "words": words,
            "position": "atPriceMiddle",
        }
        for day, price, shape, tone, words in sorted(marks, key=lambda mark: mark[0])
    ]
    closes = line("close", "soft", page.bars.close, digits=4, plain=True)
    return figure(days, [{"format": "price", "log": True, "series": [closes]}], marks=rows)


def _trade_table(page: SymbolPage) -> str:
    rows = list(trade_rows(page.bars, page.trades))
    if not rows:
        return "<p>Nothing was traded.</p>"
    cells = "".join(
        f"<tr><td>{row.entered}</td><td>{row.exited or 'open'}</td><td>{row.side}</td>"
        f"<td class=n>{row.shares:,.6g}</td><td class=n>{row.entry_price:,.2f}</td>"
        f"<td class=n>{row.exit_price:,.2f}</td>"
        f"<td class='n {'yes' if row.pnl > 0 else 'tone-bad'}'>{row.pnl:+,.2f}</td>"
        f"<td class=n>{'undefined' if row.earned is None else f'{row.earned:+.1%}'}</td>"
        f"<td class=n>{row.bars}</td><td>{escape(row.cause)}</td></tr>"
        for row in rows
    )
    heads = ("entered", "left", "side", "#shares", "#entry", "#exit", "#profit", "#of the entry")
    table = render_table("trades", (*heads, "#bars", "ended by"), cells)
    if len(rows) > TRADES_OPEN:
        return f"<details><summary>All {len(rows):,} trades</summary>{table}</details>"
    return table


def _fold_table(page: SymbolPage) -> str:
    cells = "".join(
        f"<tr><td>{row.decided_from:%Y-%m-%d} to {row.decided_until:%Y-%m-%d}</td>"
        f"<td>{row.fit_until:%Y-%m-%d}</td><td class=n>{row.desk_return:+.1%}</td>"
        f"<td class=n>{row.benchmark_return:+.1%}</td><td class=n>{row.trades}</td></tr>"
        for row in fold_rows(page.bars, page.folds, page.facts, page.trades)
    )
    heads = ("decided", "fitted until", "#return", "#buy and hold", "#trades entered")
    return render_table("folds", heads, cells)


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
        # A long name may break after its words: else a phone shows of the finding a letter a line.
        f"<tr><td>{kind}</td><td>{escape(name).replace('_', '_<wbr>')}</td><td>{escape(found)}</td>"
        f"<td class={'yes' if passed else 'no'}>{'yes' if passed else 'NO'}</td></tr>"
        for kind, name, found, passed in sorted(rows, key=lambda row: row[3])
    )
    return render_table("checks", ("kind", "check", "found", "passed"), cells)


def _number_table(numbers: Mapping[str, float | None]) -> str:
    texts = {
        name: "undefined" if value is None or math.isnan(value) else f"{value:.6g}"
        for name, value in numbers.items()
    }
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{text}</td></tr>" for name, text in texts.items()
    )
    return render_table("numbers", ("name", "#value"), cells)
