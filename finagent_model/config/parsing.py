"""Parse the loose values that every door takes: modes and limits of a decision.

Shell, REST, DAG and notebook call these, so that one value gets one answer everywhere. Symbols are
parsed by `market.bars.parse_symbol`, dates by `parse_as_of` there.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TypeGuard, get_args

from finagent_model._base import Mode, show_value
from finagent_model.errors import BadInputError

MAX_ROUNDS = 100


@dataclass(frozen=True)
class CallLimits:
    """Limits that a caller asks for one decision; None keeps what the desk's configuration says."""

    max_rounds: int | None = None
    """Turns of agents."""
    budget_usd: float | None = None
    """US dollars; 0 asks for no limit."""


def parse_mode(value: object) -> Mode:
    """Return `value` as a mode. Raises BadInputError naming the modes."""
    for mode in get_args(Mode):
        # An array would be compared item by item.
        if isinstance(value, str) and mode == value:
            chosen: Mode = mode
            return chosen
    modes = ", ".join(get_args(Mode))
    raise BadInputError(f"mode {show_value(value)} is unknown; use one of: {modes}")


def parse_limits(max_rounds: object = None, budget_usd: object = None) -> CallLimits:
    """Return the limits that a caller asks for; None leaves the desk's own.

    `max_rounds` counts agents' turns, `budget_usd` is US dollars, 0 for no limit. Raises
    BadInputError naming the value and its range.
    """
    if budget_usd is not None and not (_is_number(budget_usd) and budget_usd >= 0):
        raise BadInputError(f"budget_usd {show_value(budget_usd)} must be 0 (no limit) or more")
    if max_rounds is not None and not (
        _is_number(max_rounds) and max_rounds == int(max_rounds) and 1 <= max_rounds <= MAX_ROUNDS
    ):
        raise BadInputError(
            f"max_rounds {show_value(max_rounds)} must be a whole number between 1 and {MAX_ROUNDS}"
        )
    return CallLimits(
        max_rounds=None if max_rounds is None else int(max_rounds),
        budget_usd=None if budget_usd is None else float(budget_usd),
    )


def _is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
