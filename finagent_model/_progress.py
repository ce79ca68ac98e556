"""What long work reports its progress to."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int], Callable[[], object]]
"""Called with the name of a piece of work and its number of steps; returns what to call after each
step.
"""


def no_progress(name: str, steps: int) -> Callable[[], object]:
    """Report no progress."""
    return lambda: None
