"""Which days are asked about, and in which forms."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.records import RecordedReply
from finagent_model.desk.desk import Desk
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.pipeline import probe_questions
from finagent_model.pipeline.probe_questions import choose_days, find_other_views
from support.memory_models import SYMBOLS, market, stub_config, stub_settings


def test_choose_days_leaves_a_month_between_days_of_a_symbol() -> None:
    chosen = choose_days({"A": range(100), "B": [3, 22, 23]}, {"A": 100, "B": 60}, 120)
    assert [i for symbol, i in chosen if symbol == "A"] == [0, 20, 40, 60]
    assert [i for symbol, i in chosen if symbol == "B"] == [3, 23]


def test_choose_days_spreads_a_few_days_over_all() -> None:
    chosen = choose_days({"A": range(2000), "B": range(2000)}, {"A": 2000, "B": 2000}, 10)
    assert len(set(chosen)) == 10
    assert {symbol for symbol, _ in chosen} == {"A", "B"}
    positions = [i for _, i in chosen]
    assert positions == sorted(positions)
    assert positions[-1] > 1900


def test_choose_days_leaves_out_days_whose_outcome_is_not_known() -> None:
    assert choose_days({"A": [79, 80, 99]}, {"A": 100}, 5) == [("A", 79)]
    assert choose_days({"A": []}, {"A": 100}, 5) == []


def test_find_other_views_lends_the_next_symbols_name() -> None:
    chosen = [("GOOG", 400), ("MSFT", 1500)]
    others = find_other_views(market(), SYMBOLS, chosen, 60)
    assert [others[day].symbol for day in chosen] == ["IBM", "AAPL"]
    for day in chosen:
        [view] = market().bar_views(day[0], [day[1]])
        assert others[day].as_of == view.as_of
        assert others[day].news == ()
    assert find_other_views(market(), ["GOOG"], chosen[:1], 60) == {}
    assert find_other_views(market(), ["GOOG", "NOSUCH"], chosen[:1], 60) == {}


def test_placebo_has_the_news_of_another_day_at_equal_ages() -> None:
    views: dict[int, MarketView] = {}
    for i, view in enumerate(market().bar_views("GOOG", [400, 440, 480])):
        published = view.as_of - timedelta(days=i + 1)
        item = NewsItem(published_at=published, headline=f"news {i}")
        views[i] = replace(view, news=(item,))
    exchanged = probe_questions._exchange_news(views)
    assert [exchanged[i].news[0].headline for i in views] == ["news 1", "news 2", "news 0"]
    ages = [exchanged[i].news[0].days_before(views[i].as_of) for i in views]
    assert ages == [2, 3, 1]
    assert probe_questions._exchange_news({0: views[0]}) == {}


def test_swap_shows_the_path_under_the_others_name_and_level() -> None:
    cassette, day = Cassette(), ("GOOG", 400)
    desk = Desk(stub_config("honest"), None, stub_settings(), cassette)
    others = find_other_views(market(), SYMBOLS, [day], desk.warm_up)
    views = market().bar_views(day[0], [day[1]])
    forms = probe_questions._arms(
        desk, cassette, desk, desk._present, views, dict(enumerate(views)), [day], others, 1
    )
    by_name = {arm.name: arm for arm in forms}
    [view] = by_name["swapped"].views.values()
    shown = by_name["swapped"].desk._present(view, ()).view
    other = by_name["other"].desk._present(view, ()).view
    assert shown.symbol == other.symbol == "IBM"
    assert shown.last_close == pytest.approx(other.last_close)
    assert np.allclose(
        np.diff(np.log(shown.bars.close)), np.diff(np.log(view.bars.close)), atol=1e-12
    )


def test_repetition_of_a_cassette_keeps_replies_apart() -> None:
    cassette = Cassette()
    again = cassette.for_repetition("again")
    cassette.put("key", RecordedReply("first", "stop", 1, 1))
    assert again.get("key") is None
    again.put("key", RecordedReply("second", "stop", 1, 1))
    found = [c.get("key") for c in (cassette, again, cassette.for_repetition("again"))]
    assert [each.content for each in found if each] == ["first", "second", "second"]
    assert cassette.for_repetition("other").get("key") is None
