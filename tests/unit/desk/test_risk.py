"""Levels and size are code's business: in bounds, in order, or rejected."""

from __future__ import annotations

import contextlib
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.config.rules import RiskLimits
from finagent_model.desk._risk import LevelsRejectedError, Proposal, checked_level, settle_levels
from finagent_model.policy.context import Context
from finagent_model.policy.policy import Policy

CONTEXT = Context("{}", last_close=100.0, atr=2.0, low=80.0, high=120.0, policy=Policy())
LIMITS = RiskLimits()
Side = Literal["BUY", "SELL"]


def ask(action: Side = "BUY", **levels: float | None) -> Proposal:
    given: dict[str, float | None] = {"entry": 100.0, "stop": 95.0, "target": 110.0, "size": 10.0}
    given |= levels
    return Proposal(action, given["entry"], given["stop"], given["target"], given["size"])


def test_risk_sound_levels_pass_untouched() -> None:
    levels = settle_levels(ask(), CONTEXT, LIMITS)
    assert (levels.entry, levels.stop, levels.target, levels.size_percent) == (100, 95, 110, 10)
    assert (levels.r_multiple, levels.clamps) == (2.0, ())


def test_risk_derives_missing_numbers_with_clamps() -> None:
    levels = settle_levels(Proposal("SELL", None, None, None, None), CONTEXT, LIMITS)
    assert (levels.entry, levels.stop, levels.target) == (100, 106, 82)
    assert [clamp.split()[0] for clamp in levels.clamps] == ["entry", "stop", "target", "size"]


def test_risk_moves_far_entry_to_one_atr() -> None:
    levels = settle_levels(ask(entry=108.0, stop=90.0, target=120.0), CONTEXT, LIMITS)
    assert levels.entry == 102
    assert "entry 108 moved to 102" in levels.clamps[0]


def test_risk_cuts_size_to_risk_budget() -> None:
    levels = settle_levels(ask(size=90.0), CONTEXT, LIMITS)
    assert levels.size_percent == pytest.approx(40)  # 2 % of equity over a stop 5 % away
    assert "cut to 40" in levels.clamps[0]


@pytest.mark.parametrize("levels", [{"stop": 101.0}, {"target": 99.0}, {"stop": 100.0}])
def test_risk_rejects_levels_out_of_order(levels: dict[str, float]) -> None:
    with pytest.raises(LevelsRejectedError, match="stop < entry < target"):
        settle_levels(ask(**levels), CONTEXT, LIMITS)


def test_risk_rejects_levels_without_finite_ratio() -> None:
    with pytest.raises(LevelsRejectedError, match="ratio"):
        settle_levels(ask(stop=100.0 - 1e-10, target=1e308), CONTEXT, LIMITS)


def test_risk_drops_level_outside_years_range() -> None:
    clamps: list[str] = []
    assert checked_level("support", 90.0, CONTEXT, clamps) == 90
    assert checked_level("support", None, CONTEXT, clamps) is None
    assert clamps == []
    assert checked_level("resistance", 181.0, CONTEXT, clamps) is None
    assert clamps == ["resistance 181 dropped: outside the year's range 80 to 120"]


prices = st.none() | st.floats(0.01, 1000)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(["BUY", "SELL"]), prices, prices, prices, st.none() | st.floats(0, 100))
def test_risk_result_is_within_limits_for_any_proposal(
    action: Side, entry: float | None, stop: float | None, target: float | None, size: float | None
) -> None:
    with contextlib.suppress(LevelsRejectedError):
        levels = settle_levels(Proposal(action, entry, stop, target, size), CONTEXT, LIMITS)
        order = (levels.stop, levels.entry, levels.target)
        assert list(order) == sorted(order, reverse=action == "SELL")
        assert 98 <= levels.entry <= 102
        risked = levels.size_percent / 100 * abs(levels.entry - levels.stop) / levels.entry
        assert risked <= 0.02 * 1.001
