"""Which items of a sequence left their place, as somebody would say it who watched.

What was done to an audit since it was written, line by line.

Each line names the hash of the one before it, so trust runs backwards: from the head, or without
one from the last line as it is, to the first. A line on that thread is as it was written. Where the
thread breaks, it is taken up again at the next line that is whole in itself: from there on the
lines are known to belong together, no longer to the head.

Whoever writes every hash again from some line on leaves a chain without fault, and another head.
Only a head that was kept elsewhere tells.
"""

from __future__ import annotations

import bisect
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Literal

from finagent_model.audit.chain import (
    BEGIN,
    END,
    FORMAT,
    GENESIS,
    LONG,
    line_hash,
    map_texts,
    text_reference,
)
from finagent_model.errors import BadInputError


def misplaced(ranks: Sequence[int]) -> list[int]:
    """Of a permutation of 0..n-1: both items of each pair that was swapped, else the fewest that
    explain the order. Empty where it ascends.
    """
    moved: list[int] = []
    start, furthest = 0, -1
    for at, rank in enumerate(ranks):
        furthest = max(furthest, rank)
        if furthest > at:
            continue
        # From `start` to here the items have only changed places among themselves.
        part = ranks[start : at + 1]
        if all(ranks[rank] == place for place, rank in enumerate(part, start)):
            moved += [rank for place, rank in enumerate(part, start) if rank != place]
        else:
            moved += _not_ascending(part)
        start = at + 1
    return moved


def _not_ascending(ranks: Sequence[int]) -> list[int]:
    """All but a longest ascending run."""
    ends: list[int] = []
    """Of the runs of each length, the lowest last item."""
    before: dict[int, int | None] = {}
    for rank in ranks:
        at = bisect.bisect_left(ends, rank)
        before[rank] = ends[at - 1] if at else None
        ends[at : at + 1] = [rank]
    kept: set[int] = set()
    last: int | None = ends[-1]
    while last is not None:
        kept.add(last)
        last = before[last]
    return [rank for rank in ranks if rank not in kept]


@dataclass(frozen=True, slots=True)
class ChainFault:
    """One thing that is not as it was written."""

    line: int
    """From 1, in the file as it is; of what was removed, the first such line's number in the chain.
    """
    what: Literal["changed", "removed", "swapped", "added", "cut off", "unreadable", "other head"]
    words: str


def verify_chain(text: str, head: str | None = None) -> tuple[ChainFault, ...]:
    """Every fault of an audit, by line; none of one that is as `chain` wrote it.

    Without `head` that says no more than that the lines agree with each other. Raises BadInputError
    for another format, and for lines of which none is an audit's.
    """
    lines, ended = _read(text)
    if lines and not any(line.readable for line in lines):
        raise BadInputError("none of its lines is a line of an audit; name an audit.jsonl")
    end = _end(lines, head)
    thread = _thread(lines, end)
    _require_format(thread)
    faults = [*_impossible(thread, end), *_placed(lines, thread, end)]
    if not ended:
        faults = [fault for fault in faults if not (fault.line == len(lines) and _alien(fault))]
        faults.append(ChainFault(max(len(lines), 1), "cut off", "the last line does not end"))
    elif end is None and not _may_be_the_end(lines[-1], head):
        faults.append(ChainFault(len(lines) + 1, "cut off", "the chain's last line is missing"))
    if end is not None and head not in (None, end.hash):
        words = f"the chain's head is {end.hash}, not {head}: it was written again"
        faults.append(ChainFault(end.number, "other head", words))
    if all(fault.what == "other head" for fault in faults):
        faults += _dangling(lines)
    return tuple(sorted(faults, key=lambda fault: fault.line))


def head_of(text: str) -> str | None:
    """The hash that the last line states; None where it states none."""
    lines, _ = _read(text.rstrip("\n").rpartition("\n")[2])
    return lines[0].stated or None if lines else None


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file, and what it says of itself: nothing where it is unreadable."""

    number: int
    hash: str
    """Of what it says."""
    stated: str = ""
    seq: int = 0
    prev: str = ""
    kind: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        return self.seq > 0

    @property
    def whole(self) -> bool:
        return self.readable and self.hash == self.stated


MAX_FAULTS = 10**12
"""No file has as many lines."""
_SHAPE = re.compile(r'(\{.*),"hash":"([0-9a-f]{64})"\}')


def _read(text: str) -> tuple[list[_Line], bool]:
    """The lines, and whether the last of them ends."""
    *complete, rest = text.split("\n")
    written = [*complete, rest] if rest else complete
    return [_line(i, line) for i, line in enumerate(written, 1)], bool(complete) and not rest


def _line(number: int, text: str) -> _Line:
    shape = _SHAPE.fullmatch(text)
    own, stated = (line_hash(shape[1] + "}"), shape[2]) if shape else (line_hash(text), "")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    match said:
        case {"seq": int(seq), "prev": str(prev), "kind": str(kind), "body": dict(body)} if (
            0 < seq <= MAX_FAULTS
        ):
            return _Line(number, own, stated, seq, prev, kind, body)
    return _Line(number, own)


def _end(lines: Sequence[_Line], head: str | None) -> _Line | None:
    """The chain's last line: the one that `head` names, else one that follows on no other end."""
    ends = [line for line in lines if line.whole and line.kind == END]
    if named := [line for line in ends if line.hash == head]:
        return max(named, key=lambda line: _fits(lines, line))
    known: dict[str, _Line] = {}
    after_an_end: set[str] = set()
    for line in sorted((line for line in lines if line.whole), key=lambda line: line.seq):
        before = known.get(line.prev)
        if before and (before.kind == END or before.hash in after_an_end):
            after_an_end.add(line.hash)
        known[line.hash] = line
    first = [line for line in ends if line.hash not in after_an_end]
    return max(
        first,
        key=lambda line: (line.prev in known, line.seq, _fits(lines, line)),
        default=None,
    )


def _thread(lines: Sequence[_Line], end: _Line | None) -> list[_Line]:
    """The lines that are as they were written, in the chain's order: from `end` backwards."""
    copies: dict[str, list[_Line]] = {}
    for line in lines:
        if line.whole:
            copies.setdefault(line.hash, []).append(line)
    named = {line.prev for line in lines}
    whole = [line for found in copies.values() for line in found]
    whole.sort(key=lambda line: (line.seq, line.hash in named, -line.number))
    thread: list[_Line] = []
    here = end or (whole[-1] if whole else None)
    while here is not None:
        thread.append(here)
        before = [line for line in copies.get(here.prev, ()) if line.seq < here.seq]
        if before:
            here = max(before, key=lambda line: _fits(lines, line)) if before[1:] else before[0]
            continue
        # The line before is not there as it was written, whichever has its number now.
        while whole and whole[-1].seq > here.seq - 2:
            whole.pop()
        here = whole[-1] if whole else None
    return thread[::-1]


def _fits(lines: Sequence[_Line], line: _Line) -> int:
    """How many of its neighbours in the file are those that it has in the chain."""
    above, below = lines[line.number - 2 : line.number - 1], lines[line.number : line.number + 1]
    return sum(x.hash == line.prev for x in above) + sum(x.prev == line.hash for x in below)


def _require_format(thread: Sequence[_Line]) -> None:
    found = thread[0].body.get("format") if thread and thread[0].kind == BEGIN else FORMAT
    if found != FORMAT:
        raise BadInputError(
            f"the audit has format {found!r}, this code reads format {FORMAT}; "
            "verify it with the version that wrote it"
        )


def _impossible(thread: Sequence[_Line], end: _Line | None) -> Iterator[ChainFault]:
    """Lines with a right hash that no chain has where they stand: somebody wrote hashes again."""
    for line in thread:
        first, last = line.seq == 1, line is end
        if (
            (line.kind == BEGIN) != first
            or (line.prev == GENESIS) != first
            or (line.kind == END) != last
            or (last and line.body.get("lines") != line.seq)
        ):
            words = f"its hash is right, but no chain has it as line {line.seq}"
            yield ChainFault(line.number, "changed", words)


def _placed(
    lines: Sequence[_Line], thread: Sequence[_Line], end: _Line | None
) -> Iterator[ChainFault]:
    """Lines of the chain that are elsewhere or missing, and lines of the file that are none of it.

    Between two lines that are in their place, a stranger stands for a missing line as long as there
    are any: it is that line, changed.
    """
    ranks = sorted(range(len(thread)), key=lambda rank: thread[rank].number)
    away = [thread[rank] for rank in sorted(misplaced(ranks))]
    for line in away:
        yield ChainFault(line.number, "swapped", f"line {line.seq} of the chain stands here")
    originals = {line.hash: line.number for line in thread}
    for line in lines:
        if line.number != originals.get(line.hash, line.number):
            words = f"it repeats what line {originals[line.hash]} says"
            yield ChainFault(line.number, "added", words)

    strangers = [line for line in lines if line.hash not in originals]
    elsewhere = {line.number for line in away}
    settled = [(line.seq, line.number) for line in thread if line.number not in elsewhere]
    last = thread[-1].seq if thread else 0
    if end is None:  # what stands behind the last line that is known was part of the chain
        behind = settled[-1][1] if settled else 0
        last += sum(line.number > behind for line in strangers)
    numbers, seqs = [line.number for line in strangers], [line.seq for line in away]
    for (low, above), (high, below) in pairwise([(0, 0), *settled, (last + 1, len(lines) + 1)]):
        if high - low > 1 or below - above > 1:
            here = strangers[bisect_right(numbers, above) : bisect_left(numbers, below)]
            moved = seqs[bisect_right(seqs, low) : bisect_left(seqs, high)]
            yield from _told(here, list(_runs(low, high, moved)))


def _runs(low: int, high: int, known: Sequence[int]) -> Iterator[range]:
    """The numbers between `low` and `high` that are not known, which ascend."""
    for before, after in pairwise((low, *known, high)):
        if after - before > 1:
            yield range(before + 1, after)


def _told(strangers: Sequence[_Line], missing: Sequence[range]) -> Iterator[ChainFault]:
    """What became of the lines missing at one place, where these strangers stand now: by the number
    that a stranger claims where there are more or fewer of them, else in order.
    """
    stands_for: dict[int, _Line] = {}
    if len(strangers) != sum(map(len, missing)):
        for line in strangers:
            if any(line.seq in run for run in missing):
                stands_for.setdefault(line.seq, line)
    claimed = {line.number for line in stands_for.values()}
    rest = [line for line in strangers if line.number not in claimed]
    free = (seq for run in missing for seq in run if seq not in stands_for)
    stands_for |= dict(zip(list(islice(free, len(rest))), rest, strict=False))
    taken = {line.number for line in stands_for.values()}
    for line in strangers:
        yield (
            _strange(line)
            if line.number in taken
            else ChainFault(line.number, "added", "the chain has no such line")
        )
    for run in missing:
        for gone in _runs(run.start - 1, run.stop, sorted(s for s in stands_for if s in run)):
            first, last = gone[0], gone[-1]
            which = f"line {first}" if first == last else f"lines {first} to {last}"
            yield ChainFault(first, "removed", f"{which} of the chain missing")


def _strange(line: _Line) -> ChainFault:
    if not line.readable:
        return ChainFault(line.number, "unreadable", "this is no line of an audit")
    if line.whole:
        words = "its hash was written again, and is not the one that the line after it names"
    else:
        words = "its hash is not that of what it says"
    return ChainFault(line.number, "changed", words)


def _alien(fault: ChainFault) -> bool:
    return fault.what in ("changed", "unreadable", "added")


def _may_be_the_end(line: _Line, head: str | None) -> bool:
    return not line.readable or line.kind == END or line.stated == head


def _dangling(lines: Sequence[_Line]) -> Iterator[ChainFault]:
    """References to a text that no line above says."""
    said: set[str] = set()
    for line in lines:
        texts: list[Any] = []
        map_texts(line.body, texts.append)
        for named in filter(None, map(text_reference, texts)):
            if named not in said:
                words = f"it refers to a text that no line above has: {named}"
                yield ChainFault(line.number, "changed", words)
        said.update(line_hash(t) for t in texts if isinstance(t, str) and len(t) >= LONG)
