"""A small file of each vendor is read as what it says: days, prices, volume and actions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finagent_model.data.bar_files import FolderBars
from finagent_model.data.vendors import VENDORS, looks_like_price, vendor_names
from finagent_model.errors import InvalidBarsError
from support.places import ROOT

DAYS = ["2024-06-26", "2024-06-27", "2024-06-28"]
CLOSES = [10.5, 11.0, 2.75]
VOLUMES = [1500.0, 1600.0, 6400.0]

TIINGO = """date,close,high,low,open,volume,\
adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor
2024-06-26T00:00:00.000Z,10.5,11,10,10.2,1500,2.6,2.7,2.5,2.5,6000,0.0,1.0
2024-06-27T00:00:00.000Z,11,11.5,10.4,10.5,1600,2.75,2.8,2.6,2.6,6400,0.1,1.0
2024-06-28T00:00:00.000Z,2.75,2.9,2.7,2.8,6400,2.75,2.9,2.7,2.8,6400,0.0,4.0
"""
ALPHA_VANTAGE = """timestamp,open,high,low,close,\
adjusted_close,volume,dividend_amount,split_coefficient
2024-06-28,2.8,2.9,2.7,2.75,2.75,6400,0.0000,4.0
2024-06-27,10.5,11.5,10.4,11,2.75,1600,0.1000,1.0
2024-06-26,10.2,11,10,10.5,2.6,1500,0.0000,1.0
"""
ALPHA_VANTAGE_KEYS = (
    "date,1. open,2. high,3. low,4. close,5. adjusted close,6. volume,7. dividend amount,"
    "8. split coefficient\n" + ALPHA_VANTAGE.partition("\n")[2]
)
WIKI = """Date,Open,High,Low,Close,Volume,Ex-Dividend,\
Split Ratio,Adj. Open,Adj. High,Adj. Low,Adj. Close,Adj. Volume
2024-06-26,10.2,11,10,10.5,1500,0.0,1.0,2.5,2.7,2.5,2.6,6000
2024-06-27,10.5,11.5,10.4,11,1600,0.1,1.0,2.6,2.8,2.6,2.75,6400
2024-06-28,2.8,2.9,2.7,2.75,6400,0.0,4.0,2.8,2.9,2.7,2.75,6400
"""
BINANCE = """open_time,open,high,low,close,volume,\
close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore
1719360000000,10.2,11,10,10.5,1500,1719446399999,1.0,10,1.0,1.0,0
1719446400000,10.5,11.5,10.4,11,1600,1719532799999,1.0,10,1.0,1.0,0
1719532800000,2.8,2.9,2.7,2.75,6400,1719619199999,1.0,10,1.0,1.0,0
"""
BINANCE_MICROSECONDS = re.sub(r"(\d{13})", r"\g<1>000", BINANCE).partition("\n")[2]
POLYGON = """ticker,volume,open,close,high,low,window_start,transactions
X,1500,10.2,10.5,11,10,1719374400000000000,10
X,1600,10.5,11,11.5,10.4,1719460800000000000,10
X,6400,2.8,2.75,2.9,2.7,1719547200000000000,10
"""
POLYGON_REST = """v,vw,o,c,h,l,t,n
1500,10,10.2,10.5,11,10,1719374400000,10
1600,10,10.5,11,11.5,10.4,1719460800000,10
6400,2,2.8,2.75,2.9,2.7,1719547200000,10
"""
ALPACA = """timestamp,open,high,low,close,volume,trade_count,vwap
2024-06-26T04:00:00Z,10.2,11,10,10.5,1500,10,10.4
2024-06-27T04:00:00Z,10.5,11.5,10.4,11,1600,10,10.4
2024-06-28T04:00:00Z,2.8,2.9,2.7,2.75,6400,10,2.8
"""
STOOQ_BULK = """<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
X.US,D,20240626,000000,10.2,11,10,10.5,1500,0
X.US,D,20240627,000000,10.5,11.5,10.4,11,1600,0
X.US,D,20240628,000000,2.8,2.9,2.7,2.75,6400,0
"""
STOOQ_POLISH = """Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen
2024-06-26,10.2,11,10,10.5,1500
2024-06-27,10.5,11.5,10.4,11,1600
2024-06-28,2.8,2.9,2.7,2.75,6400
"""
METATRADER_5 = """<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>
2024.06.26\t10.2\t11\t10\t10.5\t1500\t0\t5
2024.06.27\t10.5\t11.5\t10.4\t11\t1600\t0\t5
2024.06.28\t2.8\t2.9\t2.7\t2.75\t6400\t0\t5
"""
METATRADER_4 = """2024.06.26,00:00,10.2,11,10,10.5,1500
2024.06.27,00:00,10.5,11.5,10.4,11,1600
2024.06.28,00:00,2.8,2.9,2.7,2.75,6400
"""
NASDAQ = """Date,Close/Last,Volume,Open,High,Low
06/28/2024,$2.75,6400,$2.80,$2.90,$2.70
06/27/2024,$11.00,1600,$10.50,$11.50,$10.40
06/26/2024,$10.50,1500,$10.20,$11.00,$10.00
"""
INVESTING = """"Date","Price","Open","High","Low","Vol.","Change %"
"06/28/2024","2.75","2.80","2.90","2.70","6.40K","-75.00%"
"06/27/2024","11.00","10.50","11.50","10.40","1.60K","4.76%"
"06/26/2024","10.50","10.20","11.00","10.00","1.50K","0.10%"
"""
INVESTING_GERMAN = """\ufeff"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"
"28.06.2024","2,75","2,80","2,90","2,70","6,40K","-75,00%"
"27.06.2024","11,00","10,50","11,50","10,40","1,60K","4,76%"
"26.06.2024","10,50","10,20","11,00","10,00","1,50K","0,10%"
"""
INTERACTIVE_BROKERS = """,date,open,high,low,close,volume,average,barCount
0,2024-06-26,10.2,11,10,10.5,1500,10.4,10
1,2024-06-27,10.5,11.5,10.4,11,1600,10.4,10
2,2024-06-28,2.8,2.9,2.7,2.75,6400,2.8,10
"""
INTERACTIVE_BROKERS_TWICE = """Date,date,open,high,low,close,volume,average,barCount
2024-06-26,20240626,10.2,11,10,10.5,1500,10.4,10
2024-06-27,20240627,10.5,11.5,10.4,11,1600,10.4,10
2024-06-28,20240628,2.8,2.9,2.7,2.75,6400,2.8,10
"""
DUKASCOPY = """Gmt time,Open,High,Low,Close,Volume
26.06.2024 00:00:00.000,10.2,11,10,10.5,1500
27.06.2024 00:00:00.000,10.5,11.5,10.4,11,1600
28.06.2024 00:00:00.000,2.8,2.9,2.7,2.75,6400
"""
CRYPTO_DATA_DOWNLOAD = """https://www.CryptoDataDownload.com
unix,date,symbol,open,high,low,close,Volume X,Volume USD
1719532800,2024-06-28 00:00:00,X/USD,2.8,2.9,2.7,2.75,6400,1
1719446400,2024-06-27 00:00:00,X/USD,10.5,11.5,10.4,11,1600,1
1719360000,2024-06-26 00:00:00,X/USD,10.2,11,10,10.5,1500,1
"""
KRAKEN = """1719360000,10.2,11,10,10.5,1500,10
1719446400,10.5,11.5,10.4,11,1600,10
1719532800,2.8,2.9,2.7,2.75,6400,10
"""
QUANT_CONNECT = """20240626 00:00,102000,110000,100000,105000,1500
20240627 00:00,105000,115000,104000,110000,1600
20240628 00:00,28000,29000,27000,27500,6400
"""
YFINANCE = """Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits
2024-06-26 00:00:00-04:00,2.55,2.75,2.5,2.625,2.6,6000,0.0,0.0
2024-06-27 00:00:00-04:00,2.625,2.875,2.6,2.75,2.75,6400,0.025,0.0
2024-06-28 00:00:00-04:00,2.8,2.9,2.7,2.75,2.75,6400,0.0,4.0
"""
YFINANCE_LEVELS = """Price,Adj Close,Close,High,Low,Open,Volume
Ticker,X,X,X,X,X,X
Date,,,,,,
2024-06-26,2.625,10.5,11,10,10.2,1500
2024-06-27,2.75,11,11.5,10.4,10.5,1600
2024-06-28,2.75,2.75,2.9,2.7,2.8,6400
"""
COIN_MARKET_CAP = """timeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;\
marketCap;timestamp
"2024-06-28T00:00:00.000Z";"2024-06-28T23:59:59.999Z";"";"";"2781";2.8;2.9;2.7;2.75;6400;1;""
"2024-06-27T00:00:00.000Z";"2024-06-27T23:59:59.999Z";"";"";"2781";10.5;11.5;10.4;11;1600;1;""
"2024-06-26T00:00:00.000Z";"2024-06-26T23:59:59.999Z";"";"";"2781";10.2;11;10;10.5;1500;1;""
"""
BARCHART = """Time,Open,High,Low,Last,Change,%Chg,Volume
06/28/2024,2.8,2.9,2.7,2.75,-8.25,-75.00%,6400
06/27/2024,10.5,11.5,10.4,11,0.5,+4.76%,1600
06/26/2024,10.2,11,10,10.5,0,0.00%,1500
"Downloaded from Barchart.com as of 06-28-2024 10:11am CDT"
"""
EURONEXT = """"Historical data"
Date;Open;High;Low;Last;Close;"Number of Shares";"Number of Trades";Turnover
28/06/2024;2.8;2.9;2.7;2.75;2.75;6400;5;7
27/06/2024;10.5;11.5;10.4;11;11;1600;5;7
26/06/2024;10.2;11;10;10.5;10.5;1500;5;7
"""
OANDA = """time,volume,o,h,l,c,complete
2024-06-26T00:00:00.000000000Z,1500,10.2,11,10,10.5,True
2024-06-27T00:00:00.000000000Z,1600,10.5,11.5,10.4,11,True
2024-06-28T00:00:00.000000000Z,6400,2.8,2.9,2.7,2.75,True
"""
SHARADAR = """ticker,date,open,high,low,close,volume,closeadj,closeunadj,lastupdated
X,2024-06-26,2.55,2.75,2.5,2.625,6000,2.6,10.5,2024-07-01
X,2024-06-27,2.625,2.875,2.6,2.75,6400,2.75,11,2024-07-01
X,2024-06-28,2.8,2.9,2.7,2.75,6400,2.75,2.75,2024-07-01
"""
WITH_ACTIONS = {
    "Tiingo": ("X.csv", TIINGO),
    "Alpha Vantage": ("X.csv", ALPHA_VANTAGE),
    "Alpha Vantage, its keys": ("X.csv", ALPHA_VANTAGE_KEYS),
    "Quandl WIKI": ("X.csv", WIKI),
    "yfinance": ("X.csv", YFINANCE),
}
WITHOUT_ACTIONS = {
    "Binance": ("X.csv", BINANCE),
    "Binance, without a header": ("X.csv", BINANCE_MICROSECONDS),
    "CoinMarketCap": ("X.csv", COIN_MARKET_CAP),
    "Polygon": ("day_aggs.csv", POLYGON),
    "Polygon, REST": ("X.csv", POLYGON_REST),
    "Alpaca": ("X.csv", ALPACA),
    "Stooq": ("x_us.txt", STOOQ_BULK),
    "Stooq, Polish": ("X.csv", STOOQ_POLISH),
    "MetaTrader 5": ("X.csv", METATRADER_5),
    "MetaTrader 4": ("X.csv", METATRADER_4),
    "Nasdaq.com": ("X.csv", NASDAQ),
    "Investing.com": ("X.csv", INVESTING),
    "Investing.com, German": ("X.csv", INVESTING_GERMAN),
    "Interactive Brokers": ("X.csv", INTERACTIVE_BROKERS),
    "Interactive Brokers, with its index": ("X.csv", INTERACTIVE_BROKERS_TWICE),
    "Dukascopy": ("X.csv", DUKASCOPY),
    "CryptoDataDownload": ("Gemini_XUSD_d.csv", CRYPTO_DATA_DOWNLOAD),
    "Kraken": ("X.csv", KRAKEN),
    "QuantConnect": ("X.csv", QUANT_CONNECT),
    "Barchart": ("X.csv", BARCHART),
    "Euronext": ("X.csv", EURONEXT),
    "OANDA": ("X.csv", OANDA),
}


@pytest.mark.parametrize("vendor", [*WITH_ACTIONS, *WITHOUT_ACTIONS])
def test_vendor_file_gives_days_prices_and_volume(tmp_path: Path, vendor: str) -> None:
    name, text = {**WITH_ACTIONS, **WITHOUT_ACTIONS}[vendor]
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = FolderBars(tmp_path)
    [symbol] = source.symbols()
    series = source.bars(symbol)
    assert [f"{series.close_time(i):%Y-%m-%d}" for i in range(3)] == DAYS
    assert series.close == pytest.approx(CLOSES)
    assert series.open == pytest.approx([10.2, 10.5, 2.8])
    assert series.volume == pytest.approx(VOLUMES)


@pytest.mark.parametrize("vendor", WITH_ACTIONS)
def test_vendor_actions_are_read(tmp_path: Path, vendor: str) -> None:
    name, text = WITH_ACTIONS[vendor]
    (tmp_path / name).write_text(text, encoding="utf-8")
    series = FolderBars(tmp_path).bars("X")
    assert series.split.tolist() == [1.0, 1.0, 4.0]
    assert series.dividend == pytest.approx([0.0, 0.1, 0.0])
    assert series.adjust_to_first_bar().close[-1] == pytest.approx(11.0 / (1 - 0.1 / 10.5))


def test_vendor_yfinance_levels_infer_actions(tmp_path: Path) -> None:
    (tmp_path / "any.csv").write_text(YFINANCE_LEVELS)
    series = FolderBars(tmp_path).bars("X")
    assert series.split.tolist() == [1.0, 1.0, 4.0]
    assert series.close.tolist() == CLOSES
    assert not any("already" in note for note in series.notes)


def test_vendor_yfinance_without_adjusted_close_stays_adjusted(tmp_path: Path) -> None:
    rows = [row.split(",") for row in YFINANCE.splitlines()]
    text = "\n".join(",".join(row[:5] + row[6:]) for row in rows)
    (tmp_path / "X.csv").write_text(text)
    series = FolderBars(tmp_path).bars("X")
    assert series.close.tolist() == [2.625, 2.75, 2.75]
    assert (series.split == 1.0).all() and (series.dividend == 0.0).all()
    assert "prices have the dividends in them already" in series.notes[0]


def test_vendor_yfinance_as_traded_prices_are_refused(tmp_path: Path) -> None:
    text = YFINANCE.replace("2.55,2.75,2.5,2.625", "10.2,11,10,10.5")
    text = text.replace("2.625,2.875,2.6,2.75", "10.5,11.5,10.4,11")
    (tmp_path / "X.csv").write_text(text)
    with pytest.raises(InvalidBarsError, match="call the columns 'split' and 'dividend'"):
        FolderBars(tmp_path).bars("X")


def test_vendor_index_that_pandas_wrote_is_no_date(tmp_path: Path) -> None:
    rows = YFINANCE.splitlines()
    text = "\n".join([f",{rows[0]}", *(f"{i},{row}" for i, row in enumerate(rows[1:]))])
    (tmp_path / "X.csv").write_text(text)
    assert FolderBars(tmp_path).bars("X").split.tolist() == [1.0, 1.0, 4.0]


def test_vendor_close_stamp_without_zone_is_utc(tmp_path: Path) -> None:
    text = BINANCE.replace("1719360000000", "2024-06-26 00:00:00").replace(
        "1719446399999", "2024-06-26 23:59:59.999"
    )
    (tmp_path / "X.csv").write_text("\n".join(text.splitlines()[:2]))
    closed_at = FolderBars(tmp_path).bars("X").close_time(0)
    assert closed_at.isoformat() == "2024-06-26T23:59:59.999000+00:00"


def test_vendor_hint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text(NASDAQ)
    (tmp_path / "bars.yaml").write_text("vendor: Kraken\n")
    with pytest.raises(InvalidBarsError, match="not those of Kraken; correct `vendor:`"):
        FolderBars(tmp_path).bars("X")


def test_vendor_integers_alone_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text(QUANT_CONNECT.replace("105000,1500", "105000.5,1500"))
    assert FolderBars(tmp_path).bars("X").close[0] == 105000.5


def test_vendor_sharadar_prices_have_their_splits(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text(SHARADAR)
    series = FolderBars(tmp_path).bars("X")
    assert series.close.tolist() == [2.625, 2.75, 2.75]
    assert series.dividend == pytest.approx([0.0, 2.625 * (1 - 2.6 / 2.625), 0.0])


def test_vendor_of_every_row_has_a_file_here() -> None:
    here = {name.split(",")[0].rstrip(" 45") for name in (*WITH_ACTIONS, *WITHOUT_ACTIONS)}
    assert {vendor.name for vendor in VENDORS} == here | {"Sharadar"}


def test_vendor_rows_differ_in_their_columns() -> None:
    signatures = [frozenset(v.columns) for v in VENDORS if v.columns]
    assert len(set(signatures)) == len(signatures)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, True) for name in ("splitFactor", "Stock Splits", "DIVIDENDS", "adjFactor")],
        *[(name, True) for name in ("close_usd", "Settle", "Last Price", "factor")],
        *[
            (name, False)
            for name in ("note", "cash_flow", "price_change", "vwap", "individual", "rsi_14")
        ],
    ],
)
def test_looks_like_price_by_words(name: str, expected: bool) -> None:
    assert looks_like_price(name) is expected


def test_table_of_vendors_in_docs_is_the_codes() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    rows = dict(re.findall(r"^\| ([\w. ]+?) \| (.*?) \|", page, flags=re.M))
    for name in vendor_names():
        roles = {
            role
            for vendor in VENDORS
            if vendor.name == name
            for role in (*vendor.columns.values(), *vendor.optional.values())
        }
        actions = "its columns" if "split" in roles else "from the adjusted close"
        assert rows[name] == (actions if roles & {"split", "adj_close"} else "none in the file")
