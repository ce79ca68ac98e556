"""A few bad rows of a history are mended and said; more of them, and what a user made, are not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_files import FolderBars
from finagent_model.data.bar_tables import parse_bars
from finagent_model.errors import InvalidBarsError
from finagent_model.market.bars import BarSeries

DAYS = [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2024-01-01", periods=60)]
HEADER = "date,open,high,low,close,volume,split,dividend"
GOOD = "10,11,9,10,100,1,0"


def rows(**changed: str) -> list[str]:
    """Sixty good rows, some of them changed by the number of their day."""
    by_day = {int(day.removeprefix("d")): row for day, row in changed.items()}
    return [f"{day},{by_day.get(i, GOOD)}" for i, day in enumerate(DAYS)]


def read(folder: Path, lines: list[str], hints: str = "") -> BarSeries:
    (folder / "X.csv").write_text("\n".join([HEADER, *lines]))
    if hints:
        (folder / "bars.yaml").write_text(hints)
    return FolderBars(folder).bars("X")


@pytest.mark.parametrize("field", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", ["", "0", "-1", "nan"])
def test_mend_passes_over_row_with_one_bad_price(tmp_path: Path, field: str, value: str) -> None:
    cells = dict(zip(HEADER.split(",")[1:], GOOD.split(","), strict=True)) | {field: value}
    bars = read(tmp_path, rows(d7=",".join(cells.values())))
    assert len(bars) == 59
    assert bars.notes == (f"prices can't be right on {DAYS[7]}; passed over",)


def test_mend_widens_range_by_a_hair(tmp_path: Path) -> None:
    bars = read(tmp_path, rows(d7="10,11,10.003,10.5,100,1,0", d9="10,10.9999,9,11,100,1,0"))
    assert (len(bars), bars.low[7], bars.high[9]) == (60, 10.0, 11.0)
    (note,) = bars.notes
    assert note == (
        "high or low missed open or close by a fraction of 0.0003 at most on "
        f"{DAYS[7]} and 1 more; widened"
    )


def test_mend_passes_over_row_far_out_of_its_range(tmp_path: Path) -> None:
    bars = read(tmp_path, rows(d7="10,11,10.5,10.7,100,1,0"))
    assert (len(bars), bars.notes) == (
        59,
        (f"prices can't be right on {DAYS[7]}; passed over",),
    )


def test_mend_takes_later_of_day_that_is_there_twice(tmp_path: Path) -> None:
    lines = [*rows(), f"{DAYS[-1]},10,12,9,11.5,150,1,0"]
    bars = read(tmp_path, lines)
    assert (len(bars), bars.close[-1]) == (60, 11.5)
    assert bars.notes == (f"there twice: {DAYS[-1]}; the later row counts",)


def test_mend_newest_first_with_day_twice(tmp_path: Path) -> None:
    lines = [*rows(), f"{DAYS[-1]},10,12,9,11.5,150,1,0"]
    bars = read(tmp_path, lines[::-1])
    assert (len(bars), bars.close[-1]) == (60, 11.5)
    assert "the newest bar stood first; sorted" in bars.notes


def test_mend_keeps_actions_of_rows_that_go(tmp_path: Path) -> None:
    lines = rows(d7="0,11,9,10,100,2,0.5", d8="10,11,9,10,100,1,0.25")
    twice = f"{DAYS[20]},10,11,9,10,100,4,0"
    lines.insert(20, twice)
    bars = read(tmp_path, lines)
    assert len(bars) == 59
    assert (bars.split[7], bars.dividend[7], bars.split[19]) == (2.0, 0.75, 4.0)
    assert (bars.split.sum(), bars.dividend.sum()) == (59 - 2 + 6, 0.75)


def test_mend_refuses_day_twice_with_two_splits(tmp_path: Path) -> None:
    lines = rows(d20="10,11,9,10,100,2,0")
    lines.insert(20, f"{DAYS[20]},10,11,9,10,100,4,0")
    with pytest.raises(InvalidBarsError, match="is repeated"):
        read(tmp_path, lines)


def test_mend_refuses_many_bad_rows(tmp_path: Path) -> None:
    bad = "0,11,9,10,100,1,0"
    with pytest.raises(InvalidBarsError, match="open is not a positive number at bar 1"):
        read(tmp_path, rows(d1=bad, d2=bad, d3=bad, d4=bad))


def test_mend_is_left_out_where_asked(tmp_path: Path) -> None:
    with pytest.raises(InvalidBarsError, match="open is not a positive number at bar 7"):
        read(tmp_path, rows(d7="0,11,9,10,100,1,0"), "on_bad_rows: refuse\n")


def test_mend_of_database_is_by_choice() -> None:
    table = pd.DataFrame({"date": DAYS, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0})
    table.loc[7, "open"] = 0.0
    with pytest.raises(InvalidBarsError, match="open is not a positive number at bar 7"):
        parse_bars("X", table)
    assert len(parse_bars("X", table, Hints(on_bad_rows="mend"))) == 59


def test_mend_of_missing_adjusted_close(tmp_path: Path) -> None:
    lines = [
        f"{day},10,11,9,10,{'' if i == 7 else 9.9 if i < 30 else 10}" for i, day in enumerate(DAYS)
    ]
    (tmp_path / "X.csv").write_text("\n".join(["date,open,high,low,close,adj_close", *lines]))
    bars = FolderBars(tmp_path).bars("X")
    assert (len(bars), bars.dividend[29]) == (59, pytest.approx(0.1))


def test_mend_changes_nothing_of_clean_rows(tmp_path: Path) -> None:
    assert read(tmp_path, rows()).notes == ()


def test_mend_keeps_split_before_zeros_of_yfinance(tmp_path: Path) -> None:
    lines = [f"{day},10,11,9,10,100,0.0,0.0" for day in DAYS]
    lines[7] = f"{DAYS[7]},,11,9,10,100,0.0,4.0"
    header = "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits"
    (tmp_path / "X.csv").write_text("\n".join([header, *lines]))
    bars = FolderBars(tmp_path).bars("X")
    assert (len(bars), bars.split[7], bars.close[6]) == (59, 4.0, 40.0)
