"""Numbers as people write them: decimal commas, thousands, currency signs, `1.5M`.

Whether a comma is a decimal or a thousands mark is told by all numbers of a file together, and
asked where they leave it open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd

from finagent_model.data.vendors import words
from finagent_model.errors import InvalidBarsError
from finagent_model.market.bars import Floats

Decimal = Literal[".", ","]
NA_WORDS = words(
    "#N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN None n/a nan null - --"
) | {"", "#N/A N/A"}
"""Cells that stand for no number: those of pandas, and dashes."""
_SUFFIX = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_AROUND = re.compile(r"^[\s$€£¥₹₽]+|[\s$€£¥₹₽]+$|^(?:USD|EUR|GBP)\s*|\s*(?:USD|EUR|GBP)$")
_BLANKS = r"' \u00a0\u202f\u2019"
"""Marks of thousands in any country."""
_GROUPS = {
    ".": re.compile(rf"[+-]?([1-9]\d{{0,2}}(?:[,{_BLANKS}]\d{{3}})+|\d*)(\.\d*)?(?:[eE][+-]?\d+)?"),
    ",": re.compile(rf"[+-]?([1-9]\d{{0,2}}(?:[.{_BLANKS}]\d{{3}})+|\d*)(,\d*)?"),
}
_MARKS = re.compile(f"[{_BLANKS}]")
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")


def find_decimal(cells: Iterable[str]) -> Decimal | None:
    """Return the decimal mark that the numbers among `cells` show.

    A dot where nothing speaks for a comma; None where each comma may be either mark. Raises
    InvalidBarsError where some show the one and some the other.
    """
    dots, commas, open_commas = "", "", ""
    for cell in cells:
        if "," not in cell and cell.count(".") < 2:
            # A plain number: one dot, or none.
            if "." in cell and cell.replace(".", "").isdigit() and not _ONE_GROUP.fullmatch(cell):
                dots = dots or cell
            continue
        text, _ = _bare(cell)
        if not text or not text[-1:].isdigit() or not (text[0].isdigit() or text[0] in "+-.,"):
            continue
        dot, comma = text.rfind("."), text.rfind(",")
        if dot >= 0 and comma >= 0:
            dots, commas = (text, commas) if dot > comma else (dots, text)
        elif comma >= 0:
            if text.count(",") > 1:
                dots = dots or text
            elif _ONE_GROUP.fullmatch(text):
                open_commas = text
            else:
                commas = text
        elif text.count(".") > 1:
            commas = commas or text
        elif dot >= 0 and not _ONE_GROUP.fullmatch(text):
            dots = dots or text
    if dots and commas:
        raise InvalidBarsError(
            f"numbers are written both as {dots!r} and as {commas!r}; write all of them one way"
        )
    if commas:
        return ","
    return None if open_commas and not dots else "."


def read_numbers(
    column: pd.Series[Any], label: str, decimal: Decimal, where: Callable[[int], str]
) -> Floats:
    """Return a column as floats; nan for cells that are empty or say so.

    Raises InvalidBarsError naming the first cell that is no number, with `label` and `where(row)`.
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return np.array(column, dtype=np.float64)
    numbers = np.empty(len(column))
    for i, cell in enumerate(column):
        number = read_number(cell, decimal)
        if number is None:
            raise InvalidBarsError(f"{label} {str(cell)!r} {where(i)} is not a number")
        numbers[i] = number
    return numbers


def read_ratios(
    column: pd.Series[Any], label: str, decimal: Decimal, where: Callable[[int], str]
) -> Floats:
    """Return a column of splits as `read_numbers` does; `4:1` and `4/1` are 4."""
    if pd.api.types.is_numeric_dtype(column):
        return read_numbers(column, label, decimal, where)
    return read_numbers(column.map(_quotient), label, decimal, where)


def _quotient(cell: Any) -> Any:
    parts = re.split(r"[:/]", cell) if isinstance(cell, str) else []
    if len(parts) != 2:
        return cell
    try:
        return str(float(parts[0]) / float(parts[1]))
    except (ValueError, ZeroDivisionError):
        return cell


def read_number(cell: Any, decimal: Decimal) -> float | None:
    """Return the number of a cell, nan for none; None where it is something else."""
    if cell is None or cell is pd.NA or isinstance(cell, bool | np.bool_):
        return None if isinstance(cell, bool | np.bool_) else np.nan
    if not isinstance(cell, str):
        try:
            return float(cell)
        except (TypeError, ValueError):
            return None
    if cell.strip() in NA_WORDS:
        return np.nan
    text, scale = _bare(cell)
    if not any(c.isdigit() for c in text):
        return None
    if not _GROUPS[decimal].fullmatch(text):
        return None
    text = _MARKS.sub("", text)
    text = text.replace(",", "") if decimal == "." else text.replace(".", "").replace(",", ".")
    return float(text) * scale


def _bare(cell: str) -> tuple[str, float]:
    """Return a cell without currency signs and suffix, and what the suffix multiplies with."""
    text = _AROUND.sub("", cell.strip()).strip()
    scale = _SUFFIX.get(text[-1:].lower())
    if scale is not None and text[:-1].strip()[-1:].isdigit():
        return text[:-1].strip(), scale
    return text, 1.0
