"""Dates in the forms that people write: which day they are, and what is asked or refused."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from finagent_model.data._bar_dates import is_date, is_midnight, read_days, read_moments
from finagent_model.errors import InvalidBarsError

DAY = date(2024, 6, 28)
SECONDS = 1719532800


def where(row: int) -> str:
    return f"in line {row + 2}"


@pytest.mark.parametrize(
    "text",
    [
        *["2024-06-28", "2024/6/28", "2024.06.28", "20240628", "06/28/2024", "28.06.2024"],
        *["6/28/2024", "28-06-2024", "Jun 28, 2024", "28-Jun-2024", "28-Jun-24", "28 June 2024"],
        *["Fri, Jun 28, 2024", "2024-06-28T00:00:00.000Z", "2024-06-28 00:00:00-04:00"],
        *["2024-06-28T04:00:00Z", "20240628 00:00", "20240628  00:00:00 US/Eastern"],
        *["28.06.2024 00:00:00.000", "28.06.2024 00:00:00.000 GMT+0200", "6/28/2024 12:00:00 AM"],
        *["2024-06-28T09:30:00-04:00", "2024-06-28T20:00:00+00:00", f"{SECONDS}", f"{SECONDS}.0"],
        *[f"{SECONDS}000", f"{SECONDS}000000", f"{SECONDS}000000000", f"{SECONDS + 4 * 3600}"],
    ],
)
def test_read_days_form_gives_day(text: str) -> None:
    assert read_days([text], None, None, where) == [DAY]
    assert is_date(text)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["01/02/2024"], r"'01/02/2024' in line 2 may be day 1 of month 2 .* write `dates:"),
        (["28/06/2024", "06/28/2024"], "in line 2 has the day first, '06/28/2024' in line 3 the"),
        (["06/28/24"], "'06/28/24' in line 2 has a year of two digits; write four"),
        (["2024-06-28", "28/06/2024"], "'28/06/2024' in line 3 is not written as '2024-06-28'"),
        (["2024-06-28", "2024-06-31"], "'2024-06-31' in line 3 is not a date"),
        (["2024-06-28", "Total"], "'Total' in line 3 is not a date; write it as 2012-06-29"),
        (["45471"], "'45471' in line 2 is not a date"),
        (["2024-06-28 22:00:00"], "has a time of day; .* 'closed_at'"),
        (["2024-06-28 15:00", "2024-06-28 16:00"], "has a time without a zone; write `zone: UTC`"),
        (["2024-06-28 15:00Z", "2024-06-28 16:00Z"], "'2024-06-28 15:00Z' in line 2 has a time of"),
    ],
)
def test_read_days_refusal_names_cell(cells: list[str], message: str) -> None:
    with pytest.raises(InvalidBarsError, match=message):
        read_days(cells, None, None, where)


def test_read_days_order_is_asked_or_told_by_one_date() -> None:
    assert read_days(["01/02/2024"], "day-first", None, where) == [date(2024, 2, 1)]
    assert read_days(["01/02/24"], "month-first", None, where) == [date(2024, 1, 2)]
    assert read_days(["05/06/2024", "05/13/2024"], None, None, where)[0] == date(2024, 5, 6)
    with pytest.raises(InvalidBarsError, match="'05/13/2024' in line 2 can't be day-first"):
        read_days(["05/13/2024"], "day-first", None, where)


def test_read_days_zone_of_vendor_is_used() -> None:
    assert read_days([str(SECONDS + 4 * 3600)], None, "America/New_York", where) == [DAY]
    with pytest.raises(InvalidBarsError, match="has a time of day"):
        read_days([str(SECONDS)], None, "America/New_York", where)


def test_read_moments_keeps_zone_and_epoch() -> None:
    assert read_moments(["2024-06-28T16:00:00-04:00"], where) == ["2024-06-28T16:00:00-04:00"]
    assert read_moments([f"{SECONDS}999"], where) == ["2024-06-28T00:00:00.999000+00:00"]
    assert read_moments(["20240628", datetime(2024, 6, 28)], where) == [  # noqa: DTZ001
        "2024-06-28",
        "2024-06-28T00:00:00",
    ]


@pytest.mark.parametrize("cell", ["", "0", "00:00", "00:00:00", "000000", float("nan")])
def test_is_midnight_accepts_start_of_day(cell: object) -> None:
    assert is_midnight(cell)
    assert not is_midnight("16:00")
