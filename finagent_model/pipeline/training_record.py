"""Read a whole training again from the runs that its stages left, ready to be packaged and judged.

Calibration, lessons and evidence are computed here, from the outcomes of all symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

from finagent_model.decision.decision import (
    LedgerRow,
    to_ledger_row,
)
from finagent_model.decision.signal import TradingSignal
from finagent_model.evaluation.calibrate import (
    ConfidenceRecord,
    build_confidence_record,
    calibrate,
    select_lessons,
)
from finagent_model.evaluation.evidence import Evidence, grade_evidence
from finagent_model.evaluation.memory_probes import MemoryReport
from finagent_model.pipeline.backtest import BacktestRecord
from finagent_model.pipeline.run_metadata import (
    TrainingState,
)
from finagent_model.policy.trained_state import (
    CalibrationBook,
    TrainedState,
    calibrate_signal,
)
from finagent_model.reports.wording import render_report, survivor_warnings
from finagent_model.tracking.runs import RunLog


@dataclass(frozen=True)
class TrainingRecord:
    """A whole training, ready to be packaged and judged."""

    state: TrainingState
    backtests: tuple[BacktestRecord, ...]
    trained_state: TrainedState
    calibrations: CalibrationBook
    confidence: ConfidenceRecord
    evidence: Evidence
    """As the training alone shows it; goes into the package."""
    judged_evidence: Evidence
    """With earlier trainings counted among the trials, and with what was found of a chat model's
    memory; goes to the gate and into the report.
    """
    probes: MemoryReport | None
    """What `finagent memory` found of such a desk; None: it was not run."""

    @classmethod
    def build(
        cls,
        state: TrainingState,
        backtests: Sequence[BacktestRecord],
        earlier_trainings: int = 0,
        probes: MemoryReport | None = None,
    ) -> Self:
        """Calibrate confidence, choose lessons and assess the evidence of all symbols."""
        calls = [call for each in backtests for call in each.calls]
        calibrations = calibrate(calls, state.policies.start_times)
        lessons = [lesson for each in backtests for lesson in select_lessons(each.calls)]
        confidence = build_confidence_record(calls, calibrations)
        facts = [each.facts for each in backtests]
        rules, seed = state.config.gate, state.request.seed
        grade = partial(
            grade_evidence,
            facts,
            state.trials,
            rules,
            confidence,
            seed=seed,
            knowledge=state.config.latest_knowledge,
        )
        # How often somebody trained before, and what was asked of the version afterwards, is no
        # part of what was learned: equal trainings give equal packages.
        evidence = grade(needs_probes=False)
        is_same = not earlier_trainings and state.config.latest_knowledge is None
        return cls(
            state=state,
            backtests=tuple(backtests),
            trained_state=TrainedState(state.policies, calibrations, tuple(lessons)),
            calibrations=calibrations,
            confidence=confidence,
            evidence=evidence,
            judged_evidence=evidence
            if is_same
            else grade(earlier_trainings=earlier_trainings, probes=probes),
            probes=probes,
        )

    @classmethod
    def read(
        cls,
        state: TrainingState,
        children: Sequence[str],
        earlier_trainings: int = 0,
        probes: MemoryReport | None = None,
    ) -> Self:
        """Build the record from the symbols' runs, given by id. Raises TrackingError."""
        backtests = [BacktestRecord.read(RunLog(child)) for child in children]
        return cls.build(state, backtests, earlier_trainings, probes)

    @cached_property
    def signals(self) -> dict[str, list[TradingSignal]]:
        """Calibrated signals by symbol, oldest first, as the package will give them."""
        # Each signal gets the calibration in force on its day, so no later outcome leaks into it.
        return {
            each.symbol: [calibrate_signal(signal, self.calibrations) for signal in each.signals]
            for each in self.backtests
        }

    @cached_property
    def ledgers(self) -> dict[str, list[LedgerRow]]:
        """Ledger rows by symbol, one a signal."""
        return {symbol: [to_ledger_row(s) for s in rows] for symbol, rows in self.signals.items()}

    @property
    def example(self) -> dict[str, str]:
        """`symbol` and `as_of` of a question that is answered from recorded replies."""
        last = next(iter(self.ledgers.values()))[-1]
        return {"symbol": last["symbol"], "as_of": last["as_of"]}

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by symbol; nan where undefined."""
        return {
            each.symbol: {k: math.nan if v is None else v for k, v in each.metrics.items()}
            for each in self.backtests
        }

    def render_report(self, team_sentence: str | None) -> str:
        """Return the report in Markdown; its first line grades the evidence.

        `team_sentence` says what the package's AutoGen team repeated.
        """
        return render_report(
            self.metrics,
            self.state.config.model_used,
            self.judged_evidence,
            self.calibrations.fits[-1],
            self.bar_warnings,
            team_sentence,
            self.probes,
        )

    @property
    def bar_warnings(self) -> dict[str, tuple[str, ...]]:
        """What is odd about the bars of each symbol, and what a source's are as a whole."""
        warnings = {symbol: snapshot.warnings for symbol, snapshot in self.state.bars.items()}
        return warnings | survivor_warnings(s.source for s in self.state.bars.values())
