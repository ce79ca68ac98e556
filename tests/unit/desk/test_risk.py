"""Levels and size are code's business: in bounds, in order, or rejected."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.config.rules import RiskLimits
from finagent_model.desk._risk import LevelsRejectedError, Proposal, checked_level, settle_levels
from finagent_model.policy.context import Context
from finagent_model.policy.policy import Policy
from finagent_model.training.search import GRID

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


@pytest.mark.parametrize(
    ("action", "target", "moved"),
    [("BUY", 2_000_000.0, 160), ("BUY", 1e308, 160), ("SELL", 1e-9, 40), ("SELL", 39.99, 40)],
)
def test_risk_moves_far_target_to_bound(action: Side, target: float, moved: float) -> None:
    stop = 95.0 if action == "BUY" else 105.0
    levels = settle_levels(ask(action, stop=stop, target=target), CONTEXT, LIMITS)
    assert levels.target == moved
    assert levels.clamps == (f"target {target:g} moved to {moved}: at most 30 ATR from the entry",)


def test_risk_target_of_short_stays_a_price() -> None:
    wild = replace(CONTEXT, atr=20.0)
    levels = settle_levels(ask("SELL", stop=105.0, target=0.01), wild, LIMITS)
    assert levels.target == 10  # a tenth of the entry


def test_risk_leaves_every_fitted_target() -> None:
    bound = RiskLimits.model_fields["max_target_atr"].default
    [fitted] = [m.le for m in Policy.model_fields["target_atr"].metadata if hasattr(m, "le")]
    assert max(GRID["target_atr"]) <= fitted <= bound
    for target_atr in (*GRID["target_atr"], fitted):
        context = replace(CONTEXT, policy=Policy(target_atr=target_atr))
        levels = settle_levels(ask(target=None), context, LIMITS)
        assert levels.target == 100 + target_atr * 2
        assert not any("moved" in clamp for clamp in levels.clamps)


def test_risk_rejects_price_that_does_not_move() -> None:
    with pytest.raises(LevelsRejectedError, match="moves so little"):
        settle_levels(ask(), replace(CONTEXT, atr=1e-9), LIMITS)


def test_risk_drops_level_outside_years_range() -> None:
    clamps: list[str] = []
    assert checked_level("support", 90.0, CONTEXT, clamps) == 90
    assert checked_level("support", None, CONTEXT, clamps) is None
    assert clamps == []
    assert checked_level("resistance", 181.0, CONTEXT, clamps) is None
    assert clamps == ["resistance 181 dropped: outside the year's range 80 to 120"]


prices = st.none() | st.floats(0.01, 1e7)


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
        assert abs(levels.target - levels.entry) <= 60 * 1.001
        risked = levels.size_percent / 100 * abs(levels.entry - levels.stop) / levels.entry
        assert risked <= 0.02 * 1.001
