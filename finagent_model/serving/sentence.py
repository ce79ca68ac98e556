"""An error of MLflow's in one sentence: it writes the caller's data and the whole schema before
what went wrong, and quotes one exception inside another.
"""

from __future__ import annotations

import re

_BEFORE = (
    ("Failed to predict data", "\nError: "),
    ("Failed to enforce schema of data", "Error: "),
)
"""How a wrapping begins, and what stands before the reason that it wraps."""
_COLUMN = re.compile(r"Failed to convert column (\w+) .*Error: '\w+\(['\"](.*)['\"]\)'\.?$", re.S)
_PARAMETER = re.compile(r"Invalid parameters found: \{\('(\w+)', .*': (\w+) .*value `(.*?)`", re.S)


def sentence(message: str) -> str:
    """What went wrong, on one line."""
    for begins, mark in _BEFORE:
        if message.startswith(begins):
            message = message.partition(mark)[2] or message
    if found := _COLUMN.search(message):
        message = f"column {found[1]}: {found[2]}"
    elif found := _PARAMETER.search(message):
        message = f"parameter {found[1]}: {found[3]!r} is no {found[2]}"
    return " ".join(message.split())
