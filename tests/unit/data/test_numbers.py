"""Numbers as people write them, and which mark is the decimal one."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from finagent_model.data._numbers import Decimal, find_decimal, read_numbers, read_ratios
from finagent_model.errors import InvalidBarsError


def where(row: int) -> str:
    return f"in line {row + 2}"


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["1.5", "2"], "."),
        (["1,5"], ","),
        (["1.234,5"], ","),
        (["1,234.5"], "."),
        (["1,234,567"], "."),
        (["1.234.567"], ","),
        (["1,234", "1.5"], "."),
        (["1,234", "1,5"], ","),
        (["0,123"], ","),
        (["1.234"], "."),
        (["1,234"], None),
        (["text, more", "-", ""], "."),
    ],
)
def test_find_decimal_by_all_cells(cells: list[str], mark: Decimal | None) -> None:
    assert find_decimal(cells) == mark


def test_find_decimal_refuses_two_marks() -> None:
    with pytest.raises(InvalidBarsError, match=r"both as '1\.5' and as '1,5'"):
        find_decimal(["1.5", "1,5"])


@pytest.mark.parametrize(
    ("cell", "decimal", "number"),
    [
        ("$1,234.50", ".", 1234.5),
        ("1.234,50 €", ",", 1234.5),
        ("1'234.50", ".", 1234.5),
        ("1 234,50", ",", 1234.5),
        ("1.5M", ".", 1.5e6),
        ("6,40K", ",", 6400.0),
        ("2B", ".", 2e9),
        ("12.5 USD", ".", 12.5),
        ("1e-3", ".", 0.001),
        ("-", ".", math.nan),
        ("N/A", ".", math.nan),
        (None, ".", math.nan),
    ],
)
def test_read_numbers_cell_is_number(cell: str | None, decimal: Decimal, number: float) -> None:
    read = read_numbers(pd.Series([cell], dtype=object), "close", decimal, where)
    assert read[0] == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("cell", ["12,34", "5%", "five", "1,2,3", True])
def test_read_numbers_refusal_names_cell(cell: object) -> None:
    with pytest.raises(InvalidBarsError, match=f"Close '{cell}' in line 3 is not a number"):
        read_numbers(pd.Series([1.0, cell], dtype=object), "Close", ".", where)


@pytest.mark.parametrize(("cell", "ratio"), [("4:1", 4.0), ("1/30", 1 / 30), ("2", 2.0)])
def test_read_ratios_cell_is_ratio(cell: str, ratio: float) -> None:
    assert read_ratios(pd.Series([cell]), "split", ".", where).tolist() == [ratio]
