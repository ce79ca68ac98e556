"""The report in plain words: whatever was earned, the sentence about it is true."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import Orders
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.out_of_sample import facts_of, trade
from finagent_model.reports.report import fold_rows, verdict
from finagent_model.training.request import TrainRequest
from finagent_model.training.walk_forward import fit_policies, unseen_part


@pytest.mark.parametrize(
    ("earned", "held", "said"),
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
def test_the_verdict_is_true_for_every_combination_of_signs(
    earned: float, held: float, said: str
) -> None:
    found = verdict("FB", {"total_return": earned, "benchmark_total_return": held})
    assert found == f"FB: the desk {said} buying and holding ({held:+.1%})."


def test_what_is_undefined_has_no_verdict() -> None:
    found = verdict("FB", {"total_return": math.nan, "benchmark_total_return": 0.1})
    assert "undefined" in found
    assert "nan" not in found


def test_the_folds_of_the_report_multiply_to_the_whole_and_count_every_trade() -> None:
    bars = BundledBars().bars("GOOG")[:600]
    request = TrainRequest(train_bars=250, test_bars=60, candidates=24)
    policies = fit_policies({"GOOG": bars}, request).policies
    unseen = bars[unseen_part(bars, policies)]
    none = np.full(len(unseen), math.nan)
    actions = Crossover(5, 15).crossings(unseen.close)
    made = trade(unseen, Orders(actions, np.ones(len(unseen)), none, none), request)
    facts = facts_of(made, 1)
    rows = fold_rows(unseen, policies, facts, made.result.trades)
    assert len(rows) == 6
    for one, other in pairwise(rows):
        assert one.fit_until < one.decided_from <= one.decided_until < other.decided_from
    assert math.prod(1 + row.earned for row in rows) == pytest.approx(1 + facts.total_return)
    held = made.benchmark.equity
    assert math.prod(1 + row.held for row in rows) == pytest.approx(held[-1] / held[0])
    assert sum(row.trades for row in rows) == len(made.result.trades) > 3
