"""The desk on real bars: what it says, what it declines, and that it repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, load_preset, preset_text, read_desk_config
from finagent_model.config.parsing import CallLimits
from finagent_model.data.market import Market
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.from_settings(Settings.load({}))


def desk(cassette: Cassette | None = None, config: DeskConfig | None = None) -> Desk:
    return Desk(
        config or load_preset(),
        None,
        Settings.load({}),
        cassette or Cassette(),
        clock=lambda: NOON,
    )


def view(market: Market, day: str, symbol: str = "GOOG") -> MarketView:
    return market.view(symbol, parse_as_of(day))


def config(**changes: Any) -> DeskConfig:
    defaults = yaml.safe_load(preset_text("default"))
    return read_desk_config(yaml.safe_dump(changes), defaults, "test")


def test_desk_of_rules_names_rules_as_its_model(market: Market) -> None:
    signal = desk().decide(view(market, "2012-06-29")).signal
    assert (signal.status, signal.model_used, signal.tokens) == ("ok", "rules", 0)
    assert signal.warnings == ("untrained: the policy's defaults were used",)


def test_desk_signal_carries_what_is_odd_about_its_bars(market: Market) -> None:
    crash = desk().decide(view(market, "2000-10-31", "AAPL")).signal
    [warning] = [text for text in crash.warnings if text.startswith("bars: ")]
    assert warning.startswith("bars: the close moves by -52% on 2000-09-29 without a split")
    noted = replace(market.bars("GOOG"), notes=("the newest bar stood first; sorted",))
    signal = desk().decide(MarketView.at(parse_as_of("2012-06-29"), noted)).signal
    assert signal.warnings[-1] == "bars: the newest bar stood first; sorted"


def test_desk_signal_knows_no_later_oddity(market: Market) -> None:
    before = desk().decide(view(market, "2000-09-28", "AAPL")).signal
    assert not any(text.startswith("bars: ") for text in before.warnings)


def test_desk_skips_news_analyst_without_recent_news(
    market: Market,
) -> None:
    turns = desk().decide(view(market, "2012-06-29")).turns
    skipped = [turn for turn in turns if turn.message_type == "skipped"]
    assert [turn.agent_name for turn in skipped] == ["NewsAnalyst"]
    assert "no dated news" in skipped[0].message_content


def test_desk_hears_news_analyst_with_recent_news(market: Market) -> None:
    published = market.news("GOOG")[0][1].published_at
    turns = desk().decide(view(market, published.date().isoformat())).turns
    assert "NewsAnalyst" in [t.agent_name for t in turns if t.message_type == "response"]


def test_desk_stale_bars_are_data_missing(
    market: Market,
) -> None:
    signal = desk().decide(view(market, "2013-03-12")).signal
    assert (signal.status, signal.action, signal.confidence_score) == ("data_missing", "HOLD", 0)
    assert "2013-03-01" in signal.reasoning


def test_desk_with_other_warnings_decides_the_same(market: Market) -> None:
    """For verification: the ledger of a version has no warning that other code answers."""
    asked = view(market, "2012-06-29")
    warned = Desk(load_preset(), None, Settings.load({}), Cassette(), warnings=("other code",))
    signal = warned.decide(asked).signal
    assert signal.warnings[0] == "other code"
    bare = warned.with_options(warnings=()).decide(asked).signal
    assert bare == signal.model_copy(
        update={"warnings": signal.warnings[1:], "generated_at": bare.generated_at}
    )


def test_desk_short_history_is_data_missing(market: Market) -> None:
    signal = desk().decide(view(market, "2004-10-01")).signal
    assert signal.status == "data_missing"
    assert "needs" in signal.reasoning


def test_desk_abstains_with_too_few_rounds(market: Market) -> None:
    signal = (
        desk()
        .with_options(limits=CallLimits(max_rounds=2))
        .decide(view(market, "2012-06-29"))
        .signal
    )
    assert (signal.status, signal.action) == ("abstained", "HOLD")


def test_desk_replay_without_recording_names_the_agent(
    market: Market,
) -> None:
    signal = desk().with_options(mode="replay").decide(view(market, "2012-06-29")).signal
    assert signal.status == "model_error"
    assert "TechnicalAnalyst" in signal.reasoning


def test_desk_replay_repeats_signal_without_calls(market: Market) -> None:
    cassette = Cassette()
    first = desk(cassette).decide(view(market, "2012-06-29"))
    again = desk(cassette).with_options(mode="replay").decide(view(market, "2012-06-29"))
    assert again.signal == first.signal
    assert (first.calls, again.calls) == (3, 0)


def test_desk_concurrent_decisions_equal_single_ones(market: Market) -> None:
    views = market.bar_views("GOOG", range(900, 940))
    done: list[int] = []
    together = desk().decide_all(views, lambda: done.append(1))
    assert [d.signal for d in together] == [desk().decide(v).signal for v in views]
    assert len(done) == len(views)


def test_desk_is_safe_across_threads(market: Market) -> None:
    shared = desk()
    views = market.bar_views("GOOG", range(1000, 1012))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(shared.decide, views))
    assert [d.signal for d in found] == [desk().decide(v).signal for v in views]


def test_desk_trades_carry_levels_with_size(market: Market) -> None:
    signals: Sequence[TradingSignal] = [
        d.signal for d in desk().decide_all(market.bar_views("GOOG", range(950, 1100)))
    ]
    acted = [s for s in signals if s.action != "HOLD"]
    assert {s.action for s in acted} == {"BUY", "SELL"}
    for signal in acted:
        assert signal.suggested_stop_loss and signal.suggested_take_profit
        assert signal.position_size_percent and 0 < signal.position_size_percent <= 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clients": "rules"}, "unknown key 'clients'"),
        ({"client": "oracle"}, "unknown client 'oracle'; use one of: rules, openai"),
        ({"client": "openai"}, "needs a model"),
        ({"model": "gpt"}, "client 'rules' is not a model"),
        ({"limits": {"max_rounds": 0}}, "limits.max_rounds"),
        ({"agents": [{"name": "A", "role": "analyst", "prompt": "technical"}]}, "one executor"),
        (
            {"agents": [{"name": "A", "role": "analyst", "prompt": "news", "after": ["B"]}]},
            "A waits for 'B'",
        ),
    ],
)
def test_desk_config_error_names_the_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_rules_client_refuses_roster_without_rule() -> None:
    agents = [
        {"name": "A", "role": "analyst", "prompt": "astrology"},
        {"name": "E", "role": "executor", "prompt": "executor", "after": ["A"]},
    ]
    with pytest.raises(ConfigError, match="astrology"):
        desk(config=config(agents=agents))
