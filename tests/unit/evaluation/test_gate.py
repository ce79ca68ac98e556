"""The gate: a good record passes, and each check refuses on its own."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model._base import Check
from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.evidence import GRADES
from finagent_model.evaluation.gate import (
    GateReport,
    GateWindow,
    check_against_champion,
    judge_version,
)
from support.gate_cases import GOOD, METRICS, graded


def refused(
    row: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    served: list[dict[str, Any]] | None = None,
) -> list[str]:
    """Names of the checks that did not pass."""
    chosen = GOOD | (row or {})
    report = judge_version(
        {"GOOG": METRICS | (metrics or {})},
        {"GOOG": [chosen]},
        {"GOOG": [chosen] if served is None else served},
        graded("none"),
        GateRules(),
    )
    names = [check.name for check in report.integrity if not check.passed]
    assert (report.verdict == "passed") == (not names)
    return names


def judged(grade: Grade, required: Grade, champion: Check | None = None) -> GateReport:
    """A record whose integrity is good."""
    rows, rules = {"GOOG": [GOOD]}, GateRules(require_evidence=required)
    return judge_version({"GOOG": METRICS}, rows, rows, graded(grade), rules, champion)


def test_gate_passes_good_record() -> None:
    assert refused() == []


@pytest.mark.parametrize("required", GRADES)
@pytest.mark.parametrize("grade", GRADES)
def test_gate_requires_evidence_of_its_rules(grade: Grade, required: Grade) -> None:
    report = judged(grade, required)
    enough = GRADES.index(grade) >= GRADES.index(required)
    assert (report.verdict == "passed") == enough
    assert ("alpha_above_zero" in report.refusals) == (not enough and grade != "strong")


def test_gate_refuses_failed_integrity_with_strong_evidence() -> None:
    rows = {"GOOG": [GOOD | {"status": "model_error", "action": "HOLD"}]}
    report = judge_version({"GOOG": METRICS}, rows, rows, graded("strong"), GateRules())
    assert report.verdict == "refused"


def test_gate_refuses_worse_than_champion_where_evidence_counts() -> None:
    days = range(100)
    steady = GateWindow(version="3", returns={day: 0.01 + 0.001 * (day % 2) for day in days})
    wild = GateWindow(version=None, returns={day: 0.01 * (-1) ** day + 0.001 for day in days})
    worse, better = check_against_champion(wild, steady), check_against_champion(steady, wild)
    assert worse and better
    assert (worse.passed, better.passed) == (False, True)
    assert "of version 3 on 100 days" in worse.found
    assert judged("strong", "strong", worse).verdict == "refused"
    assert judged("strong", "strong", better).verdict == "passed"
    assert judged("none", "none", worse).verdict == "passed"


def test_check_against_champion_needs_common_days() -> None:
    one = GateWindow(version=None, returns=dict.fromkeys(range(80), 0.01))
    other = GateWindow(version="1", returns=dict.fromkeys(range(50, 130), 0.01))
    assert check_against_champion(one, other) is None


def test_gate_accepts_loss() -> None:
    assert refused(metrics={"total_return": -0.5}) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"metrics": {"total_return": float("nan")}}, "out_of_sample_metrics"),
        ({"row": {"status": "model_error", "action": "HOLD"}}, "failed_share"),
        ({"row": {"suggested_stop_loss": 130.0}}, "levels_valid"),
        ({"row": {"suggested_take_profit": None}}, "levels_valid"),
        ({"row": {"action": "SELL"}}, "levels_valid"),
        ({"row": {"fit_until": "2012-07-31T21:00:00Z"}}, "decided_after_fit"),
        ({"row": {"fit_until": None}}, "decided_after_fit"),
        ({"served": [GOOD | {"action": "HOLD"}]}, "served_as_backtested"),
        ({"served": []}, "served_as_backtested"),
    ],
)
def test_gate_each_check_refuses_alone(change: dict[str, Any], name: str) -> None:
    assert refused(**change) == [name]


@pytest.mark.parametrize(("most", "passes"), [(0.0, False), (0.09, False), (0.1, True)])
def test_gate_failed_share_is_limited_by_rules(most: float, passes: bool) -> None:
    failed = GOOD | {"status": "model_error", "action": "HOLD", "reasoning": "the model was away"}
    rows = {"GOOG": [GOOD] * 9 + [failed]}
    rules = GateRules(max_failed_share=most)
    report = judge_version({"GOOG": METRICS}, rows, rows, graded("none"), rules)
    # The ledger has one day ten times: what is served is not the question here.
    [check] = [check for check in report.integrity if check.name == "failed_share"]
    assert check.passed is passes
    assert f"1 of 10 decisions failed, at most {most:.2%} may" in check.found
    assert "the model was away" in check.found


def test_gate_names_the_moment_of_an_hourly_decision() -> None:
    failed = GOOD | {"status": "model_error", "action": "HOLD", "as_of": "2012-06-29T15:30:00Z"}
    rows = {"GOOG": [failed]}
    report = judge_version({"GOOG": METRICS}, rows, {"GOOG": []}, graded("none"), GateRules())
    [check] = [check for check in report.integrity if check.name == "failed_share"]
    assert "first GOOG as of 2012-06-29 15:30 UTC: " in check.found


def test_gate_refuses_no_decisions() -> None:
    report = judge_version(
        {"GOOG": METRICS}, {"GOOG": []}, {"GOOG": []}, graded("strong"), GateRules()
    )
    assert report.verdict == "refused"
    assert "0 decisions" in report.refusals


@pytest.mark.parametrize(
    ("required", "proves"), [("none", False), ("weak", False), ("strong", True)]
)
def test_gate_proves_training_for_strong_evidence_alone(required: Grade, proves: bool) -> None:
    assert GateRules(require_evidence=required).proves_training is proves
