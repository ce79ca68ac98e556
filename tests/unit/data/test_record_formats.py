"""Files of news and facts in each form that people have; the shapes are their vendors'."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from finagent_model.data import _record_formats as formats
from finagent_model.data.files import FileFundamentals, FileNews
from finagent_model.errors import (
    ConfigError,
    DataSourceError,
    InvalidFundamentalsError,
    InvalidNewsError,
)
from finagent_model.market.news import NewsItem

TABLE = """\
symbol,published_at,headline,body
ACME,2012-06-29T10:00:00-04:00,"Acme, again",
ACME,2012-06-28T08:00:00Z,"Two
lines",and a body
ACME,,Nobody knows when,
ACME,2012-06-27,By day alone,
"""


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def told(items: tuple[NewsItem, ...]) -> list[tuple[str, str]]:
    return [(f"{i.published_at:%m-%d %H:%M}", i.headline) for i in items]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_read_rows_csv_with_any_separator(tmp_path: Path, separator: str) -> None:
    text = TABLE.replace('"Acme, again"', "Acme again").replace(",", separator)
    items, undated = FileNews(write(tmp_path / "news.csv", text)).news("ACME")
    assert told(items) == [
        ("06-28 08:00", "Two\nlines"),
        # A day alone is known once it has ended everywhere.
        ("06-28 11:59", "By day alone"),
        ("06-29 14:00", "Acme again"),
    ]
    assert undated == 1


def test_read_rows_csv_is_gunzipped_and_of_other_encodings(tmp_path: Path) -> None:
    text = TABLE.replace("Acme", "Äcme").encode("cp1252")
    file = write(tmp_path / "news.csv.gz", gzip.compress(text))
    assert FileNews(file).news("ACME")[0][-1].headline == "Äcme, again"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("ACME,soon,Text,", "line 8: published_at: 'soon' is not a time; write one such as"),
        ("ACME,06/29/2012,Text,", "line 8: published_at: '06/29/2012' is not a time"),
        ("ACME,2012-06-29T10:00:00,Text,", "line 8: .* has no time zone; add one .* records.yaml"),
        ("ACME,2012-06-29T10:00:00Z,,", "line 8: headline: is missing"),
        ("ACME,2012-06-29T10:00:00Z,a,b,c", "line 8: 5 fields where the header has 4"),
        ("ACME,2012-06-29T10:00:00Z,a", "line 8: 3 fields where the header has 4"),
        ('ACME,2012-06-29T10:00:00Z,"a,b', "line 8: a quote is not closed"),
        (",2012-06-29T10:00:00Z,a,", "line 8: symbol None is not a ticker"),
        ("ACME,99999999999999999999,a,", "line 8: published_at: '9999"),
    ],
)
def test_read_rows_csv_bad_line_costs_itself(
    tmp_path: Path, bad: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    after = "ACME,2012-06-30T10:00:00Z,After it,\n"
    source = FileNews(write(tmp_path / "news.csv", f"{TABLE}\n{bad}\n{after}"))
    assert [h for _, h in told(source.news("ACME")[0])][-1] == "After it"
    source.news("ACME")
    (warning,) = caplog.messages
    assert "1 of 6 rows passed over" in warning
    assert re.search(problem, warning)


HEAD = "published_at,headline,source\n"


def read(folder: Path, text: str, name: str = "GOOG.csv") -> list[tuple[str, str]]:
    write(folder / name, text)
    return told(FileNews(folder).news("GOOG")[0])


def test_read_rows_csv_unclosed_quotes_swallow_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        '2012-06-25T10:00:00Z,"Company note,Wire',
        "2012-06-26T10:00:00Z,Other,Wire",
        '2012-06-27T10:00:00Z,"Second,Wire',
        "2012-06-28T10:00:00Z,Last,Wire",
        "2012-06-29T10:00:00Z,End,Wire",
    ]
    items = read(tmp_path, HEAD + "\n".join(rows))
    assert items == [
        ("06-26 10:00", "Other"),
        ("06-28 10:00", "Last"),
        ("06-29 10:00", "End"),
    ]
    assert "2 of 5 rows passed over" in caplog.text
    assert "line 2: a quote is not closed" in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        # Closed by chance, by the inch mark of a later row.
        [
            '2012-06-25T10:00:00Z,"Company note,Wire',
            "2012-06-26T10:00:00Z,Other,Wire",
            '2012-06-27T10:00:00Z,A screen of 5",Wire',
        ],
        ['2012-06-25T10:00:00Z,"Company note,Wire', '2012-06-27T10:00:00Z,A screen of 5",Wire'],
        # What an article holds is no row of the file.
        [
            '2012-06-25T10:00:00Z,"An article',
            "2012-01-01T10:00:00Z,forged,x",
            'goes on",Wire',
        ],
    ],
)
def test_read_rows_csv_cell_that_holds_rows_is_refused_with_them(
    tmp_path: Path, rows: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    good = [f"2012-06-{day}T10:00:00Z,Good,Wire" for day in (10, 11, 12, 13)]
    items = read(tmp_path, HEAD + "\n".join([*rows, *good]))
    assert [headline for _, headline in items] == ["Good"] * 4
    assert "line 2: a quoted cell goes to line" in caplog.text


def test_read_rows_csv_quote_at_start_of_row_swallows_no_row(tmp_path: Path) -> None:
    head = "headline,published_at,source\n"
    rows = ['"Company note,2012-06-25,Wire', 'A 5",2012-06-26,Wire', "a,2012-06-27,Wire"]
    items = read(tmp_path, head + "\n".join([*rows, "b,2012-06-28,Wire"]))
    assert [headline for _, headline in items] == ["a", "b"]


def test_read_rows_csv_long_article_is_one_row(tmp_path: Path) -> None:
    # It has dates and commas, but no line that is a row.
    lines = [f'Line {i}, on 2012-06-01, of ""many"" in all' for i in range(500)]
    body = "\n".join(["2012-06-01", *lines])
    items = read(tmp_path, HEAD + f'2012-06-25T10:00:00Z,"{body}",Wire\n2012-06-26,b,Wire')
    assert [len(headline) for _, headline in items] == [300, 1]


def test_read_rows_csv_says_its_separator(tmp_path: Path) -> None:
    text = "sep=;\n" + HEAD.replace(",", ";") + "2012-06-25T10:00:00Z;a, b, c, d, e;Wire\n"
    assert read(tmp_path, text) == [("06-25 10:00", "a, b, c, d, e")]


def test_read_rows_csv_of_unknown_encoding_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "GOOG.csv", (HEAD + "2012-06-25T10:00:00Z,日本,Wire").encode("cp932"))
    FileNews(tmp_path).news("GOOG")
    assert f"{file}: not UTF-8: read as Windows-1252" in caplog.text


def test_read_rows_lines_in_utf16(tmp_path: Path) -> None:
    line = '{"published_at": "2012-06-25T10:00:00Z", "headline": "ä"}'
    (tmp_path / "GOOG.jsonl").write_bytes(line.encode("utf-16"))
    assert told(FileNews(tmp_path).news("GOOG")[0]) == [("06-25 10:00", "ä")]
    (tmp_path / "GOOG.jsonl").write_bytes(line.encode("latin-1"))
    with pytest.raises(DataSourceError, match="can't decode byte"):
        FileNews(tmp_path).news("GOOG")


def test_read_rows_csv_inch_mark_swallows_no_line(tmp_path: Path) -> None:
    rows = 'ACME,2012-06-28,A 5" screen,\nACME,2012-06-29,A 7" screen,\n'
    items, _ = FileNews(write(tmp_path / "n.csv", TABLE.splitlines()[0] + "\n" + rows)).news("ACME")
    assert [i.headline for i in items] == ['A 5" screen', 'A 7" screen']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; begin with a header"),
        ("headline\na\n", "its first line 'headline' is not a header"),
        ("symbol,date\nACME,2012-06-29\n", "no column is 'headline'; there is: 'symbol, date'"),
        ("symbol,title\nACME,a\n", "no column is 'published_at'; .* Write `columns:"),
        ("date,title\n2012-06-29,a\n", "no column is 'symbol'; .* name the file after its symbol"),
    ],
)
def test_read_rows_csv_names_what_the_header_lacks(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((DataSourceError, InvalidNewsError), match=message):
        FileNews(write(tmp_path / "news.csv", text)).news("ACME")


def test_read_rows_facts_of_period_end_alone_are_refused(tmp_path: Path) -> None:
    # The end of a quarter is weeks before anybody knew its numbers.
    file = write(tmp_path / "f.csv", "symbol,date,name,value\nACME,2012-03-31,revenue,5\n")
    with pytest.raises(Exception, match=r"no column is 'published_at'.*accepted_at"):
        FileFundamentals(file).facts("ACME")


def test_read_rows_facts_csv_has_numbers(tmp_path: Path) -> None:
    text = 'symbol,filing_date,name,value,unit,period\nACME,2012-04-24,revenue,"1,234.5",USD,2012Q1'
    ((fact,), _) = FileFundamentals(write(tmp_path / "f.csv", text)).facts("ACME")
    assert (fact.value, fact.unit, fact.period) == (1234.5, "USD", "2012Q1")
    assert fact.published_at == datetime(2012, 4, 25, 11, 59, 59, 999999, tzinfo=UTC)


def test_read_rows_hints_name_zone_with_columns(tmp_path: Path) -> None:
    (tmp_path / "records.yaml").write_text(
        "zone: America/New_York\ncolumns: {headline: Schlagzeile, symbol: Papier}\n"
    )
    text = (
        "Papier,date,Schlagzeile\nACME,2012-06-29 10:00,a\nACME,2012-06-28 00:00,b\n"
        "ACME,2012-11-04 01:30,twice an hour\n"
    )
    items, _ = FileNews(write(tmp_path / "news.csv", text)).news("ACME")
    # Midnight is a date: the end of that day in New York; of the repeated hour, the later one.
    assert told(items) == [
        ("06-29 03:59", "b"),
        ("06-29 14:00", "a"),
        ("11-04 06:30", "twice an hour"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zone: Nowhere", "is not a time zone"),
        ("columns: {price: x}", "'price' is not a field; there is: symbol, published_at"),
        ("[]", "write keys such as"),
        ("{", "can't be read"),
    ],
)
def test_read_rows_bad_hints_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "records.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"records\.yaml.*{message}"):
        FileNews(write(tmp_path / "news.csv", TABLE)).news("ACME")


def test_read_rows_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ticker": ["ACME", "ACME", "NA", None],
            "published_utc": [datetime(2012, 6, 29, 14, tzinfo=UTC), None, None, None],
            "title": ["a", "b", "c", "d"],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "news.parquet")
    source = FileNews(tmp_path / "news.parquet")
    assert told(source.news("ACME")[0]) == [("06-29 14:00", "a")]
    assert source.news("ACME")[1] == source.news("NA")[1] == 1

    days = pa.table({"symbol": ["ACME"], "date": [date(2012, 6, 29)], "headline": ["a"]})
    pyarrow.parquet.write_table(days, tmp_path / "days.pq")
    assert told(FileNews(tmp_path / "days.pq").news("ACME")[0]) == [("06-30 11:59", "a")]


@pytest.mark.parametrize(
    "document",
    [
        {"status": "ok", "articles": [
            {"source": {"id": None, "name": "Wire"}, "title": "a", "description": "text",
             "url": "https://x.example/a", "publishedAt": "2012-06-29T14:00:00Z",
             "symbol": "ACME"}]},
        {"results": [
            {"publisher": {"name": "Wire"}, "title": "a", "published_utc": "2012-06-29T14:00:00Z",
             "article_url": "https://x.example/a", "tickers": ["ACME", "GOOG"],
             "description": "text"}], "count": 1},
        [{"datetime": 1340978400, "headline": "a", "related": "ACME", "source": "Wire",
          "summary": "text", "url": "https://x.example/a"}],
        [{"publishedDate": "2012-06-29T10:00:00-04:00", "title": "a", "tickers": ["acme"],
          "source": "Wire", "description": "text", "url": "https://x.example/a"}],
        {"news": [
            {"created_at": "2012-06-29T13:00:00Z", "updated_at": "2012-06-29T14:00:00Z",
             "headline": "a", "summary": "text", "source": "Wire", "symbols": ["ACME"],
             "url": "https://x.example/a"}]},
        {"items": "1", "feed": [
            {"title": "a", "time_published": "20120629T140000+0000", "summary": "text",
             "source": "Wire", "url": "https://x.example/a",
             "ticker_sentiment": [{"ticker": "NYSE:ACME"}, {"ticker": "FOREX:USD"}]}]},
        {"data": [
            {"title": "a", "description": "text", "url": "https://x.example/a", "source": "Wire",
             "published_at": "2012-06-29T14:00:00.000000Z", "entities": [{"symbol": "ACME"}]}]},
    ],
    ids=["newsapi", "polygon", "finnhub", "tiingo", "alpaca", "alphavantage", "marketaux"],
)  # fmt: skip
def test_read_rows_json_of_vendors(tmp_path: Path, document: Any) -> None:
    file = write(tmp_path / "news.json", json.dumps(document))
    (items, undated) = FileNews(file).news("ACME")
    assert told(items) == [("06-29 14:00", "a")]
    assert (items[0].source, items[0].body, items[0].url) == ("Wire", "text", "https://x.example/a")
    assert undated == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("3", "holds no list of items"),
        ('{"cik": 1, "facts": {}}', "is EDGAR's; name its folder edgar:"),
    ],
)
def test_read_rows_json_that_is_no_export_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataSourceError, match=message):
        FileNews(write(tmp_path / "news.json", text)).news("ACME")


def test_read_rows_json_keyed_by_symbol_is_read_whole(tmp_path: Path) -> None:
    def item(day: int) -> dict[str, str]:
        return {"date": f"2012-06-{day}T10:00:00Z", "headline": f"h{day}"}

    file = tmp_path / "news.json"
    source = FileNews(write(file, json.dumps({"GOOG": [item(20)], "MSFT": [item(21), item(22)]})))
    assert source.symbols() == ("GOOG", "MSFT")
    assert told(source.news("GOOG")[0]) == [("06-20 10:00", "h20")]
    write(file, json.dumps({"goog": [item(20)], "msft": [item(21)]}))
    with pytest.raises(DataSourceError, match="holds several lists of items, 'goog' and 'msft'; "):
        FileNews(file).news("GOOG")
    # The longest list is not the one with dates.
    tagged = item(20) | {"symbol": "GOOG"}
    write(file, json.dumps({"articles": [tagged], "tags": [{"name": "a"}, {"name": "b"}]}))
    assert told(FileNews(file).news("GOOG")[0]) == [("06-20 10:00", "h20")]


FACTS = "symbol;filed;name;value\nGOOG;2012-04-24;EPS;{}\nGOOG;2012-04-24;revenue;{}\n"


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("3,75", "1.234,5"), [3.75, 1234.5]),
        (("3.75", "1,234"), [3.75, 1234.0]),
        (("3,75", "10.645"), [3.75, 10645.0]),
    ],
)
def test_read_rows_facts_decimal_mark_is_told_by_file(
    tmp_path: Path, cells: tuple[str, str], values: list[float]
) -> None:
    facts, _ = FileFundamentals(write(tmp_path / "f.csv", FACTS.format(*cells))).facts("GOOG")
    assert [fact.value for fact in facts] == values


def test_read_rows_facts_decimal_mark_is_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "f.csv", FACTS.format("1,234", "5,678"))
    with pytest.raises(InvalidFundamentalsError, match=r"value '1,234' may be a .* `decimal: "):
        FileFundamentals(file).facts("GOOG")
    write(file, FACTS.format("1,5", "1.5"))
    with pytest.raises(InvalidFundamentalsError, match="numbers are written both as"):
        FileFundamentals(file).facts("GOOG")
    write(file, FACTS.format("1,234", "5,678"))
    (tmp_path / "records.yaml").write_text('decimal: ","')
    facts, _ = FileFundamentals(file).facts("GOOG")
    assert [fact.value for fact in facts] == [1.234, 5.678]


def test_read_rows_folder_has_a_file_a_symbol(tmp_path: Path) -> None:
    write(tmp_path / "ACME.csv", "date,headline\n2012-06-29,a\n")
    write(tmp_path / "GOOG.csv", "date,open,high,low,close\n2012-06-29,1,1,1,1\n")
    line = '{"published_at": "2012-06-29T14:00:00Z", "headline": "b"}'
    write(tmp_path / "GOOG.jsonl", line)
    write(tmp_path / "NFLX.json", line + "\n" + line.replace('"b"', '"c"'))
    source = FileNews(tmp_path)
    assert source.symbols() == ("ACME", "GOOG", "NFLX")
    assert [len(source.news(s)[0]) for s in source.symbols()] == [1, 1, 2]
    assert source.news("GOOG")[0][0].headline == "b"


def test_read_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "news.csv.gz", gzip.compress(TABLE.encode()))
    monkeypatch.setattr(formats, "MAX_ROWS", 3)
    with pytest.raises(DataSourceError, match="more than 3 rows; split it by symbol"):
        FileNews(file).news("ACME")
    lines = write(tmp_path / "news.jsonl", "{}\n" * 4)
    with pytest.raises(DataSourceError, match="more than 3 rows; split it by symbol"):
        FileNews(lines).news("ACME")
    write(tmp_path / "ACME.rss", "<rss>" + "<item/>" * 4 + "</rss>")
    with pytest.raises(DataSourceError, match="more than 3 items; split it by time"):
        list(formats.read_rows(tmp_path / "ACME.rss", ()).rows)
    monkeypatch.setattr(formats, "MAX_BYTES", 10)
    with pytest.raises(DataSourceError, match="has more than 0 MiB"):
        FileNews(file).news("ACME")


def test_read_rows_of_cut_file_give_equal_past(tmp_path: Path) -> None:
    lines = TABLE.splitlines(keepends=True)
    lines.insert(4, "ACME,2012-06-29T15:00:00Z,later,\n")
    cut = [line for line in lines if "06-29" not in line]
    whole = FileNews(write(tmp_path / "whole.csv", "".join(lines))).news("ACME")
    part = FileNews(write(tmp_path / "part.csv", "".join(cut))).news("ACME")
    moment = datetime(2012, 6, 28, 23, tzinfo=UTC)
    assert tuple(i for i in whole[0] if i.published_at <= moment) == part[0]
