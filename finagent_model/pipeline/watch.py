"""How long work reports its progress, to whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[str, int], Callable[[], object]]
"""Told that a piece of work of so many steps begins; gives back what to call after each."""


def unwatched(name: str, steps: int) -> Callable[[], object]:
    return lambda: None
