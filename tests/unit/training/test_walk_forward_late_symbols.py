"""Pooled fits of symbols that begin at different times."""

from __future__ import annotations

import numpy as np
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import BarSeries
from finagent_model.policy.policy import PolicyBook
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import (
    bars_to_decide,
    fit_policies,
    out_of_sample_part,
    policy_periods,
)

LATE = TrainRequest(symbols=("IBM", "GOOG"), train_bars=252, test_bars=63, candidates=16)


@pytest.fixture(scope="module")
def histories() -> dict[str, BarSeries]:
    """GOOG begins 1,126 bars after IBM; both end in 2006."""
    end = np.datetime64("2006-06-30")
    found = {s: BundledBars().bars(s) for s in LATE.symbols}
    return {s: bars[: int(np.searchsorted(bars.closed_at, end))] for s, bars in found.items()}


@pytest.fixture(scope="module")
def book(histories: dict[str, BarSeries]) -> PolicyBook:
    return fit_policies(histories, LATE).policies


def test_late_symbol_is_decided_on_after_its_warm_up(
    histories: dict[str, BarSeries], book: PolicyBook
) -> None:
    bars = histories["GOOG"]
    positions = set(bars_to_decide(bars, book, LATE))
    for fit, period in policy_periods(bars, book):
        for i in range(period.start, period.stop):
            assert (i in positions) == (i + 1 >= fit.policy.warm_up)
    assert out_of_sample_part(bars, book).start == min(positions) >= 60


def test_late_symbol_changes_no_day_of_the_earlier_one(
    histories: dict[str, BarSeries], book: PolicyBook
) -> None:
    bars = histories["IBM"]
    assert bars_to_decide(bars, book, LATE) == list(range(257, len(bars)))


@pytest.mark.parametrize("schedule", [1, 5, "change"])
def test_bars_to_decide_of_late_symbol_ignores_later_bars(
    histories: dict[str, BarSeries], book: PolicyBook, schedule: int | str
) -> None:
    request, bars = LATE.model_copy(update={"schedule": schedule}), histories["GOOG"]
    whole = bars_to_decide(bars, book, request)
    for cut in (120, 200, 333):
        expected = [i for i in whole if i < cut]
        assert bars_to_decide(bars[:cut], book, request) == expected


def test_fold_is_fitted_on_symbols_that_are_there(book: PolicyBook) -> None:
    symbols = [fit.symbols for fit in book.fits]
    assert symbols[0] == ("IBM",)
    assert symbols[-1] == ("IBM", "GOOG")


def test_fit_policies_refuses_symbol_without_two_bars_after_warm_up(
    histories: dict[str, BarSeries],
) -> None:
    # The shortest warm-up of any policy is that of the window of 60 bars.
    short = {**histories, "GOOG": histories["GOOG"][:61]}
    with pytest.raises(ShortHistoryError, match=r"GOOG has 61 bars .* the bars that its policy"):
        fit_policies(short, LATE)
