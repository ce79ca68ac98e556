"""Numbers are code's business: whatever a model proposes, this decides which levels and size a
signal carries.

A number out of bounds is moved to the bound, a missing one is derived from the fitted policy, and
each such step leaves a clamp in words. Levels in an order that can't be meant are rejected, not
repaired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from finagent_model.config.rules import RiskLimits
from finagent_model.policy.context import Context, round_significant


class LevelsRejectedError(ValueError):
    """Levels that contradict the action; becomes the status `levels_rejected`."""


@dataclass(frozen=True)
class Proposal:
    """What the desk asked for; prices as traded, size in percent of equity."""

    action: Literal["BUY", "SELL"]
    entry: float | None
    stop: float | None
    target: float | None
    size_percent: float | None


@dataclass(frozen=True)
class Levels:
    """What code lets through; all numbers are set."""

    entry: float
    stop: float
    target: float
    size_percent: float
    r_multiple: float
    clamps: tuple[str, ...]


def settle_levels(asked: Proposal, context: Context, limits: RiskLimits) -> Levels:
    """Levels within bounds; raises LevelsRejectedError."""
    clamps: list[str] = []
    side = 1 if asked.action == "BUY" else -1
    close, atr, policy = context.last_close, context.atr, context.policy

    entry = asked.entry
    if entry is None:
        entry = close
        clamps.append(f"entry derived: last close {close:g}")
    reach = limits.entry_atr * atr
    if abs(entry - close) > reach:
        moved = round_significant(close + reach if entry > close else close - reach)
        clamps.append(
            f"entry {entry:g} moved to {moved:g}: at most {limits.entry_atr:g} ATR from the close"
        )
        entry = moved

    stop, target = asked.stop, asked.target
    if stop is None:
        stop = round_significant(max(entry - side * policy.stop_atr * atr, 0.1 * entry))
        clamps.append(f"stop derived: {policy.stop_atr:g} ATR from the entry")
    if target is None:
        target = round_significant(max(entry + side * policy.target_atr * atr, 0.1 * entry))
        clamps.append(f"target derived: {policy.target_atr:g} ATR from the entry")
    if not (stop - entry) * side < 0 < (target - entry) * side:
        order = "stop < entry < target" if side > 0 else "target < entry < stop"
        raise LevelsRejectedError(
            f"{asked.action} needs {order}; got stop {stop:g}, entry {entry:g}, target {target:g}"
        )
    widest = limits.max_stop_fraction * entry
    if abs(entry - stop) > widest:
        moved = round_significant(entry - side * widest)
        clamps.append(
            f"stop {stop:g} moved to {moved:g}: "
            f"at most {limits.max_stop_fraction:.0%} from the entry"
        )
        stop = moved

    allowed = round_significant(100 * float(policy.position_size(abs(entry - stop) / entry)), 4)
    size = asked.size_percent
    if size is None:
        size = allowed
        clamps.append(f"size derived: {allowed:g} % risks {policy.risk_fraction:.2%} of equity")
    elif size > allowed:
        clamps.append(
            f"size {size:g} % cut to {allowed:g} %: risks {policy.risk_fraction:.2%} of equity"
        )
        size = allowed
    r_multiple = round_significant(abs(target - entry) / abs(entry - stop), 4)
    if not math.isfinite(r_multiple):
        raise LevelsRejectedError(
            f"{asked.action} with stop {stop:g} so near the entry {entry:g} and target {target:g} "
            "so far that their ratio is no number"
        )
    return Levels(entry, stop, target, size, r_multiple, tuple(clamps))


def checked_level(
    name: str, price: float | None, context: Context, clamps: list[str]
) -> float | None:
    """A support or resistance if the symbol traded there in the last year; otherwise dropped, with
    a clamp.
    """
    if price is None or context.low <= price <= context.high:
        return price
    clamps.append(
        f"{name} {price:g} dropped: outside the year's range {context.low:g} to {context.high:g}"
    )
    return None
