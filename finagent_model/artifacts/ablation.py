"""An ablation to read: a Markdown table, and a chart of what each variant earned more or less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
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


def table(rows: Sequence[Row]) -> str:
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


def write_chart(rows: Sequence[Row], folder: Path) -> Path:
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
