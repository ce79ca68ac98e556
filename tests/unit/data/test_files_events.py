"""The shipped events are readable, dated, and agree with the prices; a bad line is named."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import EVENTS, FileNews, load_bundled_news
from finagent_model.data.market import Market
from finagent_model.errors import DataSourceError, InvalidNewsError

RECORDS: list[dict[str, Any]] = [json.loads(line) for line in EVENTS.read_text().splitlines()]


@pytest.fixture(scope="module")
def source() -> BundledBars:
    return BundledBars()


def days(kind: str) -> dict[str, list[str]]:
    by_symbol: dict[str, list[str]] = {}
    for record in RECORDS:
        if record["kind"] == kind:
            by_symbol.setdefault(record["symbol"], []).append(record["published_at"][:10])
    return by_symbol


def write(path: Path, *lines: str) -> FileNews:
    file = path / "news.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return FileNews(file)


def line(**changes: Any) -> str:
    record = {"symbol": "X", "published_at": "2012-06-29T12:00:00+00:00", "headline": "Something"}
    return json.dumps(record | changes)


def test_bundled_news_have_equal_fields(source: BundledBars) -> None:
    assert 15 <= len(RECORDS) <= 25
    for record in RECORDS:
        assert set(record) == {"symbol", "published_at", "headline", "source", "kind"}
        assert record["symbol"] in source.symbols()
        assert all(record.values())


def test_bundled_news_lie_within_bars() -> None:
    news = load_bundled_news()
    read = {symbol: news.news(symbol) for symbol in news.symbols()}
    assert sum(len(items) for items, _ in read.values()) == len(RECORDS)
    assert all(undated == 0 for _, undated in read.values())
    moments = [item.published_at for items, _ in read.values() for item in items]
    assert min(moments) > datetime(2000, 3, 1, tzinfo=UTC)
    assert max(moments) < datetime(2013, 3, 2, tzinfo=UTC)


def test_bundled_news_without_time_are_at_end_of_day() -> None:
    assert {record["published_at"][10:] for record in RECORDS} == {"T23:59:59+00:00"}


def test_bundled_news_splits_match_prices(source: BundledBars) -> None:
    shown = {}
    for symbol in source.symbols():
        bars = source.bars(symbol)
        if len(at := np.flatnonzero(bars.split != 1.0)):
            shown[symbol] = [bars.close_time(int(i)).date().isoformat() for i in at]
    assert days("split") == shown


def test_bundled_news_listings_are_on_first_bar(source: BundledBars) -> None:
    listed = days("listing")
    assert set(listed) == {"GOOG", "FB"}
    for symbol, moments in listed.items():
        assert moments == [source.bars(symbol).close_time(0).date().isoformat()]


def test_bundled_news_apple_dividend_is_on_ex_date(source: BundledBars) -> None:
    bars = source.bars("AAPL")
    first = bars.close_time(int(np.flatnonzero(bars.dividend)[0])).date().isoformat()
    assert first in days("dividend")["AAPL"]


def test_bundled_news_google_results_moved_price(source: BundledBars) -> None:
    (day,) = days("results")["GOOG"]
    bars = source.bars("GOOG")
    at = [i for i in range(len(bars)) if bars.close_time(i).date().isoformat() == day]
    assert bars.close[at[0]] / bars.close[at[0] - 1] - 1 == pytest.approx(-0.08, abs=0.005)


def test_file_news_sorts_oldest_first(tmp_path: Path) -> None:
    news = write(
        tmp_path,
        line(headline="later"),
        "",
        line(headline="undated", published_at=None),
        line(headline="earlier", published_at="2012-06-29T07:00:00-04:00"),
        line(symbol="Y"),
    )
    items, undated = news.news("X")
    assert [item.headline for item in items] == ["earlier", "later"]
    assert undated == 1
    assert news.symbols() == ("X", "Y")


def test_file_news_of_unknown_symbol_is_empty(tmp_path: Path) -> None:
    assert write(tmp_path, line()).news("Z") == ((), 0)


def test_file_news_headline_may_hold_line_separator(tmp_path: Path) -> None:
    text = '{"symbol": "X", "published_at": "2012-06-29T12:00:00Z", "headline": "a\u2028b"}'
    assert write(tmp_path, text).news("X")[0][0].headline == "a\u2028b"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        (line(symbol=None), "symbol None is not a ticker"),
        (line(symbol="x\u200b"), "symbol 'X.*' has blanks at its ends or control"),
        (line(headline=""), "headline: "),
        (line(published_at="2012-06-29T12:00:00"), "published_at: .* has no time zone"),
        (line(published_at="soon"), "published_at: "),
    ],
)
def test_file_news_bad_line_costs_itself(
    tmp_path: Path, bad: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    news = write(tmp_path, line(), "", bad)
    assert [item.headline for item in news.news("X")[0]] == ["Something"]
    (warning,) = caplog.messages
    assert re.search(rf"news\.jsonl: 1 of 2 rows passed over.* line 3: {message}", warning)


def test_file_news_of_bad_lines_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNewsError, match=r"news\.jsonl, line 1: published_at: 'soon' is no"):
        write(tmp_path, line(published_at="soon")).news("X")


def test_file_news_names_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataSourceError, match=r"none\.jsonl can't be read .* one JSON object a line"
    ):
        FileNews(tmp_path / "none.jsonl").news("X")


def test_file_news_are_called_what_a_reader_would_call_them(tmp_path: Path) -> None:
    news = write(tmp_path, line())
    market = Market(BundledBars(), news)
    assert market.origins == {
        "bars": "bundled",
        "news": "file news.jsonl",
        "fundamentals": "none",
    }
    assert Market(BundledBars(), FileNews(tmp_path)).origins["news"] == f"folder {tmp_path.name}"
    assert Market(BundledBars(), load_bundled_news()).origins["news"] == "bundled"
