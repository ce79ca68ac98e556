"""Judgement of a decider: is its edge true, is it luck, does it see the future, may it be champion.

Out-of-sample backtests, calibration of confidence, evidence against chance, probes for look-ahead,
the promotion gate, and a simulation that measures how often the gate errs. Nothing here writes or
knows MLflow: records in, checks and grades out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.evaluation.calibrate import ConfidenceRecord
    from finagent_model.evaluation.evidence import Evidence, EvidenceCheck, grade_evidence
    from finagent_model.evaluation.gate import GateReport, judge_decider, judge_version
    from finagent_model.evaluation.gate_simulation import calibrate_gate
    from finagent_model.evaluation.out_of_sample import OutOfSampleBacktest, SymbolBacktest
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "calibrate": ["ConfidenceRecord"],
            "evidence": ["Evidence", "EvidenceCheck", "grade_evidence"],
            "gate": ["GateReport", "judge_decider", "judge_version"],
            "gate_simulation": ["calibrate_gate"],
            "out_of_sample": ["OutOfSampleBacktest", "SymbolBacktest"],
        },
    )

__all__ = [
    "ConfidenceRecord",
    "Evidence",
    "EvidenceCheck",
    "GateReport",
    "OutOfSampleBacktest",
    "SymbolBacktest",
    "calibrate_gate",
    "grade_evidence",
    "judge_decider",
    "judge_version",
]
