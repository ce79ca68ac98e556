"""Bars of any length from files: when each closed, and what has to be asked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_files import FolderBars, read_all_bars, write_bars
from finagent_model.errors import BadInputError, ConfigError, InvalidBarsError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.calendar import get_calendar
from finagent_model.market.quality import inspect_bars
from finagent_model.market.timeframe import bars_per_year
from finagent_model.market.view import MarketView

HEADER = "date,open,high,low,close,volume\n"


def rows(stamps: list[str]) -> str:
    return HEADER + "".join(
        f"{stamp},{10 + i % 3},{13 + i % 3},9,{11 + i % 3},100\n" for i, stamp in enumerate(stamps)
    )


def read(folder: Path, text: str, hints: str = "", name: str = "X.csv") -> BarSeries:
    (folder / name).write_text(text)
    if hints:
        (folder / "bars.yaml").write_text(hints)
    source = FolderBars(folder)
    return source.bars(source.symbols()[0])


def stamps(freq: str, count: int, form: str, start: str = "2024-06-24") -> list[str]:
    return [f"{moment:{form}}" for moment in pd.date_range(start, periods=count, freq=freq)]


def first(bars: BarSeries) -> str:
    return f"{bars.close_time(0):%Y-%m-%d %H:%M}"


HOURLY = [
    stamps("h", 48, "%Y-%m-%d %H:%M:%S+00:00"),
    stamps("h", 48, "%Y-%m-%dT%H:%M:%SZ"),
    # An offset that makes midnight the evening before, in UTC.
    stamps("h", 48, "%Y-%m-%dT%H:%M:%S+02:00", "2024-06-24 02:00"),
    [str(int(m.timestamp())) for m in pd.date_range("2024-06-24", periods=48, freq="h", tz="UTC")],
    [
        str(int(m.timestamp() * 1000))
        for m in pd.date_range("2024-06-24", periods=48, freq="h", tz="UTC")
    ],
]


@pytest.mark.parametrize("dates", HOURLY)
def test_hours_dated_by_their_open_close_an_hour_later(tmp_path: Path, dates: list[str]) -> None:
    bars = read(tmp_path, rows(dates))
    assert (bars.timeframe.name, bars.calendar.name, len(bars)) == ("1h", "weekdays", 48)
    assert first(bars) == "2024-06-24 01:00"
    assert bars.notes == ("times are taken for the open of each bar of 1 hour",)


def test_hours_of_a_week_with_its_weekend_never_close(tmp_path: Path) -> None:
    bars = read(tmp_path, rows(stamps("h", 24 * 9, "%Y-%m-%dT%H:%M:%SZ")))
    assert bars.calendar.name == "24/7"


def test_hours_without_zone_are_asked(tmp_path: Path) -> None:
    text = rows(stamps("h", 48, "%Y-%m-%d %H:%M"))
    with pytest.raises(InvalidBarsError, match=r"'2024-06-24 00:00' in line 2 has a time without"):
        read(tmp_path, text)
    assert first(read(tmp_path, text, "zone: America/New_York")) == "2024-06-24 05:00"
    assert first(read(tmp_path, text, "{zone: UTC, stamps: close}")) == "2024-06-24 00:00"


def test_last_bar_of_session_ends_with_it(tmp_path: Path) -> None:
    days = pd.bdate_range("2024-06-24", periods=4)
    dates = [f"{day:%Y-%m-%d} {hour}:30" for day in days for hour in range(10, 16)]
    opens = [f"{day:%Y-%m-%d} 09:30" for day in days]
    hints = "{zone: America/New_York, calendar: XNYS}"
    bars = read(tmp_path, rows(sorted(dates + opens)), hints)
    assert (bars.timeframe.name, bars.calendar.name) == ("1h", "XNYS")
    assert f"{bars.close_time(6):%H:%M}" == "20:00"  # half an hour, to 16:00 in New York


def test_stooq_minutes_are_read_from_three_columns(tmp_path: Path) -> None:
    head = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n"
    lines = [
        f"X,5,20240626,{m:%H%M%S},1,2,1,2,3" for m in pd.date_range("09:05", "10:00", freq="5min")
    ]
    bars = read(tmp_path, head + "\n".join(lines), "zone: Europe/Warsaw", "X.txt")
    assert (bars.timeframe.name, first(bars)) == ("5m", "2024-06-26 07:10")


def test_few_hours_are_asked_for_their_length(tmp_path: Path) -> None:
    text = rows(stamps("h", 7, "%Y-%m-%dT%H:%M:%SZ"))
    with pytest.raises(InvalidBarsError, match="7 bars have several a day, and no one length; "):
        read(tmp_path, text)
    assert read(tmp_path, text, "timeframe: 1h").timeframe.name == "1h"
    with pytest.raises(InvalidBarsError, match="bars of 1 day have several a day"):
        read(tmp_path, text, "timeframe: 1d")


@pytest.mark.parametrize(
    ("freq", "name", "closed_at", "word"),
    [
        ("W-MON", "1w", "2024-06-30", "first"),
        ("W-FRI", "1w", "2024-06-28", "last"),
        ("MS", "1mo", "2024-07-31", "first"),
        ("ME", "1mo", "2024-06-30", "last"),
        ("BME", "1mo", "2024-06-28", "last"),
    ],
)
def test_long_bars_are_known_after_their_last_day(
    tmp_path: Path, freq: str, name: str, closed_at: str, word: str
) -> None:
    bars = read(tmp_path, rows(stamps(freq, 24, "%Y-%m-%d")))
    assert (bars.timeframe.name, f"{bars.close_time(0):%Y-%m-%d}") == (name, closed_at)
    assert bars.notes == (f"bars of {bars.timeframe.label}, taken to be dated by their {word} day",)


def test_weeks_of_exchange_end_with_their_last_session(tmp_path: Path) -> None:
    # The 29th of March 2024 was Good Friday.
    text = rows(stamps("W-MON", 12, "%Y-%m-%d", "2024-03-25"))
    bars = read(tmp_path, text, "calendar: XNYS")
    assert first(bars) == "2024-03-28 20:00"


def test_weeks_dated_by_their_middle_are_asked(tmp_path: Path) -> None:
    text = rows(stamps("W-WED", 12, "%Y-%m-%d"))
    with pytest.raises(InvalidBarsError, match=r"bars of 1 week are dated 2024-06-26 .* `stamps:"):
        read(tmp_path, text)
    assert first(read(tmp_path, text, "stamps: close")) == "2024-06-26 21:00"
    assert first(read(tmp_path, text, "stamps: open")) == "2024-07-02 21:00"


def test_days_of_exchange_close_with_their_session(tmp_path: Path) -> None:
    bars = read(tmp_path, rows(["2012-11-21", "2012-11-23"]), "calendar: XNYS")
    assert [bars.close_time(i).hour for i in (0, 1)] == [21, 18]


@pytest.mark.parametrize("freq", ["h", "W-MON", "MS"])
def test_bars_of_any_length_are_written_and_read_back(tmp_path: Path, freq: str) -> None:
    form = "%Y-%m-%dT%H:%M:%SZ" if freq == "h" else "%Y-%m-%d"
    bars = read(tmp_path, rows(stamps(freq, 240, form, "2023-01-01")))
    [file] = write_bars([bars], tmp_path / "out")
    [again] = read_all_bars(file)
    assert (again.digest(), again.timeframe) == (bars.digest(), bars.timeframe)
    assert (again.calendar, again.notes) == (bars.calendar, ())


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ("timeframe: 2d", "timeframe '2d' is not a length of a bar"),
        ("calendar: MARS", "calendar 'MARS' is unknown; write weekdays, 24/7"),
        ("zone: Mars/Base", "is not a time zone; write one such as America/New_York"),
        ("zone: ../../etc/passwd", "is not a time zone"),
        ("stamps: middle", "stamps: "),
    ],
)
def test_bars_yaml_refuses_unknown_names(tmp_path: Path, hints: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, rows(["2024-06-24"]), hints)


def test_hints_keep_calendar_and_length() -> None:
    hints = Hints.parse(timeframe="hourly", calendar="xnys", zone="UTC")
    assert hints.bar_length and hints.bar_length.name == "1h"
    assert hints.market_calendar and hints.market_calendar.name == "XNYS"
    with pytest.raises(BadInputError, match="not a length of a bar"):
        Hints.parse(timeframe="1 fortnight")


def test_closes_are_moments_of_utc(tmp_path: Path) -> None:
    text = rows(stamps("h", 48, "%Y-%m-%dT%H:%M:%SZ")).replace("date,", "closed_at,")
    bars = read(tmp_path, text)
    assert bars.close_time(0) == datetime(2024, 6, 24, tzinfo=UTC)
    assert (bars.timeframe.name, bars.notes) == ("1h", ())


LUNCH = [
    ("XTKS", "Asia/Tokyo", ["09:00", "10:00", "11:00", "12:30", "13:30", "14:30"], 6),
    ("XHKG", "Asia/Hong_Kong", ["09:30", "10:30", "11:30", "13:00", "14:00", "15:00"], 6),
    ("XSHG", "Asia/Shanghai", ["09:30", "10:30", "13:00", "14:00"], 4),
]


@pytest.mark.parametrize(("calendar", "zone", "times", "a_day"), LUNCH)
def test_hours_around_lunch_are_of_one_length_without_gap(
    tmp_path: Path, calendar: str, zone: str, times: list[str], a_day: int
) -> None:
    sessions = get_calendar(calendar).sessions(date(2023, 1, 2), date(2023, 12, 29))
    dates = [f"{day} {time}" for day in sessions for time in times]
    bars = read(tmp_path, rows(dates), f"zone: {zone}\ncalendar: {calendar}\n")
    assert (bars.timeframe.name, bars.calendar.name) == ("1h", calendar)
    assert len(bars) == a_day * len(sessions)
    findings = " ".join(inspect_bars(bars))
    assert "gap" not in findings and "session" not in findings
    assert bars_per_year(bars.closed_at) == a_day * 252
    # The bar before lunch ends with the morning, and nothing is missing while it lasts.
    noon = bars.close_time(times.index(next(t for t in times if t >= "12:30")) - 1)
    view = MarketView.at(noon + timedelta(minutes=59), bars)
    assert (len(view.bars), view.stale_sessions) == (len(times) // 2, 0)


def test_days_of_currencies_close_at_five_in_new_york(tmp_path: Path) -> None:
    days = [f"{day:%Y-%m-%d}T00:00:00Z" for day in pd.bdate_range("2024-01-01", periods=200)]
    bars = read(tmp_path, rows(days), "calendar: fx\n", "EURUSD.csv")
    assert (bars.timeframe.name, first(bars)) == ("1d", "2024-01-01 22:00")
    assert f"{bars.close_time(150):%H:%M}" == "21:00"
    before, after = datetime(2024, 1, 5, 21, 59, tzinfo=UTC), datetime(2024, 1, 5, 22, tzinfo=UTC)
    assert [len(MarketView.at(m, bars).bars) for m in (before, after)] == [4, 5]
    assert len(MarketView.at(parse_as_of("2024-01-05"), bars).bars) == 5
    assert MarketView.at(parse_as_of("2024-01-07"), bars).stale_sessions == 1
    assert not any("session" in text for text in inspect_bars(bars))


def test_days_that_end_at_midnight_utc_are_known_then(tmp_path: Path) -> None:
    days = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-01-01", periods=200)]
    bars = read(tmp_path, rows(days), "calendar: 24/5\n", "EURUSD.csv")
    assert (bars.timeframe.name, first(bars)) == ("1d", "2024-01-02 00:00")
    assert (bars.day(0), bars.day(4)) == (date(2024, 1, 1), date(2024, 1, 5))
    before, after = datetime(2024, 1, 5, 23, 59, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
    assert [len(MarketView.at(m, bars).bars) for m in (before, after)] == [4, 5]
    # A date is the whole of that day, with the bar that ends with it.
    view = MarketView.at(parse_as_of("2024-01-05"), bars)
    assert (len(view.bars), view.stale_sessions, view.sessions_without_bar) == (5, 0, 0)
    assert bars_per_year(bars.closed_at) == 252
    assert not any("session" in text or "Saturday" in text for text in inspect_bars(bars))


def test_hours_of_currencies_begin_on_sunday(tmp_path: Path) -> None:
    hours = pd.date_range("2024-01-07 17:00", "2024-01-12 16:00", freq="h")
    weeks = [moment + pd.Timedelta(days=7 * i) for i in range(40) for moment in hours]
    hints = "calendar: fx\nzone: America/New_York\n"
    bars = read(tmp_path, rows([f"{m:%Y-%m-%d %H:%M}" for m in weeks]), hints, "EURUSD.csv")
    assert (bars.timeframe.name, len(bars)) == ("1h", 4800)
    assert not any("session" in text or "gap" in text for text in inspect_bars(bars))
    assert bars_per_year(bars.closed_at) == pytest.approx(24 * 5 * 365.25 / 7, rel=0.02)


@pytest.mark.parametrize("hints", ["", "calendar: 24/7\n"])
@pytest.mark.parametrize("column", ["date", "closed_at"])
def test_days_of_market_that_never_closes_end_at_midnight(
    tmp_path: Path, hints: str, column: str
) -> None:
    days = [f"{day:%Y-%m-%d}" for day in pd.date_range("2024-01-01", periods=60)]
    bars = read(tmp_path, rows(days).replace("date,", f"{column},"), hints)
    assert (bars.calendar.name, first(bars)) == ("24/7", "2024-01-02 00:00")
    assert (bars.day(0), bars.show_time(0)) == (date(2024, 1, 1), "2024-01-01")
    before, after = datetime(2024, 1, 5, 23, 59, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC)
    assert [len(MarketView.at(m, bars).bars) for m in (before, after)] == [4, 5]
    view = MarketView.at(parse_as_of("2024-01-05"), bars)
    assert (len(view.bars), view.stale_sessions, view.sessions_without_bar) == (5, 0, 0)
    assert inspect_bars(bars) == inspect_bars(bars[:30]) == ()
    records = [{"closed_at": d, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0} for d in days]
    assert (BarSeries.from_records("X", records).closed_at == bars.closed_at).all()


@pytest.mark.parametrize(("calendar", "friday"), [("fx", "22:00"), ("24/5", "00:00")])
def test_sunday_of_currencies_ends_with_its_day(tmp_path: Path, calendar: str, friday: str) -> None:
    # As MetaTrader and Dukascopy write it: some hours of Sunday are a bar of their own.
    days = pd.date_range("2024-01-01", "2024-03-31")
    dates = [f"{day:%Y-%m-%d}" for day in days if day.weekday() != 5]
    bars = read(tmp_path, rows(dates), f"calendar: {calendar}\n", "EURUSD.csv")
    assert [f"{bars.close_time(i):%m-%d %H:%M}"[-5:] for i in (4, 5)] == [friday, "00:00"]
    assert (bars.day(5), bars.close_time(5)) == (
        date(2024, 1, 7),
        datetime(2024, 1, 8, tzinfo=UTC),
    )
    evening = datetime(2024, 1, 7, 23, 59, tzinfo=UTC)
    assert len(MarketView.at(evening, bars).bars) == 5
    # Whoever decides on Sunday's bar knows nothing of Monday's.
    assert len(MarketView.at(bars.decision_time(5), bars).bars) == 6
    assert not any("several bars" in text for text in inspect_bars(bars))


def test_four_hours_of_currencies_are_known_when_they_are_over(tmp_path: Path) -> None:
    moments = [m for m in pd.date_range("2024-01-08", periods=30, freq="4h")]
    dates = [f"{m:%Y-%m-%dT%H:%M:%SZ}" for m in moments if m.weekday() < 5]
    bars = read(tmp_path, rows(dates), "calendar: fx\n", "EURUSD.csv")
    assert [f"{bars.close_time(i):%d %H:%M}" for i in (5, 6)] == ["09 00:00", "09 04:00"]


YAHOO = "Datetime,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"


def test_hours_that_yfinance_saved_undo_splits(tmp_path: Path) -> None:
    hours = pd.date_range("2024-06-10 09:30", periods=6, freq="h", tz="America/New_York")
    table = ""
    for i in range(5):
        for moment in hours + pd.Timedelta(days=i):
            split = 4.0 if i == 3 and moment == hours[0] + pd.Timedelta(days=3) else 0.0
            table += f"{moment},25,26,24,25,100,0.0,{split}\n"
    bars = read(tmp_path, YAHOO + table, "calendar: XNYS\n")
    assert (bars.timeframe.name, bars.calendar.name, len(bars)) == ("1h", "XNYS", 30)
    assert first(bars) == "2024-06-10 14:30"
    assert (bars.close[0], bars.close[17], bars.split[18], bars.close[18]) == (100, 100, 4, 25)


def test_days_that_yfinance_saved_close_with_declared_session(tmp_path: Path) -> None:
    days = [f"{day}" for day in pd.bdate_range("2024-06-10", periods=20, tz="America/New_York")]
    table = "".join(f"{day},25,26,24,25,100,0.0,0.0\n" for day in days)
    bars = read(tmp_path, YAHOO.replace("Datetime", "Date") + table, "calendar: XNYS\n")
    assert first(bars) == "2024-06-10 20:00"
