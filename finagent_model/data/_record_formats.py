"""Files of news and facts in any form, as rows: JSON Lines, JSON, CSV, Parquet, RSS and Atom.

A row that can't be read is a row with its problem; only a file that is no such file is refused as a
whole. Files are bounded in bytes and rows, and nothing is looked up elsewhere.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finagent_model._base import show_value
from finagent_model.data._feeds import read_feed
from finagent_model.data._record_fields import iterate_lists, spell
from finagent_model.data._text_table import SEPARATORS, decode, split_line
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import PRICES

MAX_BYTES = 256 * 2**20
"""Of a file, unpacked."""
MAX_ROWS = 1_000_000
MAX_HEADER = 10_000
"""Bytes of a first line."""
MAX_CELL_LINES = 50
"""Lines that one quoted cell may span; a quote that is never closed costs its own line."""
LINES_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
FEED_SUFFIXES = (".xml", ".rss", ".atom")
RECORD_SUFFIXES = (*LINES_SUFFIXES, ".json", ".csv", ".tsv", *PARQUET_SUFFIXES, *FEED_SUFFIXES)
"""Suffixes of the files of a folder, each also with `.gz` but for Parquet."""


@dataclass(frozen=True)
class RecordRow:
    """One row of a file."""

    where: str
    """Such as `line 17` or `item 3`."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """By the file's own names."""
    problem: str = ""
    """Why it can't be read; empty for a row that can."""


@dataclass(frozen=True)
class RecordRows:
    """The rows of a file, and its columns where it is a table."""

    rows: Iterator[RecordRow]
    columns: tuple[str, ...] | None = None
    numbers_are_text: bool = False


def record_suffix(name: str) -> str:
    """Return the lower-case suffix of a file's name, without `.gz`."""
    return Path(name.lower().removesuffix(".gz")).suffix


def read_rows(file: Path) -> RecordRows:
    """Return the rows of a file. Raises DataSourceError for a file that has none to read."""
    suffix = record_suffix(file.name)
    if suffix in PARQUET_SUFFIXES:
        return _read_parquet(file)
    data = read_limited(file)
    if suffix in FEED_SUFFIXES:
        items = (RecordRow("", item) for item in read_feed(data, file))
        return RecordRows(_count(file, "item", items))
    try:
        text, _ = decode(data) if suffix in TEXT_SUFFIXES else (data.decode("utf-8-sig"), ())
    except ValueError as error:
        raise DataSourceError(
            f"{file} can't be read ({error}); give a UTF-8 file with one JSON object a line, or "
            "a CSV, Parquet, JSON, RSS or Atom file with its suffix"
        ) from error
    if suffix in TEXT_SUFFIXES:
        return _read_csv(file, text)
    if suffix == ".json":
        return _read_json(file, text)
    return RecordRows(_read_lines(text))


def holds_bars(file: Path) -> bool:
    """Tell whether a file of a folder is a table of bars, which has its own source."""
    suffix = record_suffix(file.name)
    try:
        if suffix in PARQUET_SUFFIXES:
            import pyarrow.parquet

            columns = pyarrow.parquet.read_schema(file).names
        elif suffix in TEXT_SUFFIXES:
            with (
                gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream
            ):
                columns = re.split(r"[,;\t|]", decode(stream.readline(MAX_HEADER))[0])
        else:
            return False
    except Exception:  # said when the file is read
        return False
    return {spell(column).strip('"') for column in columns} >= {*PRICES}


def read_limited(file: Path) -> bytes:
    """Return the content of a file, unpacked from gzip. Raises DataSourceError."""
    try:
        with file.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else file.open("rb") as stream:
            data: bytes = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise DataSourceError(
            f"{file} can't be read ({error}); give a file with one JSON object a line, or a CSV, "
            "Parquet, JSON, RSS or Atom file"
        ) from error
    if len(data) > MAX_BYTES:
        raise DataSourceError(f"{file} has more than {MAX_BYTES >> 20} MiB; split it by symbol")
    return data


def _read_lines(text: str) -> Iterator[RecordRow]:
    # Not splitlines: a headline may hold U+2028, which JSON allows unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            yield RecordRow(where, problem=f"not JSON ({reason}): {show_value(line)}")
            continue
        yield _object_row(where, row)


def _object_row(where: str, row: Any) -> RecordRow:
    if not isinstance(row, dict):
        problem = (
            f'not an object but {show_value(row)}; write {{"symbol": ..., "published_at": ...}}'
        )
        return RecordRow(where, problem=problem)
    return RecordRow(where, row)


def _read_json(file: Path, text: str) -> RecordRows:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if getattr(error, "msg", "") == "Extra data":  # a second object: one a line
            return RecordRows(_read_lines(text))
        raise DataSourceError(f"{file} is not JSON ({getattr(error, 'msg', error)})") from error
    if isinstance(document, dict) and {"facts", "filings"} & set(document):
        raise DataSourceError(
            f"{file} is EDGAR's; name its folder edgar:{file.parent} for news and fundamentals"
        )
    # The longest, where there are several: others hold tags or errors.
    items = max(iterate_lists(document), key=len, default=None)
    if items is None:
        raise DataSourceError(f"{file} holds no list of items; give an array of objects")
    return RecordRows(_count(file, "item", (_object_row("", item) for item in items)))


def _count(file: Path, word: str, rows: Iterator[RecordRow]) -> Iterator[RecordRow]:
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise DataSourceError(f"{file} has more than {MAX_ROWS} items; split it by symbol")
        yield RecordRow(f"{word} {number}", row.fields, row.problem)


def _read_csv(file: Path, text: str) -> RecordRows:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise DataSourceError(f"{file} is empty; begin with a header such as {_HEADER}")
    separator = max(SEPARATORS, key=lambda each: len(split_line(lines[start], each)))
    columns = tuple(split_line(lines[start], separator))
    if len(columns) < 2:
        raise DataSourceError(
            f"{file}: its first line {show_value(lines[start])} is no header; begin with one such "
            f"as {_HEADER}"
        )
    rows = _csv_rows(lines, start + 1, columns, separator)
    return RecordRows(_bound(file, rows), columns, numbers_are_text=True)


_HEADER = "symbol,published_at,headline"


def _csv_rows(
    lines: list[str], first: int, columns: tuple[str, ...], separator: str
) -> Iterator[RecordRow]:
    i = first
    while i < len(lines):
        where, begin = f"line {i + 1}", lines[i]
        if not begin.strip():
            i += 1
            continue
        text, end = begin, i + 1
        while text.count('"') % 2 and end < min(len(lines), i + MAX_CELL_LINES):
            text, end = f"{text}\n{lines[end]}", end + 1
        is_open = text.count('"') % 2 == 1
        if is_open:
            text, end = begin, i + 1
        try:
            # Strict: else the rest of a line would belong to a quote that nothing closes.
            source = io.StringIO(text, newline="")
            rows = list(csv.reader(source, delimiter=separator, strict=is_open))
        except csv.Error as error:
            problem = "a quote is not closed" if is_open else str(error)
            yield RecordRow(where, problem=f"{problem}: {show_value(begin)}")
            i += 1
            continue
        # Several rows: the quote was a letter of its line, and closed none of the next.
        i = end if len(rows) == 1 else i + 1
        cells = rows[0]
        if len(cells) != len(columns):
            problem = (
                f"{len(cells)} fields where the header has {len(columns)}: {show_value(begin)}"
            )
            yield RecordRow(where, problem=problem)
            continue
        yield RecordRow(where, dict(zip(columns, cells, strict=True)))


def _bound(file: Path, rows: Iterator[RecordRow]) -> Iterator[RecordRow]:
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise DataSourceError(f"{file} has more than {MAX_ROWS} rows; split it by symbol")
        yield row


def _read_parquet(file: Path) -> RecordRows:
    import pyarrow.parquet

    try:
        if pyarrow.parquet.read_metadata(file).num_rows > MAX_ROWS:
            raise DataSourceError(f"{file} has more than {MAX_ROWS} rows; split it by symbol")
        # Not through pandas: a date stays a date, and a time keeps its zone.
        table = pyarrow.parquet.read_table(file)
        rows = table.to_pylist()
    except DataSourceError:
        raise
    except Exception as error:  # a file can make a parser raise anything
        raise DataSourceError(f"{file} can't be read as Parquet ({error})") from error
    numbered = (RecordRow(f"row {i}", row) for i, row in enumerate(rows, start=1))
    return RecordRows(numbered, tuple(table.column_names))
