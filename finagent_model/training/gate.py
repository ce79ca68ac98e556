"""May this version be champion? Pure checks of what the training recorded; each says what it found.

These are checks of integrity: is the version what it says it is. Whether it beats chance after
costs is another question; until that is assessed, `evidence` is null and nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from finagent_model.domain.signal import Status

Row = Mapping[str, Any]
"""A signal of the out-of-sample ledger, JSON-ready (`artifacts.ledger.ledger_rows`)."""
NEEDED = ("total_return", "benchmark_total_return", "max_drawdown")


class Check(BaseModel):
    """One question to the record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    found: str


class GateReport(BaseModel):
    """All checks; the version passes when each did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: tuple[Check, ...]
    evidence: Literal["none", "weak", "strong"] | None = None

    @property
    def verdict(self) -> Literal["passed", "refused"]:
        return "passed" if all(check.passed for check in self.checks) else "refused"

    @property
    def refusals(self) -> str:
        """What was found where it was not good enough."""
        return "; ".join(f"{c.name}: {c.found}" for c in self.checks if not c.passed)


def judge_version(
    metrics: Mapping[str, Mapping[str, float]],
    ledgers: Mapping[str, Sequence[Row]],
    served: Mapping[str, Sequence[Row]],
) -> GateReport:
    """`metrics` and `ledgers` by symbol, as the training recorded them; `served` are rows that the
    package gave when it was loaded as it will be served and asked again.
    """
    return GateReport(
        checks=(
            _out_of_sample(metrics, ledgers),
            _no_failed_status(ledgers),
            _levels_valid(ledgers),
            _decided_after_fit(ledgers),
            _served_as_backtested(ledgers, served),
        )
    )


def _out_of_sample(
    metrics: Mapping[str, Mapping[str, float]], ledgers: Mapping[str, Sequence[Row]]
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


def _no_failed_status(ledgers: Mapping[str, Sequence[Row]]) -> Check:
    failed = [row for row in _all(ledgers) if Status(row["status"]).is_failure]
    found = f"{len(failed)} failed"
    if failed:
        first = failed[0]
        found += f", first {first['symbol']} as of {first['as_of'][:10]}: {first['reasoning']}"
    return Check(name="no_failed_status", passed=not failed, found=found)


def _levels_valid(ledgers: Mapping[str, Sequence[Row]]) -> Check:
    acted = [row for row in _all(ledgers) if row["action"] != "HOLD"]
    wrong = [row for row in acted if not _ordered(row)]
    found = f"{len(wrong)} of {len(acted)} calls to act have levels out of order"
    return Check(name="levels_valid", passed=not wrong, found=found)


def _ordered(row: Row) -> bool:
    entry, stop, target = (
        row[f"suggested_{name}"] for name in ("entry_price", "stop_loss", "take_profit")
    )
    if entry is None or stop is None or target is None:
        return False
    rising = (stop, entry, target) if row["action"] == "BUY" else (target, entry, stop)
    return bool(0 < rising[0] < rising[1] < rising[2])


def _decided_after_fit(ledgers: Mapping[str, Sequence[Row]]) -> Check:
    early = [row for row in _all(ledgers) if not _fitted_before(row)]
    found = f"{len(early)} decisions by a fit that had seen their day"
    return Check(name="decided_after_fit", passed=not early, found=found)


def _fitted_before(row: Row) -> bool:
    if row["fit_until"] is None:
        return False
    return datetime.fromisoformat(row["fit_until"]) < datetime.fromisoformat(row["as_of"])


def _served_as_backtested(
    ledgers: Mapping[str, Sequence[Row]], served: Mapping[str, Sequence[Row]]
) -> Check:
    recorded = {(row["symbol"], row["as_of"]): row for row in _all(ledgers)}
    asked = list(_all(served))
    other = [row for row in asked if recorded.get((row["symbol"], row["as_of"])) != row]
    found = f"{len(other)} of {len(asked)} signals differ when the package is loaded and asked"
    if other:
        found += f", first {other[0]['symbol']} as of {other[0]['as_of'][:10]}"
    return Check(name="served_as_backtested", passed=bool(asked) and not other, found=found)


def _all(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    return [row for symbol in rows for row in rows[symbol]]
