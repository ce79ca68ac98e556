"""Decide whether a version may be champion: the promotion gate, as pure checks of records.

Two kinds of checks. *Integrity*: is the version what it says it is; always required. *Evidence*:
does it beat chance after costs; the gate's rules say how much is required. Every check reports what
it compared, so that a refusal can be read without the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from finagent_model._base import Check
from finagent_model.backtesting.metrics import sharpe
from finagent_model.config.knowledge import Knowledge
from finagent_model.config.rules import GateRules, Grade
from finagent_model.decision.signal import Status
from finagent_model.evaluation.evidence import (
    Evidence,
    SymbolFacts,
    is_needed,
    pool_returns,
    select_graded,
)
from finagent_model.market.bars import show_as_of
from finagent_model.market.timeframe import bars_per_year

OutOfSampleRow = Mapping[str, Any]
"""One signal of the out-of-sample ledger, JSON-ready (`decision.decision.to_ledger_row`)."""
MIN_COMMON_DAYS = 60
"""Days that a version and the champion must share to be compared."""
MAX_ABSTAINED_SHARE = 0.5
"""Share of decisions that may abstain.

A desk that comes to no conclusion on most days holds cash by accident: its curve says nothing about
its agents.
"""
CHAMPION_CHECK = "as_good_as_champion"
REQUIRED_METRICS = ("total_return", "benchmark_total_return", "max_drawdown")


class GateWindow(BaseModel):
    """Portfolio returns of one version, which a later version is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None
    returns: dict[int, float]
    """Return of each bar, by its close in milliseconds since 1970."""

    @classmethod
    def build(cls, facts: Sequence[SymbolFacts], knowledge: Knowledge | None) -> Self:
        """Return the portfolio's window on the out-of-sample days that `knowledge` can't hold."""
        # A day that a chat model may remember can't rank it before another version.
        calendar, returns, _ = pool_returns(select_graded(facts, knowledge))
        by_moment = dict(zip(calendar.tolist(), returns.tolist(), strict=True))
        return cls(version=None, returns=by_moment)


class GateReport(BaseModel):
    """All checks of one version, and the grade of evidence that was required of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    integrity: tuple[Check, ...]
    evidence: Evidence
    required: Grade
    champion: Check | None = None
    """Comparison with the present champion on their common out-of-sample days.

    None without a champion, or with too few common days.
    """

    @property
    def verdict(self) -> Literal["passed", "refused"]:
        """Whether integrity, evidence and the comparison with the champion suffice."""
        return "refused" if self.refusals else "passed"

    @property
    def team_sentence(self) -> str | None:
        """What the AutoGen team of the loaded package decided; None: no package was judged."""
        found = (each.found for each in self.integrity if each.name == "served_as_backtested")
        return next((f"{text}." for text in found), None)

    @property
    def refusals(self) -> str:
        """The findings that refuse the version, in words; empty for one that passed."""
        reasons = [f"{c.name}: {c.found}" for c in self.integrity if not c.passed]
        if not self.evidence.meets(self.required):
            missing = [
                check.name
                for check in self.evidence.checks
                if not check.passed and is_needed(check.needed_for, self.required)
            ]
            why = self.evidence.ungraded_reason or f"missing: {', '.join(missing)}"
            reasons.append(f"evidence: {self.evidence.grade}, {self.required} is required ({why})")
        # Where no evidence is required, returns may be chance, and can't rank versions either.
        if self.required != "none" and self.champion and not self.champion.passed:
            reasons.append(f"{self.champion.name}: {self.champion.found}")
        return "; ".join(reasons)


def judge_version(
    metrics: Mapping[str, Mapping[str, float]],
    ledgers: Mapping[str, Sequence[OutOfSampleRow]],
    served: Mapping[str, Sequence[OutOfSampleRow]],
    evidence: Evidence,
    rules: GateRules,
    champion: Check | None = None,
    proofs: Sequence[Check] = (),
) -> GateReport:
    """Return the gate's report on a packaged version.

    `metrics` and `ledgers` are by symbol, as the training recorded them. `served` are rows that the
    AutoGen team of the package decided again, when it was loaded as it will be served. `proofs` are
    checks by experiment.
    """
    return GateReport(
        integrity=(
            _out_of_sample(metrics, ledgers),
            _failed_share(ledgers, rules.max_failed_share),
            _abstained_share(ledgers),
            _levels_valid(ledgers),
            _decided_after_fit(ledgers),
            _served_as_backtested(ledgers, served),
            *proofs,
        ),
        evidence=evidence,
        required=rules.require_evidence,
        champion=champion,
    )


def judge_decider(
    metrics: Mapping[str, Mapping[str, float]],
    ledgers: Mapping[str, Sequence[OutOfSampleRow]],
    repeated: Mapping[str, Sequence[OutOfSampleRow]],
    evidence: Evidence,
    rules: GateRules,
) -> GateReport:
    """Return the gate's report on a decider that is no package.

    `metrics` and `ledgers` are by symbol; `repeated` are rows of a second run in another order.
    """
    # A package's files, fits and replay are not checked: there is none. Nor are levels: a rule may
    # have no stop or target, and the signal itself refuses one on the wrong side of the entry.
    return GateReport(
        integrity=(
            _out_of_sample(metrics, ledgers),
            _failed_share(ledgers, rules.max_failed_share),
            _abstained_share(ledgers),
            _answers_repeat(ledgers, repeated),
        ),
        evidence=evidence,
        required=rules.require_evidence,
    )


def check_against_champion(ours: GateWindow, theirs: GateWindow) -> Check | None:
    """Return the comparison of two versions' Sharpe ratios on their common days.

    None where they share fewer than `MIN_COMMON_DAYS`.
    """
    # Common days only: different years would compare markets, not versions.
    days = sorted(ours.returns.keys() & theirs.returns.keys())
    if len(days) < MIN_COMMON_DAYS:
        return None
    periods = bars_per_year(np.array(days).astype("datetime64[ms]"))
    our_sharpe, their_sharpe = (
        sharpe(np.array([window.returns[day] for day in days]), periods)
        for window in (ours, theirs)
    )
    return Check(
        name=CHAMPION_CHECK,
        # A champion that never traded has no ratio, and is no bar to its successor.
        passed=bool(our_sharpe >= their_sharpe) or not math.isfinite(their_sharpe),
        found=f"Sharpe {our_sharpe:.3f} against {their_sharpe:.3f} of version {theirs.version} "
        f"on {len(days)} days",
    )


def _out_of_sample(
    metrics: Mapping[str, Mapping[str, float]], ledgers: Mapping[str, Sequence[OutOfSampleRow]]
) -> Check:
    missing = [
        f"{symbol} {name}"
        for symbol in ledgers
        for name in REQUIRED_METRICS
        if not math.isfinite(metrics.get(symbol, {}).get(name, math.nan))
    ]
    count = sum(len(rows) for rows in ledgers.values())
    summary = f"undefined: {', '.join(missing)}" if missing else f"{count} decisions"
    return Check(name="out_of_sample_metrics", passed=count > 0 and not missing, found=summary)


def _failed_share(ledgers: Mapping[str, Sequence[OutOfSampleRow]], max_share: float) -> Check:
    rows = _all_rows(ledgers)
    failed = [row for row in rows if Status(row["status"]).is_failure]
    summary = f"{len(failed)} of {len(rows)} decisions failed, at most {max_share:.2%} may"
    if failed:
        first = failed[0]
        summary += f", first {_show_row(first)}: {first['reasoning']}"
    return Check(name="failed_share", passed=len(failed) <= max_share * len(rows), found=summary)


def _abstained_share(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    rows = _all_rows(ledgers)
    # Abstaining is an honest answer, and counted apart from failures.
    abstained = [row for row in rows if row["status"] == Status.ABSTAINED]
    return Check(
        name="abstained_share",
        passed=len(abstained) <= MAX_ABSTAINED_SHARE * len(rows),
        found=f"{len(abstained)} of {len(rows)} decisions abstained, at most "
        f"{MAX_ABSTAINED_SHARE:.0%} may",
    )


def _levels_valid(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    acted = [row for row in _all_rows(ledgers) if row["action"] != "HOLD"]
    wrong = [row for row in acted if not _has_ordered_levels(row)]
    summary = f"{len(wrong)} of {len(acted)} BUY or SELL signals have levels out of order"
    return Check(name="levels_valid", passed=not wrong, found=summary)


def _has_ordered_levels(row: OutOfSampleRow) -> bool:
    """Return whether stop and target lie on their sides of the entry; False where one is absent."""
    entry, stop, target = (
        row[f"suggested_{name}"] for name in ("entry_price", "stop_loss", "take_profit")
    )
    if entry is None or stop is None or target is None:
        return False
    rising = (stop, entry, target) if row["action"] == "BUY" else (target, entry, stop)
    return bool(0 < rising[0] < rising[1] < rising[2])


def _decided_after_fit(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    # Look-ahead in the walk-forward: a fit on bars up to or after the day that it decides.
    early = [row for row in _all_rows(ledgers) if not _is_fitted_before(row)]
    summary = f"{len(early)} decisions by a fit that had seen their day"
    return Check(name="decided_after_fit", passed=not early, found=summary)


def _is_fitted_before(row: OutOfSampleRow) -> bool:
    # No fit at all: nothing shows what such a decision was fitted on.
    if row["fit_until"] is None:
        return False
    return datetime.fromisoformat(row["fit_until"]) < datetime.fromisoformat(row["as_of"])


def _served_as_backtested(
    ledgers: Mapping[str, Sequence[OutOfSampleRow]], served: Mapping[str, Sequence[OutOfSampleRow]]
) -> Check:
    rows, different = _all_rows(served), _different_rows(ledgers, served)
    # A failure may have been recorded before any team was built, so it is told apart.
    failed = [row for row in rows if Status(row["status"]).is_failure]
    decided = [row for row in rows if row not in failed]
    equal = sum(row not in different for row in decided)
    summary = f"{equal} of {len(decided)} decisions by the AutoGen team equal the recorded ones"
    if failed:
        summary += f", {sum(row not in different for row in failed)} of {len(failed)} failures do"
    if different:
        summary += f"{_describe_first(different)} differs"
    # No row at all proves nothing.
    return Check(name="served_as_backtested", passed=bool(rows) and not different, found=summary)


def _answers_repeat(
    ledgers: Mapping[str, Sequence[OutOfSampleRow]],
    repeated: Mapping[str, Sequence[OutOfSampleRow]],
) -> Check:
    rows, different = _all_rows(repeated), _different_rows(ledgers, repeated)
    summary = f"{len(different)} of {len(rows)} decisions differ when asked again, in another order"
    summary += _describe_first(different)
    return Check(name="answers_repeat", passed=bool(rows) and not different, found=summary)


def _different_rows(
    ledgers: Mapping[str, Sequence[OutOfSampleRow]],
    repeated: Mapping[str, Sequence[OutOfSampleRow]],
) -> list[OutOfSampleRow]:
    """Return the repeated rows that are not in the ledgers exactly as they are."""
    recorded = {(row["symbol"], row["as_of"]): row for row in _all_rows(ledgers)}
    return [
        row for row in _all_rows(repeated) if recorded.get((row["symbol"], row["as_of"])) != row
    ]


def _describe_first(rows: Sequence[OutOfSampleRow]) -> str:
    return f", first {_show_row(rows[0])}" if rows else ""


def _show_row(row: OutOfSampleRow) -> str:
    return f"{row['symbol']} as of {show_as_of(datetime.fromisoformat(row['as_of']))}"


def _all_rows(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> list[OutOfSampleRow]:
    return [row for rows in ledgers.values() for row in rows]
