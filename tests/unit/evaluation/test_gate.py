"""The gate: a good record passes, and each check refuses on its own."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model._base import Check
from finagent_model.config.rules import GateRules, Grade
from finagent_model.evaluation.evidence import GRADES
from finagent_model.evaluation.gate import GateReport, GateWindow, beside_champion, judge_version
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


def test_a_good_record_passes() -> None:
    assert refused() == []


@pytest.mark.parametrize("required", GRADES)
@pytest.mark.parametrize("grade", GRADES)
def test_evidence_must_be_what_the_rules_require(grade: Grade, required: Grade) -> None:
    report = judged(grade, required)
    enough = GRADES.index(grade) >= GRADES.index(required)
    assert (report.verdict == "passed") == enough
    assert ("better_than_cash" in report.refusals) == (not enough and grade != "strong")


def test_integrity_is_needed_however_strong_the_evidence() -> None:
    rows = {"GOOG": [GOOD | {"status": "model_error", "action": "HOLD"}]}
    report = judge_version({"GOOG": METRICS}, rows, rows, graded("strong"), GateRules())
    assert report.verdict == "refused"


def test_a_worse_version_than_the_champion_is_refused_where_evidence_counts() -> None:
    days = range(100)
    steady = GateWindow(version="3", returns={day: 0.01 + 0.001 * (day % 2) for day in days})
    wild = GateWindow(version=None, returns={day: 0.01 * (-1) ** day + 0.001 for day in days})
    worse, better = beside_champion(wild, steady), beside_champion(steady, wild)
    assert worse and better
    assert (worse.passed, better.passed) == (False, True)
    assert "of version 3 on 100 days" in worse.found
    assert judged("strong", "strong", worse).verdict == "refused"
    assert judged("strong", "strong", better).verdict == "passed"
    assert judged("none", "none", worse).verdict == "passed"


def test_too_few_days_in_common_are_no_comparison() -> None:
    one = GateWindow(version=None, returns=dict.fromkeys(range(80), 0.01))
    other = GateWindow(version="1", returns=dict.fromkeys(range(50, 130), 0.01))
    assert beside_champion(one, other) is None


def test_a_loss_is_no_reason_to_refuse() -> None:
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
def test_each_check_refuses_on_its_own(change: dict[str, Any], name: str) -> None:
    assert refused(**change) == [name]


@pytest.mark.parametrize(("most", "passes"), [(0.0, False), (0.09, False), (0.1, True)])
def test_how_many_decisions_may_fail_is_for_the_rules_to_say(most: float, passes: bool) -> None:
    failed = GOOD | {"status": "model_error", "action": "HOLD", "reasoning": "the model was away"}
    rows = {"GOOG": [GOOD] * 9 + [failed]}
    rules = GateRules(max_failed_share=most)
    report = judge_version({"GOOG": METRICS}, rows, rows, graded("none"), rules)
    # The ledger has one day ten times: what is served is not the question here.
    [check] = [check for check in report.integrity if check.name == "failed_share"]
    assert check.passed is passes
    assert f"1 of 10 decisions failed, at most {most:.2%} may" in check.found
    assert "the model was away" in check.found


def test_no_decision_at_all_is_refused() -> None:
    report = judge_version(
        {"GOOG": METRICS}, {"GOOG": []}, {"GOOG": []}, graded("strong"), GateRules()
    )
    assert report.verdict == "refused"
    assert "0 decisions" in report.refusals
