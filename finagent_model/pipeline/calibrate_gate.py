"""The gate tried on many simulated markets, as many at once as there are cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from finagent_model.data.bundled import BundledBars
from finagent_model.domain.bars import Floats
from finagent_model.domain.gate_rules import GateRules, Grade
from finagent_model.pipeline.watch import Watch, unwatched
from finagent_model.training.calibrate_gate import Case, Row, cases, judge, table


def calibrate_gate(
    markets: int,
    sharpes: Sequence[float],
    rules: GateRules,
    *,
    seed: int = 1,
    jobs: int = 1,
    watch: Watch = unwatched,
) -> list[Row]:
    """`markets` without edge and a fifth as many for each planted ratio; the gate's grades."""
    asked = cases(markets, tuple(sharpes), seed)
    done = watch("judging markets", len(asked))
    real = real_returns()
    found: list[tuple[Case, Grade]] = []
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_grade, case, real, rules) for case in asked]
        for case, future in zip(asked, futures, strict=True):
            found.append((case, future.result()))
            done()
    return table(found)


def real_returns() -> Floats:
    """Daily log returns of the four long embedded histories, one after the other."""
    source = BundledBars()
    closes = [source.bars(symbol).growth().close for symbol in ("AAPL", "GOOG", "IBM", "MSFT")]
    return np.concatenate([np.diff(np.log(close)) for close in closes])


def _grade(case: Case, real: Floats, rules: GateRules) -> Grade:
    return judge(case, real, rules).grade
