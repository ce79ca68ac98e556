"""Ablation: variants of a desk, and their paired differences."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

from finagent_model.config.desk_config import (
    DeskConfig,
    load_preset,
    preset_text,
    read_desk_config,
)
from finagent_model.config.desk_variants import WHOLE_DESK, desk_variants
from finagent_model.reports.charts import render_ablation_table
from finagent_model.statistics.resampling import (
    annual_return_difference,
    return_difference_interval,
)
from support.places import Place

DEBATERS = tuple(row for row in load_preset("debate").agents if row.role == "debater")


def model_desk(preset: str = "debate") -> DeskConfig:
    model: dict[str, Any] = {"client": "openai", "model": "m", "base_url": "http://x"}
    return read_desk_config(yaml.safe_dump(model), yaml.safe_load(preset_text(preset)), "test")


def names(desk: DeskConfig) -> dict[str, list[str]]:
    variants = desk_variants(desk, DEBATERS).desks
    return {n: [row.name for row in d.roster] for n, d in variants.items()}


def test_desk_variants_leave_out_each_dispensable_agent() -> None:
    desks = names(model_desk("default"))
    assert desks["without NewsAnalyst"] == ["TechnicalAnalyst", "RiskManager", "Executor"]
    assert desks["without RiskManager"] == ["TechnicalAnalyst", "NewsAnalyst", "Executor"]
    assert "without TechnicalAnalyst" not in desks
    assert "without Executor" not in desks
    assert next(iter(desks)) == WHOLE_DESK


def test_desk_variants_toggle_debate() -> None:
    assert names(model_desk("default"))["with debate"] == [
        *("TechnicalAnalyst", "NewsAnalyst"),
        *("BullResearcher", "BearResearcher"),
        *("RiskManager", "Executor"),
    ]
    debate = model_desk()
    without = desk_variants(debate, DEBATERS).desks["without debate"]
    assert not any(row.role == "debater" for row in without.agents)
    risk = next(row for row in without.agents if row.role == "risk")
    assert risk.after == tuple(r.name for r in debate.agents if r.role == "analyst")


def test_desk_variants_of_rules_are_those_that_rules_can_tell_apart() -> None:
    variants = desk_variants(load_preset(), DEBATERS)
    assert list(variants.desks) == [WHOLE_DESK, "without NewsAnalyst"]
    assert variants.left_out == {
        "without RiskManager": "rules act on a risk manager's terms alone, so it could only hold",
        "with debate": "it decides as the whole desk: rules leave a debate out of the vote",
        "TechnicalAnalyst alone": "it is the desk 'without NewsAnalyst'",
    }


def test_desk_variant_without_an_agent_that_read_nothing_is_left_out() -> None:
    variants = desk_variants(model_desk("default"), (), inputs=("memory",))
    assert "without NewsAnalyst" not in variants.desks
    assert variants.left_out["without NewsAnalyst"] == (
        "it decides as the whole desk: nothing to read on any day for NewsAnalyst (no news)"
    )


def test_desk_variant_of_one_analyst_keeps_risk_manager_with_executor() -> None:
    variant = desk_variants(model_desk(), DEBATERS).desks["TechnicalAnalyst alone"]
    assert [row.name for row in variant.agents] == ["TechnicalAnalyst", "RiskManager", "Executor"]


def test_desk_variant_of_rules_replaces_every_model() -> None:
    desk = model_desk()
    desks = desk_variants(desk, DEBATERS).desks
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
    table = render_ablation_table([row], {"w": "it could only hold"})
    assert line in table
    assert table.endswith("\n\n- left out: w: it could only hold\n")


@pytest.mark.slow
def test_ablate_logs_artifacts_that_replay_repeats(trained: Place) -> None:
    done = trained.finagent("ablate", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["variant"]: row for row in report["rows"]}
    assert next(iter(rows)) == WHOLE_DESK
    assert rows[WHOLE_DESK]["annual_return_difference"] == 0
    assert set(report["left_out"]) == {
        *("without NewsAnalyst", "without RiskManager", "with debate", "TechnicalAnalyst alone")
    }
    artifacts = list(trained.folder.rglob(f"{report['run_id']}/artifacts/*"))
    assert {path.name for path in artifacts} >= {"ablation.json", "ablation.md", "ablation.png"}
    assert f"{WHOLE_DESK} (1 of 1), deciding on" in done.stderr
    again = json.loads(trained.finagent("ablate", "--mode", "replay", "--json").stdout)
    for row in (*report["rows"], *again["rows"]):
        del row["seconds_a_decision"], row["calls"]
    assert again["rows"] == report["rows"]


@pytest.mark.slow
def test_ablate_estimate_names_variants_without_a_run(trained: Place) -> None:
    done = trained.finagent("ablate", "--estimate")
    assert done.returncode == 0, done.stderr
    first, needs, *left_out = done.stdout.splitlines()
    assert first == "1 variants: whole desk"
    assert "decisions by rules: about 0 calls" in needs
    assert len(left_out) == 4
    row = json.loads(trained.finagent("ablate", "--estimate", "--json").stdout)
    assert row["variants"] == [WHOLE_DESK]
    assert row["cost_usd"] == 0
