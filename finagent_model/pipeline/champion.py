"""A new version beside the present champion, on the days that both decided unseen."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from finagent_model.domain.check import Check
from finagent_model.registry import Version
from finagent_model.tracking import RunLog
from finagent_model.training.evidence import SymbolFacts, pooled
from finagent_model.training.gate import AS_GOOD, Window, beside_champion

WINDOW = "window.json"
"""The artifact that each training leaves for the next."""


def window_of(facts: Sequence[SymbolFacts]) -> Window:
    """The portfolio's unseen returns by day."""
    calendar, returns, _ = pooled(facts)
    found = dict(zip(calendar.tolist(), returns.tolist(), strict=True))
    return Window(version=None, returns=found)


def beside(champion: Version | None, ours: Window) -> Check | None:
    """The comparison; None where the champion left no window of days in common. A window that this
    code can't read is a failed one: that counts where evidence is required. Raises TrackingError
    where the store can't tell.
    """
    if champion is None or champion.run_id is None:
        return None
    if (left := RunLog(champion.run_id).find(WINDOW)) is None:
        return None
    try:
        theirs = Window.model_validate_json(left)
    except ValidationError:
        found = f"{WINDOW} of version {champion.version} has another schema: no comparison"
        return Check(name=AS_GOOD, passed=False, found=found)
    return beside_champion(ours, theirs.model_copy(update={"version": champion.version}))
