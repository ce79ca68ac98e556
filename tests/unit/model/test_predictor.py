"""What the predictor stamps on a signal, whether a package decides or an untrained desk."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from finagent_model.decision.decision import RECORD_FIELDS, to_ledger_row
from finagent_model.decision.signal import GATE_REFUSED, TradingSignal
from finagent_model.errors import BadInputError
from finagent_model.model.anchor import check_model
from finagent_model.model.model_folder import PACKAGE_FOLDER
from finagent_model.model.predictor import Predictor
from finagent_model.reports.signal_summary import SignalSummary
from finagent_model.settings import Settings
from finagent_model.tracking import registry
from support.logged_model import NAME, VERSION, write_model

DAY = "2012-06-29"


def predictor(folder: Path, desk: str) -> Predictor:
    (folder / "desk.yaml").write_text(desk)
    settings = Settings.load({"FINAGENT_HOME": str(folder / "home")})
    return Predictor.from_config(folder / "desk.yaml", settings, "replay")


@pytest.mark.parametrize(
    ("keys", "cutoff"),
    [
        ("model: gpt-4o", date(2023, 10, 31)),
        ("model: stub", "unknown"),
        ("model: stub\nknowledge_cutoff: 2011-12-31", date(2011, 12, 31)),
    ],
)
def test_signal_says_what_its_models_have_read(
    tmp_path: Path, keys: str, cutoff: date | str
) -> None:
    desk = predictor(tmp_path, f"preset: lean\nclient: openai\n{keys}")
    signal = desk.decide("GOOG", DAY, mode="replay").signal
    assert signal.knowledge_cutoff == cutoff
    assert signal.model_dump(mode="json")["knowledge_cutoff"] == str(cutoff)
    assert TradingSignal.from_dump(signal.model_dump(mode="json")) == signal


def test_signal_of_rules_has_no_cutoff(tmp_path: Path) -> None:
    assert predictor(tmp_path, "preset: lean").decide("GOOG", DAY).signal.knowledge_cutoff is None


def test_ledger_row_has_no_cutoff(tmp_path: Path) -> None:
    desk = predictor(tmp_path, "preset: lean\nclient: openai\nmodel: gpt-4o")
    row = to_ledger_row(desk.decide("GOOG", DAY, mode="replay").signal)
    assert "knowledge_cutoff" in RECORD_FIELDS
    assert "knowledge_cutoff" not in row


@pytest.mark.parametrize(("max_rounds", "allowed"), [("3", 3), ("100", 10), ("", 10)])
def test_predictor_of_a_config_is_narrowed_by_the_environment(
    max_rounds: str, allowed: int
) -> None:
    settings = Settings.load({"FINAGENT_AUTOGEN_MAX_ROUNDS": max_rounds})
    assert Predictor.from_config("default", settings).config.limits.max_rounds == allowed


def test_predictor_decides_in_the_mode_it_was_made_for(tmp_path: Path) -> None:
    desk = predictor(tmp_path, "preset: lean\nclient: openai\nmodel: gpt-4o")
    rows = desk.predict(pd.DataFrame([{"symbol": "GOOG", "as_of": DAY}]))
    for reasoning in (desk.decide("GOOG", DAY).signal.reasoning, rows["reasoning"][0]):
        assert "replay: no recorded reply" in reasoning


def test_predictor_of_a_config_refuses_unknown_mode() -> None:
    mode: Any = "reply"
    with pytest.raises(BadInputError, match="mode 'reply' is unknown; use one of: cached, live"):
        Predictor.from_config("lean", Settings.load(), mode)


@pytest.mark.filterwarnings("ignore:trained with code")  # it was written by hand
@pytest.mark.parametrize("verdict", ["passed", "refused"])
def test_signal_of_a_refused_version_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    tags = {**write_model(tmp_path), registry.VERDICT: verdict}
    monkeypatch.setattr(registry, "read_tags", lambda name, version: tags)
    settings = Settings.load({"FINAGENT_HOME": str(tmp_path / "home")})
    checked = check_model(tmp_path, settings)
    asked = Predictor.open(tmp_path / PACKAGE_FOLDER, settings, checked).decide("GOOG", DAY)
    warnings = [text for text in asked.signal.warnings if text.startswith(GATE_REFUSED)]
    told = (
        f"the gate refused version {VERSION} of {NAME}: see gate.json of run {'a' * 32}, "
        "and don't act on it"
    )
    assert warnings == ([told] if verdict == "refused" else [])
    assert ("the gate refused its version" in SignalSummary.from_signal(asked.signal).reasons) is (
        verdict == "refused"
    )
