"""The report of a training in plain words; the first line is the grade, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

from finagent_model.domain.calibration import Calibration
from finagent_model.domain.closed_call import HORIZON
from finagent_model.training.evidence import Evidence

ROWS = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "exposure",
    "turnover",
)


def verdict(symbol: str, metrics: Mapping[str, float]) -> str:
    """One sentence: lost or made money, and against buy-and-hold, after costs, out of sample."""
    earned, held = metrics["total_return"], metrics["benchmark_total_return"]
    if not (math.isfinite(earned) and math.isfinite(held)):
        return f"{symbol}: what the desk earned out of sample is undefined; there is no verdict."
    result = "LOST money" if earned < 0 else "made money" if earned > 0 else "made nothing"
    against = "behind" if earned < held else "ahead of" if earned > held else "level with"
    return (
        f"{symbol}: the desk {result} out of sample after costs ({earned:+.1%}), "
        f"{against} buying and holding ({held:+.1%})."
    )


SAID = {
    "none": "NO evidence of an edge after costs: what was earned may well be chance.",
    "weak": "WEAK evidence of an edge after costs: not every check against chance passed.",
    "strong": "STRONG evidence of an edge after costs: every check against chance passed.",
}


def headline(evidence: Evidence) -> str:
    """The grade in words."""
    return SAID[evidence.grade]


def confidence_said(evidence: Evidence, last: Calibration) -> list[str]:
    """What is known of the confidence that this version's signals carry."""
    method = "not calibrated" if last.method == "none" else f"calibrated by {last.method} scaling"
    if last.method == "isotonic":
        method = "calibrated by isotonic regression"
    said = [f"Confidence is {method}: {last.reason}."]
    numbers = evidence.numbers
    calls, brier, base = (
        numbers[name] for name in ("calibrated_calls", "brier", "brier_base_rate")
    )
    if calls and brier is not None and base is not None:
        said.append(
            f"Of {calls:.0f} calls made with a calibrated confidence {numbers['came_true']:.0%} "
            f"made money within {HORIZON} bars; Brier score {brier:.4f} "
            f"({numbers['brier_uncalibrated']:.4f} before calibration, {base:.4f} for always "
            f"saying that share), calibration error {numbers['calibration_error']:.3f} "
            f"({numbers['calibration_error_uncalibrated']:.3f} before)."
        )
    return said


def report(
    metrics: Mapping[str, Mapping[str, float]],
    model_used: str,
    evidence: Evidence,
    last: Calibration,
) -> str:
    """Markdown: the grade, a sentence and a section a symbol, the checks. Undefined numbers are
    said to be undefined; `last` is the calibration in force from now on.
    """
    lines = [headline(evidence), "", *(verdict(symbol, m) for symbol, m in metrics.items())]
    tried = evidence.numbers["configurations"]
    lines += ["", f"Decided by: {model_used}. Policies tried: {tried:.0f}."]
    lines += ["", "| check | found | needed | passed |", "|---|---|---|---|"]
    lines += [
        f"| {c.name} | {c.shown} "
        f"| {'>=' if c.at_least else '<='} {c.threshold:.4g} | {'yes' if c.passed else 'NO'} |"
        for c in evidence.checks
    ]
    lines += ["", *confidence_said(evidence, last)]
    for symbol, m in metrics.items():
        lines += ["", f"## {symbol}", "", "| metric | desk | buy and hold |", "|---|---|---|"]
        lines += [
            f"| {name} | {_shown(m[name])} | {_shown(m[f'benchmark_{name}'])} |" for name in ROWS
        ]
        lines += [
            "",
            f"HOLD share {_shown(m['hold_share'])}, failed share {_shown(m['failed_share'])}, "
            f"hit rate {_shown(m['hit_rate'])}, profit factor {_shown(m['profit_factor'])}.",
        ]
    return "\n".join(lines) + "\n"


def _shown(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "undefined"
