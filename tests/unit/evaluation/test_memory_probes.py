"""Which answers are a sign of memory: statistics of each probe, Holm's adjustment, the power."""

from __future__ import annotations

import math
from typing import Any

import pytest

from finagent_model.evaluation.memory_probes import (
    MemoryReport,
    ProbeAnswer,
    ProbedDay,
    ProbeResult,
    RecallAnswer,
    adjust_by_holm,
    detectable,
    excess_change_p_value,
    judge_days,
    tail_p_value,
)
from finagent_model.reports.wording import (
    NOT_PROBED,
    probe_lines,
    probe_section,
    replace_probes,
)
from support.memory_models import KINDS, Kind, probe_stub
from support.places import ROOT

BUY, SELL, HOLD = (
    ProbeAnswer(action=action, confidence=60.0) for action in ("BUY", "SELL", "HOLD")
)


def side(i: int) -> ProbeAnswer:
    return BUY if i % 2 else SELL


def day(i: int, **answers: Any) -> ProbedDay:
    """A day of an honest desk, on which the price rises in two of three cases."""
    given = {
        "plain": side(i),
        "again": side(i),
        "masked": side(i),
        "mirrored": side(i + 1),
        "recall": tuple(recall(is_masked=masked) for masked in (False, True)),
        **answers,
    }
    return ProbedDay(
        symbol="GOOG",
        as_of=f"{2004 + i % 8}-01-02",
        may_be_remembered=True,
        next_return=-0.05 if i % 3 else 0.05,
        **given,
    )


def recall(is_masked: bool, year: int | None = None, direction: int = 0) -> RecallAnswer:
    return RecallAnswer(
        model="m", is_masked=is_masked, symbol_right=False, year=year, direction=direction
    )


def judged(days: list[ProbedDay]) -> MemoryReport:
    return judge_days("gpt-x", "none", days, days_asked_for=120, questions=9, cost_usd=0.5)


def probe(report: MemoryReport, name: str) -> ProbeResult:
    return next(p for p in report.probes if p.name == name)


def test_judge_days_finds_nothing_in_an_honest_desk() -> None:
    report = judged([day(i) for i in range(60)])
    assert (report.signs, report.passed, report.smallest_p_value) == ((), True, 1.0)
    assert "not a proof of its absence" in report.verdict
    # No second symbol and no news: these two are left out, and the rest can be said.
    assert [p.name for p in report.probes if p.p_value is None] == ["swap", "placebo"]


def test_judge_days_marks_acts_that_change_with_the_name() -> None:
    report = judged([day(i, masked=BUY) for i in range(60)])
    assert report.signs == ("masked",)
    assert probe(report, "masked").numbers["agreement"] == 0.5
    assert not report.passed
    assert report.verdict == "gpt-x shows SIGNS OF MEMORY: masked."


def test_judge_days_allows_as_much_change_as_asking_twice_has() -> None:
    changed = [day(i, masked=BUY if i < 20 else side(i), again=SELL) for i in range(60)]
    assert judged(changed).signs == ()


def test_judge_days_marks_hits_that_need_the_name() -> None:
    # Right on all days with the name, and HOLD without it on a sixth of them.
    right = [SELL if i % 3 else BUY for i in range(120)]
    days = [
        day(i, plain=act, again=act, masked=HOLD if i % 6 == 0 else act, mirrored=HOLD)
        for i, act in enumerate(right)
    ]
    masked = probe(judged(days), "masked")
    assert masked.numbers["p_hits"] == pytest.approx(0.5**20)
    assert masked.is_sign


def test_judge_days_marks_a_follower_of_the_name() -> None:
    days = [day(i, other_symbol="AAPL", other=side(i + 1), swapped=side(i + 1)) for i in range(60)]
    report = judged(days)
    assert report.signs == ("swap",)
    assert probe(report, "swap").numbers["follow_name"] == 60


def test_judge_days_marks_acts_that_stay_in_the_mirror() -> None:
    report = judged([day(i, mirrored=side(i)) for i in range(60)])
    assert report.signs == ("mirror",)
    assert probe(report, "mirror").numbers["prediction_consistency"] == 1.0


def test_judge_days_does_not_mark_a_desk_that_always_buys() -> None:
    report = judged([day(i, plain=BUY, again=BUY, masked=BUY, mirrored=BUY) for i in range(60)])
    assert report.signs == ()


@pytest.mark.parametrize("masked", [False, True])
def test_judge_days_marks_recall_of_year_or_direction(masked: bool) -> None:
    def recalled(i: int, **right: int) -> tuple[RecallAnswer, ...]:
        return (recall(not masked), recall(masked, **right))

    years = [day(i, recall=recalled(i, year=2004 + i % 8)) for i in range(60)]
    assert judged(years).signs == ("recall",)
    directions = [day(i, recall=recalled(i, direction=-1 if i % 3 else 1)) for i in range(60)]
    assert judged(directions).signs == ("recall",)


def test_judge_days_does_not_mark_a_constant_guess() -> None:
    guess = tuple(recall(masked, year=2007, direction=-1) for masked in (False, True))
    assert judged([day(i, recall=guess) for i in range(60)]).signs == ()


def test_judge_days_placebo_tells_unread_news_and_is_no_sign_of_memory() -> None:
    unread = judged([day(i, with_news=BUY, with_other_news=BUY) for i in range(120)])
    assert probe(unread, "placebo").is_sign
    assert unread.passed
    assert "news is not read" in probe_lines(unread)
    read = judged([day(i, with_news=BUY, with_other_news=side(i)) for i in range(120)])
    assert not probe(read, "placebo").is_sign


def test_judge_days_says_nothing_of_too_few_days() -> None:
    report = judged([day(i) for i in range(29)])
    assert not report.passed
    assert report.smallest_p_value is None
    assert "29 days with an answer to masked, 30 are needed" in report.verdict
    assert judged([]).too_few is not None


def test_judge_days_leaves_failed_decisions_out() -> None:
    days = [day(i, masked=None if i < 10 else side(i)) for i in range(50)]
    assert probe(judged(days), "masked").days == 40


def test_adjust_by_holm_equals_the_textbook() -> None:
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_by_holm([0.01, None, 0.6]) == pytest.approx([0.03, None, 1.0])


def test_excess_change_p_value_falls_with_the_changes() -> None:
    values = [excess_change_p_value(k, 120, 2, 40) for k in (0, 12, 30, 60)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert values[-1] < 1e-6


def test_tail_p_value_is_binomial() -> None:
    assert tail_p_value(5, 5, 0.5) == pytest.approx(1 / 32)
    assert tail_p_value(0, 0, 0.5) == tail_p_value(3, 5, 1.0) == 1.0


def test_detectable_difference_of_120_days_is_15_points() -> None:
    assert detectable(120) == pytest.approx(0.148, abs=0.001)
    assert detectable(120, 5) > detectable(120)
    assert math.isnan(detectable(0))


def test_memory_report_survives_json() -> None:
    report = judged([day(i) for i in range(40)])
    assert MemoryReport.model_validate_json(report.model_dump_json()) == report


def test_replace_probes_replaces_the_section_alone() -> None:
    report = judged([day(i, masked=BUY) for i in range(60)])
    text = f"before\n{probe_lines(None)}\nafter"
    assert NOT_PROBED in text
    once = replace_probes(text, probe_lines(report))
    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert "SIGNS OF MEMORY" in once
    assert NOT_PROBED not in once
    assert replace_probes(once, probe_lines(report)) == once
    # Reports from before there were probes have no section.
    page = replace_probes("<body>all</body></html>", probe_section(report))
    assert page.startswith("<body>all<!-- memory probes -->")
    assert page.endswith("</body></html>")


def test_probe_lines_obey_nothing_of_a_models_name() -> None:
    days = [
        day(
            i,
            recall=(
                RecallAnswer(
                    model="|<b>x", is_masked=False, symbol_right=False, year=None, direction=0
                ),
            ),
        )
        for i in range(40)
    ]
    report = judged(days)
    assert "<b>" not in probe_lines(report)
    assert "<b>" not in probe_section(report)


# One stub of each kind, asked in the process: what each probe can and can't find.


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_probes_mark_memorisers_alone(kind: Kind) -> None:
    report = probe_stub(kind, days=40, retest=20)
    by_name = ("masked", "swap", "recall")
    expected = {"by_name": by_name, "by_tool": by_name, "by_shape": ("recall",)}
    assert report.signs == expected.get(kind, ())
    numbers = {p.name: p.numbers for p in report.probes}
    if kind in ("honest", "by_shape"):  # the known limit: a shape has no name
        assert numbers["masked"]["agreement"] == numbers["swap"]["agreement"] == 1.0
    if kind in ("honest", "by_name"):
        consistency = numbers["mirror"]["prediction_consistency"]
        assert consistency == 0 if kind == "honest" else consistency >= 0.8
    if kind == "by_name":  # the page's worked example
        shown = probe_lines(report).split("\n", 1)[1].rsplit("\n", 1)[0]
        assert shown in (ROOT / "docs" / "memory.md").read_text()
    if kind == "by_shape":
        assert numbers["recall"]["stub-by-shape masked direction"] > 0.8


@pytest.mark.slow
def test_probes_find_no_name_behind_a_mask() -> None:
    report = probe_stub("by_name", days=32, retest=10, mask="levels")
    assert report.signs == ()
    assert report == probe_stub("by_name", days=32, retest=10, mask="levels")
