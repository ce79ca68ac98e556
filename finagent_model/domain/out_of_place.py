"""Which items of a sequence left their place, as somebody would say it who watched."""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def out_of_place(ranks: Sequence[int]) -> list[int]:
    """Of a permutation of 0..n-1: both items of each pair that was swapped, else the fewest that
    explain the order. Empty where it ascends.
    """
    moved: list[int] = []
    start, furthest = 0, -1
    for at, rank in enumerate(ranks):
        furthest = max(furthest, rank)
        if furthest > at:
            continue
        # From `start` to here the items have only changed places among themselves.
        part = ranks[start : at + 1]
        if all(ranks[rank] == place for place, rank in enumerate(part, start)):
            moved += [rank for place, rank in enumerate(part, start) if rank != place]
        else:
            moved += _not_ascending(part)
        start = at + 1
    return moved


def _not_ascending(ranks: Sequence[int]) -> list[int]:
    """All but a longest ascending run."""
    ends: list[int] = []
    """Of the runs of each length, the lowest last item."""
    before: dict[int, int | None] = {}
    for rank in ranks:
        at = bisect.bisect_left(ends, rank)
        before[rank] = ends[at - 1] if at else None
        ends[at : at + 1] = [rank]
    kept: set[int] = set()
    last: int | None = ends[-1]
    while last is not None:
        kept.add(last)
        last = before[last]
    return [rank for rank in ranks if rank not in kept]
