"""Verification of an audit: which lines were changed, removed, swapped or added since.

Each line names the hash of the one before, so trust runs backwards: from the head, or without one
from the last line, to the first. A line that is reached this way is as it was written. Where the
links break, they are taken up again at the next lower line that is intact in itself; from there on
the lines are known to belong together, but no longer to the head.

Whoever writes every hash again from some line on leaves a chain without a fault, but with another
head. Only a head that was kept elsewhere tells.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from finagent_model.audit.chain import (
    BEGIN,
    END,
    FORMAT,
    GENESIS,
    LONG_TEXT_CHARS,
    hash_text,
    map_texts,
    parse_reference,
)
from finagent_model.errors import BadInputError

MAX_SEQ = 10**12
"""No file has as many lines; a line with a higher number is unreadable."""
_SEALED_LINE = re.compile(r'(\{.*),"hash":"([0-9a-f]{64})"\}')


@dataclass(frozen=True, slots=True)
class ChainFault:
    """One difference from the audit as it was written."""

    line: int
    """From 1, in the file as it is. For removed lines, the number of the first in the chain."""
    what: Literal["changed", "removed", "swapped", "added", "cut off", "unreadable", "other head"]
    words: str


def verify_chain(text: str, head: str | None = None) -> tuple[ChainFault, ...]:
    """Return every fault of an audit, by line; none for one that is as it was written.

    Without `head` this says no more than that the lines agree with each other. Raises BadInputError
    for another format, and for a text in which no line is an audit's.
    """
    lines, complete = _parse_lines(text)
    if lines and not any(line.readable for line in lines):
        raise BadInputError("none of its lines is a line of an audit; name an audit.jsonl")
    end = _find_end(lines, head)
    genuine = _follow_links(lines, end)
    _require_format(genuine)
    moved = _out_of_order(genuine)
    faults = [
        *_find_impossible_lines(genuine, end),
        *_find_misplaced_lines(lines, genuine, moved),
        *_find_changed_lines(lines, genuine, moved, end),
    ]
    if not complete:
        # The last line broke off: whatever else is wrong with it follows from that.
        faults = [
            fault
            for fault in faults
            if fault.line != len(lines) or fault.what not in ("changed", "unreadable", "added")
        ]
        faults.append(ChainFault(max(len(lines), 1), "cut off", "the last line does not end"))
    elif end is None and not _may_be_end(lines[-1], head):
        faults.append(ChainFault(len(lines) + 1, "cut off", "the chain's last line is missing"))
    if end is not None and head not in (None, end.hash):
        words = f"the chain's head is {end.hash}, not {head}: it was written again"
        faults.append(ChainFault(end.number, "other head", words))
    if all(fault.what == "other head" for fault in faults):
        # Elsewhere a missing text follows from a line that is named already.
        faults += _find_dangling_references(lines)
    return tuple(sorted(faults, key=lambda fault: fault.line))


def read_head(text: str) -> str | None:
    """Return the hash that the last line states; None where it states none."""
    lines, _ = _parse_lines(text.rstrip("\n").rpartition("\n")[2])
    return lines[0].stated_hash or None if lines else None


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file, and what it says of itself: nothing where it is unreadable."""

    number: int
    hash: str
    """Of the line's content."""
    stated_hash: str = ""
    seq: int = 0
    prev: str = ""
    kind: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        return self.seq > 0

    @property
    def intact(self) -> bool:
        return self.readable and self.hash == self.stated_hash


def _parse_lines(text: str) -> tuple[list[_Line], bool]:
    """Return the lines, and whether the last of them is complete."""
    *complete, rest = text.split("\n")
    texts = [*complete, rest] if rest else complete
    return [_parse_line(i, line) for i, line in enumerate(texts, 1)], bool(complete) and not rest


def _parse_line(number: int, text: str) -> _Line:
    match = _SEALED_LINE.fullmatch(text)
    digest, stated = (hash_text(match[1] + "}"), match[2]) if match else (hash_text(text), "")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    match row:
        case {"seq": int(seq), "prev": str(prev), "kind": str(kind), "body": dict(body)} if (
            0 < seq <= MAX_SEQ
        ):
            return _Line(number, digest, stated, seq, prev, kind, body)
    return _Line(number, digest)


# --- what is genuine -----------------------------------------------------------------------------


def _find_end(lines: Sequence[_Line], head: str | None) -> _Line | None:
    """Return the chain's last line: the one of `head`, else one that follows no other end."""
    intact = [line for line in lines if line.intact]
    ends = [line for line in intact if line.kind == END]
    if anchored := [line for line in ends if line.hash == head]:
        return max(anchored, key=lambda line: _count_neighbours(lines, line))
    by_hash = {line.hash: line for line in intact}
    # Lines behind an end were added, even if one of them is an end again.
    behind_end: set[str] = set()
    for line in sorted(intact, key=lambda line: line.seq):
        before = by_hash.get(line.prev)
        if before and (before.kind == END or before.hash in behind_end):
            behind_end.add(line.hash)
    return max(
        (line for line in ends if line.hash not in behind_end),
        key=lambda line: (line.prev in by_hash, line.seq, _count_neighbours(lines, line)),
        default=None,
    )


def _follow_links(lines: Sequence[_Line], end: _Line | None) -> list[_Line]:
    """Return the lines that are as they were written, in the chain's order, linked to `end`."""
    intact = [line for line in lines if line.intact]
    by_hash: dict[str, list[_Line]] = {}
    for line in intact:
        by_hash.setdefault(line.hash, []).append(line)
    referenced = {line.prev for line in lines}
    intact.sort(key=lambda line: (line.seq, line.hash in referenced, -line.number))
    genuine: list[_Line] = []
    current = end or (intact[-1] if intact else None)
    while current is not None:
        genuine.append(current)
        seq = current.seq
        if copies := [copy for copy in by_hash.get(current.prev, ()) if copy.seq < seq]:
            # Of several copies, the one between its neighbours is the original.
            current = max(copies, key=lambda copy: _count_neighbours(lines, copy))
            continue
        # The link is broken. Whatever has the number before this one now is not what was written.
        while intact and intact[-1].seq > seq - 2:
            intact.pop()
        current = intact[-1] if intact else None
    return genuine[::-1]


def _count_neighbours(lines: Sequence[_Line], line: _Line) -> int:
    """Return how many of the line's neighbours in the file are its neighbours in the chain."""
    above, below = lines[line.number - 2 : line.number - 1], lines[line.number : line.number + 1]
    return sum(x.hash == line.prev for x in above) + sum(x.prev == line.hash for x in below)


def _require_format(genuine: Sequence[_Line]) -> None:
    version = genuine[0].body.get("format") if genuine and genuine[0].kind == BEGIN else FORMAT
    if version != FORMAT:
        raise BadInputError(
            f"the audit has format {version!r}, this code reads format {FORMAT}; "
            "verify it with the version that wrote it"
        )


# --- what is not ---------------------------------------------------------------------------------


def _find_impossible_lines(genuine: Sequence[_Line], end: _Line | None) -> Iterator[ChainFault]:
    """Yield linked lines that no chain has where they stand: somebody wrote hashes again."""
    for line in genuine:
        first, last = line.seq == 1, line is end
        if (
            (line.kind == BEGIN) != first
            or (line.prev == GENESIS) != first
            or (line.kind == END) != last
            or (last and line.body.get("lines") != line.seq)
        ):
            words = f"its hash is right, but no chain has it as line {line.seq}"
            yield ChainFault(line.number, "changed", words)


def _find_misplaced_lines(
    lines: Sequence[_Line], genuine: Sequence[_Line], moved: Sequence[_Line]
) -> Iterator[ChainFault]:
    """Yield genuine lines that changed places, and copies of genuine lines."""
    for line in moved:
        yield ChainFault(line.number, "swapped", f"line {line.seq} of the chain is in this place")
    originals = {line.hash: line.number for line in genuine}
    for line in lines:
        if line.number != originals.get(line.hash, line.number):
            words = f"it repeats what line {originals[line.hash]} says"
            yield ChainFault(line.number, "added", words)


def _find_changed_lines(
    lines: Sequence[_Line], genuine: Sequence[_Line], moved: Sequence[_Line], end: _Line | None
) -> Iterator[ChainFault]:
    """Yield what was changed, removed or added in each gap between lines that are in place."""
    hashes, moved_numbers = {line.hash for line in genuine}, {line.number for line in moved}
    places = [(line.seq, line.number) for line in genuine]
    last_seq = places[-1][0] if places else 0
    if end is None:
        # What stands behind the last line in place was part of the chain.
        last_number = max((n for _, n in places if n not in moved_numbers), default=0)
        last_seq += sum(line.hash not in hashes for line in lines[last_number:])
    low, above, elsewhere = 0, 0, list[int]()
    for seq, number in (*places, (last_seq + 1, len(lines) + 1)):
        if number in moved_numbers:
            elsewhere.append(seq)  # not missing: it is named as moved
            continue
        strangers = [line for line in lines[above : number - 1] if line.hash not in hashes]
        yield from _explain_gap(strangers, list(_missing_ranges(low, seq, elsewhere)))
        low, above, elsewhere = seq, number, []


def _explain_gap(strangers: Sequence[_Line], missing: Sequence[range]) -> Iterator[ChainFault]:
    """Match the strangers of one gap with the lines that are missing there.

    A stranger with a partner is that line, changed; one without was added; a missing line without a
    partner was removed. A stranger is matched by the number that it claims, else in order.
    """
    matches: dict[int, _Line] = {}
    for line in strangers:
        if any(line.seq in seqs for seqs in missing):
            matches.setdefault(line.seq, line)
    matched = {line.number for line in matches.values()}
    rest = [line for line in strangers if line.number not in matched]
    # Ranges, lazily: a forged number may make billions of lines missing.
    free = (seq for seqs in missing for seq in seqs if seq not in matches)
    matches |= {seq: line for line, seq in zip(rest, free, strict=False)}
    matched = {line.number for line in matches.values()}
    for line in strangers:
        if line.number not in matched:
            yield ChainFault(line.number, "added", "the chain has no such line")
        elif not line.readable:
            yield ChainFault(line.number, "unreadable", "this is not a line of an audit")
        elif line.intact:
            words = "its hash was written again, and is not the one that the line after it names"
            yield ChainFault(line.number, "changed", words)
        else:
            yield ChainFault(line.number, "changed", "its hash is not that of what it says")
    for seqs in missing:
        changed = sorted(seq for seq in matches if seq in seqs)
        for removed in _missing_ranges(seqs.start - 1, seqs.stop, changed):
            first, last = removed[0], removed[-1]
            which = f"line {first}" if first == last else f"lines {first} to {last}"
            yield ChainFault(first, "removed", f"{which} of the chain missing")


def _missing_ranges(low: int, high: int, known: Sequence[int]) -> Iterator[range]:
    """Yield the numbers strictly between `low` and `high` that are not in `known`, ascending."""
    for before, after in pairwise((low, *known, high)):
        if after - before > 1:
            yield range(before + 1, after)


def _out_of_order(genuine: Sequence[_Line]) -> list[_Line]:
    """Return the lines that changed places, in the chain's order.

    Both of each pair that was swapped; of the rest, the fewest that explain the order of the file.
    """
    ranks = sorted(range(len(genuine)), key=lambda rank: genuine[rank].number)
    swapped = {rank for place, rank in enumerate(ranks) if rank != place == ranks[rank]}
    in_order = set(_longest_increasing_subsequence([r for r in ranks if r not in swapped]))
    return [line for rank, line in enumerate(genuine) if rank not in in_order]


def _longest_increasing_subsequence(values: Sequence[int]) -> list[int]:
    """Return a longest ascending selection of distinct `values`, from its last to its first."""
    ends: list[int] = []
    """The lowest last value of the selections of each length."""
    before: dict[int, int | None] = {}
    for value in values:
        at = bisect_left(ends, value)
        before[value] = ends[at - 1] if at else None
        ends[at : at + 1] = [value]
    selection: list[int] = []
    last = ends[-1] if ends else None
    while last is not None:
        selection.append(last)
        last = before[last]
    return selection


def _may_be_end(line: _Line, head: str | None) -> bool:
    return not line.readable or line.kind == END or line.stated_hash == head


def _find_dangling_references(lines: Sequence[_Line]) -> Iterator[ChainFault]:
    """Yield references to a text that no line above has."""
    digests: set[str] = set()
    for line in lines:
        texts: list[Any] = []
        map_texts(line.body, texts.append)
        for digest in filter(None, map(parse_reference, texts)):
            if digest not in digests:
                words = f"it refers to a text that no line above has: {digest}"
                yield ChainFault(line.number, "changed", words)
        long_texts = (t for t in texts if isinstance(t, str) and len(t) >= LONG_TEXT_CHARS)
        digests.update(map(hash_text, long_texts))
