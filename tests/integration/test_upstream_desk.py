"""A desk that hears upstream: one more analyst, whose report is recorded like any reply, and whose
failures are told apart from a decision.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from finagent_model._base import Mode
from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, load_preset, preset_text, read_desk_config
from finagent_model.contrib.upstream.source import Pin, Source
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError, UpstreamSourceError
from finagent_model.evaluation.probes import corrupted_after
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from support.fake_llm import Protocol, Wire
from support.upstream_repository import FILES, Repository, bars_of, make_repository

pytestmark = pytest.mark.slow
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
BOTH = """
agents:
  - {name: TechnicalAnalyst, role: analyst, prompt: technical}
  - {name: UpstreamAnalyst, role: analyst, prompt: upstream, upstream: true}
  - {name: RiskManager, role: risk, prompt: risk, after: [TechnicalAnalyst, UpstreamAnalyst]}
  - {name: Executor, role: executor, prompt: executor, after: [RiskManager]}
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("upstream") / "clone")


@pytest.fixture(scope="module")
def source(stub: Repository) -> Source:
    return Source(stub.folder, stub.pin)


@pytest.fixture(scope="module")
def heard(source: Source) -> Iterator[Desk]:
    """The preset, with what it recorded."""
    held = desk(source)
    yield held
    held.close()


def config(text: str = BOTH, **changes: Any) -> DeskConfig:
    given = {**yaml.safe_load(text), **changes}
    return read_desk_config(yaml.safe_dump(given), yaml.safe_load(preset_text("default")), "test")


def desk(
    source: Source | None,
    chosen: DeskConfig | None = None,
    cassette: Cassette | None = None,
    mode: Mode = "cached",
    **environment: str,
) -> Desk:
    settings = Settings.load(environment)
    held = Cassette() if cassette is None else cassette
    team = chosen or load_preset("upstream")
    return Desk(team, None, settings, held, mode=mode, upstream=source, clock=lambda: NOON)


def view(symbol: str = "GOOG", count: int = 300) -> MarketView:
    return MarketView.at(parse_as_of("2012-06-29"), bars_of(symbol, count))


def test_upstreams_rating_decides_and_levels_are_said_to_be_ours(heard: Desk) -> None:
    decision = heard.decide(view())
    signal = decision.signal
    assert (signal.status, signal.action, signal.trend) == ("ok", "BUY", "bullish")
    assert signal.model_used == "rules+upstream"
    assert "entry, stop, target and size are this desk's: upstream names none" in signal.clamps
    assert signal.suggested_stop_loss is not None


def test_the_record_holds_upstreams_own_reply_and_what_computed_it(heard: Desk) -> None:
    decision = heard.decide(view())
    [event] = [event for event in decision.events if event.kind == "upstream"]
    assert event.agent == "UpstreamAnalyst"
    assert event.body["reply"]["final_decision"]["rating"] == "buy"
    assert {"tree", "clock_day", "key", "versions", "log", "cached"} <= set(event.body)
    [turn] = [turn for turn in decision.turns if turn.agent_name == "upstream"]
    assert json.loads(turn.message_content)["rating"] == "buy"
    assert turn.model.startswith("finagent@")


def test_a_recorded_report_is_replayed_without_upstream(source: Source, tmp_path: Path) -> None:
    cassette = Cassette()
    with_it = desk(source, cassette=cassette)
    first = with_it.decide(view()).signal
    with_it.close()
    gone = Source(tmp_path / "nowhere", source.pin)
    assert desk(gone, cassette=cassette, mode="replay").decide(view()).signal == first
    missed = desk(gone, cassette=Cassette(), mode="replay").decide(view()).signal
    assert (missed.status, missed.action, missed.confidence_score) == ("upstream_error", "HOLD", 0)
    assert "no recorded report" in missed.reasoning


def test_a_weekend_asks_what_friday_asked(heard: Desk) -> None:
    saturday = MarketView.at(parse_as_of("2012-06-30"), bars_of("GOOG"))
    keys = [
        event.body["key"]
        for asked in (view(), saturday)
        for event in heard.decide(asked).events
        if event.kind == "upstream"
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("symbol", "status", "said"),
    [
        ("EXIT", "upstream_error", "crash"),
        ("RAISE", "upstream_error", "IndexError"),
        ("NAN", "upstream_error", "indicators.macd.signal_line"),
        ("STRONGLY", "upstream_error", "strong buy"),
        ("SURE", "upstream_error", "probability"),
        ("SHORT", "upstream_error", "final_decision"),
        ("WRONG", "upstream_error", "GOOG"),
        ("FUTURE", "upstream_error", "asked for bars until"),
        ("NOTHING", "data_missing", "found no bars"),
    ],
)
def test_its_failure_is_no_decision_and_replays_as_it_was(
    symbol: str, status: str, said: str, source: Source
) -> None:
    cassette = Cassette()
    held = desk(source, cassette=cassette)
    failed = held.decide(view(symbol)).signal
    held.close()
    assert (failed.status, failed.action, failed.confidence_score) == (status, "HOLD", 0)
    assert said in failed.reasoning
    again = desk(source, cassette=cassette, mode="replay").decide(view(symbol)).signal
    assert again == failed
    healthy = desk(source, cassette=cassette).decide(view("GOOG")).signal
    assert healthy.status == "ok"


def test_too_little_history_is_missing_data(source: Source) -> None:
    held = desk(source, config(policy={"slow": 20, "fast": 5, "channel": 20}))
    signal = held.decide(view(count=50)).signal
    assert "upstream needs 60" in " ".join(signal.warnings)
    held.close()


def test_the_others_go_on_without_it(source: Source) -> None:
    held = desk(source, config())
    signal = held.decide(view("RAISE")).signal
    held.close()
    assert signal.status == "ok"
    assert any("UpstreamAnalyst left out: upstream_error" in w for w in signal.warnings)
    assert "of TechnicalAnalyst;" in signal.reasoning


def test_its_opinion_moves_the_technical_score_by_its_weight(source: Source) -> None:
    held = desk(source, config(policy={"upstream_weight": 4}))
    reasoning = held.decide(view()).signal.reasoning
    alone = desk(source, load_preset("lean")).decide(view()).signal.reasoning
    held.close()
    both, technical = (float(text.split()[2]) for text in (reasoning, alone))
    assert both == pytest.approx((technical + 4 * 0.4) / 5, abs=2e-4)


def test_a_team_and_a_walk_leave_the_same_record(source: Source) -> None:
    held = desk(source, config())
    team = held.under(mode="live").decide(view())
    [walked] = held.decide_all([view()], rules_at_once=True)
    held.close()
    assert walked.signal == team.signal

    def said(turns: Any) -> list[tuple[str, str]]:
        return sorted((turn.agent_name, turn.message_content) for turn in turns)

    assert said(walked.turns) == said(team.turns)


@pytest.mark.parametrize("protocol", [Protocol.OPENAI, Protocol.ANTHROPIC])
def test_a_chat_model_reads_the_report_and_only_where_its_row_says_so(
    protocol: Protocol, source: Source
) -> None:
    with Wire() as wire:
        client = "openai" if protocol is Protocol.OPENAI else "anthropic"
        team = config(client=client, model="stub-1", base_url=wire.address(protocol))
        keys = {"OPENAI_API_KEY": "sk-of-a-double", "ANTHROPIC_API_KEY": "sk-of-a-double"}
        held = desk(source, team, **keys)
        decision = held.decide(Market.of(Settings.load({})).view("GOOG", view().as_of))
        held.close()
        shown = {asked.agent: '\\"ema_cross\\"' in json.dumps(asked.body) for asked in wire.asked}
    assert decision.signal.status == "ok", decision.signal.reasoning
    assert shown == {
        "TechnicalAnalyst": False,
        "UpstreamAnalyst": True,
        "RiskManager": False,
        "Executor": False,
    }


def test_later_bars_change_no_earlier_score(heard: Desk) -> None:
    bars = bars_of("GOOG", 130)
    whole = heard.upstream_scores(bars).scores
    for cut in (70, 100):
        for other in (bars[:cut], corrupted_after(bars, cut)):
            np.testing.assert_array_equal(heard.upstream_scores(other).scores[:cut], whole[:cut])
    assert np.isnan(whole[:59]).all()
    assert np.isfinite(whole[59:]).all()


def test_without_the_source_a_desk_says_where_to_get_it(tmp_path: Path) -> None:
    held = desk(None, FINAGENT_HOME=str(tmp_path))
    with pytest.raises(UpstreamSourceError, match="finagent upstream fetch"):
        held.require_key()
    signal = held.decide(view()).signal
    assert signal.status == "upstream_error"
    assert Pin.load().repository in signal.reasoning


def test_a_changed_byte_is_never_run(source: Source, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(FILES, copy)
    (copy / "src" / "backend" / "agents" / "technical_analysis.py").write_text("BUY = True\n")
    signal = desk(Source(copy, source.pin)).decide(view()).signal
    assert signal.status == "upstream_error"
    assert "it is not used" in signal.reasoning


def test_a_byte_that_changes_while_the_worker_is_down_is_not_run(
    source: Source, tmp_path: Path
) -> None:
    copy, code = tmp_path / "copy", tmp_path / "copy" / source.pin.folder
    shutil.copytree(FILES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    held = desk(Source(copy, source.pin))
    assert held.decide(view()).signal.status == "ok"
    held.close()
    with (code / "agents" / "technical_analysis.py").open("a") as file:
        file.write("raise RuntimeError('it was run')\n")
    signal = held.decide(view("IBM")).signal
    assert (signal.status, signal.action) == ("upstream_error", "HOLD")
    assert "src/backend hashes to" in signal.reasoning
    assert "it was run" not in signal.reasoning
    shutil.copy(FILES / source.pin.folder / "agents" / "technical_analysis.py", code / "agents")
    assert held.decide(view("IBM")).signal.status == "ok"
    held.close()


def test_only_an_analyst_may_read_the_report() -> None:
    with pytest.raises(ConfigError, match="RiskManager is no analyst"):
        config(BOTH.replace("prompt: risk,", "prompt: risk, upstream: true,"))
    with pytest.raises(ConfigError, match="threshold"):
        config(policy={"threshold": 7})
