"""Bars from the user's own files: what is read, and what is said when it can't be."""

from __future__ import annotations

import gzip
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from finagent_model.data._sql import SqlBars
from finagent_model.data.bar_files import FolderBars, read_bars, write_bars
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidBarsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import PRICES, BarSeries, parse_as_of

GOOD = """Date,Open,High,Low,Close,Volume,Adj Close
2012-06-27,10,11,9,10,100,5
2012-06-28,5,6,4.5,5.5,200,5.5
2012-06-29,5,6,4.5,5.0,200,5.05
"""


def folder(path: Path, **files: str) -> FolderBars:
    for name, text in files.items():
        (path / f"{name}.csv").write_text(text, encoding="utf-8")
    return FolderBars(path)


def test_folder_bars_ignore_case_of_columns(tmp_path: Path) -> None:
    series = folder(tmp_path, GOOG=GOOD).bars("GOOG")
    assert series.symbol == "GOOG"
    assert series.close_time(0).isoformat() == "2012-06-27T21:00:00+00:00"
    assert series.close.tolist() == [10.0, 5.5, 5.0]
    assert series.volume.tolist() == [100.0, 200.0, 200.0]


def test_folder_bars_infer_actions_from_adjusted_close(tmp_path: Path) -> None:
    series = folder(tmp_path, GOOG=GOOD).bars("GOOG")
    assert series.split.tolist() == [1.0, 2.0, 1.0]
    assert series.dividend == pytest.approx([0.0, 0.0, 5.5 * (1 - 1 / 1.01)])


def test_folder_bars_action_columns_win_over_adjusted_close(tmp_path: Path) -> None:
    text = (
        "closed_at,open,high,low,close,split,dividend,adj_close,note\n"
        "2012-06-28T21:00:00+00:00,10,11,9,10,,,9,a\n"
        "2012-06-29T21:00:00+00:00,5,6,4,5,2,0.1,3,b\n"
    )
    series = folder(tmp_path, X=text).bars("X")
    assert series.split.tolist() == [1.0, 2.0]
    assert series.dividend.tolist() == [0.0, 0.1]


@pytest.mark.parametrize("column", ["Stock Splits", "Dividends", "splits"])
def test_folder_bars_refuse_vendor_action_columns(tmp_path: Path, column: str) -> None:
    table = pd.DataFrame(
        {"Date": ["2012-06-29"], **{name: [5.0] for name in PRICES}, column: [2.0]}
    )
    table.to_csv(tmp_path / "CSV.csv", index=False)
    table.to_parquet(tmp_path / "PARQUET.parquet")
    with closing(sqlite3.connect(tmp_path / "bars.db")) as connection:
        table.assign(symbol="SQL").to_sql("bars", connection, index=False)
    ours = column.lower().replace(" ", "_")  # by which a database was asked for it
    for source, symbol, name in (
        (FolderBars(tmp_path), "CSV", column),
        (FolderBars(tmp_path), "PARQUET", column),
        (SqlBars(f"sqlite:///{tmp_path}/bars.db"), "SQL", ours),
    ):
        said = f"column '{name}' is not read, and looks like .*; call it split, .* or (list|leave)"
        with pytest.raises(InvalidBarsError, match=said):
            source.bars(symbol)


@pytest.mark.parametrize(("given", "missing"), [("split", "dividend"), ("dividend", "split")])
def test_folder_bars_refuse_half_of_the_actions(tmp_path: Path, given: str, missing: str) -> None:
    text = f"date,open,high,low,close,adj_close,{given}\n2012-06-29,5,6,4,5,4,1\n"
    with pytest.raises(InvalidBarsError, match=f"column '{missing}' is missing beside '{given}'"):
        folder(tmp_path, X=text).bars("X")
    text = text.replace(",adj_close", "").replace("5,4,1", "5,1")
    series = folder(tmp_path, X=text).bars("X")
    assert getattr(series, missing).tolist() == [{"split": 1.0, "dividend": 0.0}[missing]]


def test_folder_bars_without_actions_have_none(tmp_path: Path) -> None:
    text = "date,open,high,low,close\n2012-06-29,5,6,4,5\n"
    series = folder(tmp_path, X=text).bars("X")
    assert (series.split.tolist(), series.dividend.tolist()) == ([1.0], [0.0])


@pytest.mark.parametrize("stored_as", ["text", "midnight"])
def test_folder_bars_parquet_equals_csv(tmp_path: Path, stored_as: str) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    table = pd.read_csv(tmp_path / "GOOG.csv")
    if stored_as == "midnight":
        table["Date"] = pd.to_datetime(table["Date"])
    table.to_parquet(tmp_path / "COPY.parquet")
    pd.testing.assert_frame_equal(source.bars("COPY").to_frame(), source.bars("GOOG").to_frame())


def daily(zone: str | None) -> pd.DataFrame:
    """As a user's tools keep days: by midnight, in the exchange's zone or none."""
    days = pd.DatetimeIndex(["2024-03-06", "2024-03-07", "2024-03-11"], name="Date", tz=zone)
    return pd.DataFrame({name: [2.0, 3.0, 4.0] for name in PRICES}, index=days)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo", "America/New_York"])
def test_folder_bars_midnight_in_any_zone_is_its_day(tmp_path: Path, zone: str | None) -> None:
    table = daily(zone)
    table.to_csv(tmp_path / "CSV.csv")
    table.to_parquet(tmp_path / "INDEX.parquet")
    table.reset_index().to_parquet(tmp_path / "COLUMN.parquet", index=False)
    with closing(sqlite3.connect(tmp_path / "bars.db")) as connection:
        table.assign(symbol="SQL").to_sql("bars", connection)
    read = [FolderBars(tmp_path).bars(symbol) for symbol in FolderBars(tmp_path).symbols()]
    read.append(SqlBars(f"sqlite:///{tmp_path}/bars.db").bars("SQL"))
    assert len(read) == 4
    for series in read:
        days = [series.close_time(i).isoformat() for i in range(3)]
        assert days == [f"2024-03-{day}T21:00:00+00:00" for day in ("06", "07", "11")]
        assert len(series.until(parse_as_of("2024-03-06"))) == 1
        assert len(series.until(datetime(2024, 3, 7, 13, tzinfo=UTC))) == 1


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_folder_bars_refuse_date_with_time_of_day(tmp_path: Path, zone: str | None) -> None:
    table = daily(zone)
    table.index += pd.Timedelta(hours=22)
    table.to_csv(tmp_path / "CSV.csv")
    table.to_parquet(tmp_path / "PARQUET.parquet")
    with closing(sqlite3.connect(tmp_path / "bars.db")) as connection:
        table.assign(symbol="SQL").to_sql("bars", connection)
    said = r"date '2024-03-06.22:00:00.*' (in line 2|at bar 0) has a time of day; .* 'closed_at'"
    for source, symbol in (
        (FolderBars(tmp_path), "CSV"),
        (FolderBars(tmp_path), "PARQUET"),
        (SqlBars(f"sqlite:///{tmp_path}/bars.db"), "SQL"),
    ):
        with pytest.raises(InvalidBarsError, match=said):
            source.bars(symbol)


def test_folder_bars_closed_at_keeps_time_of_day(tmp_path: Path) -> None:
    table = daily("America/New_York").rename_axis("closed_at")
    table.index += pd.Timedelta(hours=16)
    table.to_csv(tmp_path / "CSV.csv")
    table.to_parquet(tmp_path / "PARQUET.parquet")
    for symbol in ("CSV", "PARQUET"):
        series = FolderBars(tmp_path).bars(symbol)
        assert series.close_time(0) == datetime(2024, 3, 6, 21, tzinfo=UTC)
        assert series.close_time(2) == datetime(2024, 3, 11, 20, tzinfo=UTC)


def test_folder_bars_symbols_are_file_names(tmp_path: Path) -> None:
    source = folder(tmp_path, MSFT=GOOD, aapl=GOOD)
    (tmp_path / "README.md").write_text("no bars")
    (tmp_path / "IBM.csv").mkdir()
    assert source.symbols() == ("AAPL", "MSFT")
    assert source.bars("AAPL").symbol == "AAPL"


@pytest.mark.parametrize("symbol", ["../X", "sub/X", "X.csv", "", ".", "x", "../inside/GOOG"])
def test_folder_bars_symbol_stays_in_folder(tmp_path: Path, symbol: str) -> None:
    (tmp_path / "inside" / "sub").mkdir(parents=True)
    folder(tmp_path, X=GOOD)
    folder(tmp_path / "inside" / "sub", X=GOOD)
    source = folder(tmp_path / "inside", GOOG=GOOD)
    with pytest.raises(UnknownSymbolError, match="it has: GOOG"):
        source.bars(symbol)


def test_folder_bars_absolute_path_is_unknown_symbol(tmp_path: Path) -> None:
    with pytest.raises(UnknownSymbolError):
        folder(tmp_path, GOOG=GOOD).bars(str(tmp_path / "GOOG"))


def test_folder_bars_name_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataSourceError, match=r"nowhere can't be listed .* such as GOOG\.csv"):
        FolderBars(tmp_path / "nowhere").symbols()


def test_folder_bars_refuse_two_files_of_symbol(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    (tmp_path / "GOOG.parquet").write_bytes(b"")
    with pytest.raises(DataSourceError, match="both hold GOOG; keep one of them"):
        source.bars("GOOG")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x9f\x92"])
def test_folder_bars_name_unreadable_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"BAD.{suffix}").write_bytes(content)
    with pytest.raises(DataSourceError, match=rf"BAD\.{suffix} can't be read: .*date,open,high"):
        FolderBars(tmp_path).bars("BAD")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("Date", "When"), "column 'date' is missing; name the column of dates"),
        (GOOD.replace("Low", "Bottom"), "column 'low' is missing"),
        (GOOD.replace("Close,V", "Final,V"), "column 'close' is missing; the file has Date, Open"),
        (GOOD.replace("Volume", "open"), "column 'open' is there twice; keep one"),
        (GOOD.replace("5.05", "4.9"), "the adjusted close steps by 0.98.* at bar 2"),
        (GOOD.replace("5.05", "n/a"), "adjusted close is not a positive number at bar 2"),
        (GOOD.replace("5.05", "five"), "Adj Close 'five' in line 4 is not a number"),
        (GOOD.replace("2012-06-29", "2012-06-27"), "Date '2012-06-27' in line 4 is repeated"),
        (GOOD.replace("2012-06-29", "29/06/2012 "), "'29/06/2012' in line 4 is not written as"),
        (GOOD.splitlines()[0] + "\n", "empty; send at least one bar"),
    ],
)
def test_folder_bars_invalid_bars_name_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidBarsError, match=rf"GOOG\.csv: .*{message}"):
        folder(tmp_path, GOOG=text).bars("GOOG")


def test_folder_bars_bad_file_hides_no_other(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD, FB=GOOD, BAD="", TWICE=GOOD)
    (tmp_path / "twice.csv").write_text(GOOD)
    assert source.symbols() == ("BAD", "FB", "GOOG", "TWICE")
    assert len(source.bars("GOOG")) == len(source.bars("FB")) == 3
    with pytest.raises(DataSourceError, match=r"TWICE\.csv and .*twice\.csv both hold TWICE"):
        source.bars("TWICE")


def test_folder_bars_accept_dates_without_dashes(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD.replace("-", ""), BAD=GOOD.replace("2012-", "12"))
    assert source.bars("GOOG").close_time(0).isoformat() == "2012-06-27T21:00:00+00:00"
    with pytest.raises(InvalidBarsError, match="date '1206-27' in line 2 is not a date"):
        source.bars("BAD")


LONG = """date,symbol,open,high,low,close
2012-06-28,BBB,2,3,1,2
2012-06-28,NA,5,6,4,5
2012-06-29,BBB,2,3,1,2.5
2012-06-29,NA,5,6,4,5.5
"""


def test_folder_bars_long_file_holds_its_symbols(tmp_path: Path) -> None:
    source = folder(tmp_path, prices=LONG, GOOG=GOOD)
    assert source.symbols() == ("BBB", "GOOG", "NA")
    assert source.bars("BBB").close.tolist() == [2.0, 2.5]
    assert source.bars("NA").close.tolist() == [5.0, 5.5]


def test_folder_bars_changed_file_is_read_again(tmp_path: Path) -> None:
    source = folder(tmp_path, prices=LONG)
    assert source.bars("BBB").close[-1] == 2.5
    (tmp_path / "prices.csv").write_text(LONG.replace("1,2.5", "1,2.75").replace("NA", "CC"))
    assert source.symbols() == ("BBB", "CC")
    assert source.bars("BBB").close[-1] == 2.75


def test_folder_bars_row_without_symbol_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path, prices=LONG.replace("29,BBB", "29,"))
    with pytest.raises(InvalidBarsError, match="'symbol' is empty in line 4; name the symbol"):
        source.bars("PRICES")


def test_folder_bars_single_file_is_a_source(tmp_path: Path) -> None:
    folder(tmp_path, prices=LONG, GOOG=GOOD)
    source = FolderBars(tmp_path / "prices.csv")
    assert source.symbols() == ("BBB", "NA")
    assert len(source.bars("NA")) == 2


def test_folder_bars_broken_link_hides_no_other(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    (tmp_path / "LOOP.csv").symlink_to(tmp_path / "LOOP.csv")
    assert (source.symbols(), source.passed_over()) == (("GOOG",), ("LOOP.csv",))


def test_folder_bars_name_files_passed_over(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    for name in ("notes.txt", "prices.xlsx", "bars.yaml", ".hidden"):
        (tmp_path / name).write_text("ignore: []" if name == "bars.yaml" else "no bars here")
    assert source.passed_over() == ("notes.txt", "prices.xlsx")
    assert source.symbols() == ("GOOG",)


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zip", ".zip", ".tsv", ".txt"])
def test_folder_bars_read_packed_text(tmp_path: Path, suffix: str) -> None:
    text = GOOD.replace(",", "\t") if suffix == ".tsv" else GOOD
    file = tmp_path / f"GOOG{suffix}"
    if suffix.endswith(".zip"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("any.csv", text)
    else:
        file.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())
    assert FolderBars(tmp_path).bars("GOOG").close.tolist() == [10.0, 5.5, 5.0]


@pytest.mark.parametrize("suffix", ["pq", "feather"])
def test_folder_bars_read_columnar_files(tmp_path: Path, suffix: str) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    table = pd.read_csv(tmp_path / "GOOG.csv")
    file = tmp_path / f"COPY.{suffix}"
    table.to_parquet(file) if suffix == "pq" else table.to_feather(file)
    pd.testing.assert_frame_equal(source.bars("COPY").to_frame(), source.bars("GOOG").to_frame())


def test_folder_bars_two_levels_harm_no_other(tmp_path: Path) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    columns = pd.MultiIndex.from_product([["Close", "High", "Low", "Open"], ["AAPL", "IBM"]])
    days = pd.DatetimeIndex(["2012-06-28", "2012-06-29"], name="Date")
    pd.DataFrame(5.0, index=days, columns=columns).to_parquet(tmp_path / "both.parquet")
    assert source.symbols() == ("AAPL", "GOOG", "IBM")
    assert [len(source.bars(symbol)) for symbol in source.symbols()] == [2, 3, 2]


def test_folder_bars_index_of_day_and_symbol(tmp_path: Path) -> None:
    index = pd.MultiIndex.from_product(
        [pd.to_datetime(["2012-06-28", "2012-06-29"]), ["AAPL", "IBM"]], names=["date", "symbol"]
    )
    frame = pd.DataFrame({name: [5.0, 6.0, 5.0, 6.0] for name in PRICES}, index=index)
    frame.to_parquet(tmp_path / "both.parquet")
    assert FolderBars(tmp_path).bars("IBM").close.tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("hints", "day"), [("dates: day-first", "2012-02-01"), ("dates: month-first", "2012-01-02")]
)
def test_folder_bars_hint_tells_day_from_month(tmp_path: Path, hints: str, day: str) -> None:
    source = folder(tmp_path, X="date,open,high,low,close\n01/02/2012,2,3,1,2\n")
    with pytest.raises(InvalidBarsError, match=r"may be day 1 of month 2 .* write `dates: day-f"):
        source.bars("X")
    (tmp_path / "bars.yaml").write_text(f"files:\n  X.csv: {{{hints}}}\n")
    assert f"{source.bars('X').close_time(0):%Y-%m-%d}" == day


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ("dates: first", "dates: must be 'day-first' or 'month-first'"),
        ("date: day-first", "unknown parameter 'date'"),
        ("- a", "write keys such as"),
        ("{", "can't be read"),
        ("vendor: Nobody", "vendor 'Nobody' is unknown; there is: Alpaca"),
    ],
)
def test_folder_bars_bad_hint_is_named(tmp_path: Path, hints: str, message: str) -> None:
    (tmp_path / "bars.yaml").write_text(hints)
    with pytest.raises(BadInputError, match=message):
        folder(tmp_path, X=GOOD).bars("X")


def test_folder_bars_hint_ignores_a_column(tmp_path: Path) -> None:
    source = folder(tmp_path, X=GOOD.replace("Volume", "price_target"))
    with pytest.raises(InvalidBarsError, match="column 'price_target' is not read"):
        source.bars("X")
    (tmp_path / "bars.yaml").write_text("ignore: [price_target, Adj Close]")
    assert source.bars("X").split.tolist() == [1.0, 1.0, 1.0]


def test_folder_bars_long_file_name_is_no_symbol(tmp_path: Path) -> None:
    source = folder(tmp_path, EURUSD_Daily_202101040000=GOOD)
    with pytest.raises(InvalidBarsError, match="at most 20; name the file after its symbol"):
        source.bars("EURUSD_DAILY_202101040000")


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04broken", b"\x1f\x8bbroken", b"\x00\x01\x02" * 99, b"<html></html>", b'{"a": 1}'],
)
def test_folder_bars_strange_file_is_refused(tmp_path: Path, content: bytes) -> None:
    source = folder(tmp_path, GOOG=GOOD)
    (tmp_path / "BAD.csv").write_bytes(content)
    with pytest.raises((DataSourceError, InvalidBarsError), match=r"BAD\.csv"):
        source.bars("BAD")
    assert len(source.bars("GOOG")) == 3


def test_read_bars_file_of_another_symbol_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, prices=LONG)
    assert read_bars(tmp_path / "prices.csv", "BBB").symbol == "BBB"
    with pytest.raises(InvalidBarsError, match="it holds BBB, NA; name one of them"):
        read_bars(tmp_path / "prices.csv")


GOOG_AT_16 = BarSeries.from_records(
    "X",
    [
        {"closed_at": f"2012-06-{day}T20:00:00Z", "open": 2, "high": 3, "low": 1, "close": 2.3}
        for day in (28, 29)
    ],
)


def test_write_bars_reads_back_equal(tmp_path: Path) -> None:
    series = [folder(tmp_path, GOOG=GOOD).bars("GOOG"), replace(GOOG_AT_16, symbol="BTC/USD")]
    files = write_bars(series, tmp_path / "out")
    read = [read_bars(file, each.symbol) for file, each in zip(files, series, strict=True)]
    assert [each.digest() for each in read] == [each.digest() for each in series]
    with pytest.raises(BadInputError, match=r"GOOG\.csv is there already"):
        write_bars(series, tmp_path / "out")


GOLDEN = {
    "adjusted": (GOOD, "79dd25fc4a9eb041e6c0e015c8fed72af501ab4eea141e4a7e43154e4d3f274d"),
    "plain": (
        "date,open,high,low,close,volume\n20120628,2.017,3.3,1,2.1,7\n"
        "20120629,2,3.123456789012345,0.1,2.3,\n",
        "dbecfaaa538571719dc3ddacf70b0e8c6745d7931d03e4ce23087544d1149ff0",
    ),
    "actions": (
        "closed_at,open,high,low,close,split,dividend,adj_close,note\n"
        "2012-06-28T20:00:00+00:00,10,11,9,10,,,9,a\n"
        "2012-06-29T16:00:00-04:00,5,6,4,5,2,0.1,3,b\n",
        "d07b2906f0a41ecf2fb290f8588d8380cf505bf8df5a900c42f96f9d7451616f",
    ),
}
"""Files with the hash that they have had since they were first read."""


@pytest.mark.parametrize("name", GOLDEN)
def test_folder_bars_hash_of_clean_file_stays(tmp_path: Path, name: str) -> None:
    text, digest = GOLDEN[name]
    assert folder(tmp_path, X=text).bars("X").digest() == digest
