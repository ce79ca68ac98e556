"""One text for one value, and its hash: equal requests have equal fingerprints on any machine.

What tells requests apart, without their text: enough to name the nearest recorded request and
what differs.

An outline has every field of the request but its messages, long values as a mark (8 hex digits of
a hash), and of each message who said it, how long it is, and its mark; of a JSON object also a
mark for each key. Two requests with another fingerprint have another outline.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any


def canonical(value: Any) -> str:
    """Compact JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def encoded(text: str) -> bytes:
    """UTF-8 of any text, also of half a surrogate pair, which JSON can smuggle in."""
    return text.encode("utf-8", "surrogatepass")


def fingerprint(request: Mapping[str, Any]) -> str:
    """SHA-256 of the request as canonical JSON."""
    return hashlib.sha256(encoded(canonical(request))).hexdigest()


Plain = str | int | float | None
DESK = "desk"
"""Source of the question, the first message that is not the prompt."""
PROMPT, TOOLS, PICTURE = "system", "tools", "(picture)"
LONGEST_VALUE = 100
"""Characters of a field that is kept as it is."""
MOST_KEYS, LONGEST_KEY = 40, 40
"""A message with more keys, or longer ones, is told apart as a whole only."""
MOST_NAMED = 6
"""Keys of a message that a sentence names."""
_SOURCES = {"SystemMessage": PROMPT, "FunctionExecutionResultMessage": TOOLS}


@dataclass(frozen=True, slots=True)
class OutlineMessage:
    """One message."""

    source: str
    length: int
    """Characters."""
    mark: str
    parts: tuple[tuple[str, str], ...] = ()
    """Key and mark, sorted by key; empty where the message is no JSON object."""


@dataclass(frozen=True)
class Outline:
    """One request of one agent."""

    agent: str
    asked: tuple[tuple[str, Plain], ...]
    """Field and value, sorted by field: client, model, sampling.temperature, response, ..."""
    messages: tuple[OutlineMessage, ...]

    @cached_property
    def traits(self) -> frozenset[int]:
        """Hashes of what counts when outlines are compared: the more in common, the nearer."""
        found: list[tuple[object, ...]] = [*self.asked]
        for place, said in _placed(self.messages).items():
            found.append((place, said.mark))
            found += [(place, *part) for part in said.parts]
        return frozenset(map(hash, found))


def outline_of(request: Mapping[str, Any], agent: str) -> Outline | None:
    """The outline of `agent`'s request; None for the client `rules`, which answers again for
    nothing.
    """
    if request.get("client") == "rules":
        return None
    asked = _flat({name: value for name, value in request.items() if name != "messages"})
    messages = tuple(_said(message) for message in request["messages"])
    return Outline(agent, tuple(sorted(asked, key=lambda field: field[0])), messages)


def clean_outline(outline: Outline, clean: Callable[[str], str]) -> Outline:
    """The outline with `clean` applied to whatever text is in it."""
    text = json.dumps(to_row(outline))
    struck = clean(text)
    return outline if struck == text else from_row(json.loads(struck))


def nearest(here: Outline, recorded: Iterable[tuple[str, Outline]]) -> str:
    """Names the recorded request of the same agent that `here` has most in common with, and what
    differs; of equals the one with the smallest key.
    """
    best: tuple[int, str, Outline] | None = None
    ours = here.traits
    for key, there in recorded:
        if there.agent != here.agent:
            continue
        apart = len(there.traits) - 2 * len(ours & there.traits)
        if best is None or (apart, key) < best[:2]:
            best = apart, key, there
    if best is None:
        return f"no request of {here.agent} is on record"
    _, key, there = best
    *first, last = differences(there, here) or ["nothing that an outline shows"]
    named = f"{', in '.join(first)} and in {last}" if first else last
    return f"the nearest is {key[:12]}, which differs in {named}"


def differences(there: Outline, here: Outline) -> list[str]:
    """Each thing that differs, in words: fields first, then messages in their order."""
    found = list(_fields(dict(there.asked), dict(here.asked)))
    theirs, ours = _placed(there.messages), _placed(here.messages)
    for place in dict.fromkeys((*theirs, *ours)):
        found += _message(place, theirs.get(place), ours.get(place))
    if theirs.keys() == ours.keys() and list(theirs) != list(ours):
        found.append("the order of the messages")
    return found


def to_text(outline: Outline) -> tuple[bytes, bytes]:
    """A shape, which many outlines share, and the marks, which are this one's own."""
    shape, marks = _parted(outline)
    return json.dumps(shape, separators=(",", ":")).encode(), marks.encode()


def from_text(shape: bytes, marks: bytes) -> Outline:
    """The inverse; raises ValueError for anything else."""
    return _joined(_shape_of(shape), marks.decode())


def to_row(outline: Outline) -> dict[str, Any]:
    """JSON-ready."""
    shape, marks = _parted(outline)
    return {**shape, "marks": marks}


def from_row(row: Mapping[str, Any]) -> Outline:
    """The inverse; raises ValueError for anything else."""
    return _joined(_checked(row), str(row.get("marks", "")))


def _parted(outline: Outline) -> tuple[dict[str, Any], str]:
    shape = {
        "agent": outline.agent,
        "asked": dict(outline.asked),
        "messages": [[said.source, *(key for key, _ in said.parts)] for said in outline.messages],
    }
    marks = (
        " ".join((str(said.length), said.mark, *(mark for _, mark in said.parts)))
        for said in outline.messages
    )
    return shape, ",".join(marks)


def _joined(shape: _Shape, marks: str) -> Outline:
    agent, asked, sources = shape
    given = [said.split(" ") for said in marks.split(",")] if marks else []
    if [len(said) - 2 for said in given] != [len(keys) for _, keys in sources]:
        raise ValueError("no outline: its marks do not fit its shape")
    messages = tuple(
        OutlineMessage(source, int(length), mark, tuple(zip(keys, parts, strict=True)))
        for (source, keys), (length, mark, *parts) in zip(sources, given, strict=True)
    )
    return Outline(agent, asked, messages)


_Shape = tuple[str, tuple[tuple[str, Plain], ...], tuple[tuple[str, tuple[str, ...]], ...]]


@lru_cache(maxsize=1024)
def _shape_of(text: bytes) -> _Shape:
    return _checked(json.loads(text))


def _checked(shape: Mapping[str, Any]) -> _Shape:
    try:
        asked = tuple((name, _plain(value)) for name, value in shape["asked"].items())
        sources = tuple((str(source), tuple(map(str, keys))) for source, *keys in shape["messages"])
        return str(shape["agent"]), asked, sources
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        raise ValueError(f"no outline: {wrong}") from None


def _plain(value: Any) -> Plain:
    if value is None or isinstance(value, Plain):
        return value
    raise TypeError(f"{value!r} is no field of a request")


def _mark(text: str) -> str:
    return hashlib.sha256(encoded(text)).hexdigest()[:8]


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Plain]]:
    """Fields of fields get a dotted name; what is long or a list gets a mark."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, str | list | Mapping) and not _short(value):
            yield f"{before}{name}", f"#{_mark(canonical(value))}"
        else:
            yield f"{before}{name}", value


def _short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_VALUE


def _said(message: Mapping[str, Any]) -> OutlineMessage:
    source = message.get("source") or _SOURCES.get(str(message.get("type")), "unknown")
    content = message.get("content")
    if isinstance(content, str):
        return OutlineMessage(str(source), len(content), _mark(canonical(message)), _parts(content))
    shown = content if isinstance(content, list) else [content]
    text = "".join(part for part in shown if isinstance(part, str))
    others = [part for part in shown if not isinstance(part, str)]
    parts = _parts(text)
    if parts and others:
        parts = (*parts, (PICTURE, _mark(canonical(others))))
    return OutlineMessage(str(source), len(canonical(content)), _mark(canonical(message)), parts)


def _parts(text: str) -> tuple[tuple[str, str], ...]:
    """Key and mark of a JSON object; none where it is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(value, dict) or len(value) > MOST_KEYS or any(map(_unfit, value)):
        return ()
    return tuple((key, _mark(canonical(value[key]))) for key in sorted(value))


def _unfit(key: str) -> bool:
    return len(key) > LONGEST_KEY


_Place = tuple[str, int]
"""Who speaks, and for which time."""


def _placed(messages: Iterable[OutlineMessage]) -> dict[_Place, OutlineMessage]:
    times: Counter[str] = Counter()
    placed = {}
    for said in messages:
        times[said.source] += 1
        placed[said.source, times[said.source]] = said
    return placed


def _names(place: _Place) -> tuple[str, str]:
    """A message, and whose its parts are."""
    source, time = place
    if time == 1 and source in (PROMPT, DESK):
        known = "the prompt" if source == PROMPT else "the question"
        return known, f"{known}'s"
    owner = {DESK: "the desk's", TOOLS: "the tools'"}.get(source, f"{source}'s")
    if time == 1:
        return f"{owner} message", owner
    return f"{owner} message {time}", f"{owner} message {time}:"


def _fields(there: Mapping[str, Plain], here: Mapping[str, Plain]) -> Iterator[str]:
    for name in dict.fromkeys((*there, *here)):
        values = [
            _shown(fields[name]) if name in fields else "not given" for fields in (there, here)
        ]
        if values[0] == values[1]:
            continue
        if any(value.startswith("'#") for value in values):
            yield name
        else:
            yield f"{name} ({values[0]} there, {values[1]} here)"


def _shown(value: Plain) -> str:
    return repr(value)


def _message(
    place: _Place, there: OutlineMessage | None, here: OutlineMessage | None
) -> Iterator[str]:
    name, whose = _names(place)
    if there is None or here is None:
        yield f"{name} (only {'here' if there is None else 'there'})"
        return
    if there.mark == here.mark:
        return
    theirs, ours = dict(there.parts), dict(here.parts)
    keys = [k for k in dict.fromkeys((*theirs, *ours)) if theirs.get(k) != ours.get(k)]
    if not theirs or not ours:
        yield f"{name} ({there.length} characters there, {here.length} here)"
    elif keys:
        more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
        yield f"{whose} {', '.join(keys[:MOST_NAMED])}{more}"
    else:
        yield f"the layout of {name}"
