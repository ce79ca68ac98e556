"""The moment by which a caller wants its answer. It decides whether there is an answer, never what
it says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from finagent_model.errors import DeadlineError


@dataclass(frozen=True)
class Deadline:
    """Counted by the monotonic clock; `within_s` is None for a caller that waits for good."""

    within_s: float | None
    ends_at: float

    @classmethod
    def after(cls, within_s: float | None) -> Deadline:
        return cls(within_s, 0.0 if within_s is None else time.monotonic() + within_s)

    def left_s(self) -> float | None:
        """Seconds, not below 0; None where there is no end."""
        return None if self.within_s is None else max(0.0, self.ends_at - time.monotonic())

    def check(self) -> None:
        """Raises DeadlineError once it is over."""
        if self.within_s is not None and time.monotonic() >= self.ends_at:
            raise DeadlineError(self.within_s)


WHENEVER = Deadline.after(None)
