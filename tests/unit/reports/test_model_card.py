"""The card of a version says what was found, and promises nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from finagent_model.config.desk_config import load_preset
from finagent_model.config.rules import GateRules, Grade
from finagent_model.data.snapshots import Dataset
from finagent_model.evaluation.gate import GateReport, judge_version
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.model_card import MAX_DESCRIPTION_CHARS, ModelCard
from finagent_model.training.request import TrainRequest
from support.gate_cases import GOOD, METRICS, graded

SINCE, UNTIL = datetime(2004, 8, 19, 21, tzinfo=UTC), datetime(2013, 3, 1, 21, tzinfo=UTC)


def judged(grade: Grade = "none", required: Grade = "none", **row: Any) -> GateReport:
    rows = {"GOOG": [GOOD | row]}
    rules = GateRules(require_evidence=required)
    return judge_version({"GOOG": METRICS}, rows, rows, graded(grade), rules)


def evidence_numbers(report: GateReport) -> GateReport:
    """What the words on confidence are made of."""
    names = ("calibrated_calls", "brier", "brier_skill", "earlier_trainings")
    numbers = {**dict.fromkeys(names), "configurations": 96.0}
    return report.model_copy(
        update={"evidence": report.evidence.model_copy(update={"numbers": numbers})}
    )


def card(
    gate: GateReport | None = None,
    symbols: tuple[str, ...] = ("GOOG",),
    spans: dict[str, tuple[date, date]] | None = None,
) -> ModelCard:
    """Of a desk of rules that earned 10 % where holding earned 20 %."""
    return ModelCard(
        name="finagent",
        version="3",
        run_id="a" * 32,
        config=load_preset(),
        request=TrainRequest(symbols=symbols),
        gate=evidence_numbers(gate or judged()),
        metrics=dict.fromkeys(symbols, METRICS),
        calibration=Calibration(
            method="none", valid_from=SINCE, calls=3, effective=1, reason="3 outcomes known"
        ),
        example={"symbol": "GOOG", "as_of": "2012-06-29T23:59:59Z"},
        decided=dict.fromkeys(symbols, (SINCE.date(), UNTIL.date())) | (spans or {}),
        first_day="2006-09-01",
        datasets=[Dataset(s, "bars", "b" * 64, "bundled", 2147, SINCE, UNTIL) for s in symbols],
        prompts=["finagent.executor version 2"],
        bar_length="1 day",
        hashes={"package": "c" * 64, "code": "d" * 64, "git commit": "e" * 40},
    )


def test_model_card_begins_with_verdict() -> None:
    text = card().to_markdown()
    assert text.startswith("# finagent, version 3\n")
    assert (
        "The gate **passed** it. Evidence of an edge after costs: **none** (required: none)."
        in (text)
    )
    assert "NO evidence of an edge after costs: what was earned may well be chance." in text
    assert "made money out of sample after costs (+10.0%), behind buying and holding (+20.0%)" in (
        text
    )
    assert text.index("## Verdict") < text.index("## What it is not") < text.index("## Load it")


def test_model_card_of_refused_version_has_reason() -> None:
    text = card(judged(required="strong")).to_markdown()
    assert "The gate **refused** it." in text
    assert "Refused for: evidence: none, strong is required (missing: alpha_above_zero)" in text
    wrong = card(judged(suggested_stop_loss=110.0)).to_markdown()
    assert "5 checks passed, 1 failed: levels_valid (1 of 1 BUY or SELL signals" in wrong


def test_model_card_escapes_model_text() -> None:
    hostile = "<img src=x onerror=alert(1)>\n| a | b |"
    text = card(judged(action="HOLD", status="model_error", reasoning=hostile)).to_markdown()
    assert "&lt;img src=x" in text
    assert "<img" not in text and "\n| a | b |" not in text


def test_model_card_lists_evidence_checks() -> None:
    assert "| alpha_above_zero | weak | 0.2 | <= 0.05 | NO |" in card().to_markdown()


def test_model_card_says_undefined_not_nan() -> None:
    undefined = replace(card(), metrics={"GOOG": METRICS | {"total_return": math.nan}})
    assert "what the desk earned out of sample is undefined" in undefined.to_markdown()
    assert "nan" not in undefined.to_markdown()


def test_model_card_warns_of_hindsight_for_language_models_only() -> None:
    assert "Decided by: fixed rules, no language model." in card().to_markdown()
    assert "hindsight" not in card().to_markdown()
    changes = {"client": "openai", "model": "gpt-4o-mini"}
    spoken = replace(card(), config=load_preset().model_copy(update=changes))
    assert "Decided by: gpt-4o-mini." in spoken.to_markdown()
    assert "up to its knowledge cut-off from its own training" in spoken.to_markdown()


def test_model_card_states_limits() -> None:
    limits = card().to_markdown().split("## What it is not")[1].split("## ")[0]
    for words in (
        "Advice, or a promise",
        "anything but GOOG",
        "commission of 0.10% and slippage of 0.05%",
        "days before 2006-09-01",
        "more than 5 sessions before",
    ):
        assert words in limits


def test_model_card_names_origin() -> None:
    text = card().to_markdown()
    for words in (
        f"Training run `{'a' * 32}`",
        f"package: `{'c' * 64}`",
        f"git commit: `{'e' * 40}`",
        "| TechnicalAnalyst | analyst | rules | technical |",
        "finagent.executor version 2",
        f"| GOOG bars | 2147 | 2004-08-19 | 2013-03-01 | bundled | `{'b' * 32}` |",
    ):
        assert words in text


def test_model_card_description_is_cut_at_whole_line() -> None:
    many = card(symbols=tuple(f"S{i}" for i in range(500)))
    whole, description = many.to_markdown(), many.description()
    assert "| S499 bars |" in whole and "and 495 more symbols" in whole
    assert MAX_DESCRIPTION_CHARS - 100 < len(description) <= MAX_DESCRIPTION_CHARS
    assert description.endswith(f"(The whole card is `MODEL_CARD.md` of run {'a' * 32}.)\n")
    assert card().description() == card().to_markdown()


def test_model_card_names_symbols_that_were_there_only_part_of_the_time() -> None:
    late = {"GOOG": (date(2009, 1, 12), UNTIL.date())}
    text = card(symbols=("IBM", "GOOG"), spans=late).to_markdown()
    assert f"but on GOOG from 2009-01-12 to {UNTIL:%Y-%m-%d} only." in text
    assert "a day's result is the mean of those that were there" in text


def test_model_card_of_equal_spans_names_none() -> None:
    days = {"GOOG": (SINCE.date() + timedelta(days=9), UNTIL.date())}
    assert "of those that were there" not in card(symbols=("IBM", "GOOG"), spans=days).to_markdown()


def test_model_card_says_that_its_symbols_survived() -> None:
    text = card().to_markdown()
    assert "knew how they had fared and that they had survived" in text


def test_model_card_names_the_mask() -> None:
    assert "Mask:" not in card().to_markdown()
    masked = replace(card(), config=load_preset().model_copy(update={"mask": "levels"}))
    assert "Mask: `levels`. The models are not shown symbol and price level" in masked.to_markdown()


def test_model_card_says_that_bundled_symbols_are_survivors() -> None:
    found = "of the bundled bars, the five symbols are survivors"
    own = replace(card(), datasets=[replace(d, source="folder") for d in card().datasets])
    bundled = replace(card(), datasets=[replace(d, source="bundled") for d in card().datasets])
    assert found in bundled.to_markdown() and "end on 2013-03-01" in bundled.to_markdown()
    assert found not in own.to_markdown()
