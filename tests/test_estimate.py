"""What a training would take, said before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.errors import UnknownSymbolError
from finagent_model.pipeline.estimate import Estimate, estimate
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest

PRICED = """
client: openai
model: some-model
prices: {some-model: {prompt: 1.0, completion: 10.0, as_of: 2026-01-01}}
"""


def found(tmp_path: Path, config: str = "", **given: object) -> Estimate:
    if config:
        path = tmp_path / "desk.yaml"
        path.write_text(config)
        given["config"] = str(path)
    return estimate(TrainRequest.read(**given), Settings.load({}))


def test_rules_take_decisions_and_nothing_else(tmp_path: Path) -> None:
    by_rules = found(tmp_path)
    assert by_rules == Estimate("rules", 1639, 0, 0, 0, 0.0)


def test_a_models_calls_tokens_and_money_are_bounded(tmp_path: Path) -> None:
    priced = found(tmp_path, PRICED)
    # Three agents a decision, a fourth on days with news.
    assert 3 * 1639 <= priced.calls <= 4 * 1639
    assert priced.completion_tokens == pytest.approx(priced.calls * 800, rel=1e-3)
    assert 300 < priced.prompt_tokens / priced.calls < 2000
    expected = (priced.prompt_tokens + 10 * priced.completion_tokens) / 1e6
    assert priced.cost_usd == pytest.approx(expected, rel=1e-4)


def test_an_unknown_price_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, "client: openai\nmodel: another\n").cost_usd is None


def test_symbols_add_up(tmp_path: Path) -> None:
    both = found(tmp_path, symbols="GOOG,AAPL")
    assert both.decisions > 1639 + 1000


def test_an_unknown_symbol_is_refused_as_the_training_would(tmp_path: Path) -> None:
    with pytest.raises(UnknownSymbolError):
        found(tmp_path, symbols="NOPE")
