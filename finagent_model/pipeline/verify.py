"""Prove by experiment that a version is as registered, repeats itself and can't see the future.

`verify` is a command for anybody. The gate calls `run_proofs` and `decide_again` on the package as
it will be served, before a version is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finagent_model._base import Check, Mode
from finagent_model._progress import Progress, no_progress
from finagent_model.agents.external import load_external
from finagent_model.decision.decision import LedgerRow, hash_ledger, to_ledger_row
from finagent_model.errors import CorruptPackageError
from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest
from finagent_model.evaluation.probes import (
    check_features_causal,
    check_fills_possible,
    check_memory_dated,
    check_news_dated,
    check_questions_causal,
    check_survives_delay,
    check_trained_state_repeats,
    find_clock_reads,
)
from finagent_model.market.bars import show_as_of
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.pipeline.backtest import decide_out_of_sample
from finagent_model.pipeline.datasets import market_of_training
from finagent_model.pipeline.deep_verification import check_accounting, run_deep_checks
from finagent_model.pipeline.early_checks import CLOCKS
from finagent_model.pipeline.run_metadata import read_request
from finagent_model.policy.trained_state import TradeOutcome

REPEATED_SIGNALS = 3
"""Signals of each symbol that the package must repeat before it is registered."""


@dataclass(frozen=True)
class VerifyReport:
    """The results of all checks of one version."""

    model_uri: str
    content_hash: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def row(self) -> dict[str, Any]:
        """Return the report as a JSON-ready dict."""
        return {
            "model": self.model_uri,
            "content_hash": self.content_hash,
            "passed": self.passed,
            "checks": [check.model_dump(mode="json") for check in self.checks],
        }


def verify(model_uri: str, progress: Progress = no_progress, *, deep: bool = False) -> VerifyReport:
    """Run all checks of a registered or logged version.

    `deep` also proves its training: policies are fitted and evidence is derived again, which takes
    minutes. A package whose files were changed is a failed check. Raises ModelLoadError or
    DataError where there is nothing to check.
    """
    try:
        predictor = load_predictor(model_uri)
    except CorruptPackageError as error:
        # Nothing else is checked: the rest would be proven of other files than the registered ones.
        return VerifyReport(model_uri, "", (_hash_check(False, str(error)),))
    # The registered record is of the training's bars; on later ones it can't repeat.
    predictor.market, package = market_of_training(predictor), predictor.package
    assert predictor.checked is not None  # `load_predictor` checks every model
    hash_check = _hash_check(True, predictor.checked.summary)
    checks = (hash_check, *run_proofs(predictor, progress, deep=deep))
    return VerifyReport(model_uri, package.content_hash, checks)


def run_proofs(
    predictor: Predictor, progress: Progress = no_progress, *, deep: bool = False
) -> list[Check]:
    """Return the checks of a loaded package by experiment, on the symbols it was trained on.

    Everything is replayed; no model is asked. `deep` adds `run_deep_checks`. Raises DataError.
    """
    package, market = predictor.package, predictor.market
    request = read_request(package)
    # Without the warning that other code answers: the ledger has none, since its own code made it.
    desk = predictor.desk.with_options(mode="replay", warnings=())
    state, analyst = package.trained_state, package.config.external_analyst
    digest = load_external(analyst).input_digest if analyst else None
    checks, clock_reads = [check_news_dated()], find_clock_reads()
    calls: dict[str, tuple[TradeOutcome, ...]] = {}
    backtests: dict[str, OutOfSampleBacktest] = {}
    for symbol in request.symbols:
        fits = state.policies.fits_for(symbol)
        # The oldest and the newest policy; what is proven of the features holds for any.
        policies = [fits[0].policy, fits[-1].policy]
        bars, (news, _), (facts, _) = market.bars(symbol), market.news(symbol), market.facts(symbol)
        outcome = decide_out_of_sample(desk, market, symbol, state.policies, request, progress)
        calls[symbol] = outcome.trade_outcomes()
        if deep:  # thousands of decisions a symbol, kept only where they are needed
            backtests[symbol] = outcome
        checks += [
            _replay_equal(outcome, package.backtest["ledgers"][symbol]),
            check_features_causal(bars, policies),
            check_questions_causal(bars, news, policies[-1], facts, digest),
            check_fills_possible(outcome),
            check_survives_delay(outcome),
            check_memory_dated(state, symbol, [d.signal.as_of for d in outcome.decisions]),
            _clock_free(predictor, symbol, clock_reads),
            *check_accounting(predictor, outcome),
        ]
    # Calibrations pool the calls of all symbols, so this check comes once, at the end.
    checks.append(check_trained_state_repeats(state, calls))
    return [*checks, *(run_deep_checks(predictor, backtests, progress) if deep else [])]


def decide_again(
    predictor: Predictor, ledgers: Mapping[str, Sequence[LedgerRow]]
) -> dict[str, list[LedgerRow]]:
    """Return first, middle and last ledger row of each symbol, decided again by the package.

    AutoGen's team decides, built from the package's graph: live where rules do, which costs
    nothing, else from the recorded replies.
    """
    served = copy(predictor)
    served.desk = predictor.desk.with_options(always_team=True)
    mode: Mode = "live" if predictor.package.config.uses_only_rules else "replay"
    repeated = {}
    for symbol, rows in ledgers.items():
        steps = REPEATED_SIGNALS - 1
        # A set, since fewer than three rows give the same position twice.
        chosen = sorted({i * (len(rows) - 1) // steps for i in range(REPEATED_SIGNALS)})
        questions = [Question(symbol, datetime.fromisoformat(rows[i]["as_of"])) for i in chosen]
        decisions = served.decide_all(questions, mode, approvals=False)
        repeated[symbol] = [to_ledger_row(decision.signal) for decision in decisions]
    return repeated


def _replay_equal(outcome: OutOfSampleBacktest, registered: str) -> Check:
    """Check that the replayed signals have the registered ledger's hash."""
    rows = [to_ledger_row(decision.signal) for decision in outcome.decisions]
    same = hash_ledger(rows) == registered
    message = f"{len(rows)} signals of {outcome.bars.symbol} replayed"
    return Check(
        name="replay_equal", passed=same, found=message + ("" if same else ", not as then")
    )


def _clock_free(predictor: Predictor, symbol: str, clock_reads: Sequence[str]) -> Check:
    """Check that no clock enters a decision, by experiment and by reading the code.

    The last out-of-sample day is decided by the clocks of `CLOCKS`; `clock_reads` are the places in
    the code that read one, which no experiment could exclude.
    """
    market = predictor.market
    last = len(market.bars(symbol)) - 1
    [view] = market.bar_views(symbol, [last])
    signals = [
        to_ledger_row(
            predictor.desk.with_options(mode="replay", clock=_stopped_clock(at)).decide(view).signal
        )
        for at in CLOCKS
    ]
    same = all(signal == signals[0] for signal in signals)
    message = f"{symbol} as of {show_as_of(view.as_of)} decided by clocks of 1970 and 2100"
    message += "" if same else ": they differ"
    message += (
        f"; a clock is read at {', '.join(clock_reads)}" if clock_reads else "; no clock is read"
    )
    return Check(name="clock_free", passed=same and not clock_reads, found=message)


def _stopped_clock(at: datetime) -> Callable[[], datetime]:
    return lambda: at


def _hash_check(passed: bool, message: str) -> Check:
    return Check(name="package_hashes", passed=passed, found=message)
