"""Say from a chat model's answers whether they follow what it remembers: five probes, one verdict.

Each probe asks about the same days in another form (`pipeline.probe_memory` asks, this module
judges). An answer that rests on the bars in view survives another name and scale, follows the path
and not the name, and turns when the path is turned round. `docs/memory.md` says what each probe can
and can't show.

The p-values of the five are adjusted by Holm (A Simple Sequentially Rejective Multiple Test
Procedure, 1979). A probe that could not be made counts as one with p = 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from finagent_model.decision.signal import Action
from finagent_model.statistics.skill import NORMAL

SIGNIFICANCE = 0.05
"""An adjusted p-value below it is a sign."""
MIN_DAYS = 30
"""Days with an answer below which a probe says nothing."""
AGREEMENT_MARGIN = 0.10
"""Agreement that another name and scale may cost beyond what asking twice costs."""
MIRROR_SHARE = 0.80
"""Share of acts unchanged in the mirror above which they don't follow the path.

Profit Mirage (arXiv 2510.07920) found 0.82 for an agent that remembers.
"""
POWER = 0.80
DISCORDANT_SHARE = 1 / 3
"""Share of days on which two arms differ, for the power that is stated."""
CHECK_NAME = "no_sign_of_memory"
REPORT_FILE = "memory.json"
"""Artifact of the run of the training whose version was probed."""
ProbeName = Literal["masked", "swap", "mirror", "recall", "placebo"]
PROBES: tuple[ProbeName, ...] = ("masked", "swap", "mirror", "recall", "placebo")
SIGNS: tuple[ProbeName, ...] = ("masked", "swap", "mirror", "recall")
"""Probes that can show memory; the placebo shows whether news is read."""
_SIDE = {"BUY": 1, "SELL": -1, "HOLD": 0}


class ProbeAnswer(BaseModel):
    """What the desk decided on one day in one form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    confidence: float
    """0..100, before calibration."""


class RecallAnswer(BaseModel):
    """What one model said when it was asked which company, which year and what came next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    is_masked: bool
    symbol_right: bool
    year: int | None
    """None: it named none."""
    direction: int
    """1 for a rise, -1 for a fall, 0 where it doesn't know."""


class ProbedDay(BaseModel):
    """All answers about one day; None where there was none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    as_of: str
    """ISO date."""
    may_be_remembered: bool
    """Whether it lies before the cut-off plus margin."""
    next_return: float
    """Of the sessions that the probes ask about; a fraction."""
    plain: ProbeAnswer | None = None
    """Real name and prices; no news, fundamentals or lessons."""
    again: ProbeAnswer | None = None
    """The plain question, asked once more."""
    masked: ProbeAnswer | None = None
    """Another name, another scale."""
    other_symbol: str | None = None
    """The symbol whose name and price level the swap takes."""
    other: ProbeAnswer | None = None
    """The plain question about that symbol."""
    swapped: ProbeAnswer | None = None
    """This symbol's path under the other's name."""
    mirrored: ProbeAnswer | None = None
    with_news: ProbeAnswer | None = None
    with_other_news: ProbeAnswer | None = None
    recall: tuple[RecallAnswer, ...] = ()


class ProbeResult(BaseModel):
    """One probe's finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ProbeName
    days: int
    """Days with an answer."""
    p_value: float | None
    """None: it could not be made."""
    adjusted_p_value: float | None
    """By Holm, over all five."""
    numbers: dict[str, float | None]
    found: str
    """In words."""

    @property
    def is_sign(self) -> bool:
        """Whether chance does not explain what was found."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < SIGNIFICANCE


class MemoryReport(BaseModel):
    """All probes of one version; `memory.json` of its training's run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Names of the chat models."""
    mask: str
    """Mask of the desk itself."""
    days_asked_for: int
    days: tuple[ProbedDay, ...]
    probes: tuple[ProbeResult, ...]
    questions: int
    """Decisions and recall questions that were asked for, recorded or not."""
    cost_usd: float | None
    """Of all answers at list price, recorded ones included; None: a price is unknown."""

    @property
    def signs(self) -> tuple[str, ...]:
        """Names of the probes that found a sign of memory."""
        return tuple(p.name for p in self.probes if p.name in SIGNS and p.is_sign)

    @property
    def too_few(self) -> str | None:
        """Why the probes can't show that there is no sign; None where they can."""
        for probe in self.probes:
            # Without a second symbol there is no swap; without news there is no placebo.
            if probe.name in ("masked", "mirror", "recall") and probe.days < MIN_DAYS:
                return f"{probe.days} days with an answer to {probe.name}, {MIN_DAYS} are needed"
        return None

    @property
    def smallest_p_value(self) -> float | None:
        """The smallest adjusted p-value of the probes that can show memory; None: too few days."""
        values = [
            p.adjusted_p_value
            for p in self.probes
            if p.name in SIGNS and p.adjusted_p_value is not None
        ]
        return None if self.too_few and not self.signs else min(values, default=None)

    @property
    def passed(self) -> bool:
        """Whether there are enough days, and no sign of memory."""
        return not self.signs and self.too_few is None

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if self.signs:
            return f"{self.model} shows SIGNS OF MEMORY: {', '.join(self.signs)}."
        if self.too_few:
            return f"Nothing can be said of what {self.model} remembers: {self.too_few}."
        return (
            f"{self.model} shows no sign of memory. That is not a proof of its absence: what is "
            "recognised by shape alone passes."
        )

    @property
    def power_sentence(self) -> str:
        """What difference the number of days can find."""
        count = next(p.days for p in self.probes if p.name == "masked")
        return (
            f"{count} paired days find a difference in hits of {_points(detectable(count))} with "
            f"{POWER:.0%} at a significance of {SIGNIFICANCE:.0%}, of "
            f"{_points(detectable(count, len(PROBES)))} once all five probes are counted."
        )


def judge_days(
    model: str,
    mask: str,
    days: Sequence[ProbedDay],
    *,
    days_asked_for: int,
    questions: int,
    cost_usd: float | None,
) -> MemoryReport:
    """Return the report on the answers of `days`."""
    results = [
        _judge_masked(days),
        _judge_swap(days),
        _judge_mirror(days),
        _judge_recall(days),
        _judge_placebo(days),
    ]
    adjusted = adjust_by_holm([each.p_value for each in results])
    return MemoryReport(
        model=model,
        mask=mask,
        days_asked_for=days_asked_for,
        days=tuple(days),
        probes=tuple(
            each.model_copy(update={"adjusted_p_value": p})
            for each, p in zip(results, adjusted, strict=True)
        ),
        questions=questions,
        cost_usd=cost_usd,
    )


def adjust_by_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted by Holm; None stays None and counts as 1."""
    count, running = len(p_values), 0.0
    adjusted: list[float | None] = [None] * count
    order = sorted(range(count), key=lambda i: 1.0 if p_values[i] is None else p_values[i] or 0.0)
    for rank, i in enumerate(order):
        if (p := p_values[i]) is not None:
            running = max(running, min(1.0, (count - rank) * p))
            adjusted[i] = running
    return adjusted


def detectable(days: int, tests: int = 1) -> float:
    """Return the difference in hits, a fraction, that so many paired days find with `POWER`.

    Two-sided, where a third of the pairs are discordant; nan without days.
    """
    if not days:
        return math.nan
    quantiles = NORMAL.inv_cdf(1 - SIGNIFICANCE / tests / 2) + NORMAL.inv_cdf(POWER)
    return quantiles * math.sqrt(DISCORDANT_SHARE / days)


def excess_change_p_value(changed: int, days: int, changed_again: int, days_again: int) -> float:
    """Return the one-sided p-value that a change of form costs no more agreement than it may.

    It may cost `AGREEMENT_MARGIN` beyond what asking twice costs. Shares are those of Agresti and
    Caffo (2000), one change and one agreement added to each, so that few days claim little.
    """
    share, share_again = (changed + 1) / (days + 2), (changed_again + 1) / (days_again + 2)
    variance = share * (1 - share) / (days + 2) + share_again * (1 - share_again) / (days_again + 2)
    return 1 - NORMAL.cdf((share - share_again - AGREEMENT_MARGIN) / math.sqrt(variance))


def tail_p_value(hits: int, trials: int, chance: float) -> float:
    """Return the probability of at least so many hits in so many trials by chance; 1 without."""
    # Here and below in the function: every training reads this module, and few ask a chat model.
    from scipy.stats import binom

    return float(binom.sf(hits - 1, trials, min(chance, 1.0))) if trials else 1.0


def _judge_masked(days: Sequence[ProbedDay]) -> ProbeResult:
    pairs = [(d.plain, d.masked, d.next_return) for d in days if d.plain and d.masked]
    changed = sum(plain.action != masked.action for plain, masked, _ in pairs)
    # Hits: the act was on the side to which the price went.
    better = sum(_is_hit(a, r) and not _is_hit(b, r) for a, b, r in pairs)
    worse = sum(_is_hit(b, r) and not _is_hit(a, r) for a, b, r in pairs)
    gains = [(_SIDE[a.action] - _SIDE[b.action]) * r for a, b, r in pairs]
    again = _count_changes(days, lambda d: d.again)
    if not pairs or not again[1]:
        return _not_made("masked", len(pairs), "no day was answered in both forms and twice")
    p_changed = excess_change_p_value(changed, len(pairs), *again)
    p_hits = tail_p_value(better, better + worse, 0.5)
    found = (
        f"under another name and scale {_share(len(pairs) - changed, len(pairs))} of the acts stay "
        f"(asked twice: {_share(again[1] - again[0], again[1])}); the plain question is right "
        f"where the masked one is wrong on {better} days, the reverse on {worse}"
    )
    numbers = {
        "agreement": 1 - changed / len(pairs),
        "retest_agreement": 1 - again[0] / again[1],
        "retest_days": float(again[1]),
        "hit_difference": (better - worse) / len(pairs),
        "return_difference": float(np.mean(gains)),
        "p_agreement": p_changed,
        "p_hits": p_hits,
    }
    # Two ways to show it, so each has half of the significance.
    return _made("masked", len(pairs), min(1.0, 2 * min(p_changed, p_hits)), numbers, found)


def _judge_swap(days: Sequence[ProbedDay]) -> ProbeResult:
    changed, count = _count_changes(days, lambda d: d.swapped)
    again = _count_changes(days, lambda d: d.again)
    if not count or not again[1]:
        why = "no second symbol had bars on these days" if days else "no day"
        return _not_made("swap", count, why)
    decisive = [
        (d.plain.action, d.other.action, d.swapped.action)
        for d in days
        if d.plain and d.other and d.swapped and d.plain.action != d.other.action
    ]
    name = sum(swapped == other for _, other, swapped in decisive)
    path = sum(swapped == plain for plain, _, swapped in decisive)
    p_changed = excess_change_p_value(changed, count, *again)
    p_name = tail_p_value(name, name + path, 0.5)
    found = (
        f"under another symbol's name {_share(count - changed, count)} of the acts stay; where the "
        f"two symbols' acts differ, {name} follow the name and {path} the path"
    )
    numbers = {
        "agreement": 1 - changed / count,
        "follow_name": float(name),
        "follow_path": float(path),
        "p_agreement": p_changed,
        "p_name": p_name,
    }
    return _made("swap", count, min(1.0, 2 * min(p_changed, p_name)), numbers, found)


def _judge_mirror(days: Sequence[ProbedDay]) -> ProbeResult:
    answered = [(d.plain, d.mirrored) for d in days if d.plain and d.mirrored]
    acts = [pair for pair in answered if pair[0].action != "HOLD"]
    if not acts:
        return _not_made("mirror", 0, "no act on a day that was answered in both forms")
    same = sum(plain.action == mirrored.action for plain, mirrored in acts)
    # A desk that always says BUY is unchanged too, and remembers nothing by that.
    firsts, seconds = (Counter(pair[i].action for pair in acts) for i in (0, 1))
    by_chance = sum(firsts[action] * seconds[action] for action in firsts) / len(acts) ** 2
    turned = sum(_SIDE[a.action] == -_SIDE[b.action] for a, b in acts)
    confidence = float(np.mean([abs(a.confidence - b.confidence) for a, b in acts]))
    found = (
        f"with the path turned round {_share(same, len(acts))} of the acts stay, "
        f"{_share(turned, len(acts))} turn; confidence moves by {confidence:.1f} points"
    )
    numbers = {
        "prediction_consistency": same / len(acts),
        "consistency_by_chance": by_chance,
        "turned": turned / len(acts),
        "confidence_change": confidence,
    }
    p_value = tail_p_value(same, len(acts), max(MIRROR_SHARE, by_chance))
    return _made("mirror", len(acts), p_value, numbers, found)


def _judge_recall(days: Sequence[ProbedDay]) -> ProbeResult:
    asked = [(d, answer) for d in days for answer in d.recall]
    if not asked:
        return _not_made("recall", 0, "no answer")
    numbers: dict[str, float | None] = {}
    parts, p_values = [], []
    for model in dict.fromkeys(answer.model for _, answer in asked):
        for is_masked in (False, True):
            own = [(d, a) for d, a in asked if a.model == model and a.is_masked == is_masked]
            if not own:
                continue
            form = "masked" if is_masked else "plain"
            years, rises = (
                Counter(d.as_of[:4] for d, _ in own),
                sum(d.next_return > 0 for d, _ in own),
            )
            falls = sum(d.next_return < 0 for d, _ in own)
            # A model that always names one year, or one direction, is right so often.
            year_chance = max(years.values()) / len(own)
            sign_chance = max(rises, falls, len(own) / 2) / len(own)
            right_year = sum(a.year == int(d.as_of[:4]) for d, a in own)
            right_sign = sum(a.direction * d.next_return > 0 for d, a in own)
            p_values += [
                tail_p_value(right_year, len(own), year_chance),
                tail_p_value(right_sign, len(own), sign_chance),
            ]
            prefix = f"{model} {form} "
            numbers |= {
                f"{prefix}company": sum(a.symbol_right for _, a in own) / len(own),
                f"{prefix}year": right_year / len(own),
                f"{prefix}year_by_chance": year_chance,
                f"{prefix}direction": right_sign / len(own),
                f"{prefix}direction_by_chance": sign_chance,
            }
            parts.append(
                f"{model}, {form}: the year right in {_share(right_year, len(own))} (by chance "
                f"{year_chance:.0%}), what came next in {_share(right_sign, len(own))} (by chance "
                f"{sign_chance:.0%})"
            )
    count = sum(any(not a.is_masked for a in d.recall) for d in days)
    p_value = min(1.0, len(p_values) * min(p_values))
    return _made("recall", count, p_value, numbers, "; ".join(parts))


def _judge_placebo(days: Sequence[ProbedDay]) -> ProbeResult:
    from scipy.stats import binom

    pairs = [(d.with_news, d.with_other_news) for d in days if d.with_news and d.with_other_news]
    again = _count_changes(days, lambda d: d.again)
    if not pairs or not again[1]:
        return _not_made("placebo", len(pairs), "no two days with news")
    changed = sum(a.action != b.action for a, b in pairs)
    # Fewer changes than a reader of news would show beyond what asking twice changes.
    expected = min(again[0] / again[1] + AGREEMENT_MARGIN, 1.0)
    p_value = float(binom.cdf(changed, len(pairs), expected))
    found = f"with another day's news {_share(len(pairs) - changed, len(pairs))} of the acts stay"
    numbers = {"unchanged": 1 - changed / len(pairs)}
    return _made("placebo", len(pairs), p_value, numbers, found)


def _count_changes(
    days: Sequence[ProbedDay], of: Callable[[ProbedDay], ProbeAnswer | None]
) -> tuple[int, int]:
    """Return on how many days the act differs from the plain one, and of how many days."""
    pairs = [(d.plain, other) for d in days if d.plain and (other := of(d))]
    return sum(plain.action != other.action for plain, other in pairs), len(pairs)


def _is_hit(answer: ProbeAnswer, next_return: float) -> bool:
    return _SIDE[answer.action] * next_return > 0


def _made(
    name: ProbeName, days: int, p_value: float, numbers: Mapping[str, float | None], found: str
) -> ProbeResult:
    return ProbeResult(
        name=name,
        days=days,
        p_value=p_value,
        adjusted_p_value=None,
        numbers=dict(numbers),
        found=found,
    )


def _not_made(name: ProbeName, days: int, why: str) -> ProbeResult:
    return ProbeResult(
        name=name,
        days=days,
        p_value=None,
        adjusted_p_value=None,
        numbers={},
        found=f"not made: {why}",
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}"


def _points(fraction: float) -> str:
    return "any size" if math.isnan(fraction) else f"{100 * fraction:.0f} points"
