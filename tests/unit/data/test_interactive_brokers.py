"""Bars of Interactive Brokers, by a stand-in for its client: what is asked, read and refused."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from importlib.machinery import ModuleSpec
from pathlib import Path

import pandas as pd
import pytest

from finagent_model.data._interactive_brokers import InteractiveBrokersBars
from finagent_model.data.market import Market
from finagent_model.errors import ConfigError, DataSourceError, UnknownSymbolError
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from support.fake_ib import BarData, Gateway, RequestError

DAYS = [day.date() for day in pd.bdate_range("2026-01-05", periods=60)]
EVENING = datetime(2026, 3, 28, 12, tzinfo=UTC)
"""A Saturday, after the last of them."""


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway()
    module = gateway.module()
    module.__spec__ = ModuleSpec("ib_async", None)
    monkeypatch.setitem(sys.modules, "ib_async", module)
    gateway.bars["TSLA", "TRADES"] = [bar(d, 100 + i % 5) for i, d in enumerate(DAYS)]
    gateway.bars["TSLA", "ADJUSTED_LAST"] = gateway.bars["TSLA", "TRADES"]
    return gateway


def bar(day: date | datetime, close: float, volume: float = 1000.0) -> BarData:
    return BarData(day, close, close + 1, close - 1, close, volume)


def source(name: str = "ib", now: datetime = EVENING) -> InteractiveBrokersBars:
    return InteractiveBrokersBars(name, lambda: now)


def test_ib_days_are_read_only_by_two_requests(gateway: Gateway) -> None:
    bars = source().bars("TSLA")
    assert (len(bars), f"{bars.close_time(-1):%F %H:%M}") == (60, "2026-03-27 21:00")
    assert (bars.close[3], bars.volume[3], bars.timeframe.name) == (103, 1000, "1d")
    assert "have splits in them already" in bars.notes[0]
    connection, trades, adjusted = gateway.asked
    assert (connection["host"], connection["port"], connection["clientId"]) == (
        "127.0.0.1",
        4001,
        17,
    )
    assert connection["readonly"] is True
    assert (trades["durationStr"], trades["barSizeSetting"]) == ("20 Y", "1 day")
    assert [trades["whatToShow"], adjusted["whatToShow"]] == ["TRADES", "ADJUSTED_LAST"]
    assert gateway.connected == 0


def test_ib_dividends_are_told_by_adjusted_prices(gateway: Gateway) -> None:
    gateway.bars["TSLA", "TRADES"] = [bar(day, 100.0) for day in DAYS]
    adjusted = [bar(day, 99.0 if i < 30 else 100.0) for i, day in enumerate(DAYS)]
    gateway.bars["TSLA", "ADJUSTED_LAST"] = adjusted
    bars = source().bars("TSLA")
    assert bars.dividend[30] == pytest.approx(1.0)
    assert (bars.dividend.sum(), bars.split.sum()) == (pytest.approx(1.0), 60)


@pytest.mark.parametrize(
    ("hours", "now", "last"),
    [
        ("20260327:0930-20260327:1600;20260328:CLOSED", "2026-03-27T19:59:00Z", 26),
        ("20260327:0930-20260327:1600;20260328:CLOSED", "2026-03-27T20:00:00Z", 27),
        ("20260327:0930-20260327:1300", "2026-03-27T17:00:00Z", 27),
        # Without hours the day may go on until it ends in New York.
        ("", "2026-03-27T23:00:00Z", 26),
        ("", "2026-03-28T04:00:00Z", 27),
    ],
)
def test_ib_session_that_goes_on_has_no_bar(
    gateway: Gateway, hours: str, now: str, last: int
) -> None:
    gateway.hours = hours
    bars = source(now=datetime.fromisoformat(now)).bars("TSLA")
    assert bars.day(-1).day == last


def test_ib_currencies_are_pairs_that_end_at_five(gateway: Gateway) -> None:
    gateway.bars["EURUSD", "MIDPOINT"] = [bar(day, 2.0, -1) for day in DAYS]
    bars = source().bars("EUR.USD")
    assert (bars.symbol, bars.calendar.name, len(bars)) == ("EUR.USD", "fx", 60)
    assert (f"{bars.close_time(0):%F %H:%M}", bars.notes) == ("2026-01-05 22:00", ())
    assert pd.isna(bars.volume).all()
    assert len(gateway.asked) == 2


def test_ib_hours_close_within_declared_session(gateway: Gateway) -> None:
    opened = [
        datetime(2026, 3, day, 13, 30, tzinfo=UTC) + timedelta(hours=i)
        for day in (24, 25, 26)
        for i in range(7)
    ]
    gateway.bars["TSLA", "TRADES"] = [bar(moment, 100.0) for moment in opened]
    gateway.bars["TSLA", "ADJUSTED_LAST"] = gateway.bars["TSLA", "TRADES"]
    hourly = source("ib://gateway:7497?client=3&timeframe=1h&calendar=XNYS", opened[-1])
    bars = hourly.bars("TSLA")
    assert hourly.name == "ib?timeframe=1h&calendar=XNYS"
    assert (bars.timeframe.name, len(bars)) == ("1h", 20)
    assert f"{bars.close_time(6):%H:%M}" == "20:00"
    connection, trades, _ = gateway.asked
    assert (connection["host"], connection["port"], connection["clientId"]) == ("gateway", 7497, 3)
    assert (trades["durationStr"], trades["barSizeSetting"]) == ("1 Y", "1 hour")


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), TimeoutError()])
def test_ib_gateway_that_is_not_there_is_named(gateway: Gateway, error: Exception) -> None:
    gateway.refuses = error
    with pytest.raises(DataSourceError) as caught:
        source("ib://127.0.0.1:4002").bars("TSLA")
    message = str(caught.value)
    assert "gateway does not answer at 127.0.0.1:4002" in message
    assert "start TWS or IB Gateway, enable API connections" in message


@pytest.mark.parametrize("symbol", ["NOPE", "tsla", "../X"])
def test_ib_unknown_symbol_is_unknown(gateway: Gateway, symbol: str) -> None:
    with pytest.raises(UnknownSymbolError):
        source().bars(symbol)


def test_ib_refusal_is_failure_with_its_words(gateway: Gateway) -> None:
    gateway.error = RequestError(162, "Historical Market Data Service error: no permissions")
    with pytest.raises(DataSourceError, match=r"no permissions.*market data subscriptions"):
        source().bars("TSLA")
    assert gateway.connected == 0


def test_ib_without_a_bar_is_failure(gateway: Gateway) -> None:
    gateway.bars["TSLA", "TRADES"] = gateway.bars["TSLA", "ADJUSTED_LAST"] = []
    with pytest.raises(DataSourceError, match="without a closed bar of TSLA"):
        source().bars("TSLA")


def test_ib_bars_of_different_days_are_refused(gateway: Gateway) -> None:
    gateway.bars["TSLA", "ADJUSTED_LAST"] = gateway.bars["TSLA", "TRADES"][1:]
    with pytest.raises(DataSourceError, match="not of the same days"):
        source().bars("TSLA")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ib://127.0.0.1:99999", "FINAGENT_BARS: .*write ib, or ib://127"),
        ("ib?client=one", "FINAGENT_BARS: .*'one'"),
        ("ib?zone=UTC", "option 'zone' is unknown; there is: client, timeframe, calendar"),
        ("ib?timeframe=1w", "is not asked for bars of 1 week; write timeframe=1d, 4h"),
    ],
)
def test_ib_bad_name_is_named(gateway: Gateway, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source(name)


def test_ib_client_that_is_missing_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ib_async", None)
    with pytest.raises(ConfigError, match=r"uv pip install -e .\.\[ib\].$"):
        source()


def test_ib_has_no_list_of_symbols(gateway: Gateway) -> None:
    with pytest.raises(DataSourceError, match="name those that you want"):
        source().symbols()


def test_ib_bars_of_today_are_not_missing(gateway: Gateway, tmp_path: Path) -> None:
    settings = Settings.load({"FINAGENT_BARS": "ib", "FINAGENT_HOME": str(tmp_path)})
    view = Market.from_settings(settings).view("TSLA", parse_as_of("2026-03-27"))
    assert (view.last_close, view.is_stale) == (104, False)
