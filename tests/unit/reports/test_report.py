"""The report in plain words: whatever was earned, the sentence about it is true."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pytest

from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import Orders
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.evidence import Evidence
from finagent_model.evaluation.memory import MemorySplit
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.market.bars import BarSeries
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.report import fold_rows
from finagent_model.reports.tearsheet import fold_spans
from finagent_model.reports.wording import (
    escape_markdown,
    grade_sentence,
    memory_section,
    render_report,
    survivor_warnings,
    verdict_sentence,
    warning_sentences,
)
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part
from support.gate_cases import METRICS, graded


@pytest.mark.parametrize(
    ("earned", "held", "words"),
    [
        (0.1, 0.05, "made money out of sample after costs (+10.0%), ahead of"),
        (0.1, 0.3, "made money out of sample after costs (+10.0%), behind"),
        (0.1, -0.3, "made money out of sample after costs (+10.0%), ahead of"),
        (-0.06, -0.217, "LOST money out of sample after costs (-6.0%), ahead of"),
        (-0.3, -0.217, "LOST money out of sample after costs (-30.0%), behind"),
        (-0.06, 0.1, "LOST money out of sample after costs (-6.0%), behind"),
        (0.0, 0.1, "made nothing out of sample after costs (+0.0%), behind"),
        (0.0, -0.1, "made nothing out of sample after costs (+0.0%), ahead of"),
        (0.2, 0.2, "made money out of sample after costs (+20.0%), level with"),
    ],
)
def test_verdict_sentence_is_true_for_all_signs(earned: float, held: float, words: str) -> None:
    sentence = verdict_sentence("FB", {"total_return": earned, "benchmark_total_return": held})
    assert sentence == f"FB: the desk {words} buying and holding ({held:+.1%})."


def test_verdict_sentence_of_undefined_has_no_verdict() -> None:
    sentence = verdict_sentence("FB", {"total_return": math.nan, "benchmark_total_return": 0.1})
    assert "undefined" in sentence
    assert "nan" not in sentence


def test_fold_rows_compound_to_whole_result() -> None:
    bars = BundledBars().bars("GOOG")[:600]
    request = TrainRequest(train_bars=250, test_bars=60, candidates=24)
    policies = fit_policies({"GOOG": bars}, request).policies
    part = bars[out_of_sample_part(bars, policies)]
    none = np.full(len(part), math.nan)
    actions = Crossover(5, 15).crossings(part.close)
    result = trade(part, Orders(actions, np.ones(len(part)), none, none), request)
    facts = collect_symbol_facts(result, 1)
    rows = fold_rows(part, fold_spans(part, policies), facts, result.result.trades)
    assert len(rows) == 6
    for one, other in pairwise(rows):
        assert one.fit_until < one.decided_from <= one.decided_until < other.decided_from
    assert math.prod(1 + row.desk_return for row in rows) == pytest.approx(1 + facts.total_return)
    held = result.benchmark.equity
    assert math.prod(1 + row.benchmark_return for row in rows) == pytest.approx(held[-1] / held[0])
    assert sum(row.trades for row in rows) == len(result.result.trades) > 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpt-4o_mini+rules", "gpt-4o_mini+rules"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("[free money](http://evil.example)", r"\[free money\](http:\//evil.example)"),
        ("a | b\n\n# Passed", "a / b # Passed"),
        ("`x` **y** _z_", r"\`x\` \*\*y\*\* \_z\_"),
        ("a\u202eb\u200bc", "abc"),
        ("x" * 200, "x" * 159 + "…"),
    ],
)
def test_escape_markdown_shows_text_and_obeys_nothing(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown


def test_report_escapes_author_and_symbol() -> None:
    author = "<script>alert(1)</script> | [x](http://evil.example)"
    calibration = Calibration(
        method="none", valid_from=datetime(2013, 1, 1, tzinfo=UTC), calls=0, effective=0, reason="x"
    )
    numbers = defaultdict(lambda: None) | {
        "configurations": 1,
        "earlier_trainings": 0,
    }
    evidence = graded("none").model_copy(update={"numbers": numbers})
    metrics = defaultdict(lambda: math.nan, METRICS)
    text = render_report({"<b>": metrics}, author, evidence, calibration)
    assert escape_markdown(author) in text
    assert not any(raw in text for raw in ("<script", "<b>", "[x]("))


def memory(days_after: int, author: str = "gpt-x") -> MemorySplit:
    return MemorySplit(
        author=author,
        cutoff=date(2025, 3, 31),
        margin_days=90,
        days=1638,
        days_after=days_after,
        days_needed=252,
    )


def remembered(split: MemorySplit) -> Evidence:
    numbers = defaultdict(lambda: None) | {
        "configurations": 1,
        "earlier_trainings": 0,
        "sharpe_before": 1.5,
        "sharpe_after": 0.1,
        "excess_before": 0.2,
        "excess_after": -0.01,
        "excess_decay": 0.21,
        "excess_decay_low": 0.02,
        "excess_decay_high": 0.4,
    }
    return graded("none").model_copy(update={"numbers": numbers, "memory": split})


def test_report_first_line_says_why_nothing_is_graded() -> None:
    calibration = Calibration(
        method="none", valid_from=datetime(2013, 1, 1, tzinfo=UTC), calls=0, effective=0, reason="x"
    )
    evidence, metrics = remembered(memory(212)), defaultdict(lambda: math.nan, METRICS)
    text = render_report({"GOOG": metrics}, "gpt-x", evidence, calibration)
    assert text.splitlines()[0] == (
        "NO evidence of an edge after costs: 212 of 1,638 out-of-sample days lie after what "
        "gpt-x has read, and 252 are needed."
    )
    assert "| Sharpe ratio | 1.50 | 0.10 |" in text
    assert "| return above holding, a year | +20.0% | -1.0% |" in text
    assert "+21.0% a year higher on days that may be remembered, between +2.0% and +40.0%" in text


def test_report_first_line_escapes_model_name() -> None:
    calibration = Calibration(
        method="none", valid_from=datetime(2013, 1, 1, tzinfo=UTC), calls=0, effective=0, reason="x"
    )
    evidence = remembered(memory(212, "<b>\n# Passed"))
    text = render_report({}, "gpt-x", evidence, calibration)
    assert "&lt;b&gt; # Passed has read" in text.splitlines()[0]
    assert not any("<b>" in part for part in memory_section(evidence))


def test_report_with_enough_unread_days_keeps_grade_sentence() -> None:
    evidence = remembered(memory(300))
    assert grade_sentence(evidence) == grade_sentence(graded("none"))


def test_warning_sentences_name_their_symbol() -> None:
    warnings = {"FB": ("a gap", "a spike"), "GOOG": ()}
    assert warning_sentences(warnings) == ["FB: a gap.", "FB: a spike."]


def test_verdict_sentence_of_failed_decisions_has_no_verdict() -> None:
    metrics = {"total_return": 0.0, "benchmark_total_return": 0.1, "failed_share": 1.0}
    assert verdict_sentence("FB", metrics) == (
        "FB: every decision FAILED, so nothing was traded; there is no verdict."
    )


def test_fold_rows_end_with_the_ruin() -> None:
    bars = BundledBars().bars("GOOG")[:600]
    request = TrainRequest(train_bars=250, test_bars=60, candidates=24, allow_short=True)
    policies = fit_policies({"GOOG": bars}, request).policies
    frame = bars.to_frame()
    frame.loc[420:, ["open", "high", "low", "close"]] *= 5
    rising = BarSeries.from_frame("GOOG", frame)
    part = rising[out_of_sample_part(rising, policies)]
    none = np.full(len(part), math.nan)
    orders = Orders(-np.ones(len(part), np.int8), np.ones(len(part)), none, none)
    result = trade(part, orders, request)
    facts = collect_symbol_facts(result, 1)
    assert facts.returns[-1] == facts.total_return == -1
    assert len(facts.returns) == len(facts.closed_at) == len(facts.benchmark_returns) == 165
    rows = fold_rows(part, fold_spans(part, policies), facts, result.result.trades)
    assert len(rows) == 3
    assert rows[-1].desk_return == pytest.approx(-1)


def test_report_says_that_bundled_symbols_are_survivors() -> None:
    (said,) = warning_sentences(survivor_warnings(["folder", "bundled"]))
    assert said.startswith("bundled: the five symbols are survivors")
    assert survivor_warnings(["folder", "yfinance"]) == {}
