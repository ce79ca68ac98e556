"""When a record was known, and whose it is, as vendors write both."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from finagent_model.data._record_fields import read_moment
from finagent_model.data.files import FileNews
from finagent_model.data.market import Market
from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings

TOKYO = "Asia/Tokyo"


def utc(value: Any, zone: str | None = None) -> str:
    return f"{read_moment(value, zone):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("value", "zone", "moment"),
    [
        ("Jun 27, 2012 9:30 PM", "America/New_York", "2012-06-28 01:30"),
        ("29 Jun 2012 04:00 PM GMT", TOKYO, "2012-06-29 16:00"),
        ("12 Jun 2012 11:59 PM EDT", None, "2012-06-13 03:59"),
        ("June 27, 2012 at 12:05 a.m. ET", None, "2012-06-27 04:05"),
        ("2012-06-27 12:05 pm UTC", None, "2012-06-27 12:05"),
        ("Fri, 29 Jun 2012 10:00:00 -0400 (EDT)", None, "2012-06-29 14:00"),
        ("Friday, 29-Jun-12 10:00:00 PST", None, "2012-06-29 18:00"),
        ("20120629T140000+0000", None, "2012-06-29 14:00"),
        ("20120629160000", "UTC", "2012-06-29 16:00"),
        (1340978400, None, "2012-06-29 14:00"),
        ("1340978400.25", None, "2012-06-29 14:00"),
        (1340978400000, None, "2012-06-29 14:00"),
        (1340978400000000, None, "2012-06-29 14:00"),
        ("1340978400000000000", None, "2012-06-29 14:00"),
        (1340978400000000000.0, None, "2012-06-29 14:00"),
        ("27 June 2012", None, "2012-06-28 11:59"),
    ],
)
def test_read_moment_reads_all_of_a_text(value: Any, zone: str | None, moment: str) -> None:
    assert utc(value, zone) == moment


@pytest.mark.parametrize(
    "value",
    [
        "29 Jun 2012 16:00 PM",
        "29 Jun 2012 0:30 AM",
        "29 Jun 2012 16",
        "29 Jun 2012 16:00 GMT or later",
        "Before 29 Jun 2012 16:00 GMT",
        "29 Jun 2012 16:00 GMT+2",
        "31 Jun 2012 16:00 GMT",
        "29 Jun 2012 25:00 GMT",
        "Jun 2012 16:00 GMT",
        13409784001,
        float("inf"),
        True,
        [1340978400],
    ],
)
def test_read_moment_refuses_what_it_does_not_read_whole(value: Any) -> None:
    with pytest.raises(BadInputError, match="is not a time"):
        read_moment(value, TOKYO)


@pytest.mark.parametrize("word", ["HST", "BST", "CET", "IST", "AEST", "AMT"])
def test_read_moment_refuses_unknown_zone(word: str) -> None:
    with pytest.raises(BadInputError, match="which may mean several or none; write it as an"):
        read_moment(f"29 Jun 2012 16:00 {word}", TOKYO)


def test_read_moment_of_date_is_its_last_moment_anywhere() -> None:
    # In New York the 8th ends at 05:00 UTC of the 9th, and on Hawaii at 10:00.
    assert (
        utc(date(2024, 3, 8))
        == utc("2024-03-08")
        == utc("2024-03-08T00:00")
        == ("2024-03-09 11:59")
    )
    assert utc("2024-03-08", "America/New_York") == "2024-03-09 04:59"
    assert utc("2024-03-08", TOKYO) == "2024-03-08 14:59"


def news(folder: Path, *rows: dict[str, Any]) -> list[str]:
    lines = [json.dumps({"headline": "a", **row}) for row in rows]
    (folder / "GOOG.jsonl").write_text("\n".join(lines))
    return [f"{item.published_at:%m-%d %H:%M}" for item in FileNews(folder).news("GOOG")[0]]


@pytest.mark.parametrize(
    "value",
    ["2012-06-28T00:00:00Z", "2012-06-28T00:00:00-04:00", "2012-06-28", 1340841600000],
)
def test_midnights_of_all_rows_are_dates(tmp_path: Path, value: Any) -> None:
    days = [{"date": "2012-06-26T00:00:00Z"}, {"date": ""}, {"date": value}]
    assert news(tmp_path, *days) == ["06-27 11:59", "06-29 11:59"]


def test_midnight_among_times_is_a_moment(tmp_path: Path) -> None:
    rows = [{"date": "2012-06-26T00:00:00Z"}, {"date": "2012-06-26T10:00:00Z"}]
    assert news(tmp_path, *rows) == ["06-26 00:00", "06-26 10:00"]


def test_midnights_of_hinted_zone_are_dates(tmp_path: Path) -> None:
    (tmp_path / "records.yaml").write_text("zone: America/New_York")
    # Seconds since 1970, at midnight in New York.
    rows = [{"date": 1340683200}, {"date": 1340769600}]
    assert news(tmp_path, *rows) == ["06-27 03:59", "06-28 03:59"]


def test_midnights_of_parquet_are_dates(tmp_path: Path) -> None:
    days = [datetime(2012, 6, day, tzinfo=UTC) for day in (26, 27)]
    table = pa.table({"date": days, "headline": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "GOOG.parquet")
    items, _ = FileNews(tmp_path).news("GOOG")
    assert [f"{item.published_at:%m-%d %H:%M}" for item in items] == ["06-27 11:59", "06-28 11:59"]


def test_date_alone_is_unknown_to_decision_of_that_day(tmp_path: Path) -> None:
    news(tmp_path, {"date": "2012-06-28"})
    market = Market.from_settings(Settings.load({"FINAGENT_NEWS": str(tmp_path)}))
    seen = [len(market.view("GOOG", parse_as_of(f"2012-06-{day}")).news) for day in (28, 29)]
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "written",
    [
        "goog",
        " GOOG ",
        "NASDAQ:GOOG",
        "$GOOG",
        "GOOG US Equity",
        "MSFT;goog",
        "MSFT|$GOOG",
        ["NASDAQ:GOOG", "MSFT"],
        ["MSFT,GOOG"],
        [{"symbol": "goog"}],
    ],
)
def test_symbol_is_found_however_it_is_written(tmp_path: Path, written: Any) -> None:
    row = {"date": "2012-06-28", "headline": "a"}
    file = tmp_path / "news.jsonl"
    for field in ("symbol", "tickers"):
        file.write_text(json.dumps({**row, field: written}))
        source = FileNews(file)
        assert "GOOG" in source.symbols()
        assert len(source.news("GOOG")[0]) == len(source.news("goog")[0]) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "GOOG.jsonl").write_text(json.dumps({**row, "symbol": written}))
    assert len(FileNews(folder).news("GOOG")[0]) == 1
