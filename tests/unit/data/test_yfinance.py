"""Bars from Yahoo, by the real client against a stand-in: prices as traded, failures by name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.data._yfinance import YFinanceBars
from finagent_model.data.bar_cache import BarStore, CachedBars
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import DataSourceError, InvalidBarsError, UnknownSymbolError
from finagent_model.market.bars import PRICES, BarSeries, parse_as_of
from finagent_model.market.calendar import get_calendar
from finagent_model.market.timeframe import parse_timeframe
from support.fake_yahoo import LATER, NOT_FOUND, Yahoo, chart, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Yahoo]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as yahoo:
        yield yahoo  # a socket's path must be short


@pytest.fixture
def yahoo(server: Yahoo) -> Iterator[Yahoo]:
    server.answers.clear()
    server.asked.clear()
    yield server
    server.delay_s, server.now = 0.0, LATER


@pytest.fixture
def source(yahoo: Yahoo, tmp_path: Path) -> YFinanceBars:
    from yfinance.data import YfData

    YfData.cache_get.cache_clear()  # its own memory of answers, kept for the whole process
    return YFinanceBars(tmp_path / "yfinance", lambda: yahoo.now, **yahoo.transport())


def next_session(series: BarSeries) -> datetime:
    """Before its end."""
    return series.close_time(-1) + timedelta(days=1, hours=-1)


def day(series: BarSeries, text: str) -> int:
    return int(np.searchsorted(series.closed_at, np.datetime64(text)))


def result(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["chart"]["result"][0]
    return found


@pytest.mark.parametrize("symbol", ["AAPL", "MSFT"])
def test_yfinance_undoes_splits(yahoo: Yahoo, source: YFinanceBars, symbol: str) -> None:
    traded = BundledBars().bars(symbol)
    yahoo.says(symbol, chart(traded))
    got = source.bars(symbol)
    assert got.closed_at.tolist() == traded.closed_at.tolist()
    for column in PRICES:
        # To the cent; of a tenth of one, above 100, six digits are left.
        assert getattr(got, column) == pytest.approx(getattr(traded, column), rel=5e-6)
    assert got.split.tolist() == traded.split.tolist()
    assert got.dividend == pytest.approx(traded.dividend, rel=1e-5, abs=1e-6)
    assert got.volume == pytest.approx(traded.volume, abs=1.0)


def test_yfinance_actions_are_on_their_days(yahoo: Yahoo, source: YFinanceBars) -> None:
    for symbol in ("AAPL", "MSFT"):
        yahoo.says(symbol, chart(BundledBars().bars(symbol)))
    apple, microsoft = source.bars("AAPL"), source.bars("MSFT")
    at = day(apple, "2005-02-28")
    assert (apple.close[at - 1], apple.close[at], apple.split[at]) == (88.99, 44.86, 2.0)
    assert apple.adjust_to_first_bar().close[at] / apple.adjust_to_first_bar().close[
        at - 1
    ] == pytest.approx(1.0082, abs=1e-4)
    at = day(microsoft, "2003-02-18")
    assert (microsoft.close[at - 1], microsoft.close[at]) == (48.30, 24.96)
    assert microsoft.split[at] == 2.0
    assert microsoft.dividend[day(microsoft, "2004-11-15")] == pytest.approx(3.029, abs=1e-3)


def test_yfinance_real_fall_is_no_split(yahoo: Yahoo, source: YFinanceBars) -> None:
    yahoo.says("AAPL", chart(BundledBars().bars("AAPL")))
    series = source.bars("AAPL")
    at = day(series, "2000-09-29")
    assert series.split[at] == 1.0
    assert series.close[at] / series.close[at - 1] < 0.5


@pytest.mark.parametrize("ratio", [2.0, 7.0, 20.0, 0.1, 1.5])
def test_yfinance_later_split_changes_no_bar(
    yahoo: Yahoo, source: YFinanceBars, ratio: float
) -> None:
    bars = BundledBars().bars("FB")
    yahoo.now = next_session(bars)
    yahoo.says("FB", chart(bars, later_split=ratio))
    got = source.bars("FB")
    for column in PRICES:
        assert getattr(got, column) == pytest.approx(getattr(bars, column), rel=1e-12)
    assert set(got.split.tolist()) == {1.0}


def test_yfinance_dividend_without_bar_goes_to_next(yahoo: Yahoo, source: YFinanceBars) -> None:
    bars = BundledBars().bars("FB")[:20]
    body = chart(bars)
    for values in result(body)["indicators"]["quote"][0].values():
        values[10] = None
    at = result(body)["timestamp"][10]
    result(body)["events"]["dividends"] = {str(at): {"date": at, "amount": 0.25}}
    yahoo.says("FB", body)
    got = source.bars("FB")
    assert len(got) == 19
    assert got.dividend[10] == 0.25
    assert got.close_time(10) == bars.close_time(11)


def test_yfinance_passes_over_incomplete_row(yahoo: Yahoo, source: YFinanceBars) -> None:
    bars = BundledBars().bars("FB")[:40]
    body = chart(bars)
    quote = result(body)["indicators"]["quote"][0]
    quote["close"] = [*quote["close"]]
    quote["low"][9] = min(quote["open"][9], quote["close"][9]) * 1.0003
    quote["close"][7] = None
    yahoo.says("FB", body)
    got = source.bars("FB")
    assert len(got) == 39
    passed_over = f"{bars.close_time(7):%Y-%m-%d}"
    assert any("prices can't be right on" in n and passed_over in n for n in got.notes)
    assert any("widened" in note for note in got.notes)


def test_yfinance_refuses_incomplete_rows(yahoo: Yahoo, source: YFinanceBars) -> None:
    body = chart(BundledBars().bars("FB")[:20])
    result(body)["indicators"]["quote"][0]["close"][7:9] = [None, None]
    yahoo.says("FB", body)
    with pytest.raises(InvalidBarsError, match="bars of FB: close is not a positive number at bar"):
        source.bars("FB")


@pytest.mark.parametrize("split", [1.0, 2.0])
def test_yfinance_open_session_has_no_bar(yahoo: Yahoo, source: YFinanceBars, split: float) -> None:
    bars = BundledBars().bars("FB")[:20]
    ratios = np.r_[np.ones(19), split]
    whole = BarSeries.from_frame("FB", bars.to_frame().assign(split=ratios))
    body = chart(whole)
    result(body)["meta"]["regularMarketTime"] -= 3600
    yahoo.now = bars.close_time(-1) - timedelta(hours=1)
    yahoo.says("FB", body)
    got = source.bars("FB")
    assert got.close_time(-1) == bars.close_time(18)
    assert got.close == pytest.approx(bars.close[:19], rel=1e-12)


@pytest.mark.parametrize("ratio", [2.0, 0.1])
def test_yfinance_refuses_split_missing_in_prices(
    yahoo: Yahoo, source: YFinanceBars, ratio: float
) -> None:
    body = chart(BundledBars().bars("FB")[:20])
    at, quote = result(body)["timestamp"][15], result(body)["indicators"]["quote"][0]
    for name in PRICES:
        quote[name] = [v if i < 15 else v / ratio for i, v in enumerate(quote[name])]
    split = {"date": at, "numerator": ratio * 10, "denominator": 10}
    result(body)["events"]["splits"] = {str(at): split}
    yahoo.says("FB", body)
    with pytest.raises(DataSourceError, match=r"split of FB by .* on 2012-.* is not in the prices"):
        source.bars("FB")


@pytest.mark.parametrize("ratio", [10.0, 0.1])
def test_yfinance_refuses_missing_split_of_open_session(
    yahoo: Yahoo, source: YFinanceBars, ratio: float
) -> None:
    body = chart(BundledBars().bars("FB")[:20], later_split=ratio)
    for name, values in result(body)["indicators"]["quote"][0].items():
        if name in PRICES:
            values[:-1] = [value * ratio for value in values[:-1]]
    yahoo.says("FB", body)
    with pytest.raises(DataSourceError, match=r"split of FB by .* on 2012-06-16 is not in the pri"):
        source.bars("FB")


@pytest.mark.parametrize("ratio", [10.0, 1.25])
@pytest.mark.parametrize("row", ["none", "empty"])
def test_yfinance_refuses_unconfirmed_split(
    yahoo: Yahoo, source: YFinanceBars, ratio: float, row: str
) -> None:
    body = chart(BundledBars().bars("FB")[:20], later_split=ratio)
    if row == "none":
        result(body)["timestamp"].pop()
    for values in result(body)["indicators"]["quote"][0].values():
        values[-1:] = [None] if row == "empty" else []
    yahoo.says("FB", body)
    said = rf"no bar shows yet whether the split of FB by {ratio:g} after 2012-06-15 is in the pric"
    with pytest.raises(DataSourceError, match=said):
        source.bars("FB")


def test_yfinance_only_correction_is_revision(
    yahoo: Yahoo, source: YFinanceBars, tmp_path: Path
) -> None:
    bars, readings = BundledBars().bars("MSFT"), []
    corrected = bars.to_frame()
    corrected.loc[500, "low"] -= 0.02
    yahoo.now = next_session(bars)
    for series, ratio in [
        (bars[:-1], 1.0),
        (bars, 7.0),
        (bars, 0.1),
        (BarSeries.from_frame("MSFT", corrected), 7.0),
    ]:
        yahoo.says("MSFT", chart(series, later_split=ratio))
        fetched = CachedBars(source, BarStore(tmp_path / "home"), lambda: LATER)
        fetched.bars("MSFT")
        readings.append(fetched.snapshot("MSFT"))
    assert [reading.revised for reading in readings] == [0, 0, 0, 1]
    [change] = readings[-1].changes
    assert (change.closed_at, change.field) == (bars.close_time(500), "low")


def test_yfinance_rate_limit_leaves_cached_bars_usable(
    yahoo: Yahoo, source: YFinanceBars, tmp_path: Path
) -> None:
    yahoo.says("FB", chart(BundledBars().bars("FB")))
    CachedBars(source, BarStore(tmp_path / "home"), lambda: LATER).bars("FB")
    yahoo.says("FB", b"Too Many Requests", 429)
    yahoo.asked.clear()
    again = CachedBars(source, BarStore(tmp_path / "home"), lambda: LATER)
    assert len(again.bars_as_of("FB", parse_as_of("2013-03-01"))) == 196
    assert yahoo.asked == []
    with pytest.raises(DataSourceError, match="no more requests"):
        again.bars_as_of("FB", parse_as_of("2014-03-01"))


def test_yfinance_unknown_ticker_takes_one_request(yahoo: Yahoo, source: YFinanceBars) -> None:
    with pytest.raises(UnknownSymbolError, match="unknown symbol 'NOPE' in yfinance"):
        source.bars("NOPE")
    assert len(yahoo.asked) == 1


@pytest.mark.parametrize("symbol", ["../v7/quote", "A?b=c", "GOOG/..", "", "goog", "A" * 30])
def test_yfinance_never_requests_invalid_ticker(
    yahoo: Yahoo, source: YFinanceBars, symbol: str
) -> None:
    with pytest.raises(UnknownSymbolError):
        source.bars(symbol)
    assert yahoo.asked == []


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (429, b"Too Many Requests", "no more requests for now.*HTTP 429.*FINAGENT_BARS=kept"),
        (500, b"oops", "it failed, Yahoo answered FB with HTTP 500"),
        (503, NOT_FOUND, "HTTP 503"),
        (404, b"<html>proxy</html>", "HTTP 404"),
        (401, b"{}", "HTTP 401"),
        (200, b"<html>Will be right back</html>", "gave no bars of FB"),
        (200, b"\xff\x00 garbage", "gave no bars of FB"),
        (200, b"", "gave no bars of FB"),
        (200, b"[]", "gave no bars of FB"),
        (200, {}, "gave no bars of FB"),
        (200, {"chart": {"result": [], "error": None}}, "gave no bars of FB"),
        (200, NOT_FOUND, "gave no bars of FB"),
    ],
)
def test_yfinance_failure_is_no_empty_history(
    yahoo: Yahoo, source: YFinanceBars, status: int, body: object, said: str
) -> None:
    yahoo.says("FB", body, status)
    with pytest.raises(DataSourceError, match=said):
        source.bars("FB")
    assert len(yahoo.asked) <= 2


@pytest.mark.parametrize("emptied", ["rows", "prices"])
def test_yfinance_answer_without_bar_fails(
    yahoo: Yahoo, source: YFinanceBars, emptied: str
) -> None:
    body = chart(BundledBars().bars("FB")[:5])
    if emptied == "rows":
        result(body)["timestamp"] = []
    for values in result(body)["indicators"]["quote"][0].values():
        values[:] = [] if emptied == "rows" else [None] * 5
    yahoo.says("FB", body)
    with pytest.raises(DataSourceError, match=r"of FB"):
        source.bars("FB")


def test_yfinance_timeout_fails(yahoo: Yahoo, tmp_path: Path) -> None:
    yahoo.delay_s = 600.0
    source = YFinanceBars(tmp_path, lambda: LATER, timeout_s=0.2, **yahoo.transport())
    with pytest.raises(DataSourceError, match=r"gave no bars of SLOW .*[Tt]imed? ?out"):
        source.bars("SLOW")


def test_yfinance_unreachable_server_fails(tmp_path: Path) -> None:
    nobody = Yahoo(tmp_path / "nobody.sock")
    source = YFinanceBars(tmp_path / "cache", lambda: LATER, **nobody.transport())
    with pytest.raises(DataSourceError, match="gave no bars of GONE"):
        source.bars("GONE")


HOURS = ["13:30", "14:30", "15:30", "16:30", "17:30", "18:30", "19:30"]
"""Opens of New York's hours in summer; the last one is half as long."""
DAYS = pd.bdate_range("2024-06-10", periods=9)


def hourly_chart(split_at: int | None = None) -> dict[str, Any]:
    """What Yahoo says of nine days in hours, the last of which ended at 20:00 UTC."""
    opened = [datetime.fromisoformat(f"{d:%Y-%m-%d}T{t}+00:00") for d in DAYS for t in HOURS]
    close = np.round(100 + np.sin(np.arange(len(opened))), 2)
    split = np.ones(len(opened))
    if split_at is not None:
        split[split_at], close[:split_at] = 10.0, close[:split_at] * 10
    table = pd.DataFrame({"closed_at": [f"{m + timedelta(hours=1):%FT%TZ}" for m in opened]})
    table = table.assign(**{name: close for name in PRICES}, volume=10.0, split=split)
    body = chart(BarSeries.from_frame("FB", table, calendar=get_calendar("XNYS")))
    stamps = [int(m.timestamp()) for m in opened]
    periods = [
        {"timezone": "EDT", "start": at, "end": at + 23_400, "gmtoffset": -14_400}
        for at in stamps[:: len(HOURS)]
    ]
    answer = result(body)
    answer["timestamp"] = stamps
    answer["events"]["splits"] = {
        str(stamps[i]): {"date": stamps[i], "numerator": split[i], "denominator": 1}
        for i in np.flatnonzero(split != 1)
    }
    answer["meta"] |= {
        "dataGranularity": "1h",
        "validRanges": ["1d", "730d", "max"],
        "tradingPeriods": [[period] for period in periods],
        "currentTradingPeriod": {part: periods[-1] for part in ("pre", "regular", "post")},
        "regularMarketTime": periods[-1]["end"] + 1,
    }
    return body


def hourly_source(yahoo: Yahoo, folder: Path, calendar: str | None) -> YFinanceBars:
    from yfinance.data import YfData

    YfData.cache_get.cache_clear()
    market = get_calendar(calendar) if calendar else None
    hour = parse_timeframe("1h")
    return YFinanceBars(
        folder, lambda: yahoo.now, timeframe=hour, calendar=market, **yahoo.transport()
    )


def test_yfinance_hours_close_within_their_session(yahoo: Yahoo, tmp_path: Path) -> None:
    yahoo.says("FB", hourly_chart())
    yahoo.now = datetime(2024, 6, 24, tzinfo=UTC)
    source = hourly_source(yahoo, tmp_path / "yfinance", "XNYS")
    bars = source.bars("FB")
    assert (source.name, bars.timeframe.name) == ("yfinance?timeframe=1h&calendar=XNYS", "1h")
    assert (bars.calendar.name, len(bars)) == ("XNYS", 63)
    assert [f"{bars.close_time(i):%d %H:%M}" for i in (0, 5, 6, 7)] == [
        "10 14:30",
        "10 19:30",
        "10 20:00",
        "11 14:30",
    ]
    assert "interval=1h" in yahoo.asked[-1]


def test_yfinance_hours_without_calendar_close_an_hour_later(yahoo: Yahoo, tmp_path: Path) -> None:
    yahoo.says("FB", hourly_chart())
    yahoo.now = datetime(2024, 6, 24, tzinfo=UTC)
    bars = hourly_source(yahoo, tmp_path / "yfinance", None).bars("FB")
    assert f"{bars.close_time(6):%H:%M}" == "20:30"


def test_yfinance_hours_undo_splits(yahoo: Yahoo, tmp_path: Path) -> None:
    yahoo.says("FB", hourly_chart(split_at=14))
    yahoo.now = datetime(2024, 6, 24, tzinfo=UTC)
    bars = hourly_source(yahoo, tmp_path / "yfinance", "XNYS").bars("FB")
    assert (bars.split[14], bars.split.sum()) == (10.0, 72.0)
    assert bars.close[13] / bars.close[14] == pytest.approx(10, rel=0.02)


def test_yfinance_hour_that_goes_on_is_left_out(yahoo: Yahoo, tmp_path: Path) -> None:
    body = hourly_chart()
    # At 18:50 the bar of 18:30 goes on, and that of 17:30 is over: there was a trade after it.
    moment = datetime(2024, 6, 20, 18, 50, tzinfo=UTC)
    for values in (result(body)["timestamp"], *result(body)["indicators"]["quote"][0].values()):
        del values[-1]
    result(body)["meta"]["regularMarketTime"] = int(moment.timestamp()) - 60
    yahoo.says("FB", body)
    yahoo.now = moment
    bars = hourly_source(yahoo, tmp_path / "yfinance", "XNYS").bars("FB")
    assert f"{bars.close_time(-1):%d %H:%M}" == "20 18:30"


def test_yfinance_days_close_with_declared_session(yahoo: Yahoo, tmp_path: Path) -> None:
    series = BundledBars().bars("FB")[:20]
    yahoo.says("FB", chart(series))
    market = get_calendar("XNYS")
    source = YFinanceBars(
        tmp_path / "yfinance", lambda: yahoo.now, calendar=market, **yahoo.transport()
    )
    bars = source.bars("FB")
    assert f"{bars.close_time(-1):%H:%M}" == "20:00"
    assert bars.close.tolist() == pytest.approx(series.close.tolist())
