"""May a signal be acted on, and why: the same words on every page and in the shell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.policy.trained_state import NO_INFORMATION
from finagent_model.reports.signal_summary import (
    HEADLINES,
    NOTHING_ELSE,
    STATUS_MEANINGS,
    Circumstances,
    SignalSummary,
)
from support.decisions import signal
from support.pages import FAILED

PROVEN: dict[str, Any] = {
    "evidence": "strong",
    "fit_until": datetime(2012, 5, 31, 20, tzinfo=UTC),
    "model_uri": "models:/finagent/3",
    "anchored": True,
}
HOLD: dict[str, Any] = {**FAILED, "status": "ok"}


def summary(circumstances: Circumstances = NOTHING_ELSE, **changes: Any) -> SignalSummary:
    return SignalSummary.from_signal(signal(**{**PROVEN, **changes}), circumstances)


def test_summary_acts_only_where_nothing_speaks_against_it() -> None:
    proven = summary()
    assert (proven.verdict, proven.reasons, proven.action) == ("act", (), "BUY")
    assert dict(proven.rows)["Why"] == "nothing speaks against it"


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"confidence_score": 40, "confidence": "LOW"}, "no", "confidence 40 is below 50"),
        ({"warnings": ("the gate refused version 3 of f",)}, "no", "the gate refused its version"),
        ({"evidence": "none"}, "care", "no evidence of an edge"),
        ({"evidence": "weak"}, "care", "weak evidence"),
        ({"evidence": None}, "care", "evidence was not assessed"),
        ({"evidence": None, "fit_until": None}, "care", "the desk is untrained"),
        ({"calibrated": False}, "care", "its confidence is not calibrated"),
        ({"anchored": False}, "care", "the registry does not vouch for its version"),
        ({"knowledge_cutoff": date(2013, 1, 1)}, "care", "may remember the day"),
        (HOLD, "hold", "the desk chose to hold"),
        (HOLD | {"status": Status.ABSTAINED}, "hold", "came to no conclusion"),
        (HOLD | {"status": Status.APPROVAL_REJECTED}, "no", "a human said no"),
        (FAILED, "no", "a chat model could not be asked"),
    ],
)
def test_summary_names_what_speaks_against(
    changes: dict[str, Any], verdict: str, reason: str
) -> None:
    found = summary(**changes)
    assert found.verdict == verdict
    assert any(reason in each for each in found.reasons)


def test_summary_is_no_stricter_or_laxer_than_is_actionable() -> None:
    for score, label in ((49.99, "LOW"), (50, "MEDIUM"), (100, "HIGH")):
        made = signal(**PROVEN, confidence_score=score, confidence=label)
        assert (SignalSummary.from_signal(made).verdict == "act") is made.is_actionable


def test_summary_cutoff_before_day_needs_no_care() -> None:
    assert summary(knowledge_cutoff=date(2012, 1, 1)).verdict == "act"


def test_summary_names_every_status() -> None:
    assert set(STATUS_MEANINGS) == {status.value for status in Status}


def test_summary_waits_whatever_else_is_true() -> None:
    waits = Circumstances(waits_until=datetime(2012, 7, 1, 9, 30, tzinfo=UTC))
    found = summary(waits, confidence_score=40, confidence="LOW")
    assert found.headline == HEADLINES["wait"]
    assert found.reasons[0] == "a human must approve it by 2012-07-01 09:30 UTC"
    assert "confidence 40 is below 50" in found.reasons


def test_summary_of_foreign_row_is_nothing_to_act_on() -> None:
    theirs = Circumstances(is_ours=False, origin="rest")
    found = summary(theirs)
    assert (found.verdict, found.reasons[0]) == (
        "no",
        "a caller of the REST wrote it, not the desk",
    )


def test_summary_age_asks_for_care_then_forbids() -> None:
    made = signal(**PROVEN)
    verdicts = [
        SignalSummary.from_signal(made, Circumstances(now=made.as_of + timedelta(days=days)))
        for days in (0, 1, 5, 6, 31, 32)
    ]
    assert [each.verdict for each in verdicts] == ["act", "act", "act", "care", "care", "past"]
    assert verdicts[0].data.endswith("today")
    assert verdicts[-1].reasons == ("it is 32 days old",)
    # A clock that runs behind makes nothing negative.
    early = Circumstances(now=made.as_of - timedelta(days=3))
    assert "today" in SignalSummary.from_signal(made, early).data


def test_summary_odds_say_how_often_such_calls_made_money() -> None:
    known = Circumstances(base_share=0.46)
    assert summary(known).odds == (
        "about 60 of 100 such calls made money; of all its test calls 46 of 100 did"
    )
    assert "unknown how many of all its test calls did" in summary().odds
    assert summary(calibrated=False).odds == (
        "unknown: its confidence of 60 was never held against outcomes"
    )
    alike = summary(known, warnings=(NO_INFORMATION,))
    assert "whatever confidence it had" in alike.odds
    assert summary(**HOLD).odds == "no call, so no odds"


def test_summary_risk_in_percent_of_equity() -> None:
    levels = {"entry_price": 100, "stop_loss": 94.5, "take_profit": 133}
    known = {f"suggested_{name}": price for name, price in levels.items()}
    assert summary(**known, position_size_percent=18).risk == (
        "stop 5.5% below the entry, target 33.0% above the entry, size 18% of equity, "
        "0.99% of equity lost at the stop"
    )
    unknown = summary(suggested_stop_loss=None, position_size_percent=None).risk
    assert unknown.startswith("stop unknown, target 12.0% above the entry, size unknown")
    assert unknown.endswith("equity at risk unknown")


def test_summary_cost_and_data_are_known_or_said_to_be_unknown() -> None:
    found = summary(Circumstances(seconds=123.4, last_bar=date(2012, 6, 29)), cost_usd=None)
    assert found.cost == "cost unknown, 660 tokens, 123 s"
    assert found.data == "last bar 2012-06-29, asked about 2012-06-29"
    assert "time unknown" in summary().cost
    assert "last bar unknown" in summary().data
    assert summary().version == "models:/finagent/3, fitted until 2012-05-31"
    assert summary(model_uri=None, fit_until=None).version == "untrained, not registered"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"action": "BUY"},
        {"action": "BUY", "status": "ok", "confidence_score": "high", "as_of": 3},
        {"action": ["BUY"], "status": {"a": 1}, "evidence": 7, "warnings": "x"},
        {"action": "BUY", "confidence_score": 10**400, "as_of": "9999-12-31T23:59:59-23:00"},
        {"action": "BUY", "suggested_entry_price": 0, "suggested_stop_loss": -1, "cost_usd": True},
        {"action": "MAYBE", "status": "odd " * 50},
        {"action": "SELL", "confidence_score": float("nan"), "position_size_percent": float("inf")},
    ],
)
def test_summary_survives_fields_of_any_type(fields: dict[str, Any]) -> None:
    now = Circumstances(is_ours=False, now=datetime(2026, 1, 1, tzinfo=UTC))
    found = SignalSummary.from_fields(fields, now)
    assert found.verdict == "no"
    assert all(isinstance(text, str) and text for _, text in found.rows)


def test_summary_of_dump_is_that_of_signal() -> None:
    made: TradingSignal = signal(**PROVEN)
    dumped = SignalSummary.from_fields(made.model_dump(mode="json"))
    assert dumped == replace(SignalSummary.from_signal(made))
