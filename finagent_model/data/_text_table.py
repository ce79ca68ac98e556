"""Tables in text files by their content: encoding, separator, header, lines that are no rows.

Numbers are left to pandas where they are plain, so that a plain file is read to the last bit as it
ever was.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finagent_model.data._bar_dates import is_date
from finagent_model.data._numbers import NA_WORDS, Decimal, find_decimal
from finagent_model.data._raw_table import LEVELS, RawTable, normalize_column
from finagent_model.data.vendors import (
    DATE_NAMES,
    KNOWN_NAMES,
    SYMBOL_COLUMNS,
    Vendor,
    find_headerless,
)
from finagent_model.errors import DataSourceError

SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
SAMPLE_LINES = 60
SAMPLE_ROWS = 500
"""Rows by which the decimal mark is told."""
MAX_FOOTER_LINES = 20
MAX_HEADER_LINE = 20
"""Lines that may stand above the header."""
COMPRESSED = (".gz", ".zip")
TEXT_SUFFIXES = (".csv", ".txt", ".tsv")
_DATE_WORDS = frozenset(name for name in KNOWN_NAMES if "date" in name or "time" in name)
_TOO_LONG = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


def read_bytes(file: Path) -> bytes:
    """Return the content of a file, unpacked from gzip or from a zip of one file."""
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) != 1:
                raise ValueError(f"the zip holds {len(members)} files; unpack it")
            return archive.read(members[0])
    return data


def decode_beginning(data: bytes) -> str:
    """Return the text of a file's first bytes, of which the last letter may be cut."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[1:2] == b"\x00":
        return decode(data[: len(data) // 4 * 4])[0]
    return decode(data[: data.rfind(b"\n") + 1] or data)[0]


def decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return text and, where it is not UTF-8, a note. Raises ValueError for what is no text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16"), ()
    if data[1:2] == b"\x00" and data[3:4] == b"\x00":
        return data.decode("utf-16-le"), ()
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        if b"\x00" in data:
            raise
        return data.decode("cp1252", errors="replace"), ("not UTF-8: read as Windows-1252",)


def looks_like_table(text: str) -> bool:
    """Tell whether a text has a header, or first line, of bars."""
    lines = _lines(text)
    header = _find_header(lines[:SAMPLE_LINES])
    if header is not None:
        return header.known >= 3
    return find_headerless(next((line for line in lines if line.strip()), "")) is not None


def read_text_table(data: bytes, decimal: Decimal | None = None) -> RawTable:
    """Return the table of a text file; `decimal` is its decimal mark, where somebody said so.

    Raises ValueError, DataSourceError and InvalidBarsError for what is none.
    """
    text, notes = decode(data)
    if not text.strip():
        raise ValueError("it is empty")
    lines = _lines(text)
    header = _find_header(lines[:SAMPLE_LINES])
    start = next(i for i, line in enumerate(lines) if line.strip())
    if header is None and (vendor := find_headerless(lines[start].strip())) is not None:
        columns, first, separator = vendor.order, start, ","
        return _read_body(lines, first, columns, separator, notes, decimal, vendor)
    if header is None:
        header = _guess_header(lines, start)
    columns, first = _columns(lines, header)
    return _read_body(lines, first, columns, header.separator, notes, decimal, None)


@dataclass(frozen=True)
class _Header:
    line: int
    separator: str
    cells: tuple[str, ...]
    known: int
    """How many of its cells are names that are known."""


def _lines(text: str) -> list[str]:
    # Not splitlines: a field may hold U+2028.
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")


def split_line(line: str, separator: str) -> list[str]:
    """Return the cells of a line; quotes hold separators."""
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _find_header(lines: Sequence[str]) -> _Header | None:
    """Return the line and separator with the most known names; None where no line has two."""
    best: _Header | None = None
    for number, line in enumerate(lines[:MAX_HEADER_LINE]):
        for separator in SEPARATORS:
            cells = tuple(split_line(line, separator))
            known = len({normalize_column(c) for c in cells} & KNOWN_NAMES)
            if known >= 2 and len(cells) >= 3 and (best is None or known > best.known):
                best = _Header(number, separator, cells, known)
    return best


def _guess_header(lines: Sequence[str], start: int) -> _Header:
    """Return the first line as a header, with the separator that most lines share."""
    sample = [line for line in lines[start : start + SAMPLE_LINES] if line.strip()]
    separator = max(SEPARATORS, key=lambda s: min(len(split_line(line, s)) for line in sample))
    cells = tuple(split_line(lines[start], separator))
    if is_date(cells[0]) and len(cells) >= 2:
        raise DataSourceError(
            "it has no header; write date,open,high,low,close,volume above its first line "
            f"{lines[start][:60]!r}, in the order of its columns"
        )
    return _Header(start, separator, cells, 0)


def _level_above(lines: Sequence[str], header: _Header) -> tuple[str, ...]:
    """Return the line above a header of several levels, else nothing."""
    if header.line == 0 or not _is_index_name(lines, header.line + 1, header.separator):
        return ()
    above = tuple(split_line(lines[header.line - 1], header.separator))
    return above if len(above) == len(header.cells) else ()


def _is_index_name(lines: Sequence[str], number: int, separator: str) -> bool:
    """Tell whether a line is `Date,,,`, as pandas writes below the levels of a header."""
    if number >= len(lines):
        return False
    first, *rest = split_line(lines[number], separator) or [""]
    return normalize_column(first) in _DATE_WORDS and bool(rest) and not any(rest)


def _columns(lines: Sequence[str], header: _Header) -> tuple[tuple[str, ...], int]:
    """Return the column names and the first line of rows; levels are joined by a tab."""
    line, separator = header.line, header.separator
    if _is_index_name(lines, line + 1, separator):
        name = split_line(lines[line + 1], separator)[0]
        above = _level_above(lines, header)
        if not above:
            return (name, *header.cells[1:]), line + 2
        return (name, *_join_levels(header.cells[1:], above[1:])), line + 2
    if _is_index_name(lines, line + 2, separator):
        below = tuple(split_line(lines[line + 1], separator))
        name = split_line(lines[line + 2], separator)[0]
        return (name, *_join_levels(header.cells[1:], below[1:])), line + 3
    return header.cells, line + 1


def _join_levels(fields: Sequence[str], tickers: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{a}{LEVELS}{b}" for a, b in zip(fields, tickers, strict=False))


def _read_body(
    lines: Sequence[str],
    first: int,
    columns: tuple[str, ...],
    separator: str,
    notes: tuple[str, ...],
    decimal: Decimal | None,
    vendor: Vendor | None,
) -> RawTable:
    """Read the rows from line `first` on with pandas. Raises DataSourceError naming a bad line."""
    form = f"separated by {SEPARATORS[separator]}"
    body = [line for line in lines[first : first + SAMPLE_ROWS] if line.strip()]
    sample = list(csv.reader(body, delimiter=separator, skipinitialspace=True))
    width = len(columns)
    if sample and len(sample[0]) == 1 < width:
        raise DataSourceError(
            f"line {first + 1} has one field where the header has {width} ({form}); separate all "
            "lines alike"
        )
    if sample and len(sample[0]) > width:
        extra = sample[0][width:]
        if any(cell.strip() for cell in extra):
            raise DataSourceError(
                f"line {first + 1} has {len(sample[0])} fields where the header has {width} "
                f"({form}); name every column, or put decimal commas into quotes"
            )
        width = len(sample[0])
    names = [normalize_column(c) for c in columns]
    texts = {
        i
        for i, name in enumerate(names)
        if name in DATE_NAMES or name in SYMBOL_COLUMNS or name in _DATE_WORDS
    }
    if vendor or not texts:
        texts.add(0)
    numbers = [i for i in range(width) if i not in texts]
    end = _end_of_rows(lines, first, separator, min(texts))
    if end < len(lines) and (below := [line for line in lines[end:] if line.strip()]):
        notes += (f"passed over below the last row: {below[0][:60]!r}",)
    priced = [i for i in numbers if i < len(names) and _is_known(names[i])]
    decimal = decimal or find_decimal(row[i] for row in sample for i in priced if i < len(row))
    # pandas would take the thousands of 1.234 for a fraction.
    if decimal == ",":
        texts |= set(priced)
    # A ticker may be called NA.
    missing: dict[Any, list[str]] = {i: list(NA_WORDS) for i in numbers if i not in texts}
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(lines[first:end]) + "\n"),
            sep=separator,
            header=None,
            names=list(range(width)),
            index_col=False,
            dtype=dict.fromkeys(texts, str),
            na_values=missing,
            keep_default_na=False,
            skipinitialspace=True,
            skip_blank_lines=False,
            low_memory=False,
        )
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame(columns=list(range(width)))
    except pd.errors.ParserError as error:
        if (found := _TOO_LONG.search(str(error))) is None:
            raise
        fields, line, saw = (int(number) for number in found.groups())
        raise DataSourceError(
            f"line {first + line} has {saw} fields where the header has {fields} ({form}); "
            "name every column, or put decimal commas into quotes"
        ) from None
    frame = frame[list(range(len(columns)))]
    return RawTable(columns, frame, form, first + 1, vendor, notes, decimal)


def _end_of_rows(lines: Sequence[str], first: int, separator: str, date_column: int) -> int:
    """Return the number of the first line below the last row of a table.

    A line is no row if it has no date and at most one number.
    """
    end = len(lines)
    while end > first:
        cells = split_line(lines[end - 1], separator)
        date_cell = cells[date_column] if date_column < len(cells) else ""
        numbers = sum(any(c.isdigit() for c in cell) for cell in cells)
        if is_date(date_cell.strip()) or numbers > 1 or end < len(lines) - MAX_FOOTER_LINES:
            break
        end -= 1
    return end


def has_levels(text: str) -> bool:
    """Tell whether a text begins with a header of two levels."""
    lines = _lines(text)[:MAX_HEADER_LINE]
    header = _find_header(lines)
    return header is not None and LEVELS in "".join(_columns(lines, header)[0])


def _is_known(name: str) -> bool:
    """Tell whether a name, or the field of one of two levels, is that of a column that is read."""
    return any(part in KNOWN_NAMES for part in name.split(LEVELS))
