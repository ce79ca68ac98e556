"""What a training would take, said before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.errors import UnknownSymbolError
from finagent_model.pipeline.estimate import Estimate, estimate
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import bars_to_decide, fit_policies

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
    return estimate(TrainRequest.parse(**given), Settings.load({}))


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


def test_a_schedule_of_every_k_bars_takes_a_kth_of_the_decisions(tmp_path: Path) -> None:
    assert found(tmp_path, schedule=5).decisions == -(-1639 // 5)
    whole, some = found(tmp_path, PRICED), found(tmp_path, PRICED, schedule=20)
    assert whole.cost_usd and some.cost_usd
    assert some.cost_usd == pytest.approx(whole.cost_usd / 20, rel=0.1)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_schedule_of_changes_is_fitted_and_counted_exactly(tmp_path: Path, pooled: bool) -> None:
    small = {"symbols": "FB", "train_bars": 120, "test_bars": 30, "candidates": 24}
    request = TrainRequest.parse(**small, schedule="change", pooled=pooled)
    bars = BundledBars().bars("FB")
    decided = bars_to_decide(bars, fit_policies({"FB": bars}, request).policies, request)
    by_estimate = found(tmp_path, **small, schedule="change", pooled=pooled)
    assert by_estimate.decisions == len(decided)
    assert 0 < len(decided) < found(tmp_path, **small).decisions == 71


def test_what_the_desk_remembers_is_read_and_paid_for(tmp_path: Path) -> None:
    forgetful = found(tmp_path, PRICED + "memory: {lessons: 0}\n")
    full = found(tmp_path, PRICED + "memory: {lessons: 20}\n")
    assert full.calls == forgetful.calls
    assert full.prompt_tokens - forgetful.prompt_tokens > 20 * 50 * full.decisions


def test_symbols_add_up(tmp_path: Path) -> None:
    both = found(tmp_path, symbols="GOOG,AAPL")
    assert both.decisions > 1639 + 1000


def test_an_unknown_symbol_is_refused_as_the_training_would(tmp_path: Path) -> None:
    with pytest.raises(UnknownSymbolError):
        found(tmp_path, symbols="NOPE")
