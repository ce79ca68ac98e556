"""A version's proofs, by experiment: is it what was registered, does it repeat, can it see the
future. Part of the gate, and a command for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finagent_model._base import Check, Mode, Progress, no_progress
from finagent_model.agents.external import load_external
from finagent_model.decision.decision import LedgerRow, hash_ledger, to_ledger_row
from finagent_model.errors import CorruptPackageError
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
from finagent_model.model.loading import load_predictor
from finagent_model.model.predictor import Predictor, Question
from finagent_model.pipeline.backtest import decide_out_of_sample
from finagent_model.pipeline.datasets import market_of_training
from finagent_model.pipeline.run_metadata import read_request
from finagent_model.policy.trained_state import TradeOutcome

PROBES = 3
"""Signals of each symbol that the finished package must give again before it is registered."""
EPOCHS = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""Clocks between which a decision may not differ."""


@dataclass(frozen=True)
class VerifyReport:
    """All checks of one version."""

    model_uri: str
    content_hash: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model": self.model_uri,
            "content_hash": self.content_hash,
            "passed": self.passed,
            "checks": [check.model_dump(mode="json") for check in self.checks],
        }


def verify(model_uri: str, watch: Progress = no_progress) -> VerifyReport:
    """All checks of a registered or logged version. Raises ModelLoadError or DataError where there
    is nothing to check; a package that was changed is a failed check.
    """
    try:
        predictor = load_predictor(model_uri)
    except CorruptPackageError as error:
        return VerifyReport(model_uri, "", (_hashes(False, str(error)),))
    predictor.market, package = market_of_training(predictor), predictor.package
    found = f"{len(package.files)} files as registered"
    checks = (_hashes(True, found), *proofs(predictor, watch))
    return VerifyReport(model_uri, package.content_hash, checks)


def proofs(predictor: Predictor, watch: Progress = no_progress) -> list[Check]:
    """What is proven of a loaded package, on the symbols that it was trained on."""
    package, market = predictor.package, predictor.market
    request = read_request(package)
    desk = predictor.desk.with_options(mode="replay")
    learned, analyst = package.trained_state, package.config.external_analyst
    digest = load_external(analyst).input_digest if analyst else None
    checks, clocks = [check_news_dated()], find_clock_reads()
    calls: dict[str, tuple[TradeOutcome, ...]] = {}
    for symbol in request.symbols:
        fits = learned.policies.fits_for(symbol)
        policies = [fits[0].policy, fits[-1].policy]
        bars, (news, _), (facts, _) = market.bars(symbol), market.news(symbol), market.facts(symbol)
        unseen = decide_out_of_sample(desk, market, symbol, learned.policies, request, watch)
        calls[symbol] = unseen.trade_outcomes()
        rows = [to_ledger_row(decision.signal) for decision in unseen.decisions]
        same = hash_ledger(rows) == package.backtest["ledgers"][symbol]
        said = f"{len(rows)} signals of {symbol} replayed"
        checks += [
            Check(name="replay_equal", passed=same, found=said + ("" if same else ", not as then")),
            check_features_causal(bars, policies),
            check_questions_causal(bars, news, policies[-1], facts, digest),
            check_fills_possible(unseen),
            check_survives_delay(unseen),
            check_memory_dated(learned, symbol, [d.signal.as_of for d in unseen.decisions]),
            _clock_free(predictor, symbol, clocks),
        ]
    return [*checks, check_trained_state_repeats(learned, calls)]


def ask_again(
    predictor: Predictor, ledgers: Mapping[str, Sequence[LedgerRow]]
) -> dict[str, list[LedgerRow]]:
    """First, middle and last signal of each symbol, asked of the loaded package: in replay, or by a
    live team where that costs nothing.
    """
    mode: Mode = "live" if predictor.package.config.uses_only_rules else "replay"
    asked = {}
    for symbol, rows in ledgers.items():
        chosen = sorted({i * (len(rows) - 1) // (PROBES - 1) for i in range(PROBES)})
        questions = [Question(symbol, datetime.fromisoformat(rows[i]["as_of"])) for i in chosen]
        decisions = predictor.decide_all(questions, mode, approvals=False)
        asked[symbol] = [to_ledger_row(decision.signal) for decision in decisions]
    return asked


def _clock_free(predictor: Predictor, symbol: str, clocks: Sequence[str]) -> Check:
    """The last unseen day, decided in 1970 and in 2100; and `clocks`, the places in the code that
    read one.
    """
    market = predictor.market
    last = len(market.bars(symbol)) - 1
    [view] = market.daily_views(symbol, [last])
    signals = [
        to_ledger_row(
            predictor.desk.with_options(mode="replay", clock=_stopped(at)).decide(view).signal
        )
        for at in EPOCHS
    ]
    same = all(signal == signals[0] for signal in signals)
    found = f"{symbol} as of {view.as_of:%Y-%m-%d} decided by clocks of 1970 and 2100"
    found += "" if same else ": they differ"
    found += f"; a clock is read at {', '.join(clocks)}" if clocks else "; no clock is read"
    return Check(name="clock_free", passed=same and not clocks, found=found)


def _stopped(at: datetime) -> Callable[[], datetime]:
    return lambda: at


def _hashes(passed: bool, found: str) -> Check:
    return Check(name="package_hashes", passed=passed, found=found)
