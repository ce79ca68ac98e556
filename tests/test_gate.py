"""The gate: a good record passes, and each check refuses on its own."""

from __future__ import annotations

from typing import Any

import pytest

from finagent_model.training.gate import judge_version

GOOD: dict[str, Any] = {
    "symbol": "GOOG",
    "as_of": "2012-06-29T23:59:59.999999Z",
    "fit_until": "2012-01-31T21:00:00Z",
    "action": "BUY",
    "status": "ok",
    "reasoning": "because of the trend",
    "suggested_entry_price": 100.0,
    "suggested_stop_loss": 90.0,
    "suggested_take_profit": 120.0,
}
METRICS = {"total_return": 0.1, "benchmark_total_return": 0.2, "max_drawdown": 0.3}


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
    )
    names = [check.name for check in report.checks if not check.passed]
    assert (report.verdict == "passed") == (not names)
    return names


def test_a_good_record_passes_and_claims_no_edge() -> None:
    assert refused() == []
    assert judge_version({"GOOG": METRICS}, {"GOOG": [GOOD]}, {"GOOG": [GOOD]}).evidence is None


def test_a_loss_is_no_reason_to_refuse() -> None:
    assert refused(metrics={"total_return": -0.5}) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"metrics": {"total_return": float("nan")}}, "out_of_sample_metrics"),
        ({"row": {"status": "model_error", "action": "HOLD"}}, "no_failed_status"),
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


def test_no_decision_at_all_is_refused() -> None:
    report = judge_version({"GOOG": METRICS}, {"GOOG": []}, {"GOOG": []})
    assert report.verdict == "refused"
    assert "0 decisions" in report.refusals
