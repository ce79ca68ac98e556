"""The window of bars that upstream is shown for one date."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from finagent_model.contrib.upstream.upstream_report import MIN_BARS, build_window
from finagent_model.errors import ShortHistoryError
from support.upstream_repository import DAY, bars_of

BARS = bars_of("GOOG")


def test_window_ends_on_the_last_bar_with_the_clock_a_day_later() -> None:
    window = build_window(BARS)
    assert (window.rows[-1][0], window.clock_day) == (DAY, "2012-06-30")
    assert window.rows[0][0] == "2011-07-01"


def test_window_holds_no_later_bar() -> None:
    longer = bars_of("GOOG", 320, "2012-07-27")
    again = longer[: len(longer) - 20]
    assert again.close_time(-1).date().isoformat() == DAY
    assert build_window(again).rows[-1][0] == DAY


def test_window_prices_are_in_units_of_the_last_bar() -> None:
    split = np.ones(300)
    split[290] = 2.0
    halved = replace(BARS, split=split)
    rows = build_window(halved).rows
    assert rows[-1][4] == BARS.close[-1]
    assert rows[-12][4] == pytest.approx(BARS.close[-12] / 2)


def test_window_unknown_volume_is_none() -> None:
    rows = build_window(replace(BARS, volume=np.full(300, math.nan))).rows
    assert {row[5] for row in rows} == {None}


def test_window_of_too_few_bars_raises_short_history() -> None:
    with pytest.raises(ShortHistoryError, match=f"needs {MIN_BARS}"):
        build_window(bars_of("GOOG", MIN_BARS - 1))


def test_window_digest_changes_with_any_bar() -> None:
    other = replace(BARS, high=BARS.high + np.eye(1, 300, 299)[0])
    assert len({build_window(b).digest for b in (BARS, other, bars_of("MSFT"))}) == 3
