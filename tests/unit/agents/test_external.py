"""An external analyst that is none of the package's own: registered, heard, recorded, packaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from finagent_model._base import Mode
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.jsonl import load_replies
from finagent_model.config.analyst_registry import EXTERNAL_ANALYSTS
from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.desk.desk import Desk
from finagent_model.errors import ConfigError, CorruptPackageError
from finagent_model.evaluation.probes import check_questions_causal
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.model.package import read_package, write_package
from finagent_model.settings import Settings
from support.packages import book, trained_state
from support.toy_analyst import ToySource, plugin
from support.upstream_repository import bars_of

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
ROWS = """
prompts: {toy: Say what the report says.}
agents:
  - {name: ToyAnalyst, role: analyst, prompt: toy, external: toy}
  - {name: RiskManager, role: risk, prompt: risk, after: [ToyAnalyst]}
  - {name: Executor, role: executor, prompt: executor, after: [RiskManager]}
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTERNAL_ANALYSTS, "toy", "support.toy_analyst:plugin")


def config(text: str = ROWS) -> DeskConfig:
    return read_desk_config(text, yaml.safe_load(preset_text("default")), "test")


def desk(cassette: Cassette, mode: Mode = "cached", external: ToySource | None = None) -> Desk:
    settings = Settings.load({})
    return Desk(
        config(), None, settings, cassette, mode=mode, external=external, clock=lambda: NOON
    )


def view(symbol: str = "GOOG") -> MarketView:
    return MarketView.at(parse_as_of("2012-06-29"), bars_of(symbol))


def test_external_analyst_report_reaches_its_agent() -> None:
    decision = desk(Cassette()).decide(view())
    assert (decision.signal.status, decision.signal.action) == ("ok", "BUY")
    assert decision.signal.model_used == "rules+toy"
    assert "toy names none" in decision.signal.clamps[0]
    [turn] = [turn for turn in decision.turns if turn.agent_name == "toy"]
    assert (turn.message_content, turn.model) == ('{"score": 0.5}', "toy@1")


def test_external_analyst_scores_every_bar() -> None:
    scores = desk(Cassette()).external_scores(bars_of("GOOG", 3))
    assert scores.scores.tolist() == [0.5, 0.5, 0.5]


def test_external_report_is_replayed_from_the_cassette() -> None:
    cassette = Cassette()
    live = desk(cassette).decide(view()).signal
    assert desk(cassette, "replay").decide(view()).signal == live


def test_external_report_missing_in_replay_is_a_status() -> None:
    signal = desk(Cassette(), "replay").decide(view()).signal
    assert signal.status == "upstream_error"
    assert "no recorded report of toy" in signal.reasoning


def test_external_failure_is_replayed_as_it_was() -> None:
    cassette = Cassette()
    failed = desk(cassette).decide(view("IBM")).signal
    assert failed.status == "upstream_error"
    assert "toy speechless: it knows nothing of IBM" in failed.reasoning
    assert desk(cassette, "replay").decide(view("IBM")).signal == failed


def write(folder: Path, cassette: Cassette, source: ToySource | None) -> None:
    write_package(
        folder,
        config=config(),
        trained_state=trained_state(book()),
        replies=cassette.used_replies,
        backtest={"evidence": {"grade": "none"}},
        code_hash="c" * 64,
        external=source,
    )


def test_package_carries_the_external_analyst(tmp_path: Path) -> None:
    write(tmp_path, Cassette(), ToySource("-0.75"))
    package = read_package(tmp_path)
    assert "toy/score.txt" in package.files
    assert package.config == config()
    assert package.external == ToySource("-0.75")
    assert desk(Cassette(), external=package.external).decide(view()).signal.action == "SELL"


def test_package_replies_replay_the_external_report(tmp_path: Path) -> None:
    cassette = Cassette()
    live = desk(cassette).decide(view()).signal
    write(tmp_path, cassette, ToySource())
    package = read_package(tmp_path)
    with (tmp_path / "cassette.jsonl").open() as lines:
        assert load_replies(lines) == package.replies
    packaged = desk(Cassette(package.replies), "replay", package.external)
    assert packaged.decide(view()).signal == live


def test_package_with_more_than_the_external_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Cassette(), ToySource())
    (tmp_path / "toy" / "more.txt").touch()
    with pytest.raises(CorruptPackageError, match="download the model again"):
        read_package(tmp_path)


def test_package_without_the_external_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hears toy needs its source"):
        write(tmp_path, Cassette(), None)


def test_leak_probe_catches_an_external_analyst_that_peeks() -> None:
    bars, policy = bars_of("GOOG"), config().initial_policy
    honest = check_questions_causal(bars, (), policy, (), plugin.input_digest)
    ahead = check_questions_causal(bars, (), policy, (), lambda shown: str(id(shown)))
    assert (honest.passed, ahead.passed) == (True, False)


def test_config_without_external_analysts_keeps_its_dump() -> None:
    row = config(ROWS.replace(", external: toy", "").replace("prompt: toy", "prompt: technical"))
    assert list(row.agents[0].model_dump())[-1] == "upstream"
    assert "external" not in row.agents[0].model_dump()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("external: toy", "external: ouija", "unknown external analyst 'ouija'; there is: .*toy"),
        ("prompt: risk,", "prompt: risk, external: toy,", "toy's report is for analysts"),
        (
            "external: toy}",
            "external: toy}\n  - {name: B, role: analyst, prompt: upstream, upstream: true}",
            "a desk hears one external analyst, not toy and upstream",
        ),
    ],
)
def test_config_refuses_an_external_analyst(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(ROWS.replace(old, new))
