"""Say in words whether a signal may be acted on, why, and what is at stake.

Pages, the list, approvals and the shell show this same summary. All of it is made from stored
facts; what nobody stored is said to be unknown. A signal may be another system's: a value that is
not of the expected type counts as missing. The clock only says how old a signal is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, Self

from finagent_model.decision.opinions import read_number
from finagent_model.decision.signal import GATE_REFUSED, LEAST_TO_ACT, Status, TradingSignal
from finagent_model.policy.trained_state import HORIZON, NO_INFORMATION

Verdict = Literal["act", "care", "wait", "hold", "past", "no"]
HEADLINES: Mapping[Verdict, str] = {
    "act": "Act",
    "care": "Act with care",
    "wait": "Waits for approval",
    "hold": "Nothing to do",
    "past": "Too old to act on",
    "no": "Do not act",
}
UNKNOWN = "unknown"
FRESH_FOR = timedelta(days=5)
"""Age of a signal up to which a long weekend explains it."""
OVER_AFTER = timedelta(days=7 * HORIZON // 5 + 3)
"""Age from which the bars are over within which a call is held against its outcome."""
STATUS_MEANINGS: Mapping[str, str] = {
    Status.OK: "the desk decided",
    Status.ABSTAINED: "the desk worked and came to no conclusion",
    Status.APPROVAL_REJECTED: "the desk decided; a human said no",
    Status.APPROVAL_EXPIRED: "the desk decided; nobody answered in time",
    Status.PARSE_FAILED: "no reply could be read",
    Status.DATA_MISSING: "there was nothing to decide on",
    Status.MODEL_ERROR: "a chat model could not be asked",
    Status.BUDGET_EXCEEDED: "the budget was used up",
    Status.LEVELS_REJECTED: "stop or target made no sense",
    Status.EXTERNAL_ERROR: "another system failed",
}
ORIGINS = {
    "rest": "a caller of the REST wrote it, not the desk",
    "disowned": "somebody wrote it in the desk's name",
}
ANOTHER_SYSTEM = "another system wrote it, not the desk"


@dataclass(frozen=True)
class Circumstances:
    """What is known of a signal beside its own fields; None: unknown, or not so."""

    is_ours: bool = True
    """Whether a decision of this code wrote it."""
    origin: str | None = None
    """Who wrote it, where it is not ours."""
    waits_until: datetime | None = None
    """Deadline of the approval that it waits for."""
    base_share: float | None = None
    """Share of all calls in the version's test that made money, a fraction."""
    seconds: float | None = None
    """How long the decision took."""
    last_bar: date | None = None
    """Day of the last bar that the desk saw."""
    now: datetime | None = None
    """None: how old it is does not matter, as where somebody asks about a day of the past."""


NOTHING_ELSE = Circumstances()


@dataclass(frozen=True)
class SignalSummary:
    """The answer to "may I act on this?", in words."""

    verdict: Verdict
    action: str
    """BUY, SELL or HOLD; `no decision` where there is none."""
    reasons: tuple[str, ...]
    """Why, the most important first; empty only for `act`."""
    odds: str
    risk: str
    cost: str
    version: str
    data: str

    @classmethod
    def from_signal(
        cls, signal: TradingSignal, circumstances: Circumstances = NOTHING_ELSE
    ) -> Self:
        """Return the summary of a signal of ours."""
        return cls.from_fields(signal.model_dump(mode="json"), circumstances)

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, Any], circumstances: Circumstances = NOTHING_ELSE
    ) -> Self:
        """Return the summary of a stored signal, which may have any fields of any type."""
        facts = _Facts(fields)
        status, action = facts.text("status"), facts.text("action")
        has_decision = status in (None, Status.OK) and action in ("BUY", "SELL", "HOLD")
        verdict, reasons = _judge(facts, circumstances)
        is_call = has_decision and action != "HOLD"
        return cls(
            verdict=verdict,
            action=action if has_decision and action else "no decision",
            reasons=reasons,
            odds=_odds(facts, circumstances) if is_call else "no call, so no odds",
            risk=_risk(facts) if is_call else "no position, so nothing at risk",
            cost=_cost(facts, circumstances),
            version=_version(facts),
            data=_data(facts, circumstances),
        )

    @property
    def headline(self) -> str:
        """The verdict in words."""
        return HEADLINES[self.verdict]

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Name and text of what follows the headline, in the order in which it is shown."""
        why = "; ".join(self.reasons) or "nothing speaks against it"
        return (
            ("Why", why),
            ("Odds", self.odds),
            ("Risk", self.risk),
            ("Cost", self.cost),
            ("Version", self.version),
            ("Data", self.data),
        )


@dataclass(frozen=True)
class _Facts:
    """Typed access to the fields of a signal that anybody may have written."""

    fields: Mapping[str, Any]

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return str(value) if isinstance(value, str) and value else None

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.fields.get(name)
        return tuple(t for t in value if isinstance(t, str)) if isinstance(value, list) else ()

    def number(self, name: str) -> float | None:
        return read_number(self.fields.get(name))

    def day(self, name: str) -> str | None:
        moment = self.moment(name)
        return f"{moment:%Y-%m-%d}" if moment else None

    def moment(self, name: str) -> datetime | None:
        try:
            moment = datetime.fromisoformat(self.text(name) or "")
            return moment.astimezone(UTC) if moment.tzinfo else None
        except (ValueError, OverflowError):
            return None


def _judge(facts: _Facts, circumstances: Circumstances) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its reasons: what forbids acting before what asks for care."""
    status, action = facts.text("status"), facts.text("action")
    foreign = [] if circumstances.is_ours else [_origin(circumstances.origin)]
    if status not in (None, Status.OK):
        meaning = STATUS_MEANINGS.get(status, f"its status is {status[:40]!r}")
        return "hold" if status == Status.ABSTAINED else "no", (*foreign, meaning)
    if action == "HOLD":
        return "hold", (*foreign, "the desk chose to hold")
    if action not in ("BUY", "SELL"):
        return "no", (*foreign, "it names no action")
    forbidding = foreign
    if any(text.startswith(GATE_REFUSED) for text in facts.texts("warnings")):
        forbidding.append("the gate refused its version")
    score = facts.number("confidence_score")
    if score is None:
        forbidding.append("its confidence is unknown")
    elif score < LEAST_TO_ACT:
        forbidding.append(f"confidence {score:.3g} is below {LEAST_TO_ACT:g}")
    caring = _cautions(facts, circumstances)
    if circumstances.waits_until is not None:
        until = f"a human must approve it by {circumstances.waits_until:%Y-%m-%d %H:%M} UTC"
        return "wait", (until, *forbidding, *caring)
    reasons = (*forbidding, *caring)
    age = _age_days(facts, circumstances)
    if not forbidding and age is not None and age > OVER_AFTER.days:
        # Its age, the last of the cautions, is what decides.
        return "past", (reasons[-1], *reasons[:-1])
    return "no" if forbidding else "care" if caring else "act", reasons


def _cautions(facts: _Facts, circumstances: Circumstances) -> list[str]:
    """Return what asks for care though it forbids nothing."""
    grade, cautions = facts.text("evidence"), []
    if grade is None:
        is_trained = facts.text("fit_until") is not None
        cautions.append("evidence was not assessed" if is_trained else "the desk is untrained")
    elif grade != "strong":
        cautions.append("no evidence of an edge" if grade == "none" else f"{grade[:20]} evidence")
    if facts.fields.get("calibrated") is not True:
        cautions.append("its confidence is not calibrated")
    if facts.fields.get("anchored") is False:
        cautions.append("the registry does not vouch for its version")
    as_of, cutoff = facts.day("as_of"), facts.text("knowledge_cutoff")
    # Dates as ISO texts compare as dates; `unknown` is no date.
    if as_of and cutoff and cutoff[:1].isdigit() and as_of <= cutoff:
        cautions.append(f"its chat model has read until {cutoff[:10]} and may remember the day")
    age = _age_days(facts, circumstances)
    if age is not None and age > FRESH_FOR.days:
        cautions.append(f"it is {age:,} days old")
    return cautions


def _origin(origin: str | None) -> str:
    return ORIGINS.get(origin or "", ANOTHER_SYSTEM)


def _age_days(facts: _Facts, circumstances: Circumstances) -> int | None:
    as_of = facts.moment("as_of")
    if as_of is None or circumstances.now is None:
        return None
    return max((circumstances.now - as_of).days, 0)


def _odds(facts: _Facts, circumstances: Circumstances) -> str:
    score = facts.number("confidence_score")
    if score is None:
        return UNKNOWN
    if facts.fields.get("calibrated") is not True:
        return f"{UNKNOWN}: its confidence of {score:.3g} was never held against outcomes"
    if NO_INFORMATION in facts.texts("warnings"):
        return f"about {score:.0f} of 100 of its calls made money, whatever confidence it had"
    share = circumstances.base_share
    others = (
        f"{UNKNOWN} how many of all its test calls did"
        if share is None
        else f"of all its test calls {100 * share:.0f} of 100 did"
    )
    return f"about {score:.0f} of 100 such calls made money; {others}"


def _risk(facts: _Facts) -> str:
    entry = facts.number("suggested_entry_price")
    stop, target = facts.number("suggested_stop_loss"), facts.number("suggested_take_profit")
    size = facts.number("position_size_percent")
    to_stop, to_target = _distance(entry, stop), _distance(entry, target)
    parts = [
        f"stop {_from_entry(to_stop)}",
        f"target {_from_entry(to_target)}",
        f"size {UNKNOWN if size is None else f'{size:.3g}% of equity'}",
    ]
    if size is not None and to_stop is not None:
        parts.append(f"{abs(to_stop) * size:.2g}% of equity lost at the stop")
    else:
        parts.append(f"equity at risk {UNKNOWN}")
    return ", ".join(parts)


def _distance(entry: float | None, price: float | None) -> float | None:
    """Return how far a price lies from the entry, as a signed fraction of the entry."""
    if entry is None or price is None or entry <= 0:
        return None
    return price / entry - 1


def _from_entry(fraction: float | None) -> str:
    """Return on which side of the entry a price lies, and how far."""
    # A sign would read as a gain or a loss, which for a SELL is the other way round.
    if fraction is None:
        return UNKNOWN
    return f"{100 * abs(fraction):.1f}% {'above' if fraction >= 0 else 'below'} the entry"


def _cost(facts: _Facts, circumstances: Circumstances) -> str:
    cost, tokens, seconds = (
        facts.number("cost_usd"),
        facts.number("tokens"),
        circumstances.seconds,
    )
    return ", ".join(
        (
            f"cost {UNKNOWN}" if cost is None else f"{_short(cost)} USD",
            f"tokens {UNKNOWN}" if tokens is None else f"{tokens:,.0f} tokens",
            f"time {UNKNOWN}" if seconds is None else _duration(seconds),
        )
    )


def _duration(seconds: float) -> str:
    return "under 0.01 s" if seconds < 0.01 else f"{_short(seconds)} s"


def _short(number: float) -> str:
    """Return a number with three digits, or all those before its point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _version(facts: _Facts) -> str:
    uri, fitted = facts.text("model_uri"), facts.day("fit_until")
    if uri is None and fitted is None:
        return "untrained, not registered"
    name = uri[:200] if uri else "not registered"
    return f"{name}, {f'fitted until {fitted}' if fitted else f'fitted until {UNKNOWN}'}"


def _data(facts: _Facts, circumstances: Circumstances) -> str:
    as_of, last = facts.day("as_of"), circumstances.last_bar
    bars = f"last bar {last or UNKNOWN}"
    text = f"{bars}, asked about {as_of or UNKNOWN}"
    age = _age_days(facts, circumstances)
    if age is None:
        return text
    days = {0: "today", 1: "a day ago"}.get(age, f"{age:,} days ago")
    return f"{text}, {days}"
