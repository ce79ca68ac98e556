"""Sources by the names that the environment gives."""

from __future__ import annotations

import re
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from finagent_model._redact import make_redactor
from finagent_model.airflow.tasks import reply_of
from finagent_model.data._source_registry import (
    make_bar_source,
    make_fundamentals_source,
    make_news_source,
)
from finagent_model.data._yfinance import YFinanceBars
from finagent_model.data.bar_cache import CachedBars, StoredBars
from finagent_model.data.bar_files import FolderBars
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import FileFundamentals, FileNews
from finagent_model.data.market import Market
from finagent_model.data.protocols import BarSource
from finagent_model.errors import (
    BadInputError,
    ConfigError,
    DataSourceError,
    InvalidNewsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.settings import Settings
from support.plugin_package import install

URL = "postgresql+psycopg2://me:open%2Fsesame@127.0.0.1:9/db?table=eod"


def given(tmp_path: Path, **names: str) -> Settings:
    named = {f"FINAGENT_{key.upper()}": value for key, value in names.items()}
    return Settings.load({"FINAGENT_HOME": str(tmp_path / "home"), **named})


def bars(tmp_path: Path, name: str) -> BarSource:
    return make_bar_source(given(tmp_path, bars=name), lambda: datetime(2013, 4, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", ["", "bundled"])
def test_source_defaults_are_bundled(tmp_path: Path, name: str) -> None:
    settings = given(tmp_path, bars=name)
    assert isinstance(bars(tmp_path, name), BundledBars)
    news = make_news_source(settings)
    assert news and news.news("GOOG")[0]
    assert make_fundamentals_source(settings) is None


def test_news_source_of_own_bars_is_none_by_default(tmp_path: Path) -> None:
    assert make_news_source(given(tmp_path, bars=str(tmp_path))) is None
    news = make_news_source(given(tmp_path, bars=str(tmp_path), news="bundled"))
    assert news and news.news("GOOG")[0]


def test_bar_source_path_is_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eod").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "eod"), "eod", "./eod", "./nowhere", "~/nowhere"):
        assert isinstance(bars(tmp_path, name), FolderBars)


def test_bar_source_tells_names_apart(tmp_path: Path) -> None:
    for name, shown in ((URL, "postgresql://127.0.0.1:9/db#eod"), ("yfinance", "yfinance")):
        source = bars(tmp_path, name)
        assert isinstance(source, CachedBars)
        assert source.name == shown
    assert isinstance(bars(tmp_path, "kept"), StoredBars)
    assert isinstance(bars(tmp_path, "kept:0123abcd,4567cdef"), StoredBars)
    assert not (tmp_path / "home").exists()  # nothing is made by naming it


@pytest.mark.parametrize("variable", ["bars", "news", "fundamentals"])
def test_source_unknown_name_lists_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    site = install(tmp_path / "site", "acme_x", "", f"finagent.{variable}", "acme = acme_x:make")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    settings = given(tmp_path, **{variable: "yahoo"})
    with pytest.raises(ConfigError, match=rf"FINAGENT_{variable.upper()} 'yahoo' is unknown") as e:
        Market.from_settings(settings)
    assert "sqlite:///" in str(e.value)
    assert f"finagent.{variable}: acme" in str(e.value)


def test_source_refuses_ambiguous_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(tmp_path / "site", "acme_y", "", "finagent.bars", "eod = acme_y:make")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eod").mkdir()
    with pytest.raises(ConfigError, match=r"an entry point and a path; write \./eod"):
        bars(tmp_path, "eod")
    assert isinstance(bars(tmp_path, "./eod"), FolderBars)


def test_source_hides_mistyped_url(tmp_path: Path) -> None:
    for name in ("postgresql:/me:sesame@host/db", "me:sesame@host"):
        with pytest.raises(BadInputError) as error:
            bars(tmp_path, name)
        assert "sesame" not in str(error.value)


def test_source_url_password_is_secret(tmp_path: Path) -> None:
    settings = given(tmp_path, bars=URL, news="/data/news", fundamentals="bundled-facts")
    assert "sesame" not in repr(settings)
    said = make_redactor(settings.secrets)(
        f"{URL} open/sesame open%2Fsesame /data/news bundled-facts"
    )
    assert "sesame" not in said
    assert said.endswith("/data/news bundled-facts")


def test_source_yfinance_takes_length_with_calendar(tmp_path: Path) -> None:
    source = bars(tmp_path, "yfinance?timeframe=1h&calendar=xnys")
    assert source.name == "yfinance?timeframe=1h&calendar=XNYS"
    assert bars(tmp_path, "yfinance?timeframe=1d").name == "yfinance"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("timeframe=1w", "Yahoo has no bars of 1 week; write timeframe=1m, 2m"),
        ("timeframe=soon", "'soon' is not a length of a bar"),
        ("calendar=XXXX", "calendar 'XXXX' is unknown"),
        ("zone=UTC", "option 'zone' is unknown; there is: timeframe, calendar"),
    ],
)
def test_source_yfinance_bad_option_is_named(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"FINAGENT_BARS.*{message}"):
        bars(tmp_path, f"yfinance?{options}")


def test_source_yfinance_missing_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(ConfigError, match=r"uv pip install -e .\.\[yfinance\].$"):
        bars(tmp_path, "yfinance")


PLUGIN = """
from finagent_model.data.bundled import BundledBars
from finagent_model.market.news import NewsItem

class Source:
    name = "acme"
    def __init__(self, settings):
        self.home = settings.home
    def symbols(self):
        return ("FB",)
    def bars(self, symbol):
        if symbol == "DOWN":
            raise RuntimeError("no more credits")
        if symbol == "KEYED":
            keyed(None)
        return BundledBars().bars(symbol)
    def news(self, symbol):
        if symbol == "GOOG":
            raise TimeoutError("late")
        item = NewsItem(published_at="2013-02-28T12:00:00Z", headline="of " + symbol)
        return (item,), 0

def broken(settings):
    raise KeyError("ACME_TOKEN")

def keyed(settings):
    raise OSError("GET https://api.example/eod?apikey=" + "SECRET" + "42")

class nameless:
    def __init__(self, settings):
        pass
    @property
    def name(self):
        keyed(None)

def wrong(settings):
    return object()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ("broken", "wrong", "keyed", "nameless")
    entries = "acme = acme_z:Source\n" + "".join(f"{name} = acme_z:{name}\n" for name in made)
    site = install(
        tmp_path / "site",
        "acme_z",
        PLUGIN,
        "finagent.bars",
        f"{entries}gone = nowhere_to_be_found:make\n[finagent.news]\nacme = acme_z:Source",
    )
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("plugin")
def test_source_plugin_gives_bars_with_news(tmp_path: Path) -> None:
    market = Market.from_settings(given(tmp_path, bars="acme", news="acme"))
    assert market.source.name == "acme"
    view = market.view("FB", parse_as_of("2013-02-28"))
    assert [item.headline for item in view.news] == ["of FB"]
    seen = market.snapshot("FB")
    assert seen and seen.source == "acme" and seen.fetched_at
    with pytest.raises(
        DataSourceError, match=r"asked for bars of DOWN, failed: .* no more credits"
    ):
        market.bars("DOWN")
    with pytest.raises(DataSourceError, match=r"source of news, asked for GOOG, failed: .* late"):
        market.news("GOOG")


@pytest.mark.usefixtures("plugin")
def test_source_failure_log_hides_vendor_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_vain() -> None:
        try:
            raise OSError("GET https://api.example/eod?apikey=SECRET42")
        except OSError as error:
            raise UnknownSymbolError("FB", None, "acme") from error

    def yahoo(path: Path, asked: object) -> None:
        raise OSError("GET https://api.example/eod?apikey=SECRET42")

    monkeypatch.setattr(YFinanceBars, "_fetch", yahoo)
    silent = YFinanceBars(tmp_path, lambda: datetime(2013, 4, 1, tzinfo=UTC))
    market = Market.from_settings(given(tmp_path, bars="acme", news="acme"))
    for failing, said in (
        (lambda: market.bars("KEYED"), "DataSourceError: .* failed: OSError: GET"),
        (lambda: silent.bars("FB"), "DataSourceError: .*OSError: GET"),
        (lambda: bars(tmp_path, "keyed"), "ConfigError: .* gave no source: OSError: GET"),
    ):
        try:
            failing()
        except Exception:
            logged = traceback.format_exc()
        assert re.search(said, logged)
        assert "SECRET42" not in logged
    # Of a task of the DAG, Airflow logs what it replied.
    error = reply_of(in_vain)["error"]
    assert error.startswith("UnknownSymbolError: unknown symbol 'FB'") and "SECRET42" not in error


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "gave no source: KeyError: 'ACME_TOKEN'"),
        ("gone", "gave no source: ModuleNotFoundError"),
        ("wrong", "gave a object, which has no 'name'"),
        ("nameless", "gave no source: OSError: GET https://api.example/eod$"),
    ],
)
def test_source_invalid_plugin_is_named(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"entry point '{name}' of finagent\.bars \(.*{said}"):
        bars(tmp_path, name)


class Told:
    """A source of news and facts, whose answer a test sets."""

    def __init__(self, answer: object) -> None:
        self.answer: Any = answer

    def news(self, symbol: str) -> Any:
        return self.answer

    def facts(self, symbol: str) -> Any:
        return self.answer


ITEM = NewsItem(published_at="2013-02-28T12:00:00Z", headline="a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [None, (ITEM, ITEM), (ITEM,), [ITEM], "none", 0, ([{"headline": "a"}], 0), ([ITEM], "none")],
    ids=["none", "pair", "tuple", "list", "text", "number", "mapping", "uncounted"],
)
def test_market_refuses_records_of_wrong_type(answer: object) -> None:
    market = Market(BundledBars(), Told(answer), Told(answer))
    with pytest.raises(DataSourceError, match=r"source of news, asked for FB, failed: .* it gave"):
        market.view("FB", parse_as_of("2013-02-28"))
    with pytest.raises(DataSourceError, match=r"fundamentals, asked for FB, failed: .* it gave"):
        market.facts("FB")


@pytest.mark.parametrize("answer", [[], ([], 0), ((), 0)])
def test_market_accepts_empty_news(answer: object) -> None:
    market = Market(BundledBars(), Told(answer), Told(answer))
    assert market.news("FB") == market.facts("FB") == ((), 0)


def test_market_sorts_news() -> None:
    start = parse_as_of("2013-02-01")
    items = [
        NewsItem(published_at=start + timedelta(hours=i), headline=f"of hour {i}")
        for i in reversed(range(30))
    ]
    view = Market(BundledBars(), Told((items, 2))).view("FB", parse_as_of("2013-02-28"))
    assert [item.headline for item in view.news] == [f"of hour {i}" for i in range(10, 30)]
    assert view.undated_news == 2


def test_file_news_folder_has_file_per_symbol(tmp_path: Path) -> None:
    folder = tmp_path / "news"
    folder.mkdir()
    line = '{"published_at": "2012-06-29T14:00:00Z", "headline": "a"}\n'
    (folder / "GOOG.jsonl").write_text(line + '{"headline": "undated"}\n')
    (folder / "FB.jsonl").write_text('{"symbol": "GOOG", ' + line[1:])
    (tmp_path / "X.jsonl").write_text(line)
    news = make_news_source(given(tmp_path, news=str(folder)))
    assert news
    items, undated = news.news("GOOG")
    assert ([item.headline for item in items], undated) == (["a"], 1)
    assert news.news("../X") == news.news("NOPE") == ((), 0)
    with pytest.raises(InvalidNewsError, match=r"FB\.jsonl, line 1: symbol 'GOOG' in the file of"):
        news.news("FB")


def test_file_news_refuses_two_files_of_symbol(tmp_path: Path) -> None:
    line = '{"published_at": "2012-06-29T14:00:00Z", "headline": "a"}\n'
    for name in ("GOOG.jsonl", "goog.jsonl", "FB.JSONL"):
        (tmp_path / name).write_text(line)
    news = FileNews(tmp_path)
    assert news.symbols() == ("FB", "GOOG")
    assert len(news.news("FB")[0]) == 1
    with pytest.raises(DataSourceError, match=r"GOOG\.jsonl and .*goog\.jsonl both hold GOOG"):
        news.news("GOOG")


@pytest.mark.parametrize("there", [[], ["GOOG.csv", "README.md"]])
def test_file_news_refuses_folder_without_files(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).write_text("date,open,high,low,close\n")
    for read in (FileNews(tmp_path).news, FileFundamentals(tmp_path).facts):
        with pytest.raises(DataSourceError, match=r"holds no \.jsonl, .* such as GOOG\.jsonl"):
            read("GOOG")


@pytest.mark.parametrize("stamp", ["2012062", "134097840.5", "true", "[1]"])
def test_file_news_refuses_number_as_time(tmp_path: Path, stamp: str) -> None:
    file = tmp_path / "news.jsonl"
    file.write_text(f'{{"symbol": "GOOG", "headline": "a", "published_at": {stamp}}}\n')
    news = make_news_source(given(tmp_path, news=str(file)))
    with pytest.raises(InvalidNewsError, match="is not a time"):
        assert news and news.news("GOOG")


@pytest.mark.parametrize("stamp", ["20120629", '"20120629"', '"2012-06-29"'])
def test_file_news_of_day_alone_counts_from_its_end(tmp_path: Path, stamp: str) -> None:
    file = tmp_path / "news.jsonl"
    file.write_text(f'{{"symbol": "GOOG", "headline": "a", "published_at": {stamp}}}\n')
    news = make_news_source(given(tmp_path, news=str(file)))
    assert news
    ((item,), _) = news.news("GOOG")
    # Where it ends last, at UTC-12.
    assert item.published_at == parse_as_of("2012-06-29") + timedelta(hours=12)
