"""Tables of bars turned into series: what each column is, which rows are bars, which actions apply.

What can't be told is asked, what is not understood is refused by name, and what was passed over is
said in a note of the series. `parse_bars` serves tables of a database too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model.data._bar_clock import Clock, close_days, close_intraday
from finagent_model.data._bar_dates import is_midnight, read_moments, read_stamps
from finagent_model.data._bar_mending import drop_repeated, drop_rows, mend_prices
from finagent_model.data._numbers import NA_WORDS, Decimal, read_numbers, read_ratios
from finagent_model.data._raw_table import DATABASE, RawTable, raw_frame
from finagent_model.data._yfinance import undo_splits
from finagent_model.data.bar_columns import NO_HINTS, Columns, Hints, find_columns
from finagent_model.data.bundled import NOISE, infer_actions, rounding_noise
from finagent_model.data.vendors import (
    ADJUSTED,
    CLOSE_STAMP,
    CLOSED_AT,
    DATE,
    PERIOD,
    TIME,
)
from finagent_model.errors import BadInputError, DataSourceError, InvalidBarsError
from finagent_model.market.bars import ACTIONS, PRICES, BarSeries, Floats
from finagent_model.market.timeframe import Timeframe, parse_timeframe

MAX_DISAGREEMENT = 0.01
"""Difference of an adjusted close's step from what actions say, as a fraction, that is noted."""
MAX_SHOWN_DAYS = 3
PERIODS = {"d": "1d", "1440": "1d", "w": "1w", "m": "1mo", "": "1d"}
"""What vendors write for the length of a bar, beside minutes as a number."""


def parse_bars(symbol: str, table: pd.DataFrame, hints: Hints = NO_HINTS) -> BarSeries:
    """Turn a user's table of one symbol's bars into a series.

    Raises InvalidBarsError naming the column or the first offending bar.
    """
    return read_series(symbol, raw_frame(table, DATABASE), hints)


def read_series(symbol: str, raw: RawTable, hints: Hints = NO_HINTS) -> BarSeries:
    """Return the series of one symbol's table. Raises InvalidBarsError in the table's own words."""
    columns = find_columns(raw, hints)
    frame, notes = _keep_bars(raw, columns)
    notes = (*raw.notes, *notes)
    if len(frame) == 0:
        raise InvalidBarsError(f"bars of {symbol}: empty; send at least one bar or leave them out")
    bars = _read_values(columns, frame, hints)
    clock, moments = _closing_times(columns, frame, hints)
    bars[CLOSED_AT] = clock.closed_at
    notes += clock.notes
    steps = np.diff(moments)
    if (steps <= np.timedelta64(0)).all() and (steps < np.timedelta64(0)).any():
        bars, moments = bars.iloc[::-1].reset_index(drop=True), moments[::-1]
        frame = frame.iloc[::-1]
        notes += ("the newest bar stood first; sorted",)
    # A table of a database is somebody's to correct; a vendor's file is as it is.
    if (hints.on_bad_rows or ("refuse" if raw.form == DATABASE else "mend")) == "mend":
        bars, moments, frame, mended = _mend_rows(bars, moments, frame)
        notes += mended
    _refuse_disorder(moments, columns, frame)
    if columns.vendor.applied_splits:
        traded = _undo_adjustment(symbol, bars, moments, notes)
        return replace(
            traded,
            timeframe=clock.timeframe or traded.timeframe,
            calendar=hints.market_calendar or traded.calendar,
        )
    # Only if there is no column of actions: one that is given wins.
    if ADJUSTED in bars and not set(ACTIONS) & set(bars.columns):
        close, adjusted = bars["close"].to_numpy(), bars[ADJUSTED].to_numpy()
        bars["split"], bars["dividend"] = infer_actions(symbol, close, adjusted)
        if (noise := rounding_noise(close, adjusted).max(initial=0.0)) > NOISE:
            notes += (
                f"adjusted closes are rounded: a dividend below {noise:.2%} of the price can't be "
                "told from rounding",
            )
    series = BarSeries.from_frame(
        symbol,
        bars.drop(columns=ADJUSTED, errors="ignore"),
        timeframe=clock.timeframe,
        calendar=hints.market_calendar,
    )
    if ADJUSTED in bars:
        notes += _disagreement(series, bars[ADJUSTED].to_numpy(), columns.name(ADJUSTED))
    return replace(series, notes=notes)


def _mend_rows(
    bars: pd.DataFrame, moments: npt.NDArray[np.datetime64], frame: pd.DataFrame
) -> tuple[pd.DataFrame, npt.NDArray[np.datetime64], pd.DataFrame, tuple[str, ...]]:
    """Return bars, their moments and their rows in the file without a few bad ones, and notes."""
    bars, kept, notes = drop_repeated(bars, moments, [n for n in ACTIONS if n in bars])
    bars, moments, frame = bars.reset_index(drop=True), moments[kept], frame[kept]
    infers = ADJUSTED in bars and not set(ACTIONS) & set(bars.columns)
    lacks_adjusted = ~(bars[ADJUSTED] > 0).to_numpy() if infers else None
    mended, more = mend_prices(bars, moments, lacks_adjusted)
    lost = mended[list(PRICES)].isna().all(axis=1).to_numpy()
    if not more or lost.all():
        return bars, moments, frame, notes
    return drop_rows(mended, lost), moments[~lost], frame[~lost], notes + more


def _read_values(columns: Columns, frame: pd.DataFrame, hints: Hints) -> pd.DataFrame:
    """Return prices, volume and actions as numbers. Raises InvalidBarsError naming a cell."""
    where = columns.table.rows(frame)
    # What the volume alone leaves open is a thousand: nobody trades fractions of a share.
    decimal = hints.decimal or columns.table.decimal or _ask_decimal(columns, frame)
    bars = pd.DataFrame(index=range(len(frame)))
    for role in (*PRICES, "volume", "tick_volume", *ACTIONS, ADJUSTED):
        if role in columns.position:
            read = read_ratios if role == "split" else read_numbers
            cells = frame[columns.position[role]]
            bars[role] = read(cells, columns.name(role), decimal, where)
    if "tick_volume" in bars:
        # Currencies have no volume of their own: the number of quotes stands for it.
        if "volume" not in bars or not (bars["volume"] > 0).any():
            bars["volume"] = bars["tick_volume"]
        bars = bars.drop(columns="tick_volume")
    scale = columns.vendor.integer_scale
    if scale != 1.0 and bool((bars[list(PRICES)] % 1 == 0).all(axis=None)):
        bars[list(PRICES)] *= scale
    return bars


def _keep_bars(raw: RawTable, columns: Columns) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows that are bars, and a note for each kind of row that is none.

    Those are blank lines, headers between the rows and days without prices.
    """
    frame = raw.frame
    notes: tuple[str, ...] = ()
    date_column = columns.position.get(DATE, columns.position.get(CLOSED_AT, 0))
    if raw.first_line is not None:
        dates = frame[date_column].astype("string").str.strip().fillna("")
        priced = _any_price(frame, columns)
        blank = (dates == "") & ~priced
        again = (dates == raw.columns[date_column].strip()) & (dates != "")
        if again.any():
            number = int(frame.index[int(np.argmax(again))])
            notes += (f"the header is there again {raw.where(number)}; passed over",)
        frame = frame[~(blank | again)]
    missing = ~_any_price(frame, columns)
    if missing.any() and not missing.all():
        days = [str(cell) for cell in frame[date_column][missing]]
        more = f" and {len(days) - MAX_SHOWN_DAYS} more" if len(days) > MAX_SHOWN_DAYS else ""
        notes += (f"no prices on {', '.join(days[:MAX_SHOWN_DAYS])}{more}; passed over",)
        frame = frame[~missing]
    return frame, notes


def _any_price(frame: pd.DataFrame, columns: Columns) -> pd.Series[bool]:
    """Tell of each row whether it has any price."""
    found = pd.Series(False, index=frame.index)
    for name in PRICES:
        column = frame[columns.position[name]]
        there = column.notna()
        if not pd.api.types.is_numeric_dtype(column):
            there &= ~column.astype(str).str.strip().isin(NA_WORDS)
        found |= there
    return found


def _read_period(columns: Columns, frame: pd.DataFrame) -> Timeframe | None:
    """Return the length of a bar that a column of the file names, which is one for all rows."""
    if PERIOD not in columns.position:
        return None
    cells = [str(cell).strip() for cell in frame[columns.position[PERIOD]]]
    where = columns.table.rows(frame)
    for i, cell in enumerate(cells):
        if cell != cells[0]:
            raise InvalidBarsError(
                f"{columns.name(PERIOD)} {cell!r} {where(i)} is not the {cells[0]!r} of "
                f"{where(0)}; give a file for each length of bars"
            )
    text = cells[0].removesuffix(".0")
    text = PERIODS.get(text.lower(), f"{text}m" if text.isdigit() else text)
    try:
        return parse_timeframe(text)
    except BadInputError as error:
        raise InvalidBarsError(f"{columns.name(PERIOD)} {cells[0]!r}: {error}") from None


def _join_times(columns: Columns, frame: pd.DataFrame) -> list[Any]:
    """Return the dates, each with the time that stands in a column of its own."""
    days = list(frame[columns.position[DATE]])
    if TIME not in columns.position:
        return days
    times = list(frame[columns.position[TIME]])
    if all(is_midnight(cell) for cell in times):
        return days
    joined = []
    for day, cell in zip(days, times, strict=True):
        text = str(cell).strip().removesuffix(".0")
        # As a number a time has lost its leading zeros: 93000.
        joined.append(f"{str(day).removesuffix('.0')} {text.zfill(6) if text.isdigit() else text}")
    return joined


def _ask_decimal(columns: Columns, frame: pd.DataFrame) -> Decimal:
    """Return the dot where prices have no commas. Raises InvalidBarsError where they have."""
    where = columns.table.rows(frame)
    for role in PRICES:
        for i, cell in enumerate(frame[columns.position[role]]):
            if isinstance(cell, str) and "," in cell:
                raise InvalidBarsError(
                    f"{columns.name(role)} {cell!r} {where(i)} may be a thousand or a fraction, "
                    'and no number of the file shows which; write `decimal: ","` or '
                    '`decimal: "."` into bars.yaml beside the file'
                )
    return "."


def _closing_times(
    columns: Columns, frame: pd.DataFrame, hints: Hints
) -> tuple[Clock, npt.NDArray[np.datetime64]]:
    """Return when each bar closed as the series reads it, and the dates to be compared."""
    where = columns.table.rows(frame)
    if CLOSED_AT in columns.position and DATE not in columns.position:
        closed_at = read_moments(list(frame[columns.position[CLOSED_AT]]), where)
        compared = np.array([_comparable(each) for each in closed_at], "datetime64[us]")
        return Clock(closed_at, hints.bar_length, ()), compared
    stamps = read_stamps(
        _join_times(columns, frame),
        hints.dates or columns.vendor.date_order,
        columns.vendor.zone,
        where,
        hints.zone or columns.vendor.clock,
    )
    length = _read_period(columns, frame) or hints.bar_length
    calendar = hints.market_calendar
    moments = [each for each in stamps if isinstance(each, datetime)]
    if moments:
        compared = np.array([m.replace(tzinfo=None) for m in moments], "datetime64[us]")
        ordered = sorted(moments)
        clock = close_intraday(ordered, length, calendar, hints.stamps)
        # In the order of the file: what is out of order is refused by its own text.
        by_moment = dict(zip(ordered, clock.closed_at, strict=True))
        return clock._replace(closed_at=[by_moment[m] for m in moments]), compared
    compared = np.array(stamps, dtype="datetime64[us]")
    if CLOSE_STAMP in columns.position and hints.stamps is None:
        closes = read_moments(list(frame[columns.position[CLOSE_STAMP]]), where)
        # The vendors that have such a column write UTC, with a zone or without.
        closed_at = [f"{stamp}+00:00" if _is_naive(stamp) else stamp for stamp in closes]
        return Clock(closed_at, length, ()), compared
    return close_days(stamps, length, calendar, hints.stamps), compared


def _is_naive(text: Any) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is None
    except (TypeError, ValueError):
        return False


def _comparable(text: Any) -> np.datetime64:
    try:
        moment = datetime.fromisoformat(text)
        return np.datetime64(moment.replace(tzinfo=None) - (moment.utcoffset() or moment - moment))
    except (TypeError, ValueError):
        return np.datetime64("NaT")  # left to the series to refuse, in its own words


def _disagreement(series: BarSeries, adjusted: Floats, name: str) -> tuple[str, ...]:
    """Return a note where the adjusted close moves otherwise than splits and dividends say."""
    if not (adjusted > 0).all():
        return ()
    ratio, factor = adjusted / series.close, series.growth_factor
    steps = ratio[1:] / ratio[:-1] / (factor[1:] / factor[:-1])
    wrong = np.abs(steps - 1.0) > MAX_DISAGREEMENT + rounding_noise(series.close, adjusted)
    if not wrong.any():
        return ()
    i = int(np.argmax(wrong)) + 1
    return (
        f"on {series.show_time(i)} {name!r} steps by {ratio[i] / ratio[i - 1]:.4g}, but "
        f"the split {series.split[i]:g} and the dividend {series.dividend[i]:g} make "
        f"{factor[i] / factor[i - 1]:.4g}; one of them is wrong",
    )


def _refuse_disorder(
    moments: npt.NDArray[np.datetime64], columns: Columns, frame: pd.DataFrame
) -> None:
    """Refuse a date that is there twice, or earlier than the one before."""
    wrong = np.diff(moments) <= np.timedelta64(0)
    if not wrong.any():
        return
    role = DATE if DATE in columns.position else CLOSED_AT
    cells, where = frame[columns.position[role]], columns.table.rows(frame)
    i = int(np.argmax(wrong)) + 1
    earlier = np.flatnonzero(moments[:i] == moments[i])
    if len(earlier):
        raise InvalidBarsError(
            f"{columns.name(role)} {str(cells.iloc[i])!r} {where(i)} is repeated, it is there "
            f"{where(int(earlier[0]))} too; keep one, or add a column 'symbol'"
        )
    raise InvalidBarsError(
        f"{columns.name(role)} {str(cells.iloc[i])!r} {where(i)} is earlier than the bar before; "
        "sort the file by date"
    )


def _undo_adjustment(
    symbol: str,
    bars: pd.DataFrame,
    moments: npt.NDArray[np.datetime64],
    notes: tuple[str, ...],
) -> BarSeries:
    """Return the series of a table of yfinance's, whose prices have splits in them already.

    With an adjusted close, or without dividends, prices become those that were traded. Else the
    prices have the dividends too, and stay adjusted: that is the total return.
    """
    index = pd.DatetimeIndex(moments)
    frame = bars.set_axis(index, axis=0).rename(columns=str.title)
    frame = frame.rename(columns={"Split": "Stock Splits", "Dividend": "Dividends"})
    for name, default in (("Volume", np.nan), ("Stock Splits", 0.0), ("Dividends", 0.0)):
        frame[name] = frame[name].fillna(default) if name in frame else default
    try:
        traded = undo_splits(symbol, frame, closed_at=list(bars[CLOSED_AT]))
    except DataSourceError as error:
        raise InvalidBarsError(
            f"{str(error).removeprefix('yfinance: ').partition(';')[0]}; where prices are as "
            "traded, call the columns 'split' and 'dividend'"
        ) from None
    if ADJUSTED in bars or not (frame["Dividends"] > 0).any():
        return replace(traded, notes=notes)
    notes += (
        "prices have the dividends in them already, as yfinance saves them without 'Adj Close': "
        "total returns are right, prices are not those that were traded",
    )
    plain = bars[[c for c in (CLOSED_AT, *PRICES, "volume") if c in bars]]
    return BarSeries.from_frame(symbol, plain, notes)
