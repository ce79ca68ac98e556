"""Lessons: which of the desk's closed calls it may remember.

Calls of neighbouring days tell one story. In the order in which they closed, a call is a lesson if
it was made after the lesson before it had closed: what closes later never changes what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from finagent_model.domain.closed_call import ClosedCall


def reflect(calls: Sequence[ClosedCall]) -> tuple[ClosedCall, ...]:
    """Of one symbol's closed calls those that don't overlap, oldest first."""
    lessons: list[ClosedCall] = []
    for call in sorted(calls, key=lambda call: (call.closed_at, call.as_of)):
        if not lessons or call.as_of >= lessons[-1].closed_at:
            lessons.append(call)
    return tuple(lessons)
