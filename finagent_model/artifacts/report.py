"""The report of a training in plain words; the first line is the verdict, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

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
    result = "LOST money" if earned < 0 else "made money" if earned > 0 else "made nothing"
    against = "less than" if earned < held else "more than" if earned > held else "as much as"
    return (
        f"{symbol}: the desk {result} out of sample after costs ({earned:+.1%}), "
        f"{against} buying and holding ({held:+.1%})."
    )


def report(metrics: Mapping[str, Mapping[str, float]], model_used: str, configurations: int) -> str:
    """Markdown; one section a symbol. Undefined numbers are said to be undefined."""
    lines = [verdict(symbol, m) for symbol, m in metrics.items()]
    lines += [
        "",
        f"Decided by: {model_used}. Policies scored on the way: {configurations}; the best of many "
        "is partly luck, and no test against chance was made.",
    ]
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
