"""Evidence is graded on days after the latest cut-off alone; the days before stand beside them."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import Orders
from finagent_model.config.knowledge import EPOCH, MS_PER_DAY, Cutoff, Knowledge
from finagent_model.config.rules import GateRules
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import (
    Evidence,
    EvidenceCheck,
    SymbolFacts,
    grade_evidence,
    select_graded,
)
from finagent_model.evaluation.gate import GateReport, GateWindow
from finagent_model.evaluation.memory_probes import (
    CHECK_NAME,
    MemoryReport,
    ProbeAnswer,
    ProbedDay,
    RecallAnswer,
    judge_days,
)
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, cut_from, trade
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.statistics.resampling import return_decay_interval
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials

FIRST = date(2020, 1, 1)
TRIALS = Trials(configurations=1, scorings=1, sharpe_variance=1e-4, overfitting=0.1)
NOTHING = np.array([])


def edge(sharpe: float, n: int, seed: int = 11) -> Floats:
    """Returns of which exactly this annual Sharpe ratio was seen."""
    noise = np.random.default_rng(seed).normal(0, 0.01, n)
    return (noise - noise.mean()) / noise.std() * 0.01 + sharpe / math.sqrt(365) * 0.01


def symbol_facts(returns: Floats, first: date = FIRST, **changes: object) -> SymbolFacts:
    """Facts of one day after the other, weekends too, from `first` on, beside a market of noise."""
    n = len(returns)
    start = (first.toordinal() - EPOCH) * MS_PER_DAY
    total = float(np.prod(1 + returns) - 1)
    return SymbolFacts(
        symbol="X",
        closed_at=tuple(range(start, start + n * MS_PER_DAY, MS_PER_DAY)),
        returns=tuple(returns.tolist()),
        benchmark_returns=tuple(edge(0.0, n, seed=99).tolist()),
        total_return=total,
        random_returns=(total - 1.0,) * 200,
        delayed_returns=tuple((0.9 * returns).tolist()),
        cost_curve=(),
        break_even_commission=0.01,
        commission=0.001,
        slippage=0.0005,
        lagged_sharpe=1.0,
    ).model_copy(update=changes)


def split_facts(before: Floats, after: Floats) -> SymbolFacts:
    unread = symbol_facts(after, FIRST + timedelta(len(before)))
    return symbol_facts(np.append(before, after), unread=unread)


def reader(cutoff: Cutoff, margin_days: int = 0) -> Knowledge:
    return Knowledge(author="gpt-x", cutoff=cutoff, margin_days=margin_days)


def graded(facts: SymbolFacts, knowledge: Knowledge | None, **options: Any) -> Evidence:
    """Evidence without the check of probes, unless `options` ask for it."""
    no_calls = ConfidenceRecord(*(NOTHING,) * 6, day=np.array([], dtype=np.int64))
    options = {"knowledge": knowledge, "needs_probes": False, **options}
    return grade_evidence([facts], TRIALS, GateRules(), no_calls, seed=7, **options)


def probed(days: int, **answers: Any) -> MemoryReport:
    """What probes find of a desk that always buys, but for the answers given."""
    buy = ProbeAnswer(action="BUY", confidence=60)
    sell = ProbeAnswer(action="SELL", confidence=60)
    recall = RecallAnswer(model="m", is_masked=False, symbol_right=False, year=None, direction=0)
    same = {"plain": buy, "again": buy, "masked": buy, "mirrored": sell, "recall": (recall,)}
    asked = ProbedDay(symbol="X", as_of="2020-01-01", may_be_remembered=True, next_return=0.01)
    each = asked.model_copy(update={**same, **answers})
    return judge_days("m", "none", [each] * days, days_asked_for=days, questions=1, cost_usd=None)


def last_day(days: int) -> date:
    """The cut-off before which so many days of the facts lie."""
    return FIRST + timedelta(days - 1)


def test_evidence_of_rules_counts_all_days() -> None:
    evidence = graded(symbol_facts(edge(3.0, 1000)), None)
    assert (evidence.grade, evidence.memory) == ("strong", None)
    assert "memory" not in evidence.model_dump()


def test_evidence_after_cutoff_equals_that_of_these_days_alone() -> None:
    after = edge(3.0, 600)
    evidence = graded(split_facts(edge(-3.0, 400, seed=3), after), reader(last_day(400)))
    alone = graded(symbol_facts(after), None)
    assert (evidence.grade, evidence.checks) == (alone.grade, alone.checks) != ("none", ())
    assert evidence.ungraded_reason is None
    assert alone.numbers.items() <= evidence.numbers.items()


def test_memory_split_says_why_a_cutoff_is_earlier_than_the_makers() -> None:
    knowledge = reader(last_day(400)).model_copy(update={"override": "an older snapshot"})
    memory = graded(split_facts(edge(0.0, 400), edge(3.0, 600)), knowledge).memory
    assert memory is not None
    [sentence] = [s for s in memory.sentences({}) if "an older snapshot" in s]
    assert (
        f"maker of gpt-x states a later cut-off. The desk's author declares {memory.cutoff}"
        in sentence
    )
    other = graded(split_facts(edge(0.0, 400), edge(3.0, 600)), reader(last_day(400))).memory
    assert other is not None
    assert "override" not in other.model_dump()


def test_evidence_of_all_days_after_cutoff_is_graded() -> None:
    facts = symbol_facts(edge(3.0, 1000))
    evidence = graded(facts.model_copy(update={"unread": facts}), reader(FIRST - timedelta(91), 90))
    assert evidence.grade == "strong"
    assert evidence.memory is not None
    assert evidence.memory.days_after == evidence.memory.days == 1000
    assert evidence.numbers["excess_decay"] is None


def test_evidence_of_all_days_before_cutoff_is_none() -> None:
    evidence = graded(symbol_facts(edge(5.0, 1638)), reader(date(2030, 1, 1)))
    assert evidence.grade == "none"
    assert evidence.ungraded_reason == (
        "0 of 1,638 out-of-sample days lie after what gpt-x has read, and 365 are needed"
    )
    assert not any(check.passed for check in evidence.checks)
    assert {check.why for check in evidence.checks} >= {"no day can be graded"}
    assert evidence.numbers["sharpe_before"] == pytest.approx(5.0, rel=0.01)


def test_evidence_of_unknown_cutoff_is_none() -> None:
    facts = symbol_facts(edge(5.0, 1000))
    evidence = graded(facts.model_copy(update={"unread": facts}), reader("unknown"))
    assert evidence.grade == "none"
    assert "what gpt-x has read is unknown" in (evidence.ungraded_reason or "")
    assert evidence.numbers["days_before"] == 1000


def test_evidence_of_too_few_days_after_cutoff_is_none() -> None:
    """All checks pass on 364 days; a year is needed all the same."""
    for days, grade in ((364, "none"), (365, "strong")):
        facts = split_facts(edge(0.0, 1000), edge(9.0, days))
        evidence = graded(facts, reader(last_day(1000)))
        assert all(check.passed for check in evidence.checks if check.needed_for != "none")
        assert evidence.grade == grade


def test_evidence_needs_the_minimum_track_record_after_cutoff() -> None:
    facts = split_facts(edge(3.0, 1000), edge(0.8, 400))
    evidence = graded(facts, reader(last_day(1000)))
    needed = evidence.numbers["minimum_track_record"]
    assert needed is not None
    assert needed > 400
    assert f"and {math.ceil(needed):,} are needed" in (evidence.ungraded_reason or "")


def test_evidence_shows_decay_of_a_memoriser() -> None:
    facts = split_facts(edge(4.0, 1000), edge(0.0, 500, seed=5))
    numbers = graded(facts, reader(last_day(1000))).numbers
    assert numbers["sharpe_before"] == pytest.approx(4.0, rel=0.01)
    assert numbers["sharpe_after"] == pytest.approx(0.0, abs=0.01)
    low, decay, high = (numbers[f"excess_decay{end}"] for end in ("_low", "", "_high"))
    assert low is not None
    assert decay is not None
    assert high is not None
    assert 0 < low < decay < high
    # The market before the cut-off is a part of a longer noise, whose mean is not quite 0.
    assert decay == pytest.approx(4.0 * 0.01 * math.sqrt(365), abs=0.03)


def memory_check(evidence: Evidence) -> EvidenceCheck:
    return next(check for check in evidence.checks if check.name == CHECK_NAME)


def test_evidence_of_a_chat_model_is_strong_only_without_sign_of_memory() -> None:
    facts = split_facts(edge(0.0, 400, seed=3), edge(3.0, 600))
    sign = probed(60, masked=ProbeAnswer(action="HOLD", confidence=60))
    for probes, grade, number in (
        (None, "weak", None),
        (probed(20), "weak", None),
        (sign, "weak", sign.smallest_p_value),
        (probed(60), "strong", 1.0),
    ):
        evidence = graded(facts, reader(last_day(400)), needs_probes=True, probes=probes)
        check = memory_check(evidence)
        assert (evidence.grade, check.passed) == (grade, grade == "strong")
        assert check.number == number
        assert (check.why is None) == (number is not None)
    assert sign.smallest_p_value is not None
    assert sign.smallest_p_value < 0.05


def test_evidence_says_that_probes_were_never_made() -> None:
    facts = split_facts(edge(0.0, 400, seed=3), edge(3.0, 600))
    never = memory_check(graded(facts, reader(last_day(400)), needs_probes=True))
    assert never.number_text == "undefined: finagent memory was not run on such a desk"
    few = graded(facts, reader(last_day(400)), needs_probes=True, probes=probed(20))
    assert "30 are needed" in memory_check(few).number_text


def test_evidence_of_rules_needs_no_probes() -> None:
    evidence = graded(symbol_facts(edge(3.0, 1000)), None, needs_probes=True)
    assert evidence.grade == "strong"
    assert CHECK_NAME not in [check.name for check in evidence.checks]


def test_select_graded_drops_facts_cut_at_another_day() -> None:
    """A newer table says that the model has read further than the training knew."""
    facts = split_facts(edge(0.0, 500), edge(1.0, 500))
    assert [len(f.returns) for f in select_graded([facts], reader(last_day(500)))] == [500]
    assert [len(f.returns) for f in select_graded([facts], reader(last_day(501)))] == [0]


def test_symbol_facts_of_rules_dump_without_unread_days() -> None:
    assert "unread" not in symbol_facts(edge(1.0, 30)).model_dump()


def test_gate_refusal_says_that_days_may_be_remembered() -> None:
    evidence = graded(symbol_facts(edge(5.0, 1000)), reader("unknown"))
    report = GateReport(integrity=(), evidence=evidence, required="weak")
    assert "(what gpt-x has read is unknown" in report.refusals
    again = GateReport.model_validate_json(report.model_dump_json())
    assert again == report


def test_gate_window_holds_graded_days_alone() -> None:
    facts = split_facts(edge(1.0, 300), edge(0.0, 100))
    window = GateWindow.build([facts], reader(last_day(300)))
    assert facts.unread is not None
    assert tuple(window.returns) == facts.unread.closed_at
    assert len(GateWindow.build([facts], None).returns) == 400
    assert GateWindow.build([facts], reader("unknown")).returns == {}


def rising_bars() -> BarSeries:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(4).normal(0.001, 0.01, 400)))
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    days = pd.date_range(FIRST, periods=400, tz="UTC")
    return BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **columns}))


def test_cut_from_trades_anew_with_equal_levels() -> None:
    """What was bought on a remembered day is not held on; levels keep their distance."""
    bars, request = rising_bars(), TrainRequest()
    action = np.zeros(400, dtype=np.int8)
    action[[10, 250]] = 1
    level = np.full(400, np.nan)
    growth = bars.adjust_to_first_bar().close
    orders = Orders(action, np.ones(400), level.copy(), level.copy())
    orders.stop[250], orders.target[250] = 0.9 * growth[250], 1.05 * growth[250]
    whole = trade(bars, orders, request)
    first = (last_day(200).toordinal() + 1 - EPOCH) * MS_PER_DAY
    part = cut_from(whole, first)
    assert part is not None
    assert len(part.bars) == 201  # the base of the first return, and the days after
    assert part.result.trades["entry_bar"].tolist() == [52]
    alone = np.zeros(400, dtype=np.int8)
    alone[250] = 1
    second = trade(bars, Orders(alone, orders.size, orders.stop, orders.target), request)
    exits = second.result.trades["exit_bar"].to_numpy() - 199
    assert part.result.trades["exit_bar"].tolist() == exits.tolist()


def test_collect_symbol_facts_counts_returns_after_cutoff() -> None:
    bars = rising_bars()
    whole = trade(bars, Orders.all_in(np.ones(400, dtype=np.int8)), TrainRequest())
    facts = collect_symbol_facts(whole, 1, reader(last_day(200)))
    assert facts.unread is not None
    assert len(facts.unread.returns) == 200
    assert facts.unread.closed_at == facts.closed_at[-200:]
    assert facts.unread.benchmark_returns[1:] == pytest.approx(facts.benchmark_returns[-199:])
    for cutoff in (last_day(400), "unknown"):
        assert collect_symbol_facts(whole, 1, reader(cutoff)).unread is None


def test_return_decay_interval_covers_the_truth() -> None:
    """Returns with a decay of 0: a 90 % interval misses it in about a tenth of cases."""
    misses = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        before, after = rng.normal(0, 0.01, 300), rng.normal(0, 0.02, 200)
        interval = return_decay_interval(before, after, seed=seed, confidence=0.9, draws=200)
        misses += not interval.low <= 0 <= interval.high
    assert 3 <= misses <= 20
