"""What a careful eye would see in a history of bars: each finding is a sentence with its first day.

Findings refuse nothing: a crash may be real. They look only at the bars that they are given, so
those of a market view know nothing of later bars.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.calendar import ALWAYS
from finagent_model.market.timeframe import DAILY

MAX_MOVE = 0.40
"""A change of the close, as a fraction, beyond which an action may be missing."""
MAX_GAP_SESSIONS = 10
"""Sessions that may lie between two bars, or bars where the market never closes."""
SPIKE = 0.20
"""A change, as a fraction, that may be a wrong price if the next bar takes it back."""
SPIKE_DEVIATIONS = 6.0
"""The same, in typical changes of the series."""
MIN_REPEATED = 5
"""Bars in a row with one close, or without volume."""
MIN_SPACED = 10
"""Bars from which on their usual distance is told."""
RECENT_BARS = 253
"""Bars whose findings go on a signal: what its indicators see, and one before."""
Mask = npt.NDArray[np.bool_]
_DAY = np.timedelta64(1, "D")


def inspect_recent_bars(bars: BarSeries) -> tuple[str, ...]:
    """Return the findings in the last year of `bars`, for a signal that is decided on them."""
    return inspect_bars(bars[-RECENT_BARS:])


def inspect_bars(bars: BarSeries) -> tuple[str, ...]:
    """Return a sentence for each kind of finding in `bars`; none for a clean history."""
    if len(bars) < 2:
        return ()
    findings = [*_spacing(bars), *_prices(bars), *_runs(bars)]
    return tuple(findings)


def _spacing(bars: BarSeries) -> list[str]:
    """Return what is odd about when the bars closed."""
    if bars.timeframe.is_intraday:
        return [*_missing_bars(bars), *_odd_days(bars)]
    if bars.timeframe != DAILY:
        return _missing_bars(bars)
    days = _days(bars)
    steps = np.diff(days).astype(np.int64)
    findings = []
    same = steps == 0
    if same.any():
        findings.append(f"several bars a day: {_first(bars, same, 1)}; bars are taken for days")
    if len(days) >= MIN_SPACED and (step := int(np.sort(steps)[len(steps) // 2])) >= 5:
        findings.append(
            f"bars lie about {step} days apart, which is not a day, week or month; each counts as "
            "a day's"
        )
        return findings
    if steps.max() > MAX_GAP_SESSIONS:
        sessions = _sessions_between(bars)
        if (gap := sessions > MAX_GAP_SESSIONS).any():
            i = int(np.argmax(gap))
            findings.append(
                f"a gap of {sessions[i]} {bars.calendar.session_word} between {days[i]} and "
                f"{days[i + 1]}{_more(gap)}"
            )
    return [*findings, *_odd_days(bars)]


def _days(bars: BarSeries) -> npt.NDArray[np.datetime64]:
    """Return the day, in UTC, that each bar belongs to."""
    early = np.timedelta64(1 if bars.midnight_ends_day else 0, "us")
    return (bars.closed_at - early).astype("datetime64[D]")


def _sessions_between(bars: BarSeries) -> npt.NDArray[np.int64]:
    """Return how many sessions have no bar between each bar and the next, where they lie far apart;
    else 0.
    """
    days = _days(bars)
    counts = np.zeros(len(days) - 1, dtype=np.int64)
    for i in np.flatnonzero(np.diff(days) > MAX_GAP_SESSIONS * _DAY):
        counts[i] = bars.calendar.count_sessions((days[i] + _DAY).item(), days[i + 1].item())
    return counts


def _missing_bars(bars: BarSeries) -> list[str]:
    """Return where more bars are missing than pauses of the market explain."""
    if bars.timeframe.is_intraday and bars.calendar != ALWAYS:
        # Nights and holidays are pauses: days are counted.
        missing, what = _sessions_between(bars), bars.calendar.session_word
        limit = MAX_GAP_SESSIONS
    else:
        length = np.timedelta64(bars.timeframe.length, "us")
        missing, what = (np.diff(bars.closed_at) / length + 0.1).astype(np.int64) - 1, "bars"
        limit = MAX_GAP_SESSIONS if bars.timeframe.is_intraday else 1
    if not (gap := missing > limit).any():
        return []
    i = int(np.argmax(gap))
    ends = f"{bars.show_time(i)} and {bars.show_time(i + 1)}"
    return [f"a gap of {missing[i]} {what} between {ends}{_more(gap)}"]


def _odd_days(bars: BarSeries) -> list[str]:
    """Return the bars on days on which the market is closed, and sessions without a bar."""
    days = _days(bars)
    if bars.calendar.is_exchange:
        sessions = bars.calendar.sessions(days[0].item(), days[-1].item())
        findings = []
        if bars.timeframe.is_intraday:
            # Monday's session in Sydney, and that of currencies, begins on Sunday.
            days = bars.calendar.session_days(bars.closed_at)
        if (closed := ~np.isin(days, sessions)).any():
            findings.append(
                f"bars on days without a session of {bars.calendar}: {_first(bars, closed)}"
            )
        if len(missing := sessions[~np.isin(sessions, days)]):
            findings.append(
                f"{len(missing)} sessions of {bars.calendar} have no bar, the first {missing[0]}"
            )
        return findings
    # The first day of numpy's calendar was a Thursday.
    weekend = (days.astype(np.int64) + 3) % 7 >= 5
    # Currencies open on Sunday evenings.
    is_expected = bars.calendar == ALWAYS or bars.timeframe.is_intraday
    if weekend.any() and not is_expected:
        return [f"bars on Saturdays or Sundays: {_first(bars, weekend)}"]
    return []


def _prices(bars: BarSeries) -> list[str]:
    """Return what is odd about the prices."""
    findings = []
    before = bars.close[:-1]
    # What a holder earned, so that an action that is known is no jump.
    paid = bars.dividend[1:] * bars.split[1:]
    growth = (bars.close[1:] * bars.split[1:] + paid) / before
    change = growth - 1.0
    acted = bars.split[1:] != 1.0
    beyond = np.abs(change) > MAX_MOVE
    if (jump := beyond & ~acted).any():
        i = int(np.argmax(jump))
        findings.append(
            f"the close moves by {change[i]:+.0%} on {_day(bars, i + 1)} without a split"
            f"{_more(jump)}; a split may be missing"
        )
    if (explained := beyond & acted).any():
        i = int(np.argmax(explained))
        findings.append(
            f"the split of {bars.split[i + 1]:g} on {_day(bars, i + 1)} leaves a move of "
            f"{change[i]:+.0%}{_more(explained)}; the prices may have it already"
        )
    findings += _spikes(bars, np.log(growth))
    return findings


def _spikes(bars: BarSeries, change: Floats) -> list[str]:
    """Return the closes that the next bar takes back, and highs or lows far from their bar."""
    findings = []
    if len(change) >= 2:
        first, second = change[:-1], change[1:]
        spike = (np.abs(first) > np.log1p(SPIKE)) & (np.abs(first + second) < 0.25 * np.abs(first))
        if spike.any():
            spike &= np.abs(first) > SPIKE_DEVIATIONS * np.median(np.abs(change))
        if spike.any():
            i = int(np.argmax(spike))
            findings.append(
                f"the close jumps by {np.expm1(first[i]):+.0%} on {_day(bars, i + 1)} and the next "
                f"bar takes it back{_more(spike)}"
            )
    body_high = np.maximum(bars.open, bars.close)
    body_low = np.minimum(bars.open, bars.close)
    far = (bars.high > body_high * (1 + MAX_MOVE)) | (bars.low < body_low * (1 - MAX_MOVE))
    if far.any():
        findings.append(f"high or low over 40% away from open and close: {_first(bars, far)}")
    return findings


def _runs(bars: BarSeries) -> list[str]:
    """Return stretches of equal closes and of days without volume."""
    findings = []
    starts, lengths = _stretches(bars.close[1:] == bars.close[:-1])
    if (long := lengths + 1 >= MIN_REPEATED).any():
        i = int(np.argmax(long))
        findings.append(
            f"{lengths[i] + 1} closes in a row are equal from {_day(bars, int(starts[i]))}"
            f"{_more(long)}"
        )
    empty = bars.volume == 0
    if empty.all():
        findings.append("volume is 0 on every bar")
    elif empty.any():
        starts, lengths = _stretches(empty)
        if (long := lengths >= MIN_REPEATED).any():
            i = int(np.argmax(long))
            findings.append(
                f"{lengths[i]} bars in a row without volume from {_day(bars, int(starts[i]))}"
                f"{_more(long)}"
            )
    return findings


def _stretches(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where each stretch of true values starts, and its length; none if all are short."""
    if np.count_nonzero(mask) < MIN_REPEATED - 1:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    edges = np.diff(np.r_[0, mask.astype(np.int8), 0])
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts


def _day(bars: BarSeries, i: int) -> str:
    return f"{bars.show_time(i)}"


def _first(bars: BarSeries, mask: Mask, offset: int = 0) -> str:
    """Return how many bars `mask` marks, and the first of their days."""
    count = int(np.count_nonzero(mask))
    return f"{count} of {len(bars)}, the first {_day(bars, int(np.argmax(mask)) + offset)}"


def _more(mask: Mask) -> str:
    more = int(np.count_nonzero(mask)) - 1
    return f" (and {more} more)" if more else ""
