"""Rows of a user's table as a series: forms of text, rows that are none, actions, order."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from finagent_model.data._text_table import read_text_table
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_tables import parse_bars, read_series
from finagent_model.errors import DataSourceError, InvalidBarsError
from finagent_model.market.bars import BarSeries

PLAIN = """date,open,high,low,close,volume
2024-06-26,10.2,11.0,10.0,10.5,1500
2024-06-27,10.5,11.5,10.4,11.0,1600
2024-06-28,11.0,11.9,10.7,11.75,6400
"""


def read(text: str | bytes, **hints: Any) -> BarSeries:
    data = text.encode() if isinstance(text, str) else text
    given = Hints(**hints)
    return read_series("X", read_text_table(data, given.decimal), given)


def comma_decimals(text: str, separator: str) -> str:
    return text.replace(",", separator).replace(".", ",")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", "|").encode(),
        ("sep=;\n" + PLAIN.replace(",", ";")).encode(),
        comma_decimals(PLAIN, ";").encode(),
        comma_decimals(PLAIN, "\t").encode(),
        PLAIN.replace("\n", ",\n").encode(),
        PLAIN.replace("0\n2", "0,\n2").encode(),
        PLAIN.replace("date", "<DATE>").replace("close", "Close*").encode(),
        ("# exported\n\n" + PLAIN + "\n\n").encode(),
        (PLAIN + "Source: Somebody, all rights, reserved, in, many, words, too\n").encode(),
        PLAIN.replace("2024-06-28", "date,open,high,low,close,volume\n2024-06-28").encode(),
        PLAIN.replace("2024-06-28", "\n2024-06-28").encode(),
    ],
)
def test_read_series_form_of_text_changes_nothing(data: bytes) -> None:
    assert read(data).digest() == read(PLAIN).digest()


def test_read_series_thousands_and_signs() -> None:
    rows = PLAIN.splitlines()
    text = "\n".join([rows[0], '2024-06-26,"$1,010.50","$1,011.00","$1,010.00","$1,010.50",1.5M'])
    series = read(text)
    assert (series.close[0], series.volume[0]) == (1010.5, 1.5e6)
    german = "date;open;high;low;close;volume\n2024-06-26;1.010,5;1.011;1.010;1.010,5;1.500\n"
    assert (read(german).close[0], read(german).volume[0]) == (1010.5, 1500.0)


def test_read_series_open_comma_is_asked() -> None:
    text = 'date,open,high,low,close\n2024-06-26,"1,234","1,239","1,230","1,234"\n'
    with pytest.raises(InvalidBarsError, match=r"open '1,234' in line 2 may be a thousand or a fr"):
        read(text)
    assert read(text, decimal=",").close[0] == 1.234
    assert read(text, decimal=".").close[0] == 1234.0


def test_read_series_newest_first_is_sorted_with_a_note() -> None:
    rows = PLAIN.splitlines()
    series = read("\n".join([rows[0], *rows[:0:-1]]))
    assert series.digest() == read(PLAIN).digest()
    assert series.notes == ("the newest bar stood first; sorted",)


def test_read_series_day_without_prices_is_noted() -> None:
    text = PLAIN.replace("10.5,11.5,10.4,11.0,1600", "null,null,null,null,null")
    series = read(text)
    assert len(series) == 2
    assert series.notes == ("no prices on 2024-06-27; passed over",)


def test_read_series_lines_that_are_no_rows_are_noted() -> None:
    text = "Prices of X\n" + PLAIN.replace("2024-06-28", PLAIN.split("\n")[0] + "\n2024-06-28")
    assert read(text + "Source: Somebody\n").notes == (
        "passed over below the last row: 'Source: Somebody'",
        "the header is there again in line 5; passed over",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("1600", "1600,5"), "line 3 has 7 fields where the header has 6"),
        (PLAIN.replace("2024-06-27,", "Total,"), "date 'Total' in line 3 is not a date"),
        (PLAIN.replace("27,10.5", "27,ten"), "open 'ten' in line 3 is not a number"),
        (PLAIN.replace("06-28", "06-27"), "'2024-06-27' in line 4 is repeated, .* in line 3 too"),
        (PLAIN.replace("06-28", "06-25"), "in line 4 is earlier than the bar before; sort the"),
        (PLAIN.replace("volume", "Close USD"), "column 'Close USD' is not read, and looks like"),
        (
            PLAIN.replace("close", "final"),
            r"'close' is missing; .*\(separated by ','\)",
        ),
        ("Date,AAPL,MSFT\n2024-06-26,1.5,2.5\n", "a table of one price for each of AAPL, MSFT"),
    ],
)
def test_read_series_refusal_names_line_and_column(text: str, message: str) -> None:
    with pytest.raises((InvalidBarsError, DataSourceError), match=message):
        read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.split("\n", 1)[1], "it has no header; write date,open,high,low,close,volume"),
        ("date,open,high,low,close\n2024-06-26;1;2;1;2\n", "line 2 has one field where the header"),
    ],
)
def test_read_text_table_refusal_names_line(text: str, message: str) -> None:
    with pytest.raises(DataSourceError, match=message):
        read(text)


def test_read_series_column_of_periods_is_the_length_of_a_bar() -> None:
    stooq = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
    assert read(stooq + "X,D,20240626,000000,1,2,1,2,3\n").timeframe.name == "1d"
    assert read(stooq + "X,W,20240624,000000,1,2,1,2,3\n").timeframe.name == "1w"
    with pytest.raises(InvalidBarsError, match="bars of 5 minutes are dated by days alone; give"):
        read(stooq + "X,5,20240626,000000,1,2,1,2,3\n")
    with pytest.raises(InvalidBarsError, match="<PER> 'D' in line 3 is not the 'W' of in line 2"):
        read(stooq + "X,W,20240624,000000,1,2,1,2,3\nX,D,20240626,000000,1,2,1,2,3\n")
    with pytest.raises(InvalidBarsError, match="<PER> 'Q': timeframe 'Q' is not a length of a bar"):
        read(stooq + "X,Q,20240626,000000,1,2,1,2,3\n")


def test_read_series_closes_within_a_day_are_read_as_they_are() -> None:
    rows = [f"2024-06-26T{hour:02}:00:00Z,1,2,1,2" for hour in range(8, 21)]
    bars = read("\n".join(["closed_at,open,high,low,close", *rows]))
    assert (bars.timeframe.name, bars.close_time(0).hour) == ("1h", 8)


def test_read_series_rounded_adjusted_close_is_used() -> None:
    close = [80.0 + i % 7 * 0.37 for i in range(60)]
    adjusted = [round(c * (0.97 if i < 30 else 1.0), 2) for i, c in enumerate(close)]
    frame = pd.DataFrame({"date": pd.bdate_range("2024-01-01", periods=60)})
    frame = frame.assign(open=close, high=close, low=close, close=close, adj_close=adjusted)
    series = parse_bars("X", frame)
    assert (series.dividend > 0).nonzero()[0].tolist() == [30]
    assert series.dividend[30] == pytest.approx(0.03 * close[29], rel=0.01)
    assert series.notes[0].startswith("adjusted closes are rounded: a dividend below 0.01%")


@pytest.mark.parametrize("split", [50.0, 1 / 30])
def test_read_series_large_split_is_inferred(split: float) -> None:
    close = [100.0, 101.0, 100.0 / split, 101.0 / split]
    adjusted = [close[0] / split, close[1] / split, *close[2:]]
    frame = pd.DataFrame({"date": pd.bdate_range("2024-01-01", periods=4)})
    frame = frame.assign(open=close, high=close, low=close, close=close, adj_close=adjusted)
    series = parse_bars("X", frame.assign(volume=100.0))
    assert series.split[2] == pytest.approx(split)
    assert (series.dividend == 0).all()
    assert series.adjust_to_first_bar().volume[3] == pytest.approx(100.0 / split)


def test_read_series_actions_that_disagree_are_noted() -> None:
    text = (
        "date,open,high,low,close,adj_close,split,dividend\n"
        "2024-06-26,8,8,8,8,2,1,0\n2024-06-27,2,2,2,2,2,1,0\n2024-06-28,2,2,2,2,2,1,0\n"
    )
    [note] = read(text).notes
    assert note.startswith("on 2024-06-27 'adj_close' steps by 4, but the split 1 and the dividend")
    assert read(text.replace("27,2,2,2,2,2,1", "27,2,2,2,2,2,4")).notes == ()
