"""Estimates of what a training would take."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.config.desk_variants import desk_variants
from finagent_model.data.bundled import BundledBars
from finagent_model.data.market import Market
from finagent_model.errors import UnknownSymbolError
from finagent_model.market.bars import parse_as_of
from finagent_model.pipeline.estimate import Estimate, estimate, measure_calls
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import bars_to_decide, fit_policies

PRICED = """
client: openai
model: some-model
prices: {some-model: {prompt: 1.0, completion: 10.0, as_of: 2026-01-01}}
"""


def estimated(tmp_path: Path, config: str = "", **params: object) -> Estimate:
    if config:
        path = tmp_path / "desk.yaml"
        path.write_text(config)
        params["config"] = str(path)
    return estimate(TrainRequest.parse(**params), Settings.load({}))


def test_estimate_of_rules_has_no_calls(tmp_path: Path) -> None:
    by_rules = estimated(tmp_path)
    assert by_rules == Estimate("rules", 1639, 0, 0, 0, 0.0)


def test_estimate_bounds_calls_tokens_cost_of_model(tmp_path: Path) -> None:
    priced = estimated(tmp_path, PRICED)
    # Three agents a decision, a fourth on days with news.
    assert 3 * 1639 <= priced.calls <= 4 * 1639
    assert priced.completion_tokens == pytest.approx(priced.calls * 800, rel=1e-3)
    assert 300 < priced.prompt_tokens / priced.calls < 2000
    expected = (priced.prompt_tokens + 10 * priced.completion_tokens) / 1e6
    assert priced.cost_usd == pytest.approx(expected, rel=1e-4)


def test_estimate_without_price_has_no_cost(tmp_path: Path) -> None:
    assert estimated(tmp_path, "client: openai\nmodel: another\n").cost_usd is None


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (
            "model: gpt-4o",
            "0 of 1,638 out-of-sample days lie after what gpt-4o has read, and 252 are",
        ),
        ("model: stub", "what stub has read is unknown"),
        ("model: stub\nknowledge_cutoff: 2008-12-31", None),
    ],
)
def test_estimate_says_that_nothing_will_be_graded(
    tmp_path: Path, keys: str, reason: str | None
) -> None:
    found = estimated(tmp_path, f"client: openai\n{keys}\n", schedule=200).no_grade
    assert found is None if reason is None else reason in (found or "")


def test_estimate_scales_with_schedule_of_k_bars(tmp_path: Path) -> None:
    assert estimated(tmp_path, schedule=5).decisions == -(-1639 // 5)
    whole, some = estimated(tmp_path, PRICED), estimated(tmp_path, PRICED, schedule=20)
    assert whole.cost_usd and some.cost_usd
    assert some.cost_usd == pytest.approx(whole.cost_usd / 20, rel=0.1)


def test_measure_calls_leaves_out_requests_that_are_known() -> None:
    chat = {"client": "openai", "model": "m"}
    desk = load_preset().model_copy(update=chat)
    variant = desk_variants(desk, ()).desks["without RiskManager"]
    view = Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))
    known = set[str]()
    first = measure_calls(desk, view, False, known)
    assert first == measure_calls(desk, view, False)
    assert len(first) == 3
    assert measure_calls(desk, view, False, known) == []
    # The analyst is asked the same; the executor hears somebody else.
    assert len(measure_calls(variant, view, False, known)) == 1


@pytest.mark.parametrize("pooled", [True, False])
def test_estimate_counts_decisions_of_schedule_change(tmp_path: Path, pooled: bool) -> None:
    small = {"symbols": "FB", "train_bars": 120, "test_bars": 30, "candidates": 24}
    request = TrainRequest.parse(**small, schedule="change", pooled=pooled)
    bars = BundledBars().bars("FB")
    decided = bars_to_decide(bars, fit_policies({"FB": bars}, request).policies, request)
    by_estimate = estimated(tmp_path, **small, schedule="change", pooled=pooled)
    assert by_estimate.decisions == len(decided)
    assert 0 < len(decided) < estimated(tmp_path, **small).decisions == 71


def test_estimate_includes_tokens_of_memory(tmp_path: Path) -> None:
    forgetful = estimated(tmp_path, PRICED + "memory: {lessons: 0}\n")
    full = estimated(tmp_path, PRICED + "memory: {lessons: 20}\n")
    assert full.calls == forgetful.calls
    assert full.prompt_tokens - forgetful.prompt_tokens > 20 * 50 * full.decisions


def test_estimate_sums_symbols(tmp_path: Path) -> None:
    both = estimated(tmp_path, symbols="GOOG,AAPL", candidates=4)
    assert both.decisions > 1639 + 1000


def test_estimate_refuses_unknown_symbol(tmp_path: Path) -> None:
    with pytest.raises(UnknownSymbolError):
        estimated(tmp_path, symbols="NOPE")


@pytest.mark.parametrize("schedule", [1, 20])
def test_estimate_leaves_out_warm_up_of_later_symbol(tmp_path: Path, schedule: int) -> None:
    small = {"symbols": "IBM,GOOG", "train_bars": 504, "test_bars": 504, "candidates": 4}
    request = TrainRequest.parse(**small, schedule=schedule)
    histories = {symbol: BundledBars().bars(symbol) for symbol in request.symbols}
    policies = fit_policies(histories, request).policies
    decided = [bars_to_decide(bars, policies, request) for bars in histories.values()]
    assert estimated(tmp_path, **small, schedule=schedule).decisions == sum(map(len, decided))
