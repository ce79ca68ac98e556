"""Levels and position size of a signal: code decides them, whatever a model proposes.

A number out of bounds is moved to the bound and a missing one is derived from the fitted policy;
each such step leaves a clamp, a sentence on the signal. Levels in an order that contradicts the
action are rejected, not repaired. Checks are on the prices that the agents were shown, since those
are what they answer; levels and clamps are in prices as traded. Sizes are in percent of equity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finagent_model.config.rules import RiskLimits
from finagent_model.policy.context import Context, round_significant

TradedPrice = Callable[[float], float]
"""Returns the traded price that a shown one stands for; they are equal without a mask."""


class LevelsRejectedError(ValueError):
    """Levels that contradict the action; becomes the status `levels_rejected`."""


@dataclass(frozen=True)
class Proposal:
    """The levels and size that the executor proposed; None where it named none."""

    action: Literal["BUY", "SELL"]
    entry: float | None
    stop: float | None
    target: float | None
    size_percent: float | None


@dataclass(frozen=True)
class Levels:
    """The levels and size that the signal carries."""

    entry: float
    stop: float
    target: float
    size_percent: float
    r_multiple: float
    """Distance to the target over distance to the stop."""
    clamps: tuple[str, ...]


def settle_levels(
    proposal: Proposal, context: Context, limits: RiskLimits, traded: TradedPrice = float
) -> Levels:
    """Return the proposal moved within limits, in traded prices. Raises LevelsRejectedError."""
    clamps: list[str] = []
    side = 1 if proposal.action == "BUY" else -1
    close, atr, policy = context.last_close, context.atr, context.policy

    entry = proposal.entry
    if entry is None:
        entry = close
        clamps.append(f"entry derived: last close {traded(close):g}")
    max_distance = limits.entry_atr * atr
    if abs(entry - close) > max_distance:
        moved = round_significant(close + max_distance if entry > close else close - max_distance)
        clamps.append(
            f"entry {traded(entry):g} moved to {traded(moved):g}: "
            f"at most {limits.entry_atr:g} ATR from the close"
        )
        entry = moved

    stop, target = proposal.stop, proposal.target
    if stop is None:
        stop = _price_at(entry, -side * policy.stop_atr * atr)
        clamps.append(f"stop derived: {policy.stop_atr:g} ATR from the entry")
    if target is None:
        target = _price_at(entry, side * policy.target_atr * atr)
        clamps.append(f"target derived: {policy.target_atr:g} ATR from the entry")
    if not (stop - entry) * side < 0 < (target - entry) * side:
        order = "stop < entry < target" if side > 0 else "target < entry < stop"
        raise LevelsRejectedError(
            f"{proposal.action} needs {order}; "
            f"got stop {traded(stop):g}, entry {traded(entry):g}, target {traded(target):g}"
        )
    max_stop_distance = limits.max_stop_fraction * entry
    if abs(entry - stop) > max_stop_distance:
        moved = round_significant(entry - side * max_stop_distance)
        clamps.append(
            f"stop {traded(stop):g} moved to {traded(moved):g}: "
            f"at most {limits.max_stop_fraction:.0%} from the entry"
        )
        stop = moved
    # Rounded like a derived target, so that one at the bound is not moved.
    farthest = _price_at(entry, side * limits.max_target_atr * atr)
    if (target - farthest) * side > 0:
        clamps.append(
            f"target {traded(target):g} moved to {traded(farthest):g}: "
            f"at most {limits.max_target_atr:g} ATR from the entry"
        )
        target = farthest
    traded_entry, traded_stop, traded_target = traded(entry), traded(stop), traded(target)
    # The second: prices that differ in their last digit may be one price in another unit.
    if (
        target == entry
        or not (traded_stop - traded_entry) * side < 0 < (traded_target - traded_entry) * side
    ):
        raise LevelsRejectedError(
            f"{proposal.action} at {traded_entry:g}: the price moves so little (ATR "
            f"{atr * traded_entry / entry:g}) that there is no target within limits"
        )

    # After the stop is final: the size is what loses `risk_fraction` of equity there.
    max_size = round_significant(100 * float(policy.position_size(abs(entry - stop) / entry)), 4)
    size = proposal.size_percent
    if size is None:
        size = max_size
        clamps.append(f"size derived: {max_size:g} % risks {policy.risk_fraction:.2%} of equity")
    elif size > max_size:
        clamps.append(
            f"size {size:g} % cut to {max_size:g} %: risks {policy.risk_fraction:.2%} of equity"
        )
        size = max_size
    r_multiple = round_significant(abs(target - entry) / abs(entry - stop), 4)
    return Levels(traded_entry, traded_stop, traded_target, size, r_multiple, tuple(clamps))


def _price_at(entry: float, distance: float) -> float:
    # A tenth of the entry is a floor: many ATR below a cheap stock would be no price.
    return round_significant(max(entry + distance, 0.1 * entry))


def checked_level(
    name: str,
    price: float | None,
    context: Context,
    clamps: list[str],
    traded: TradedPrice = float,
) -> float | None:
    """Return a support or resistance where the symbol traded there in the last year, else None.

    Adds a clamp for a price that is dropped. `name` is what the clamp calls it.
    """
    if price is None:
        return None
    if context.low <= price <= context.high:
        return traded(price)
    clamps.append(
        f"{name} {traded(price):g} dropped: outside the year's range "
        f"{traded(context.low):g} to {traded(context.high):g}"
    )
    return None
