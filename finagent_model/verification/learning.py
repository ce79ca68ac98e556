"""Was what a version learned known when it was used, and does its record give it again?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from finagent_model.domain.check import Check
from finagent_model.domain.closed_call import ClosedCall
from finagent_model.domain.learned import Learned
from finagent_model.training.calibrate import calibrate
from finagent_model.training.reflect import reflect


def memory_dated(learned: Learned, symbol: str, moments: Sequence[datetime]) -> Check:
    """No decision at one of `moments` may read a lesson whose outcome had not closed by then."""
    read, early = 0, []
    for moment in moments:
        lessons = learned.at(symbol, moment).lessons
        read = max(read, len(lessons))
        early += [moment for lesson in lessons if lesson.closed_at > moment][:1]
    said = f"up to {read} lessons read on {len(moments)} days of {symbol}"
    if early:
        said += f"; on {len(early)} of them one had not closed, first as of {early[0]:%Y-%m-%d}"
    return Check(name="memory_dated", passed=not early, found=said)


def learned_again(learned: Learned, calls: Mapping[str, Sequence[ClosedCall]]) -> Check:
    """Calibrations and lessons, made again from the calls of the replayed record."""
    everything = [call for own in calls.values() for call in own]
    wrong = []
    if calibrate(everything, learned.policies.moments) != learned.calibrations:
        wrong.append("calibrations")
    if [lesson for own in calls.values() for lesson in reflect(own)] != list(learned.lessons):
        wrong.append("lessons")
    said = f"calibrations and lessons from {len(everything)} closed calls"
    if wrong:
        said += f"; other {' and '.join(wrong)} than were packaged"
    return Check(name="learned_again", passed=not wrong, found=said)
