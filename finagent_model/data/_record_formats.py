"""Files of news and facts in any form, as rows: JSON Lines, JSON, CSV, Parquet, RSS and Atom.

A row that can't be read is a row with its problem; only a file that is no such file is refused as a
whole. Files are bounded in bytes and rows, and nothing is looked up elsewhere.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finagent_model._base import show_value
from finagent_model.data._feeds import read_feed
from finagent_model.data._record_fields import is_moment, spell
from finagent_model.data._text_table import SEPARATORS, decode, split_line
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import PRICES

MAX_BYTES = 256 * 2**20
"""Of a file, unpacked."""
MAX_ROWS = 1_000_000
MAX_HEADER = 10_000
"""Bytes of a first line."""
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
    notes: tuple[str, ...] = ()
    """What a reader should know about how the file was read."""


def record_suffix(name: str) -> str:
    """Return the lower-case suffix of a file's name, without `.gz`."""
    return Path(name.lower().removesuffix(".gz")).suffix


def read_rows(file: Path, dates: Collection[str]) -> RecordRows:
    """Return the rows of a file; `dates` are the names, as `spell` writes them, of its dates.

    Raises DataSourceError for a file that has none to read.
    """
    suffix = record_suffix(file.name)
    if suffix in PARQUET_SUFFIXES:
        return _read_parquet(file)
    data = read_limited(file)
    if suffix in FEED_SUFFIXES:
        items = (RecordRow("", item) for item in read_feed(data, file, MAX_ROWS))
        return RecordRows(_count(file, "item", items))
    try:
        text, notes = decode(data)
        if notes and suffix not in TEXT_SUFFIXES:
            data.decode("utf-8-sig")  # JSON is in Unicode: say what is wrong
    except ValueError as error:
        raise DataSourceError(
            f"{file} can't be read ({error}); give a UTF-8 file with one JSON object a line, or "
            "a CSV, Parquet, JSON, RSS or Atom file with its suffix"
        ) from error
    if suffix in TEXT_SUFFIXES:
        return replace(_read_csv(file, text, dates), notes=notes)
    if suffix == ".json":
        return _read_json(file, text, dates)
    return RecordRows(_bound(file, _read_lines(text)))


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


def _read_json(file: Path, text: str, dates: Collection[str]) -> RecordRows:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if getattr(error, "msg", "") == "Extra data":  # a second object: one a line
            return RecordRows(_bound(file, _read_lines(text)))
        raise DataSourceError(f"{file} is not JSON ({getattr(error, 'msg', error)})") from error
    if isinstance(document, list):
        return RecordRows(_count(file, "item", (_object_row("", item) for item in document)))
    if isinstance(document, dict) and {"facts", "filings"} & set(document):
        raise DataSourceError(
            f"{file} is EDGAR's; name its folder edgar:{file.parent} for news and fundamentals"
        )
    if not isinstance(document, dict) or not any(isinstance(v, list) for v in document.values()):
        raise DataSourceError(f"{file} holds no list of items; give an array of objects")
    lists = {key: value for key, value in document.items() if isinstance(value, list)}
    if len(lists) == len(document) and all(_TICKER.fullmatch(key) for key in lists):
        rows = (
            _object_row("", {"symbol": key, **item} if isinstance(item, dict) else item)
            for key, items in lists.items()
            for item in items
        )
        return RecordRows(_count(file, "item", rows))
    dated = [key for key, items in lists.items() if _are_records(items, dates)]
    if len(dated) > 1:
        raise DataSourceError(
            f"{file} holds several lists of items, {show_value(dated[0])} and "
            f"{show_value(dated[1])}; give an array of objects with their symbols, or an object "
            'with one list per symbol, in capitals, {"GOOG": [...], "MSFT": [...]}'
        )
    # Others hold tags or errors.
    items = lists[dated[0]] if dated else max(lists.values(), key=len)
    return RecordRows(_count(file, "item", (_object_row("", item) for item in items)))


_TICKER = re.compile(r"[A-Z0-9$^][A-Z0-9.:/=^-]{0,19}", re.ASCII)


def _are_records(items: list[Any], dates: Collection[str]) -> bool:
    return any(isinstance(item, dict) and set(map(spell, item)) & set(dates) for item in items)


def _count(file: Path, word: str, rows: Iterator[RecordRow]) -> Iterator[RecordRow]:
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise DataSourceError(f"{file} has more than {MAX_ROWS} items; split it by symbol")
        yield RecordRow(f"{word} {number}", row.fields, row.problem)


def _read_csv(file: Path, text: str, dates: Collection[str]) -> RecordRows:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    separators: Collection[str] = SEPARATORS
    # The first line by which Excel is told the separator.
    if start < len(lines) and (told := _SEPARATOR_LINE.fullmatch(lines[start].strip(" "))):
        start, separators = start + 1, told[1]
    if start >= len(lines):
        raise DataSourceError(f"{file} is empty; begin with a header such as {_HEADER}")
    separator = max(separators, key=lambda each: len(split_line(lines[start], each)))
    columns = tuple(split_line(lines[start], separator))
    if len(columns) < 2:
        raise DataSourceError(
            f"{file}: its first line {show_value(lines[start])} is not a header; begin with one "
            f"such as {_HEADER}"
        )
    dated = frozenset(i for i, column in enumerate(columns) if spell(column) in dates)
    rows = _csv_rows(lines, start + 1, columns, separator, dated)
    return RecordRows(_bound(file, rows), columns, numbers_are_text=True)


_HEADER = "symbol,published_at,headline"
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)


def _csv_rows(
    lines: list[str], first: int, columns: tuple[str, ...], separator: str, dated: frozenset[int]
) -> Iterator[RecordRow]:
    i = first
    while i < len(lines):
        begin, line = i, lines[i]
        if not line.strip():
            i += 1
            continue
        try:
            cells, i, pieces = _read_cells(lines, begin, separator)
        except ValueError as error:
            # It costs its own line: what stands below is read for itself.
            yield RecordRow(f"line {begin + 1}", problem=f"{error}: {show_value(line)}")
            i = begin + 1
            continue
        inner = [
            number
            for number, offset, piece in pieces
            if _holds_row(lines[number], offset, piece, len(columns), separator, dated)
        ]
        if inner:
            # Either a quote that is closed by chance, or a text that looks like rows: neither the
            # whole nor its lines can be trusted.
            problem = f"a quoted cell goes to line {i} and holds what looks like rows"
            yield RecordRow(f"line {begin + 1}", problem=f"{problem}: {show_value(line)}")
            for number in inner:
                if number != begin:
                    problem = f"it stands within the quoted cell of line {begin + 1}"
                    yield RecordRow(f"line {number + 1}", problem=problem)
            continue
        if len(cells) != len(columns):
            problem = f"{len(cells)} fields where the header has {len(columns)}: {show_value(line)}"
            yield RecordRow(f"line {begin + 1}", problem=problem)
            continue
        yield RecordRow(f"line {begin + 1}", dict(zip(columns, cells, strict=True)))


def _read_cells(
    lines: list[str], number: int, separator: str
) -> tuple[list[str], int, list[tuple[int, int, str]]]:
    """Return the cells of the row that begins at a line, and the number of the line below it.

    The third are the pieces of a cell that spans lines: line, number of the cell that the piece
    begins, text. A quote opens a cell only at its beginning, and closes it only before a separator
    or at the end of a line. Raises ValueError for another.
    """
    cells: list[str] = []
    pieces: list[tuple[int, int, str]] = []
    line, at = lines[number], 0
    while True:
        if not line.startswith('"', at):
            end = line.find(separator, at)
            cells.append(line[at:] if end < 0 else line[at:end])
            if end < 0:
                return cells, number + 1, pieces
            at = end + 1
            continue
        text: list[str] = []
        at += 1
        begun, offset, spans = at, len(cells), False
        while True:
            quote = line.find('"', at)
            if quote >= 0 and line.startswith('"', quote + 1):
                text.append(line[at : quote + 1])
                at = quote + 2
                continue
            if quote >= 0:
                text.append(line[at:quote])
                break
            text.append(line[at:] + "\n")
            pieces.append((number, offset, line[begun:]))
            number, begun, at, offset, spans = number + 1, 0, 0, 0, True
            if number == len(lines):
                raise ValueError("a quote is not closed")
            line = lines[number]
        if spans:
            pieces.append((number, offset, line[begun:quote]))
        cells.append("".join(text))
        at = quote + 1
        if at == len(line):
            return cells, number + 1, pieces
        if not line.startswith(separator, at):
            raise ValueError("a quote is not closed before the separator")
        at += 1


def _holds_row(
    line: str, offset: int, piece: str, width: int, separator: str, dated: frozenset[int]
) -> bool:
    """Tell whether a line of a quoted cell looks like a row: as many cells, and a date in place.

    `piece` is what of the line stands within the quotes, from cell `offset` on.
    """
    if len(split_line(line, separator)) < width and piece.count(separator) + offset + 1 < width:
        return False
    cells = split_line(piece, separator)
    return any(i + offset in dated and is_moment(cell) for i, cell in enumerate(cells))


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
