"""Fundamentals are known from their publication on, and tell an agent no date."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finagent_model.data.files import FileFundamentals
from finagent_model.data.market import Market
from finagent_model.errors import DataSourceError, InvalidFundamentalsError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import Fact
from finagent_model.market.view import FACTS_LIMIT, MarketView
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings

AS_OF = parse_as_of("2012-06-29")


@pytest.fixture(scope="module")
def goog() -> BarSeries:
    return Market.from_settings(Settings.load({})).bars("GOOG")


def fact(moment: str | datetime = "2012-04-12T20:00:00+00:00", **changes: Any) -> Fact:
    usual = {"name": "revenue", "value": 10645.0, "unit": "USD million", "period": "2012Q1"}
    return Fact.model_validate({"published_at": moment, **usual, **changes})


def written(**changes: Any) -> str:
    record = {"symbol": "GOOG", "published_at": "2012-04-12T20:00:00+00:00", "name": "revenue"}
    return json.dumps({**record, "value": 10645, "period": "2012Q1", **changes})


def file(folder: Path, *lines: str) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def question(bars: BarSeries, *facts: Fact, as_of: datetime = AS_OF) -> dict[str, Any]:
    view = MarketView.at(as_of, bars, facts=facts)
    result: dict[str, Any] = json.loads(build_context(view, Policy()).text)
    return result


def test_facts_in_context_have_age_without_date(goog: BarSeries) -> None:
    asked = question(goog, fact(value=10645.1234))
    assert asked["fundamentals"] == [
        {
            "name": "revenue",
            "value": 10645.1,
            "unit": "USD million",
            "period": "Q1 this year",
            "days_ago": 78,
        }
    ]


def test_facts_absent_from_context_without_source(goog: BarSeries) -> None:
    asked, told = question(goog), question(goog, fact())
    assert "fundamentals" not in asked
    assert {k: v for k, v in told.items() if k != "fundamentals"} == asked


@pytest.mark.parametrize(
    ("period", "relative"),
    [
        ("2012Q1", "Q1 this year"),
        ("FY2011", "last year (fiscal)"),
        ("2009", "3 years ago"),
        ("FY2013H1", "H1 next year (fiscal)"),
        ("2014", "in 2 years"),
        ("2012-05", "month 5 this year"),
        ("quarter to 2012-03", "quarter to month 3 this year"),
        ("year to 2011-07", "year to month 7 last year"),
        ("trailing year", "trailing year"),
        ("", ""),
    ],
)
def test_facts_period_is_relative_to_as_of(period: str, relative: str) -> None:
    assert fact(period=period).relative_period(AS_OF) == relative


@given(st.text(max_size=12), st.text(max_size=12), st.text("FYQH0129-", max_size=8))
def test_facts_in_context_never_tell_year(name: str, unit: str, period: str) -> None:
    try:
        accepted = fact(name=name, unit=unit, period=period)
    except ValueError:
        return
    told = f"{accepted.name}|{accepted.unit}|{accepted.relative_period(AS_OF)}"
    assert not re.search(r"(?<![0-9])(19|20)[0-9]{2}(?![0-9])", told)


def test_facts_unknown_before_publication(goog: BarSeries) -> None:
    moment = datetime.fromisoformat("2012-04-12T20:00:00+00:00")
    published = [
        MarketView.at(as_of, goog, facts=(fact(moment),)).fundamentals
        for as_of in (moment - timedelta(microseconds=1), moment)
    ]
    assert published == [(), (fact(moment),)]


def test_facts_restatement_counts_from_its_day(goog: BarSeries) -> None:
    first, again = fact(), fact("2012-06-01T00:00:00Z", value=9999.0)
    other = fact(period="2011Q4")
    facts = (again, first, other)
    before = MarketView.at(parse_as_of("2012-05-31"), goog, facts=facts)
    after = MarketView.at(parse_as_of("2012-06-01"), goog, facts=facts)
    assert before.fundamentals == (first, other)
    assert after.fundamentals == (other, again)


def test_facts_published_at_once_take_later_record(goog: BarSeries) -> None:
    facts = (fact(value=1.0), fact(value=2.0))
    assert [f.value for f in MarketView.at(AS_OF, goog, facts=facts).fundamentals] == [2.0]


def test_facts_most_recent_are_kept(goog: BarSeries) -> None:
    start = datetime.fromisoformat("2012-01-01T00:00:00+00:00")
    facts = tuple(fact(start + timedelta(hours=i), name=f"fact {i}") for i in range(60))
    assert MarketView.at(AS_OF, goog, facts=facts).fundamentals == facts[-FACTS_LIMIT:]


@pytest.mark.parametrize("day", ["2011-12-30", "2012-04-11", "2012-04-12", "2012-06-29"])
def test_facts_published_later_change_no_context(goog: BarSeries, day: str) -> None:
    as_of = parse_as_of(day)
    start = datetime.fromisoformat("2011-10-01T00:00:00+00:00")
    facts = [fact(start + timedelta(days=9 * i), name=f"n{i % 7}", value=i) for i in range(40)]
    published = tuple(f for f in facts if f.published_at <= as_of)
    later = tuple(f.model_copy(update={"value": -1e9}) for f in facts if f.published_at > as_of)
    surprise = fact(as_of + timedelta(microseconds=1), name="n1", value=1e12)
    assert published and later
    whole = question(goog, *facts, as_of=as_of)
    assert question(goog, *published, as_of=as_of) == whole
    assert question(goog, *later, surprise, *published, as_of=as_of) == whole


def test_file_fundamentals_reach_view_with_digest(tmp_path: Path) -> None:
    lines = (written(), written(published_at=None), written(symbol="X"), written(value=1.5))
    path = file(tmp_path, *lines)
    market = Market.from_settings(Settings.load({"FINAGENT_FUNDAMENTALS": str(path)}))
    (day,) = market.bar_views("GOOG", [-1])
    for view in (market.view("GOOG", AS_OF), day):
        assert [f.value for f in view.fundamentals] == [1.5]
        assert view.undated_facts == 1
    assert market.view("AAPL", AS_OF).fundamentals == ()

    without = Market.from_settings(Settings.load({})).digest("GOOG")
    other = file(tmp_path, *lines[:3])
    changed = Market.from_settings(Settings.load({"FINAGENT_FUNDAMENTALS": str(other)})).digest(
        "GOOG"
    )
    assert len({market.digest("GOOG"), changed, without}) == 3


def test_file_fundamentals_sort_oldest_first(tmp_path: Path) -> None:
    late, early = written(value=2), written(value=1, published_at="2012-01-01T00:00:00-05:00")
    source = FileFundamentals(file(tmp_path, late, "", written(published_at=""), early))
    facts, undated = source.facts("GOOG")
    assert [f.value for f in facts] == [1.0, 2.0]
    assert undated == 1
    assert source.symbols() == ("GOOG",)
    assert source.facts("X") == ((), 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (written(value="9" * 5000).replace('"9', "9").replace('9"', "9"), "not JSON"),
        ("[1]", "not an object"),
        (written(symbol=""), "symbol None is not a ticker"),
        (written(published_at="2012-04-12T20:00:00"), "published_at: .* has no time zone"),
        (written(published_at="soon"), "published_at: "),
        (written(value="10645"), "value: "),
        (written(value=None), "value: "),
        (written(value=True), "value: "),
        (written(value=float("nan")), "value: is missing"),
        (written(value=10**400), "value: "),
        (written(name=""), "name: "),
        (written(name="\u200b"), "name: holds nothing that can be read"),
        (written(name="x" * 61), "name: "),
        (written(name="revenue_2012"), "name: 'revenue_2012' holds a year; put it into period"),
        (written(unit="USD of 2012"), "unit: 'USD of 2012' holds a year"),
        (written(period="2Q12"), "period: '2Q12' is not a period; write 2012, FY2012, 2012Q2"),
        (written(period="quarter to 2012"), "period: 'quarter to 2012' is not a period"),
        (written(period="2012-06-30"), "period: '2012-06-30' is not a period"),
    ],
)
def test_file_fundamentals_bad_line_costs_itself(
    tmp_path: Path, bad: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = FileFundamentals(file(tmp_path, written(), bad))
    assert [f.value for f in source.facts("GOOG")[0]] == [10645.0]
    source.facts("GOOG")
    (warning,) = caplog.messages
    assert re.search(rf"facts\.jsonl: 1 of 2 rows passed over.* line 2: {message}", warning)


def test_file_fundamentals_mostly_bad_lines_are_refused(tmp_path: Path) -> None:
    source = FileFundamentals(file(tmp_path, written(), written(value="x"), "{"))
    with pytest.raises(InvalidFundamentalsError, match=r"line 2: value: .* \(2 of 3 rows can't"):
        source.facts("GOOG")


def test_file_fundamentals_missing_file_is_failure(tmp_path: Path) -> None:
    with pytest.raises(DataSourceError, match=r"none\.jsonl can't be read"):
        FileFundamentals(tmp_path / "none.jsonl").facts("GOOG")
