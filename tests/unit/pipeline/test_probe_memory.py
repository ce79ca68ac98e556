"""What probes take, what their budget allows, and what is refused before anything is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.desk.desk import Desk
from finagent_model.errors import BadInputError
from finagent_model.pipeline import probe_memory as probing
from finagent_model.pipeline.probe_memory import ProbePlan, prepare_probes, probe_memory
from finagent_model.pipeline.probe_questions import find_other_views
from support.memory_models import SYMBOLS, market, stub_config, stub_settings

PRICES = {"stub-honest": {"prompt": 10.0, "completion": 10.0, "as_of": "2026-01-01"}}


def plan(days: int = 3, retest: int = 2, **changes: Any) -> ProbePlan:
    config, cassette = stub_config("honest", **changes), Cassette()
    desk = Desk(config, None, stub_settings(), cassette)
    chosen = [("GOOG", 400 + 20 * i) for i in range(days)]
    others = find_other_views(market(), SYMBOLS, chosen, desk.warm_up)
    return ProbePlan("run", market(), desk, cassette, chosen, others, days, retest, None)


def test_estimate_counts_every_form_of_each_day() -> None:
    needs = plan(days=3, retest=2, prices=PRICES).estimate()
    # Plain, masked, mirrored and the swap's two; two days twice; no news by then.
    assert needs.decisions == 3 * 5 + 2
    assert needs.calls == needs.decisions + 2 * 3
    assert needs.cost_usd is not None
    assert needs.cost_usd > 0
    assert plan().estimate().cost_usd is None


@pytest.mark.parametrize(
    ("prices", "message"),
    [({}, "a price is unknown"), (PRICES, "more than the budget of 0.01; ask about fewer --days")],
)
def test_probe_memory_asks_nothing_beyond_its_budget(prices: Any, message: str) -> None:
    tight = replace(plan(prices=prices), budget_usd=0.01)
    with pytest.raises(BadInputError, match=message):
        probe_memory(tight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 0}, "days 0 must be from 1 to 10000"),
        ({"retest": 10_001}, "retest 10001 must"),
        ({"budget_usd": 0.0}, "budget_usd 0 must be above 0"),
        ({"budget_usd": float("nan")}, "budget_usd nan must be above 0"),
    ],
)
def test_prepare_probes_refuses_impossible_numbers(options: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        prepare_probes("models:/x/1", stub_settings(), **options)


def chat(preset: str) -> DeskConfig:
    model = {"client": "openai", "model": "gpt-x"}
    return load_preset(preset).model_copy(update=model)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (load_preset("lean"), "rules remember nothing"),
        (chat("upstream"), "hears upstream, which is asked with real names and prices"),
        (chat("lean"), "names no training run"),
    ],
)
def test_prepare_probes_refuses_desks_that_cannot_be_probed(
    config: DeskConfig, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = SimpleNamespace(config=config)
    predictor = SimpleNamespace(package=package, lineage=SimpleNamespace(run_id=None))
    monkeypatch.setattr(probing, "load_predictor", lambda uri: predictor)
    with pytest.raises(BadInputError, match=message):
        prepare_probes("models:/x/1", stub_settings())
