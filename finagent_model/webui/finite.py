"""Numbers of foreign records, as far as they are numbers."""

from __future__ import annotations

import math


def finite(value: object) -> int | float | None:
    """None for what is none, is not finite, or is larger than a float can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None
