"""Ablation: variants of a desk, and their paired differences."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from finagent_model.config.desk_config import (
    WHOLE_DESK,
    DeskConfig,
    desk_variants,
    load_preset,
    preset_text,
    read_desk_config,
)
from finagent_model.reports.charts import render_ablation_table
from finagent_model.statistics.resampling import (
    annual_return_difference,
    return_difference_interval,
)
from support.places import Place

DEBATERS = tuple(row for row in load_preset("debate").agents if row.role == "debater")


def names(desk: DeskConfig) -> dict[str, list[str]]:
    return {n: [row.name for row in d.roster] for n, d in desk_variants(desk, DEBATERS).items()}


def test_desk_variants_leave_out_each_dispensable_agent() -> None:
    desks = names(load_preset())
    assert desks["without NewsAnalyst"] == ["TechnicalAnalyst", "RiskManager", "Executor"]
    assert desks["without RiskManager"] == ["TechnicalAnalyst", "NewsAnalyst", "Executor"]
    assert "without TechnicalAnalyst" not in desks
    assert "without Executor" not in desks
    assert "rules only" not in desks
    assert next(iter(desks)) == WHOLE_DESK


def test_desk_variants_toggle_debate() -> None:
    assert names(load_preset())["with debate"] == [
        *("TechnicalAnalyst", "NewsAnalyst"),
        *("BullResearcher", "BearResearcher"),
        *("RiskManager", "Executor"),
    ]
    debate = load_preset("debate")
    without = desk_variants(debate, DEBATERS)["without debate"]
    assert not any(row.role == "debater" for row in without.agents)
    risk = next(row for row in without.agents if row.role == "risk")
    assert risk.after == tuple(r.name for r in debate.agents if r.role == "analyst")


def model_desk() -> DeskConfig:
    model: dict[str, Any] = {"client": "openai", "model": "m", "base_url": "http://x"}
    return read_desk_config(yaml.safe_dump(model), yaml.safe_load(preset_text("debate")), "test")


def test_desk_variant_of_one_analyst_keeps_risk_manager_with_executor() -> None:
    variant = desk_variants(model_desk(), DEBATERS)["TechnicalAnalyst alone"]
    assert [row.name for row in variant.agents] == ["TechnicalAnalyst", "RiskManager", "Executor"]


def test_desk_variant_of_rules_replaces_every_model() -> None:
    desk = model_desk()
    desks = desk_variants(desk, DEBATERS)
    assert desks["rules only"].uses_only_rules
    assert desks["rules only"].roster == desk.roster


def test_return_difference_interval_covers_difference() -> None:
    rng = np.random.default_rng(5)
    theirs = rng.normal(0, 0.01, 500)
    ours = theirs + 0.001 + rng.normal(0, 0.0005, 500)
    interval = return_difference_interval(ours, theirs, seed=1)
    assert annual_return_difference(ours, theirs) == pytest.approx(0.252, abs=0.02)
    assert 0.2 < interval.low < annual_return_difference(ours, theirs) < interval.high < 0.3
    assert return_difference_interval(ours, theirs, seed=1) == interval


def test_return_difference_interval_of_equal_or_few_returns() -> None:
    same = np.linspace(-0.01, 0.01, 100)
    interval = return_difference_interval(same, same, seed=1)
    assert (interval.low, interval.high) == (0, 0)
    assert np.isnan(return_difference_interval(same[:5], same[:5], seed=1).low)


def test_ablation_table_says_undefined() -> None:
    row = {
        "variant": "v",
        "annual_return_difference": None,
        "low": None,
        "high": None,
        "sharpe": None,
        "same_action": 1.0,
        "hold_share": 0.0,
        "statuses": {"ok": 1.0},
        "tokens": 0,
        "cost_usd": None,
        "seconds_a_decision": 0.1,
    }
    line = "| v | undefined | undefined | undefined | 100.0% | 0.0% | ok 100.0% | 0 | unknown |"
    assert line in render_ablation_table([row])


@pytest.mark.slow
def test_ablate_logs_artifacts_that_replay_repeats(trained: Place) -> None:
    done = trained.finagent("ablate", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["variant"]: row for row in report["rows"]}
    assert next(iter(rows)) == WHOLE_DESK
    assert rows[WHOLE_DESK]["annual_return_difference"] == 0
    assert rows["without RiskManager"]["hold_share"] == 1  # rules act on its terms alone
    artifacts = list(trained.folder.rglob(f"{report['run_id']}/artifacts/*"))
    assert {path.name for path in artifacts} >= {"ablation.json", "ablation.md", "ablation.png"}
    again = json.loads(trained.finagent("ablate", "--mode", "replay", "--json").stdout)
    for row in (*report["rows"], *again["rows"]):
        del row["seconds_a_decision"], row["calls"]
    assert again["rows"] == report["rows"]
