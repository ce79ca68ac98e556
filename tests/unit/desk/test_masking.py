"""A mask hides the symbol and its price level everywhere, and the signal has the real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, config_hash, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk._chart import draw
from finagent_model.desk._risk import LevelsRejectedError, Proposal, settle_levels
from finagent_model.desk.desk import Desk
from finagent_model.desk.masking import (
    Mask,
    ShownView,
    mirror_bars,
    rename_and_scale,
    show_everything,
    strike,
)
from finagent_model.errors import ConfigError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import Fact, NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy
from finagent_model.policy.trained_state import TradeOutcome
from finagent_model.settings import Settings

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
DAY = "2012-06-29"
WORDS = {"GOOG": ("Google", "Alphabet Inc", "3M")}


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.from_settings(Settings.load({}))


def config(preset: str = "lean", **changes: Any) -> DeskConfig:
    defaults = yaml.safe_load(preset_text("default"))
    keys = yaml.safe_load(preset_text(preset))
    return read_desk_config(yaml.safe_dump({**keys, **changes}), defaults, "test")


def decide(view: MarketView, desk_config: DeskConfig, **options: Any) -> Decision:
    desk = Desk(desk_config, None, Settings.load({}), Cassette(), clock=lambda: NOON)
    return desk.with_options(inline_rules=True, **options).decide(view)


def news(headline: str, body: str = "", source: str = "") -> NewsItem:
    at = parse_as_of(DAY) - timedelta(days=2)
    return NewsItem(published_at=at, headline=headline, body=body, source=source)


def fact(name: str, value: float, unit: str = "") -> Fact:
    at = parse_as_of(DAY) - timedelta(days=20)
    return Fact(published_at=at, name=name, value=value, unit=unit, period="2012Q1")


def goog(market: Market, **changes: Any) -> MarketView:
    return replace(market.view("GOOG", parse_as_of(DAY)), **{"news": (), **changes})


def test_mask_names_hides_symbol_and_keeps_prices(market: Market) -> None:
    view = goog(market)
    decision = decide(view, config(mask="names"))
    told = "".join(turn.message_content for turn in decision.turns)
    assert "GOOG" not in told
    assert '"symbol": "ASSET_' in told
    assert f"{view.last_close:.6g}" in told
    assert decision.signal.symbol == "GOOG"


def test_mask_levels_hides_prices_in_question_tools_and_chart(market: Market) -> None:
    view = goog(market)
    shown = Mask("levels", {})(view, ())
    context = build_context(shown.view, Policy())
    question = json.loads(context.text)
    assert 20 <= question["last_close"] <= 200
    # Every price is scaled alike, the features not at all.
    plain = json.loads(build_context(view, Policy()).text)
    for key in ("atr", "support", "resistance", "year_low", "year_high"):
        assert question[key] / plain[key] == pytest.approx(shown.scale, rel=2e-5)
    assert question["features"] == pytest.approx(plain["features"], rel=1e-5)
    assert draw(shown.view).digest != draw(view).digest
    assert shown.view.bars.volume[-1] != view.bars.volume[-1]
    assert np.array_equal(shown.view.bars.split, view.bars.split)


def test_mask_reaches_tools_of_the_desk(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    given_views: list[MarketView] = []

    def toolbox(view: MarketView, *_: object) -> Any:
        given_views.append(view)
        raise AssertionError

    monkeypatch.setattr("finagent_model.desk.desk.Toolbox", toolbox)
    monkeypatch.setattr("finagent_model.desk.desk.draw", toolbox)
    desk = Desk(config(mask="levels"), None, Settings.load({}), Cassette())
    shown = desk._present(goog(market), ())
    query = desk._build_query(shown, build_context(shown.view, Policy()))
    for ask in (lambda: query.tools(["bars"]), query.chart):
        with pytest.raises(AssertionError):
            ask()
    assert [view.symbol for view in given_views] == [shown.view.symbol] * 2


def test_mask_is_the_same_whenever_its_session_is_asked_about(market: Market) -> None:
    mask = Mask("levels", {})
    friday, sunday = (market.view("GOOG", parse_as_of(day)) for day in (DAY, "2012-07-01"))
    noon = market.view("GOOG", parse_as_of("2012-06-29T23:00:00+00:00"))
    shown = [mask(view, ()) for view in (friday, sunday, noon)]
    assert len({(each.view.symbol, each.scale) for each in shown}) == 1
    monday = mask(market.view("GOOG", parse_as_of("2012-07-02")), ())
    other = mask(market.view("FB", parse_as_of(DAY)), ())
    assert len({each.scale for each in (shown[0], monday, other)}) == 3
    assert Mask("levels", {}, "probe")(friday, ()).scale != shown[0].scale


@pytest.mark.parametrize("kind", ["names", "levels"])
@pytest.mark.parametrize("day", ["2012-06-29", "2012-09-28", "2010-03-31"])
def test_rules_decide_the_same_under_a_mask(market: Market, kind: str, day: str) -> None:
    view = replace(market.view("GOOG", parse_as_of(day)), news=())
    plain, masked = decide(view, config()).signal, decide(view, config(mask=kind)).signal
    assert_same_decision(plain.model_dump(), masked.model_dump())


def assert_same_decision(plain: dict[str, Any], masked: dict[str, Any]) -> None:
    differing = {"conversation_id", "warnings", "clamps"}
    assert [clamp.split()[0] for clamp in plain["clamps"]] == [
        clamp.split()[0] for clamp in masked["clamps"]
    ]
    for name, value in plain.items():
        if isinstance(value, float):
            assert masked[name] == pytest.approx(value, rel=5e-4), name
        elif name not in differing:
            assert masked[name] == value, name


@limited(max_examples=12)
@given(
    st.integers(400, 2000),
    st.floats(-3, 3),
    st.text(st.characters(categories=["Lu", "Nd"], codec="ascii"), min_size=1, max_size=12),
)
def test_rules_decide_the_same_under_any_name_and_scale(
    market: Market, bar: int, power: float, name: str
) -> None:
    [view] = market.bar_views("GOOG", [bar])
    view = replace(view, news=())
    scale = 10**power

    def renamed(view: MarketView, lessons: tuple[TradeOutcome, ...]) -> ShownView:
        return ShownView(rename_and_scale(view, name, scale), lessons, view, scale)

    plain = decide(view, config()).signal.model_dump()
    other = decide(view, config(), presenter=renamed).signal.model_dump()
    assert_same_decision(plain, other)


def test_mask_strikes_declared_words_and_numbers_of_news(market: Market) -> None:
    item = news(
        "GOOG: Google's profit rises 40% to $2.9 billion",
        "\uff27\uff2f\uff2f\uff27 and Goo\u200bgle, ALPHABET INC and 3M. "
        "See Googleplex; goog is no symbol",
        "Google Blog",
    )
    shown = Mask("levels", WORDS)(goog(market, news=(item,)), ())
    alias = shown.view.symbol
    [masked] = shown.view.news
    assert masked.headline == f"{alias}: {alias}'s profit rises #% to $# billion"
    assert masked.body == (
        f"{alias} and {alias}, {alias} and {alias}. See Googleplex; goog is no symbol"
    )
    assert (masked.source, masked.url) == (f"{alias} Blog", "")
    [named] = Mask("names", WORDS)(goog(market, news=(item,)), ()).view.news
    assert "40%" in named.headline


def test_mask_leaves_news_out_where_no_words_are_declared(market: Market) -> None:
    view = goog(market, news=(news("Google beats estimates"),))
    decision = decide(view, config("default", mask="names"))
    assert "estimates" not in "".join(turn.message_content for turn in decision.turns)
    assert any("mask_words names no words for GOOG" in text for text in decision.signal.warnings)


def test_mask_shows_ratios_alone_of_fundamentals(market: Market) -> None:
    facts = (
        fact("revenue", 12214.0, "USD million"),
        fact("revenue_growth", 0.21),
        fact("margin", 27.0, "percent"),
        fact("GOOG_share", 0.6, "fraction"),
        fact("eps", 8.75, "USD per share"),
    )
    decision = decide(goog(market, fundamentals=facts), config(mask="names"))
    question = json.loads(decision.turns[0].message_content)
    assert [f["name"] for f in question["fundamentals"]] == ["revenue_growth", "margin"]
    assert "3 fundamentals left out" in " ".join(decision.signal.warnings)


def test_mask_strikes_names_of_lessons(market: Market) -> None:
    lesson = TradeOutcome(
        symbol="GOOG",
        as_of=parse_as_of("2012-03-01"),
        closed_at=parse_as_of("2012-03-20"),
        action="BUY",
        confidence=60,
        earned=0.01,
        ended="time",
        bars_held=12,
        weight=0.5,
        key_factors=("GOOG trend", "google momentum"),
    )
    shown = Mask("names", WORDS)(goog(market), (lesson,))
    alias = shown.view.symbol
    assert shown.lessons[0].key_factors == (f"{alias} trend", f"{alias} momentum")


def test_shown_view_brings_text_and_last_close_back(market: Market) -> None:
    view = goog(market)
    shown = Mask("levels", {})(view, ())
    context = build_context(shown.view, Policy())
    assert shown.price(context.last_close) == float(f"{view.last_close:.6g}")
    assert shown.text(f"{shown.view.symbol} rises") == "GOOG rises"
    assert show_everything(view, ()).price(583.123456) == 583.123456


def test_settle_levels_rejects_prices_that_are_one_after_unmasking(market: Market) -> None:
    context = build_context(goog(market), Policy())
    close = context.last_close
    proposal = Proposal("BUY", close, close - 0.002, close + 5, 5.0)
    settle_levels(proposal, context, config().risk)
    with pytest.raises(LevelsRejectedError, match="moves so little"):
        settle_levels(proposal, context, config().risk, lambda price: float(f"{price:.4g}"))


def test_desk_words_errors_of_masked_views_with_the_symbol(market: Market) -> None:
    [view] = market.bar_views("GOOG", [5])
    signal = decide(view, config(mask="names")).signal
    assert signal.status == "data_missing"
    assert "GOOG has 6 bars" in signal.reasoning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": "name"}, "mask"),
        ({"mask": "names", "mask_words": {"GOOG": []}}, "give 1 to 50 words"),
        ({"mask": "names", "mask_words": {"GOOG": ["\u200b"]}}, "is not a word of 2 to 60"),
        ({"mask": "names", "mask_words": {"": ["Google"]}}, "mask_words"),
        ({"mask_words": {"GOOG": ["Google"]}}, "without a mask"),
    ],
)
def test_desk_config_refuses_a_mask_that_hides_nothing(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_desk_config_refuses_a_mask_before_an_external_analyst() -> None:
    with pytest.raises(ConfigError, match="'levels' can't hide the symbol from upstream"):
        config("upstream", mask="levels")


def test_config_hash_counts_the_mask_where_there_is_one() -> None:
    assert "mask" not in config().model_dump()
    assert config_hash(config(mask="none")) == config_hash(config())
    assert len({config_hash(config(mask=kind)) for kind in ("none", "names", "levels")}) == 3


def test_mirror_bars_turns_every_return_round(market: Market) -> None:
    bars = goog(market).bars
    mirrored, plain = mirror_bars(bars), bars.adjust_to_last_bar()
    returns = np.diff(np.log(plain.close))
    assert np.allclose(np.diff(np.log(mirrored.close)), -returns)
    assert mirrored.close[-1] == pytest.approx(bars.close[-1])
    assert (mirrored.high >= np.maximum(mirrored.open, mirrored.close) * (1 - 1e-12)).all()
    assert (mirrored.low <= np.minimum(mirrored.open, mirrored.close) * (1 + 1e-12)).all()


def test_strike_keeps_words_that_only_contain_a_name() -> None:
    assert strike("IT said it: ITT, IT.", ("IT",), "X") == "X said it: ITT, X."
    assert strike("BRK.B rose", ("BRK.B",), "X") == "X rose"
