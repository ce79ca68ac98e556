"""The bundled bars, and the splits and dividends that are read back from adjusted closes."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from finagent_model.data.bundled import BundledBars, infer_actions
from finagent_model.errors import InvalidBarsError, UnknownSymbolError
from finagent_model.market.bars import BarSeries, Floats


@pytest.fixture(scope="module")
def source() -> BundledBars:
    return BundledBars()


def bar(series: BarSeries, day: str) -> int:
    found = [
        i for i in range(len(series)) if series.close_time(i).date() == date.fromisoformat(day)
    ]
    assert len(found) == 1
    return found[0]


def change(series: BarSeries, day: str) -> float:
    """Of the close against the close before."""
    i = bar(series, day)
    return float(series.close[i] / series.close[i - 1] - 1)


def whole(series: BarSeries) -> float:
    return float(series.close[-1] / series.close[0] - 1)


def test_bundled_bars_have_five_complete_symbols(source: BundledBars) -> None:
    assert source.name == "bundled"
    assert source.symbols() == ("AAPL", "FB", "GOOG", "IBM", "MSFT")
    lengths = {symbol: len(source.bars(symbol)) for symbol in source.symbols()}
    assert lengths == {"AAPL": 3270, "FB": 196, "GOOG": 2148, "IBM": 3270, "MSFT": 3270}


def test_bundled_bars_close_on_their_date_in_utc(source: BundledBars) -> None:
    google = source.bars("GOOG")
    assert google.close_time(0).isoformat() == "2004-08-19T21:00:00+00:00"
    assert google.close_time(-1).isoformat() == "2013-03-01T21:00:00+00:00"


def test_bundled_bars_read_file_once(source: BundledBars) -> None:
    assert source.bars("IBM") is source.bars("IBM")


def test_bundled_bars_unknown_symbol_lists_symbols(source: BundledBars) -> None:
    message = "unknown symbol 'XYZ' in bundled; it has: AAPL, FB, GOOG, IBM, MSFT"
    with pytest.raises(UnknownSymbolError, match=message):
        source.bars("XYZ")


def test_bundled_split_is_no_crash_in_returns(source: BundledBars) -> None:
    apple = source.bars("AAPL")
    assert apple.split[bar(apple, "2005-02-28")] == 2.0
    assert change(apple, "2005-02-28") == pytest.approx(-0.496, abs=5e-4)
    assert change(apple.adjust_to_first_bar(), "2005-02-28") == pytest.approx(0.0082, abs=5e-5)


def test_bundled_real_crash_stays(source: BundledBars) -> None:
    apple = source.bars("AAPL")
    i = bar(apple, "2000-09-29")
    assert (apple.split[i], apple.dividend[i]) == (1.0, 0.0)
    assert change(apple, "2000-09-29") == pytest.approx(-0.519, abs=5e-4)
    assert change(apple.adjust_to_first_bar(), "2000-09-29") == pytest.approx(
        change(apple, "2000-09-29")
    )


def test_bundled_special_dividend_is_no_split(source: BundledBars) -> None:
    microsoft = source.bars("MSFT")
    i = bar(microsoft, "2004-11-15")
    assert microsoft.split[i] == 1.0
    assert microsoft.dividend[i] == pytest.approx(3.08, rel=0.02)  # $3 special, $0.08 regular
    assert change(microsoft, "2004-11-15") == pytest.approx(-0.0861, abs=5e-4)
    assert change(microsoft.adjust_to_first_bar(), "2004-11-15") > 0


@pytest.mark.parametrize(
    ("symbol", "days"),
    [
        ("AAPL", ["2000-06-21", "2005-02-28"]),
        ("MSFT", ["2003-02-18"]),
        ("IBM", []),
        ("GOOG", []),
        ("FB", []),
    ],
)
def test_bundled_splits_match_record(source: BundledBars, symbol: str, days: list[str]) -> None:
    series = source.bars(symbol)
    found = np.flatnonzero(series.split != 1.0).tolist()
    assert [series.close_time(i).date().isoformat() for i in found] == days
    assert (series.split[found] == 2.0).all()


@pytest.mark.parametrize(
    ("symbol", "payments", "day", "cash"),
    [
        ("AAPL", 3, "2012-08-09", 2.65),
        ("MSFT", 37, "2003-02-19", 0.08),
        ("IBM", 52, "2006-05-08", 0.30),
        ("GOOG", 0, None, None),
        ("FB", 0, None, None),
    ],
)
def test_bundled_dividends_match_record(
    source: BundledBars, symbol: str, payments: int, day: str | None, cash: float | None
) -> None:
    series = source.bars(symbol)
    assert np.count_nonzero(series.dividend) == payments
    if day is not None:
        assert series.dividend[bar(series, day)] == pytest.approx(cash, rel=0.02)


@pytest.mark.parametrize(
    ("symbol", "raw", "growth"),
    [("AAPL", 2.30, 12.41), ("MSFT", -0.69, -0.18), ("IBM", 1.02, 1.38), ("GOOG", 7.03, 7.03)],
)
def test_bundled_buy_hold_needs_actions(
    source: BundledBars, symbol: str, raw: float, growth: float
) -> None:
    series = source.bars(symbol)
    assert whole(series) == pytest.approx(raw, abs=0.005)
    assert whole(series.adjust_to_first_bar()) == pytest.approx(growth, abs=0.005)


def test_bundled_growth_matches_adjusted_close() -> None:
    close = np.array([100.0, 102.0, 50.0, 51.0, 50.0, 52.0])
    split = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    dividend = np.array([0.0, 0.0, 0.0, 0.0, 0.75, 0.0])
    factor = np.cumprod(np.r_[1.0, split[1:] * close[:-1] / (close[:-1] - dividend[1:])])
    found_split, found_dividend = infer_actions("X", close, 0.37 * close * factor)
    np.testing.assert_array_equal(found_split, split)
    np.testing.assert_allclose(found_dividend, dividend, rtol=1e-12, atol=1e-12)


def stepping(step: float) -> tuple[Floats, Floats]:
    close = np.full(3, 50.0)
    return close, close * np.array([1.0, 1.0, step])


@pytest.mark.parametrize(
    ("step", "ratio"),
    [
        *[(2.0, 2.0), (2.009, 2.0), (1.5, 1.5), (1.25, 1.25), (3.0, 3.0), (20.0, 20.0), (7.0, 7.0)],
        *[(0.1, 0.1), (0.5, 0.5), (0.05, 0.05), (0.8, 0.8), (2 / 3, 2 / 3)],
    ],
)
def test_infer_actions_step_near_ratio_is_split(step: float, ratio: float) -> None:
    split, dividend = infer_actions("X", *stepping(step))
    assert split.tolist() == [1.0, 1.0, ratio]
    assert dividend.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("step", [1.0002, 1.005, 1.1, 1.2, 1.24])
def test_infer_actions_other_step_is_dividend(step: float) -> None:
    split, dividend = infer_actions("X", *stepping(step))
    assert split.tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(dividend, [0.0, 0.0, 50.0 * (1 - 1 / step)], rtol=1e-12)


@pytest.mark.parametrize("step", [1.0, 1.00009, 0.99991])
def test_infer_actions_ignores_rounding(step: float) -> None:
    split, dividend = infer_actions("X", *stepping(step))
    assert (split == 1.0).all()
    assert (dividend == 0.0).all()


@pytest.mark.parametrize("step", [0.9998, 0.95, 0.85])
def test_infer_actions_names_bar_of_invalid_step(step: float) -> None:
    with pytest.raises(InvalidBarsError, match=r"bars of X: the adjusted close steps .* at bar 2"):
        infer_actions("X", *stepping(step))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_infer_actions_names_bar_of_invalid_price(bad: float) -> None:
    close = np.full(3, 50.0)
    with pytest.raises(InvalidBarsError, match="adjusted close is not a positive number at bar 1"):
        infer_actions("X", close, np.array([50.0, bad, 50.0]))


def test_infer_actions_ignores_later_bars(source: BundledBars) -> None:
    close = source.bars("IBM").close[:400]
    adjusted = source.bars("IBM").adjust_to_first_bar().close[:400]
    split, dividend = infer_actions("IBM", close, adjusted)
    for cut in range(0, 400, 7):
        part_split, part_dividend = infer_actions("IBM", close[:cut], adjusted[:cut])
        assert part_split.tobytes() == split[:cut].tobytes()
        assert part_dividend.tobytes() == dividend[:cut].tobytes()
