"""The length of a bar: what it is called, and how it is told from the closes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from finagent_model.errors import BadInputError
from finagent_model.market.timeframe import infer_timeframe, parse_timeframe


def moments(freq: str, count: int = 40, start: str = "2024-01-01") -> npt.NDArray[np.datetime64]:
    index = pd.date_range(start, periods=count, freq=freq)
    return index.to_numpy().astype("datetime64[us]")


@pytest.mark.parametrize(
    ("text", "name", "label"),
    [
        ("1m", "1m", "1 minute"),
        (" 15min ", "15m", "15 minutes"),
        ("60m", "1h", "1 hour"),
        ("hourly", "1h", "1 hour"),
        ("4H", "4h", "4 hours"),
        ("90m", "90m", "90 minutes"),
        ("d", "1d", "1 day"),
        ("Weekly", "1w", "1 week"),
        ("1M", "1mo", "1 month"),
        ("1mo", "1mo", "1 month"),
    ],
)
def test_parse_timeframe_has_name_in_words(text: str, name: str, label: str) -> None:
    timeframe = parse_timeframe(text)
    assert (str(timeframe), timeframe.label) == (name, label)
    assert parse_timeframe(timeframe.name) == timeframe


@pytest.mark.parametrize(
    "text", ["", "0m", "13h", "721m", "2d", "1y", "h1", "1.5h", "-1h", "fast", None, 60, ["1h"]]
)
def test_parse_timeframe_refuses_other_texts(text: Any) -> None:
    with pytest.raises(BadInputError, match="is not a length of a bar; write 1m to 12h, 1d, 1w or"):
        parse_timeframe(text)


@pytest.mark.parametrize(
    ("closed_at", "name"),
    [
        (moments("min"), "1m"),
        (moments("7min"), "7m"),
        (moments("h"), "1h"),
        (moments("12h"), "12h"),
        (moments("D"), "1d"),
        (moments("B"), "1d"),
        (moments("W-MON"), "1w"),
        (moments("ME"), "1mo"),
        (moments("QE"), "1d"),
        # Seven bars a session, the last of them half an hour long.
        (
            np.concatenate(
                [
                    np.r_[
                        moments("h", 6, f"2024-01-0{d} 15:30"), moments("h", 1, f"2024-01-0{d} 21")
                    ]
                    for d in range(2, 6)
                ]
            ),
            "1h",
        ),
        # Few bars, and bars of no one length, count as daily ones.
        (moments("h", 9), "1d"),
        (moments("W-MON", 9), "1d"),
        (moments("D", 40) + np.cumsum(np.arange(40)) * np.timedelta64(1, "m"), "1d"),
        (moments("37s"), "1d"),
        (moments("D", 0), "1d"),
        # Weeks of a holiday, and one that is missing.
        (np.delete(moments("W-FRI"), 7), "1w"),
    ],
)
def test_infer_timeframe_is_that_of_most_bars(
    closed_at: npt.NDArray[np.datetime64], name: str
) -> None:
    assert infer_timeframe(closed_at).name == name


def test_timeframe_length_of_day_is_not_intraday() -> None:
    assert parse_timeframe("12h").is_intraday
    assert not parse_timeframe("1d").is_intraday
    assert parse_timeframe("1w").length == timedelta(days=7)
