"""The report that people look at: one HTML page that needs no network. The verdict comes first, in
words; then what was earned, where, how it stands beside chance, and every check.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from finagent_model.artifacts import figures
from finagent_model.artifacts.figures import SymbolPage
from finagent_model.artifacts.folds import fold_rows
from finagent_model.artifacts.report import confidence_said, headline, verdict
from finagent_model.domain.calibration import Calibration
from finagent_model.training.gate import GateReport
from finagent_model.training.stated import Stated

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


def report_page(
    title: str,
    symbols: Sequence[SymbolPage],
    gate: GateReport,
    model_used: str,
    confidence: Stated,
    last: Calibration,
) -> str:
    """The whole page; `last` is the calibration in force from now on."""
    from plotly.offline import get_plotlyjs

    colour = {"none": figures.LOST, "weak": "#9a6700", "strong": figures.WON}[gate.evidence.grade]
    parts = [
        f"<p class=small>{escape(title)}</p>",
        f'<div class=banner style="border-color:{colour}"><h1>{escape(headline(gate.evidence))}'
        "</h1></div>",
        *(f"<p class=lead>{escape(verdict(p.bars.symbol, p.metrics))}</p>" for p in symbols),
        f"<p>Decided by {escape(model_used)}. The gate {gate.verdict} this version; it asks for "
        f"integrity and for evidence: {gate.required}. {escape(gate.refusals)}</p>",
    ]
    for page in symbols:
        parts += _symbol(page)
    parts += [
        "<h2>Confidence</h2>",
        *(f"<p>{escape(said)}</p>" for said in confidence_said(gate.evidence, last)),
        *([figures.reliability(confidence)] if len(confidence.said) else []),
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


def _symbol(page: SymbolPage) -> Iterable[str]:
    name = escape(page.bars.symbol)
    return [
        f"<h2>{name}: equity and drawdown</h2>",
        "<p class=small>Both start with 1, after costs, on days that no fit had seen. At a dotted "
        "line a newer fit takes over.</p>",
        figures.equity(page),
        _folds(page),
        f"<h2>{name}: trades</h2>",
        "<p class=small>Prices as traded. A triangle is an entry, a dot its exit: green won, red "
        "lost.</p>",
        figures.trades(page),
        f"<h2>{name}: beside chance</h2>",
        "<p class=small>Left: what the same trades earned at a thousand other times; the line is "
        "the desk. Right: what the same decisions earn at other commissions.</p>",
        figures.chance(page),
    ]


def _folds(page: SymbolPage) -> str:
    cells = "".join(
        f"<tr><td>{row.decided_from:%Y-%m-%d} to {row.decided_until:%Y-%m-%d}</td>"
        f"<td>{row.fit_until:%Y-%m-%d}</td><td>{row.earned:+.1%}</td><td>{row.held:+.1%}</td>"
        f"<td>{row.trades}</td></tr>"
        for row in fold_rows(page.bars, page.policies, page.facts, page.trades)
    )
    return (
        "<table class=folds><tr><th>decided</th><th>fitted until</th><th>return</th>"
        f"<th>buy and hold</th><th>trades entered</th></tr>{cells}</table>"
    )


def _table(gate: GateReport) -> str:
    rows = [("integrity", check.name, check.found, check.passed) for check in gate.integrity]
    for check in gate.evidence.checks:
        bound = f"{'at least' if check.at_least else 'at most'} {check.threshold:.4g}"
        rows.append(("evidence", check.name, f"{check.shown}, needed {bound}", check.passed))
    if gate.champion:
        rows.append(("evidence", gate.champion.name, gate.champion.found, gate.champion.passed))
    cells = "".join(
        f"<tr><td>{kind}</td><td>{escape(name)}</td><td>{escape(found)}</td>"
        f"<td class={'yes' if passed else 'no'}>{'yes' if passed else 'NO'}</td></tr>"
        for kind, name, found, passed in rows
    )
    head = "<tr><th>kind</th><th>check</th><th>found</th><th>passed</th></tr>"
    return f"<table class=checks>{head}{cells}</table>"


def _numbers(numbers: Mapping[str, float | None]) -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}</td>"
        f"<td>{'undefined' if value is None or math.isnan(value) else f'{value:.6g}'}</td></tr>"
        for name, value in numbers.items()
    )
    return f"<table>{cells}</table>"
