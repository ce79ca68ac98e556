"""Walk-forward folds: fit on [a, a+train), skip the purge, decide on the next `test` sessions, roll
on by `test`.

Only the stitched test parts count as a result (Pardo, The Evaluation and Optimization of Trading
Strategies, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

from finagent_model.errors import ShortHistoryError


@dataclass(frozen=True)
class Fold:
    """Positions in the training's calendar of sessions; ends are exclusive."""

    train_start: int
    train_stop: int
    test_start: int
    test_stop: int


def walk_forward(sessions: int, train: int, test: int, purge: int) -> tuple[Fold, ...]:
    """Test parts follow each other without gap; the last may be shorter. Raises ShortHistoryError
    if there is none.
    """
    first = train + purge
    if sessions <= first:
        raise ShortHistoryError(
            f"{sessions} sessions can't hold train_bars={train} + purge_bars={purge} + 1; "
            "use more history or shorter windows"
        )
    return tuple(
        Fold(start - purge - train, start - purge, start, min(start + test, sessions))
        for start in range(first, sessions, test)
    )
