"""May this version be champion? Pure checks of what the training recorded, and what each found.

Two kinds, told apart everywhere. *Integrity*: is the version what it says it is; always needed.
*Evidence*: does it beat chance after costs; how much is needed is for the rules to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from finagent_model._base import Check
from finagent_model.backtesting.metrics import sharpe
from finagent_model.config.rules import GateRules, Grade
from finagent_model.decision.signal import Status
from finagent_model.evaluation.evidence import Evidence

OutOfSampleRow = Mapping[str, Any]
"""A signal of the out-of-sample ledger, JSON-ready (`artifacts.ledger.ledger_rows`)."""
FEWEST_DAYS = 60
"""Of a comparison with the champion."""
MAX_ABSTAINED_SHARE = 0.5
"""Of all decisions. A desk that comes to no conclusion on most days holds cash by accident: its
curve says nothing about its agents.
"""
AS_GOOD = "as_good_as_champion"
NEEDED = ("total_return", "benchmark_total_return", "max_drawdown")


class GateWindow(BaseModel):
    """Portfolio returns of one version, by moment: what a later version is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None
    returns: dict[int, float]
    """By milliseconds since 1970."""


class GateReport(BaseModel):
    """All checks, and what was required; the version passes when integrity and that are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    integrity: tuple[Check, ...]
    evidence: Evidence
    required: Grade
    champion: Check | None = None
    """Beside the present champion on the days that both decided unseen; None without one."""

    @property
    def verdict(self) -> Literal["passed", "refused"]:
        return "refused" if self.refusals else "passed"

    @property
    def refusals(self) -> str:
        """What was found where it was not good enough; empty for a version that passed."""
        found = [f"{c.name}: {c.found}" for c in self.integrity if not c.passed]
        if not self.evidence.enough(self.required):
            short = [check.name for check in self.evidence.checks if not check.passed]
            found.append(
                f"evidence: {self.evidence.grade}, {self.required} is required "
                f"(missing: {', '.join(short)})"
            )
        if self.required != "none" and self.champion and not self.champion.passed:
            found.append(f"{self.champion.name}: {self.champion.found}")
        return "; ".join(found)


def judge_version(
    metrics: Mapping[str, Mapping[str, float]],
    ledgers: Mapping[str, Sequence[OutOfSampleRow]],
    served: Mapping[str, Sequence[OutOfSampleRow]],
    evidence: Evidence,
    rules: GateRules,
    champion: Check | None = None,
    proofs: Sequence[Check] = (),
) -> GateReport:
    """`metrics` and `ledgers` by symbol, as the training recorded them; `served` are rows that the
    package gave when it was loaded as it will be served and asked again, `proofs` what experiments
    with it showed.
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
    again: Mapping[str, Sequence[OutOfSampleRow]],
    evidence: Evidence,
    rules: GateRules,
) -> GateReport:
    """Judge a decider that is no package: its metrics and ledgers by symbol, and rows of `again`.

    What needs a package (its files, its fits, its replay) is not asked. A stop or target may be
    absent, since a rule may have none; one that is given must be on its side of the entry, which
    the signal itself holds.
    """
    return GateReport(
        integrity=(
            _out_of_sample(metrics, ledgers),
            _failed_share(ledgers, rules.max_failed_share),
            _abstained_share(ledgers),
            _answers_repeat(ledgers, again),
        ),
        evidence=evidence,
        required=rules.require_evidence,
    )


def beside_champion(ours: GateWindow, theirs: GateWindow) -> Check | None:
    """Sharpe ratios on the days that both have; None where those are fewer than `FEWEST_DAYS`."""
    days = sorted(ours.returns.keys() & theirs.returns.keys())
    if len(days) < FEWEST_DAYS:
        return None
    mine, other = (
        sharpe(np.array([window.returns[day] for day in days])) for window in (ours, theirs)
    )
    return Check(
        name=AS_GOOD,
        passed=bool(mine >= other) or not math.isfinite(other),
        found=f"Sharpe {mine:.3f} against {other:.3f} of version {theirs.version} "
        f"on {len(days)} days",
    )


def _out_of_sample(
    metrics: Mapping[str, Mapping[str, float]], ledgers: Mapping[str, Sequence[OutOfSampleRow]]
) -> Check:
    missing = [
        f"{symbol} {name}"
        for symbol in ledgers
        for name in NEEDED
        if not math.isfinite(metrics.get(symbol, {}).get(name, math.nan))
    ]
    decided = sum(len(rows) for rows in ledgers.values())
    found = f"undefined: {', '.join(missing)}" if missing else f"{decided} decisions"
    return Check(name="out_of_sample_metrics", passed=decided > 0 and not missing, found=found)


def _failed_share(ledgers: Mapping[str, Sequence[OutOfSampleRow]], most: float) -> Check:
    rows = _all(ledgers)
    failed = [row for row in rows if Status(row["status"]).is_failure]
    found = f"{len(failed)} of {len(rows)} decisions failed, at most {most:.2%} may"
    if failed:
        first = failed[0]
        found += f", first {first['symbol']} as of {first['as_of'][:10]}: {first['reasoning']}"
    return Check(name="failed_share", passed=len(failed) <= most * len(rows), found=found)


def _abstained_share(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    rows = _all(ledgers)
    abstained = [row for row in rows if row["status"] == Status.ABSTAINED]
    return Check(
        name="abstained_share",
        passed=len(abstained) <= MAX_ABSTAINED_SHARE * len(rows),
        found=f"{len(abstained)} of {len(rows)} decisions abstained, at most "
        f"{MAX_ABSTAINED_SHARE:.0%} may",
    )


def _levels_valid(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    acted = [row for row in _all(ledgers) if row["action"] != "HOLD"]
    wrong = [row for row in acted if not _ordered(row)]
    found = f"{len(wrong)} of {len(acted)} calls to act have levels out of order"
    return Check(name="levels_valid", passed=not wrong, found=found)


def _ordered(row: OutOfSampleRow) -> bool:
    entry, stop, target = (
        row[f"suggested_{name}"] for name in ("entry_price", "stop_loss", "take_profit")
    )
    if entry is None or stop is None or target is None:
        return False
    rising = (stop, entry, target) if row["action"] == "BUY" else (target, entry, stop)
    return bool(0 < rising[0] < rising[1] < rising[2])


def _decided_after_fit(ledgers: Mapping[str, Sequence[OutOfSampleRow]]) -> Check:
    early = [row for row in _all(ledgers) if not _fitted_before(row)]
    found = f"{len(early)} decisions by a fit that had seen their day"
    return Check(name="decided_after_fit", passed=not early, found=found)


def _fitted_before(row: OutOfSampleRow) -> bool:
    if row["fit_until"] is None:
        return False
    return datetime.fromisoformat(row["fit_until"]) < datetime.fromisoformat(row["as_of"])


def _served_as_backtested(
    ledgers: Mapping[str, Sequence[OutOfSampleRow]], served: Mapping[str, Sequence[OutOfSampleRow]]
) -> Check:
    recorded = {(row["symbol"], row["as_of"]): row for row in _all(ledgers)}
    asked = list(_all(served))
    other = [row for row in asked if recorded.get((row["symbol"], row["as_of"])) != row]
    found = f"{len(other)} of {len(asked)} signals differ when the package is loaded and asked"
    if other:
        found += f", first {other[0]['symbol']} as of {other[0]['as_of'][:10]}"
    return Check(name="served_as_backtested", passed=bool(asked) and not other, found=found)


def _answers_repeat(
    ledgers: Mapping[str, Sequence[OutOfSampleRow]], again: Mapping[str, Sequence[OutOfSampleRow]]
) -> Check:
    recorded = {(row["symbol"], row["as_of"]): row for row in _all(ledgers)}
    rows = _all(again)
    other = [row for row in rows if recorded.get((row["symbol"], row["as_of"])) != row]
    found = f"{len(other)} of {len(rows)} decisions differ when asked again, in another order"
    if other:
        found += f", first {other[0]['symbol']} as of {other[0]['as_of'][:10]}"
    return Check(name="answers_repeat", passed=bool(rows) and not other, found=found)


def _all(rows: Mapping[str, Sequence[OutOfSampleRow]]) -> list[OutOfSampleRow]:
    return [row for symbol in rows for row in rows[symbol]]
