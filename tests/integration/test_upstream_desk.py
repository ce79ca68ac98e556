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
from finagent_model.contrib.upstream.source import PinnedSource, SourcePin, UpstreamSourceError
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings
from support.fake_llm import FakeProvider, Protocol
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
def source(stub: Repository) -> PinnedSource:
    return PinnedSource(stub.folder, stub.pin)


@pytest.fixture(scope="module")
def recorded_desk(source: PinnedSource) -> Iterator[Desk]:
    """The preset, with what it recorded."""
    desk = build_desk(source)
    yield desk
    desk.close()


def config(text: str = BOTH, **changes: Any) -> DeskConfig:
    keys = {**yaml.safe_load(text), **changes}
    return read_desk_config(yaml.safe_dump(keys), yaml.safe_load(preset_text("default")), "test")


def build_desk(
    source: PinnedSource | None,
    chosen: DeskConfig | None = None,
    cassette: Cassette | None = None,
    mode: Mode = "cached",
    **environment: str,
) -> Desk:
    settings = Settings.load(environment)
    cassette = Cassette() if cassette is None else cassette
    team = chosen or load_preset("upstream")
    return Desk(team, None, settings, cassette, mode=mode, external=source, clock=lambda: NOON)


def view(symbol: str = "GOOG", count: int = 300) -> MarketView:
    return MarketView.at(parse_as_of("2012-06-29"), bars_of(symbol, count))


def test_upstream_rating_decides_with_the_desks_own_levels(recorded_desk: Desk) -> None:
    decision = recorded_desk.decide(view())
    signal = decision.signal
    assert (signal.status, signal.action, signal.trend) == ("ok", "BUY", "bullish")
    assert signal.model_used == "rules+upstream"
    assert "entry, stop, target and size are this desk's: upstream names none" in signal.clamps
    assert signal.suggested_stop_loss is not None


def test_upstream_event_holds_its_reply_with_the_versions(recorded_desk: Desk) -> None:
    decision = recorded_desk.decide(view())
    [event] = [event for event in decision.events if event.kind == "upstream"]
    assert event.agent == "UpstreamAnalyst"
    assert event.body["reply"]["final_decision"]["rating"] == "buy"
    assert {"tree", "clock_day", "key", "versions", "log", "cached"} <= set(event.body)
    [turn] = [turn for turn in decision.turns if turn.agent_name == "upstream"]
    assert json.loads(turn.message_content)["rating"] == "buy"
    assert turn.model.startswith("finagent@")


def test_upstream_report_is_replayed_without_the_source(
    source: PinnedSource, tmp_path: Path
) -> None:
    cassette = Cassette()
    with_it = build_desk(source, cassette=cassette)
    first = with_it.decide(view()).signal
    with_it.close()
    gone = PinnedSource(tmp_path / "nowhere", source.pin)
    assert build_desk(gone, cassette=cassette, mode="replay").decide(view()).signal == first
    missed = build_desk(gone, cassette=Cassette(), mode="replay").decide(view()).signal
    assert (missed.status, missed.action, missed.confidence_score) == ("upstream_error", "HOLD", 0)
    assert "no recorded report" in missed.reasoning


def test_upstream_key_of_a_weekend_is_fridays(recorded_desk: Desk) -> None:
    saturday = MarketView.at(parse_as_of("2012-06-30"), bars_of("GOOG"))
    keys = [
        event.body["key"]
        for asked in (view(), saturday)
        for event in recorded_desk.decide(asked).events
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
def test_upstream_failure_is_a_status_that_replays(
    symbol: str, status: str, said: str, source: PinnedSource
) -> None:
    cassette = Cassette()
    desk = build_desk(source, cassette=cassette)
    failed = desk.decide(view(symbol)).signal
    desk.close()
    assert (failed.status, failed.action, failed.confidence_score) == (status, "HOLD", 0)
    assert said in failed.reasoning
    again = build_desk(source, cassette=cassette, mode="replay").decide(view(symbol)).signal
    assert again == failed
    healthy = build_desk(source, cassette=cassette).decide(view("GOOG")).signal
    assert healthy.status == "ok"


def test_upstream_short_history_is_missing_data(source: PinnedSource) -> None:
    desk = build_desk(source, config(policy={"slow": 20, "fast": 5, "channel": 20}))
    signal = desk.decide(view(count=50)).signal
    assert "upstream needs 60" in " ".join(signal.warnings)
    desk.close()


def test_upstream_failure_leaves_the_other_analysts(source: PinnedSource) -> None:
    desk = build_desk(source, config())
    signal = desk.decide(view("RAISE")).signal
    desk.close()
    assert signal.status == "ok"
    assert any("UpstreamAnalyst left out: upstream_error" in w for w in signal.warnings)
    assert "of TechnicalAnalyst;" in signal.reasoning


def test_upstream_score_counts_by_its_weight(source: PinnedSource) -> None:
    desk = build_desk(source, config(policy={"upstream_weight": 4}))
    reasoning = desk.decide(view()).signal.reasoning
    alone = build_desk(source, load_preset("lean")).decide(view()).signal.reasoning
    desk.close()
    both, technical = (float(text.split()[2]) for text in (reasoning, alone))
    assert both == pytest.approx((technical + 4 * 0.4) / 5, abs=2e-4)


def test_upstream_record_is_equal_by_team_or_inline(source: PinnedSource) -> None:
    desk = build_desk(source, config())
    team = desk.with_options(mode="live").decide(view())
    [walked] = desk.with_options(inline_rules=True).decide_all([view()])
    desk.close()
    assert walked.signal == team.signal

    def said(turns: Any) -> list[tuple[str, str]]:
        return sorted((turn.agent_name, turn.message_content) for turn in turns)

    assert said(walked.turns) == said(team.turns)


@pytest.mark.parametrize("protocol", [Protocol.OPENAI, Protocol.ANTHROPIC])
def test_upstream_report_reaches_only_the_agent_of_its_row(
    protocol: Protocol, source: PinnedSource
) -> None:
    with FakeProvider() as llm:
        client = "openai" if protocol is Protocol.OPENAI else "anthropic"
        team = config(client=client, model="stub-1", base_url=llm.address(protocol))
        keys = {"OPENAI_API_KEY": "sk-of-a-double", "ANTHROPIC_API_KEY": "sk-of-a-double"}
        desk = build_desk(source, team, **keys)
        decision = desk.decide(Market.from_settings(Settings.load({})).view("GOOG", view().as_of))
        desk.close()
        shown = {asked.agent: '\\"ema_cross\\"' in json.dumps(asked.body) for asked in llm.requests}
    assert decision.signal.status == "ok", decision.signal.reasoning
    assert shown == {
        "TechnicalAnalyst": False,
        "UpstreamAnalyst": True,
        "RiskManager": False,
        "Executor": False,
    }


def test_upstream_scores_ignore_later_bars(recorded_desk: Desk) -> None:
    bars = bars_of("GOOG", 130)
    whole = recorded_desk.external_scores(bars).scores
    for cut in (70, 100):
        for other in (bars[:cut], corrupt_after(bars, cut)):
            np.testing.assert_array_equal(
                recorded_desk.external_scores(other).scores[:cut], whole[:cut]
            )
    assert np.isnan(whole[:59]).all()
    assert np.isfinite(whole[59:]).all()


def test_upstream_without_the_source_names_the_command(tmp_path: Path) -> None:
    desk = build_desk(None, FINAGENT_HOME=str(tmp_path))
    with pytest.raises(UpstreamSourceError, match="finagent upstream fetch"):
        desk.require_key()
    signal = desk.decide(view()).signal
    assert signal.status == "upstream_error"
    assert SourcePin.load().repository in signal.reasoning


def test_upstream_changed_byte_is_never_run(source: PinnedSource, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(FILES, copy)
    (copy / "src" / "backend" / "agents" / "technical_analysis.py").write_text("BUY = True\n")
    signal = build_desk(PinnedSource(copy, source.pin)).decide(view()).signal
    assert signal.status == "upstream_error"
    assert "it is not used" in signal.reasoning


def test_upstream_byte_changed_between_workers_is_not_run(
    source: PinnedSource, tmp_path: Path
) -> None:
    copy, code = tmp_path / "copy", tmp_path / "copy" / source.pin.folder
    shutil.copytree(FILES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    desk = build_desk(PinnedSource(copy, source.pin))
    assert desk.decide(view()).signal.status == "ok"
    desk.close()
    with (code / "agents" / "technical_analysis.py").open("a") as file:
        file.write("raise RuntimeError('it was run')\n")
    signal = desk.decide(view("IBM")).signal
    assert (signal.status, signal.action) == ("upstream_error", "HOLD")
    assert "src/backend hashes to" in signal.reasoning
    assert "it was run" not in signal.reasoning
    shutil.copy(FILES / source.pin.folder / "agents" / "technical_analysis.py", code / "agents")
    assert desk.decide(view("IBM")).signal.status == "ok"
    desk.close()


def test_upstream_report_is_for_analysts_only() -> None:
    with pytest.raises(ConfigError, match="RiskManager is not an analyst"):
        config(BOTH.replace("prompt: risk,", "prompt: risk, upstream: true,"))
    with pytest.raises(ConfigError, match="threshold"):
        config(policy={"threshold": 7})
