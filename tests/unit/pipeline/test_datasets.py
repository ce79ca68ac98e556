"""Data sets are named by content: later rows are no change, revised rows are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import load_bundled_news
from finagent_model.data.market import Market
from finagent_model.data.snapshots import BarsSnapshot
from finagent_model.errors import UnknownSymbolError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.pipeline.datasets import (
    compare_datasets,
    decision_datasets,
    snapshot_tags,
    training_datasets,
)

FB = BundledBars().bars("FB")
AS_OF = parse_as_of("2013-01-31")
FIRST = datetime(2012, 12, 3, 12, tzinfo=UTC)


class Bars:
    """A vendor of one history."""

    name = "vendor"

    def __init__(self, bars: BarSeries | None) -> None:
        self._bars = bars

    def symbols(self) -> tuple[str, ...]:
        return ("FB",) if self._bars else ()

    def bars(self, symbol: str) -> BarSeries:
        if self._bars is None:
            raise UnknownSymbolError(symbol, (), self.name)
        return self._bars


class News:
    """A feed of an item a day."""

    def __init__(self, headlines: tuple[str, ...]) -> None:
        self._items = tuple(
            NewsItem(symbol="FB", headline=text, published_at=FIRST + timedelta(days=i))
            for i, text in enumerate(headlines)
        )

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        return self._items, 0


def market(bars: BarSeries | None, *headlines: str) -> Market:
    return Market(Bars(bars), News(headlines))


def revised() -> BarSeries:
    """One close of long ago is another."""
    frame = FB.to_frame()
    frame.loc[10, "close"] = (frame.loc[10, "high"] + frame.loc[10, "low"]) / 2
    return BarSeries.from_frame("FB", frame)


def test_training_datasets_hold_all_rows_of_sources() -> None:
    bars, news = training_datasets(Market(BundledBars(), load_bundled_news()), "FB")
    assert (bars.name, bars.rows, bars.source) == ("FB bars", 196, "bundled")
    assert bars.sha256 == FB.digest() and bars.digest == FB.digest()[:32]
    assert (bars.first, bars.last) == (FB.close_time(0), FB.close_time(-1))
    assert (news.name, news.rows, news.source) == ("FB news", 2, "bundled")


def test_decision_datasets_hold_rows_of_view() -> None:
    here = market(FB, "one", "two")
    bars, news = decision_datasets(here, here.view("FB", AS_OF))
    assert bars.sha256 == FB.until(AS_OF).digest()
    assert (bars.rows, news.rows) == (len(FB.until(AS_OF)), 2)
    [only] = decision_datasets(here, here.view("FB", parse_as_of("2012-11-30")))
    assert only.kind == "bars"


def test_dataset_hash_depends_on_content_only() -> None:
    one, same, other = (
        training_datasets(market(FB, *headlines), "FB")[1] for headlines in (("a",), ("a",), ("b",))
    )
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize("as_of", [None, AS_OF], ids=["training", "decision"])
def test_compare_datasets_ignores_later_rows(as_of: datetime | None) -> None:
    then, now = market(FB[:170], "one"), market(FB, "one")
    past = (
        training_datasets(then, "FB")
        if as_of is None
        else decision_datasets(then, then.view("FB", FB.close_time(169)))
    )
    moment = as_of and FB.close_time(169)
    assert [each.now for each in compare_datasets(past, now, moment)] == ["same", "same"]


def test_compare_datasets_ignores_later_news_of_training() -> None:
    past = training_datasets(market(FB, "one"), "FB")
    assert [each.now for each in compare_datasets(past, market(FB, "one", "two"))] == [
        "same",
        "same",
    ]


@pytest.mark.parametrize("as_of", [None, AS_OF], ids=["training", "decision"])
def test_compare_datasets_reports_revised_bars(as_of: datetime | None) -> None:
    then = market(FB, "one")
    past = (
        training_datasets(then, "FB")
        if as_of is None
        else decision_datasets(then, then.view("FB", as_of))
    )
    bars, news = compare_datasets(past, market(revised(), "another"), as_of)
    assert (bars.now, news.now) == ("changed", "changed")
    assert bars.why == f"of the {bars.recorded.rows} rows from vendor some differ"


def test_compare_datasets_reports_removed_rows() -> None:
    past = training_datasets(market(FB, "one"), "FB")
    bars, news = compare_datasets(past, market(FB[20:]))
    assert (bars.now, bars.why) == (
        "changed",
        "there were 196 rows from vendor, there are 176 of that time",
    )
    assert news.why == "there were 1 rows from News, there are none today"


def test_compare_datasets_reports_missing_source_with_reason() -> None:
    [bars, _] = compare_datasets(training_datasets(market(FB, "one"), "FB"), market(None, "one"))
    assert bars.now == "not at hand"
    assert "unknown symbol 'FB' in vendor" in bars.why


def test_snapshot_tags_carry_warnings_of_bars() -> None:
    noted = replace(BundledBars().bars("AAPL"), notes=("sorted",))
    snapshot = BarsSnapshot.from_bars(noted, "folder")
    assert snapshot.notes == ("sorted",)
    assert snapshot.findings[0].startswith("the close moves by -52% on 2000-09-29")
    tags = snapshot_tags({"AAPL": snapshot})
    assert tags["finagent.bars_warnings"].startswith("AAPL: sorted; the close moves by -52%")
    assert "finagent.bars_warnings" not in snapshot_tags({"FB": BarsSnapshot.from_bars(FB, "b")})
