"""A whole training, read again from the runs that its stages left: what is packaged, judged and
registered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finagent_model.artifacts.ledger import Row, ledger_row, read_ledger, signal_of
from finagent_model.artifacts.report import report
from finagent_model.cassette.cassette import RecordedReply, load_replies
from finagent_model.domain.calibration import CalibrationBook, calibrated
from finagent_model.domain.closed_call import ClosedCall, load_calls
from finagent_model.domain.learned import Learned
from finagent_model.domain.signal import TradingSignal
from finagent_model.pipeline.begun import Begun
from finagent_model.pipeline.outcome import CALLS
from finagent_model.pipeline.recorded import reading
from finagent_model.pipeline.registering import Judged
from finagent_model.serving.logged import Logged
from finagent_model.tracking import RunLog
from finagent_model.training.calibrate import calibrate
from finagent_model.training.evidence import Evidence, SymbolFacts, assess
from finagent_model.training.gate import GateReport
from finagent_model.training.reflect import reflect
from finagent_model.training.stated import Stated, stated


@dataclass(frozen=True)
class Backtested:
    """What the run of one symbol's unseen part left."""

    symbol: str
    metrics: dict[str, float | None]
    signals: tuple[TradingSignal, ...]
    """As decided, before calibration."""
    replies: dict[str, RecordedReply]
    facts: SymbolFacts
    calls: tuple[ClosedCall, ...]
    trades: pd.DataFrame

    @classmethod
    def read(cls, run: RunLog) -> Self:
        """Raises TrackingError for what another version wrote."""
        with reading(run.run_id):
            outcome = run.read_json("outcome.json")
            rows = read_ledger(pa.BufferReader(run.read("ledger.parquet")))
            return cls(
                symbol=outcome["symbol"],
                metrics=outcome["metrics"],
                signals=tuple(signal_of(row) for row in rows),
                replies=load_replies(run.read("cassette.jsonl").decode().splitlines()),
                facts=SymbolFacts.model_validate_json(run.read("facts.json")),
                calls=load_calls(run.read(CALLS).decode()),
                trades=pq.read_table(pa.BufferReader(run.read("trades.parquet"))).to_pandas(),
            )


@dataclass(frozen=True)
class TrainingRecord:
    """A whole training, ready to be packaged and judged."""

    begun: Begun
    tested: tuple[Backtested, ...]
    learned: Learned
    calibrations: CalibrationBook
    confidence: Stated
    evidence: Evidence

    @classmethod
    def of(cls, begun: Begun, tested: Sequence[Backtested]) -> Self:
        calls = [call for each in tested for call in each.calls]
        calibrations = calibrate(calls, begun.policies.moments)
        lessons = [lesson for each in tested for lesson in reflect(each.calls)]
        confidence = stated(calls, calibrations)
        facts = [each.facts for each in tested]
        rules, seed = begun.config.gate, begun.request.seed
        return cls(
            begun=begun,
            tested=tuple(tested),
            learned=Learned(begun.policies, calibrations, tuple(lessons)),
            calibrations=calibrations,
            confidence=confidence,
            evidence=assess(facts, begun.trials, rules, confidence, seed=seed),
        )

    @classmethod
    def read(cls, begun: Begun, children: Sequence[str]) -> Self:
        """From the runs of the symbols. Raises TrackingError for what another version wrote."""
        return cls.of(begun, [Backtested.read(RunLog(child)) for child in children])

    @property
    def signals(self) -> dict[str, list[TradingSignal]]:
        """By symbol, as the package will give them."""
        return {
            each.symbol: [calibrated(signal, self.calibrations) for signal in each.signals]
            for each in self.tested
        }

    @property
    def ledgers(self) -> dict[str, list[Row]]:
        """By symbol, a row a signal."""
        return {symbol: [ledger_row(s) for s in given] for symbol, given in self.signals.items()}

    @property
    def example(self) -> dict[str, str]:
        """A question that was decided on, and so is answered from recorded replies."""
        last = next(iter(self.ledgers.values()))[-1]
        return {"symbol": last["symbol"], "as_of": last["as_of"]}

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """By symbol; nan where undefined."""
        return {
            each.symbol: {k: math.nan if v is None else v for k, v in each.metrics.items()}
            for each in self.tested
        }

    @property
    def report(self) -> str:
        last = self.calibrations.fits[-1]
        return report(self.metrics, self.begun.config.model_used, self.evidence, last)

    def judged(self, logged: Logged, manifest: Mapping[str, Any], gate: GateReport) -> Judged:
        return Judged(
            logged=logged,
            manifest=manifest,
            request=self.begun.request,
            config=self.begun.config,
            learned=self.learned,
            gate=gate,
            metrics=self.metrics,
            answers=self.example,
        )
