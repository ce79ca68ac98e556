"""A user's decider through the walk-forward, the statistics and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from finagent_model import Crossover, evaluate, make_decision, market_view
from finagent_model.config.knowledge import parse_cutoff
from finagent_model.decision.decision import Decision
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError, ShortHistoryError, UnknownSymbolError
from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView

SMALL: dict[str, Any] = {"train_bars": 120, "test_bars": 30}
"""FB has 196 bars: 71 days are out of sample."""


class Holder:
    """Buys once, with levels, and keeps it."""

    def decide(self, view: MarketView) -> Decision:
        price = float(view.bars.close[-1])
        return make_decision(
            view,
            "BUY",
            reasoning="holds whatever comes",
            author="holder",
            confidence=60,
            stop=0.5 * price,
            target=2 * price,
        )


class Trainable:
    """Remembers what each fit was shown; speaks by the last close that its fit saw."""

    def __init__(self, last: float = np.nan) -> None:
        self.windows: list[dict[str, BarSeries]] = []
        self.last = last

    def fit(self, histories: Mapping[str, BarSeries]) -> Trainable:
        self.windows.append(dict(histories))
        return Trainable(float(histories["FB"].close[-1]))

    def decide(self, view: MarketView) -> Decision:
        action = "BUY" if view.bars.close[-1] > self.last else "SELL"
        return make_decision(view, action, reasoning="above the last fit's close", author="fitted")


def test_evaluate_judges_decider_like_training() -> None:
    evaluation = evaluate(Holder(), "FB", **SMALL)
    metrics = evaluation.metrics["FB"]
    assert len(evaluation.out_of_sample["FB"].decisions) == 71
    # Buying at once and keeping it is the benchmark, up to the stop and the target.
    assert metrics["total_return"] == pytest.approx(metrics["benchmark_total_return"])
    assert evaluation.evidence.grade == "none"
    assert evaluation.gate.verdict == "passed"  # the default gate asks for integrity alone
    assert evaluation.report.startswith("NO evidence of an edge after costs")
    assert "Decided by: holder." in evaluation.report
    assert "the five symbols are survivors" in evaluation.report


def test_evaluate_is_repeatable() -> None:
    first, again = (evaluate(Crossover(5, 20), ["FB"], **SMALL) for _ in range(2))
    assert first.report == again.report
    assert first.gate == again.gate


def test_evaluate_cuts_bars_at_end_of_training_window() -> None:
    decider = Trainable()
    evaluation = evaluate(decider, "FB", **SMALL)
    out_of_sample = evaluation.out_of_sample["FB"].bars
    assert len(decider.windows) == len(evaluation.folds["FB"]) == 3
    for window, fold in zip(decider.windows, evaluation.folds["FB"], strict=True):
        assert len(window["FB"]) == 120
        assert window["FB"].close_time(-1) == fold.fit_until
        assert fold.fit_until < out_of_sample.close_time(fold.part.start)


def test_evaluate_refuses_decider_with_hidden_state() -> None:
    class Moody:
        calls = 0

        def decide(self, view: MarketView) -> Decision:
            Moody.calls += 1
            action = "BUY" if Moody.calls % 2 else "SELL"
            return make_decision(view, action, reasoning="as it pleases", author="moody")

    evaluation = evaluate(Moody(), "FB", **SMALL)
    assert evaluation.gate.verdict == "refused"
    assert "answers_repeat" in evaluation.gate.refusals


def test_evaluate_refuses_decider_that_mostly_abstains() -> None:
    class Silent:
        def decide(self, view: MarketView) -> Decision:
            return make_decision(
                view, "HOLD", reasoning="no opinion", author="silent", status=Status.ABSTAINED
            )

    evaluation = evaluate(Silent(), "FB", **SMALL)
    assert "abstained_share: 71 of 71 decisions abstained" in evaluation.gate.refusals


def test_evaluate_deflates_by_number_of_configurations() -> None:
    one, many = (evaluate(Holder(), "FB", configurations=n, **SMALL) for n in (1, 200))
    hurdles = [each.evidence.numbers["deflated_hurdle"] for each in (one, many)]
    assert hurdles[0] < hurdles[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("answer", "error"), [("BUY", TypeError), (None, TypeError), ("yesterday", ValueError)]
)
def test_evaluate_error_names_decider_of_bad_decision(
    answer: str | None, error: type[Exception]
) -> None:
    class Wrong:
        def decide(self, view: MarketView) -> Any:
            if answer != "yesterday":
                return answer
            other = market_view("FB", "2012-06-29")
            return make_decision(other, "HOLD", reasoning="about another day", author="wrong")

    with pytest.raises(error, match=r"Wrong\.decide"):
        evaluate(Wrong(), "FB", **SMALL)


def test_evaluate_refuses_bad_request() -> None:
    with pytest.raises(BadInputError, match="schedule 'change'"):
        evaluate(Holder(), "FB", schedule="change", **SMALL)
    with pytest.raises(UnknownSymbolError, match="did you mean 'FB'"):
        evaluate(Holder(), "fb", **SMALL)
    with pytest.raises(ShortHistoryError, match="train_bars"):
        evaluate(Holder(), "FB")
    with pytest.raises(BadInputError, match="unknown parameter 'colour'"):
        evaluate(Holder(), "FB", colour="red")


class Memoriser:
    """Knows every bar of its training data, and buys before the days that rise."""

    def __init__(self, cutoff: object) -> None:
        self.knowledge_cutoff = cutoff
        self.bars = market_view("GOOG", "2013-03-01").bars

    def decide(self, view: MarketView) -> Decision:
        today = len(view.bars) - 1
        read = parse_cutoff(self.knowledge_cutoff)
        days = self.bars.closed_at.astype("datetime64[D]")
        known = days <= np.datetime64(read) if isinstance(read, date) else days == days
        # What it has not read it can't know: no opinion there.
        rises = today + 2 < len(days) and known[today + 2]
        if rises and self.bars.close[today + 2] > self.bars.close[today + 1]:
            return make_decision(view, "BUY", reasoning="it went up then", author="memoriser")
        return make_decision(view, "SELL", reasoning="it went down then", author="memoriser")


def test_evaluate_grades_memoriser_none_with_reason() -> None:
    options: dict[str, Any] = {"train_bars": 1000, "test_bars": 500}
    bragging = evaluate(Memoriser(None), "GOOG", **options)
    # Nothing declared counts as a rule: all days are graded, and it looks like skill.
    assert bragging.evidence.grade == "strong"
    assert bragging.evidence.memory is None
    evaluation = evaluate(Memoriser("2012-06-29"), "GOOG", **options)
    assert evaluation.evidence.grade == "none"
    assert evaluation.report.splitlines()[0] == (
        "NO evidence of an edge after costs: 104 of 1,142 out-of-sample days lie after what "
        "memoriser has read, and 252 are needed."
    )


def test_evaluate_grades_unknown_cutoff_none() -> None:
    decider = Holder()
    decider.knowledge_cutoff = "unknown"  # type: ignore[attr-defined]
    evaluation = evaluate(decider, "FB", gate={"require_evidence": "weak"}, **SMALL)
    assert "what holder has read is unknown" in evaluation.report.splitlines()[0]
    assert "what holder has read is unknown" in evaluation.gate.refusals


def test_evaluate_grades_days_after_cutoff_alone() -> None:
    options: dict[str, Any] = {"train_bars": 1000, "test_bars": 500}
    evaluation = evaluate(Memoriser("2010-12-31"), "GOOG", **options)
    numbers, memory = evaluation.evidence.numbers, evaluation.evidence.memory
    assert memory is not None
    assert memory.reason is None
    assert numbers["observations"] == memory.days_after
    assert evaluation.evidence.grade == "none"
    low = numbers["excess_decay_low"]
    assert low is not None
    assert low > 0


@pytest.mark.parametrize("cutoff", ["soon", 20250331, np.datetime64("2025-03-31")])
def test_evaluate_refuses_cutoff_that_is_no_day(cutoff: object) -> None:
    decider = Holder()
    decider.knowledge_cutoff = cutoff  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Holder\.knowledge_cutoff is .*such as 2025-03-31"):
        evaluate(decider, "FB", **SMALL)


def test_make_decision_refuses_levels_on_wrong_side() -> None:
    view = market_view("GOOG", "2012-06-29")
    with pytest.raises(ValidationError, match="BUY needs stop < entry < target"):
        make_decision(view, "BUY", reasoning="levels swapped", author="me", stop=1e6, target=1.0)


def test_crossover_decisions_equal_its_crossings() -> None:
    bars = market_view("FB", "2013-02-28").bars
    signs = Crossover(5, 20).crossings(bars.adjust_to_first_bar().close)
    evaluation = evaluate(Crossover(5, 20), "FB", **SMALL)
    out_of_sample = evaluation.out_of_sample["FB"]
    actions = [decision.signal.action for decision in out_of_sample.decisions]
    words = {1: "BUY", -1: "SELL", 0: "HOLD"}
    assert actions[: len(bars) - 125] == [words[int(s)] for s in signs[125:]]


def test_evaluate_writes_the_report_page_of_a_training(tmp_path: Path) -> None:
    evaluation = evaluate(Crossover(5, 20), "FB", **SMALL)
    evaluation.write_report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Decided by sma:5,20. The gate passed this version" in page
    assert page.count("<td>2012-") >= 2  # a row a fold
    assert "answers_repeat" in page.replace("<wbr>", "")


def test_view_holds_no_way_to_later_bars() -> None:
    arrays: list[np.ndarray[Any, Any]] = []

    class Peeker(Holder):
        def decide(self, view: MarketView) -> Decision:
            bars = view.bars
            arrays.extend(getattr(bars, name) for name in ("closed_at", "open", "close", "volume"))
            return super().decide(view)

        def fit(self, histories: Mapping[str, BarSeries]) -> Peeker:
            arrays.append(histories["FB"].open)
            return self

    evaluate(Peeker(), "FB", **SMALL)
    # A numpy slice keeps the array that it was cut from as `.base`; a copy has none.
    fit_windows = [array for array in arrays if len(array) == 120]
    views = [array for array in arrays if len(array) > 120]
    assert all(array.base is None for array in views)
    assert all(len(array.base) < 196 for array in fit_windows if array.base is not None)


def test_evaluate_asks_a_users_decider_one_view_at_a_time() -> None:
    class Batch(Holder):
        def decide_all(self, views: Any, done: Any = None) -> Any:
            raise AssertionError("it would see later views")

    assert evaluate(Batch(), "FB", **SMALL).gate.verdict == "passed"


@pytest.mark.parametrize("decider", [None, object(), Holder])
def test_evaluate_names_what_is_no_decider(decider: Any) -> None:
    with pytest.raises(TypeError, match="is not a decider"):
        evaluate(decider, "FB", **SMALL)


@pytest.mark.parametrize("configurations", [0, -1, 2.5, "3", None, 10**400])
def test_evaluate_refuses_bad_configurations_at_once(configurations: Any) -> None:
    with pytest.raises(BadInputError, match="configurations"):
        evaluate(Holder(), "FB", configurations=configurations, **SMALL)


def test_evaluate_refuses_an_unknown_rule_of_the_gate() -> None:
    with pytest.raises(BadInputError, match="unknown key 'nonsense'"):
        evaluate(Holder(), "FB", gate={"nonsense": 1}, **SMALL)


LATER = {"train_bars": 252, "test_bars": 63}
"""IBM begins in March 2000 and GOOG in August 2004."""


class Recorder:
    """Holds, and remembers how many bars it was shown of each symbol."""

    def __init__(self) -> None:
        self.bars: dict[str, list[int]] = {}

    def decide(self, view: MarketView) -> Decision:
        self.bars.setdefault(view.symbol, []).append(len(view.bars))
        return make_decision(view, "HOLD", reasoning="looks on, and holds", author="recorder")


class Patient(Recorder):
    warm_up = 400


@pytest.mark.parametrize(("decider", "first"), [(Recorder(), 101), (Patient(), 400)])
def test_evaluate_asks_about_later_symbol_after_warm_up(decider: Recorder, first: int) -> None:
    evaluation = evaluate(decider, "IBM,GOOG", schedule=63, **LATER)
    assert decider.bars["GOOG"][0] == first
    assert decider.bars["IBM"][0] == max(first, 258)
    part = evaluation.out_of_sample["GOOG"]
    assert (len(part.bars), part.positions[0]) == (2148 - first + 1, 0)


def test_evaluate_counts_no_failure_before_warm_up_of_rule() -> None:
    evaluation = evaluate(Crossover(20, 150), "IBM,GOOG", schedule=21, **LATER)
    assert evaluation.metrics["GOOG"]["failed_share"] == 0
    assert evaluation.gate.verdict == "passed"


def test_evaluate_refuses_warm_up_that_is_no_number() -> None:
    class Vague(Recorder):
        warm_up = "a while"

    with pytest.raises(TypeError, match=r"Vague\.warm_up is 'a while'"):
        evaluate(Vague(), "FB", **SMALL)
