"""Fingerprints of requests, and outlines that say what differs between two of them.

A fingerprint is the SHA-256 of a request as canonical JSON: equal requests have equal fingerprints
on any machine. An outline explains a replay miss without keeping any text of the request. It has
every field but the messages, and the source, length and digest of each message; for a message that
is a JSON object also a digest per key. Long fields are digests too. Two requests with different
fingerprints have different outlines.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Scalar = str | int | float | None
DESK = "desk"
"""Source of the question, the first message after the prompt."""
PROMPT, TOOLS, PICTURE = "system", "tools", "(picture)"
MAX_FIELD_CHARS = 100
"""A longer field is kept as a digest."""
# A message with more keys, or with keys that are prose, is compared as a whole only.
MAX_KEYS, MAX_KEY_CHARS = 40, 40
MAX_NAMED_KEYS = 6
"""Keys of a message that a sentence names."""
_SOURCE_OF_TYPE = {"SystemMessage": PROMPT, "FunctionExecutionResultMessage": TOOLS}


def canonical_json(value: Any) -> str:
    """Return compact JSON with sorted keys: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(request: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the request as canonical JSON, in 64 hex digits."""
    return _sha256(canonical_json(request))


def fingerprint_of_parts(parts: Mapping[str, str]) -> str:
    """Return the fingerprint of an object whose values are canonical JSON already.

    It is that of `fingerprint`; a part that many objects share is written once.
    """
    members = (f"{canonical_json(name)}:{parts[name]}" for name in sorted(parts))
    return _sha256(f"{{{','.join(members)}}}")


def _sha256(text: str) -> str:
    # Half a surrogate pair, which JSON can smuggle in, is encoded as it is.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(value: Any) -> str:
    return _sha256(canonical_json(value))[:8]


@dataclass(frozen=True, slots=True)
class OutlineMessage:
    """One message of an outlined request."""

    source: str
    length: int
    """In characters."""
    digest: str
    key_digests: tuple[tuple[str, str], ...] = ()
    """Key and digest, sorted by key; empty where the message is no JSON object."""


@dataclass(frozen=True)
class Outline:
    """One request of one agent, without its text."""

    agent: str
    fields: tuple[tuple[str, Scalar], ...]
    """Name and value, sorted by name: client, model, sampling.temperature, response, ..."""
    messages: tuple[OutlineMessage, ...]

    @cached_property
    def traits(self) -> frozenset[int]:
        """Hashes of every field, message and key: the more two outlines share, the nearer."""
        traits: list[tuple[object, ...]] = [*self.fields]
        for place, message in _by_place(self.messages).items():
            traits.append((place, message.digest))
            traits += [(place, *key_digest) for key_digest in message.key_digests]
        return frozenset(map(hash, traits))


# --- from a request ------------------------------------------------------------------------------


def make_outline(request: Mapping[str, Any], agent: str) -> Outline | None:
    """Return the outline of `agent`'s request; None for the client `rules`, which is free."""
    # The fake LLM: its replies cost nothing, so a replay miss needs no explanation.
    if request.get("client") == "rules":
        return None
    fields = _flatten({name: value for name, value in request.items() if name != "messages"})
    messages = tuple(_outline_message(message) for message in request["messages"])
    return Outline(agent, tuple(sorted(fields, key=lambda field: field[0])), messages)


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield fields with dotted names, long values and lists as digests."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | Mapping) or (
            isinstance(value, str) and len(value) > MAX_FIELD_CHARS
        ):
            yield f"{prefix}{name}", f"#{_digest(value)}"
        else:
            yield f"{prefix}{name}", value


def _outline_message(message: Mapping[str, Any]) -> OutlineMessage:
    source = message.get("source") or _SOURCE_OF_TYPE.get(str(message.get("type")), "unknown")
    content = message.get("content")
    # AutoGen's multi-modal content is a list of texts and pictures.
    parts = content if isinstance(content, list) else [content]
    key_digests = _digest_keys("".join(part for part in parts if isinstance(part, str)))
    pictures = [part for part in parts if not isinstance(part, str)]
    if key_digests and pictures:
        key_digests = (*key_digests, (PICTURE, _digest(pictures)))
    length = len(content if isinstance(content, str) else canonical_json(content))
    return OutlineMessage(str(source), length, _digest(message), key_digests)


def _digest_keys(text: str) -> tuple[tuple[str, str], ...]:
    """Return key and digest of a JSON object; nothing where `text` is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        return ()
    if any(len(key) > MAX_KEY_CHARS for key in value):
        return ()
    return tuple((key, _digest(value[key])) for key in sorted(value))


def redact_outline(outline: Outline, redact: Callable[[str], str]) -> Outline:
    """Return the outline with `redact` applied to all its text; itself where nothing changes."""
    text = json.dumps(outline_to_row(outline))
    clean = redact(text)
    return outline if clean == text else outline_from_row(json.loads(clean))


# --- what differs --------------------------------------------------------------------------------


def describe_nearest(outline: Outline, recorded: Iterable[tuple[str, Outline]]) -> str:
    """Name the recorded request of the same agent that is nearest, and what differs in it.

    `recorded` has fingerprint and outline of each; equally near, the smallest fingerprint counts.
    """
    best: tuple[int, str, Outline] | None = None
    traits = outline.traits
    for key, other in recorded:
        if other.agent != outline.agent:
            continue
        # The traits that only one of the two has, less a constant.
        distance = len(other.traits) - 2 * len(traits & other.traits)
        if best is None or (distance, key) < best[:2]:
            best = distance, key, other
    if best is None:
        return f"no request of {outline.agent} is on record"
    _, key, other = best
    *first, last = describe_differences(other, outline) or ["nothing that an outline shows"]
    differences = f"{', in '.join(first)} and in {last}" if first else last
    return f"the nearest is {key[:12]}, which differs in {differences}"


def describe_differences(recorded: Outline, current: Outline) -> list[str]:
    """Return each difference in words: fields first, then messages in their order."""
    differences = list(_compare_fields(dict(recorded.fields), dict(current.fields)))
    old, new = _by_place(recorded.messages), _by_place(current.messages)
    for place in dict.fromkeys((*old, *new)):
        differences += _compare_messages(place, old.get(place), new.get(place))
    if old.keys() == new.keys() and list(old) != list(new):
        differences.append("the order of the messages")
    return differences


def _compare_fields(recorded: Mapping[str, Scalar], current: Mapping[str, Scalar]) -> Iterator[str]:
    for name in dict.fromkeys((*recorded, *current)):
        # Compared as text: 0 and 0.0 are equal, but not in a fingerprint.
        old, new = (
            repr(each[name]) if name in each else "not given" for each in (recorded, current)
        )
        if old == new:
            continue
        is_digest = old.startswith("'#") or new.startswith("'#")
        yield name if is_digest else f"{name} ({old} there, {new} here)"


_Place = tuple[str, int]
"""Source of a message, and its number among the messages of that source, from 1."""


def _by_place(messages: Iterable[OutlineMessage]) -> dict[_Place, OutlineMessage]:
    counts: Counter[str] = Counter()
    by_place = {}
    for message in messages:
        counts[message.source] += 1
        by_place[message.source, counts[message.source]] = message
    return by_place


def _compare_messages(
    place: _Place, recorded: OutlineMessage | None, current: OutlineMessage | None
) -> Iterator[str]:
    name, possessive = _message_names(place)
    if recorded is None or current is None:
        yield f"{name} (only {'here' if recorded is None else 'there'})"
        return
    if recorded.digest == current.digest:
        return
    old, new = dict(recorded.key_digests), dict(current.key_digests)
    keys = [k for k in dict.fromkeys((*old, *new)) if old.get(k) != new.get(k)]
    if not old or not new:
        yield f"{name} ({recorded.length} characters there, {current.length} here)"
    elif keys:
        more = f" and {len(keys) - MAX_NAMED_KEYS} more" if len(keys) > MAX_NAMED_KEYS else ""
        yield f"{possessive} {', '.join(keys[:MAX_NAMED_KEYS])}{more}"
    else:
        yield f"the layout of {name}"


def _message_names(place: _Place) -> tuple[str, str]:
    """Return what a sentence calls a message, and the same as the owner of its keys."""
    source, number = place
    if number == 1 and source in (PROMPT, DESK):
        name = "the prompt" if source == PROMPT else "the question"
        return name, f"{name}'s"
    owner = {DESK: "the desk's", TOOLS: "the tools'"}.get(source, f"{source}'s")
    if number == 1:
        return f"{owner} message", owner
    return f"{owner} message {number}", f"{owner} message {number}:"


# --- as JSON -------------------------------------------------------------------------------------


def outline_to_row(outline: Outline) -> dict[str, Any]:
    """Return the outline JSON-ready.

    What many outlines share stands by itself: agent, fields, and source and keys of each message.
    Lengths and digests are one text under `marks`.
    """
    digests = (
        " ".join((str(message.length), message.digest, *(d for _, d in message.key_digests)))
        for message in outline.messages
    )
    return {
        "agent": outline.agent,
        "asked": dict(outline.fields),
        "messages": [
            [message.source, *(key for key, _ in message.key_digests)]
            for message in outline.messages
        ],
        "marks": ",".join(digests),
    }


def outline_from_row(row: Mapping[str, Any]) -> Outline:
    """Return the outline of a row of `outline_to_row`. Raises ValueError for any other row."""
    try:
        fields = tuple((name, _require_scalar(value)) for name, value in row["asked"].items())
        shapes = [(str(source), [str(key) for key in keys]) for source, *keys in row["messages"]]
        values = [text.split(" ") for text in row["marks"].split(",")] if row["marks"] else []
        messages = tuple(
            OutlineMessage(source, int(length), digest, tuple(zip(keys, key_digests, strict=True)))
            for (source, keys), (length, digest, *key_digests) in zip(shapes, values, strict=True)
        )
        return Outline(str(row["agent"]), fields, messages)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no outline: {error}") from None


def _require_scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, Scalar):
        return value
    raise TypeError(f"{value!r} is not a field of a request")
