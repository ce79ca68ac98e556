"""Read JSON that somebody else wrote, within limits: the one reader behind every HTTP door.

Size and shape are checked before a value is built, so that a small text can't become a large object
or exhaust the stack. What two readers could understand differently (a repeated key, NaN, half a
surrogate pair, a number that no float holds) is refused. A door limits the bytes, see `MAX_DEPTH`
and `MAX_VALUES` for the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate
from typing import Any

from finagent_model._base import show_value
from finagent_model.errors import BadInputError

MAX_DEPTH = 64
"""Lists and objects inside one another."""
MAX_VALUES = 1_000_000
"""Values in all, lists and objects included."""
MAX_DIGITS = 308
"""Digits of an integer; more may not fit into a float."""
# The closing quote is optional and nothing is tried twice, so that a text without one is read once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = {byte: 1 if byte in b"[{" else -1 for byte in b"[]{}"}
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89abAB]")


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises BadInputError in one sentence."""
    _check_shape(body)
    try:
        value = json.loads(
            body.decode(),
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
    except UnicodeDecodeError as error:
        raise BadInputError(f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadInputError(f"the body is not JSON: {error}") from None
    if _SURROGATE_ESCAPE.search(body):
        _refuse_half_pairs(value)
    return value


def read_json_object(body: bytes, example: str) -> dict[str, Any]:
    """Return a JSON object; `example` shows the caller one. Raises BadInputError."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise BadInputError(f"the body is not a JSON object; send {example}")
    return value


def _check_shape(body: bytes) -> None:
    """Raise BadInputError for a text of too many or too deeply nested values."""
    structure = _STRING.sub(b"", body)
    # Every value but the first follows a comma or opens a list or an object.
    values = 1 + sum(map(structure.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise BadInputError(f"the body has about {values} values; at most {MAX_VALUES}")
    brackets = structure.translate(None, _NOT_BRACKETS)
    depth = max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
    if depth > MAX_DEPTH:
        raise BadInputError(f"the body is nested {depth} deep; at most {MAX_DEPTH}")


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadInputError(f"the number {text[:20]}... has {len(text)} digits; no float holds it")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadInputError(f"the number {text[:20]} is too large; no float holds it")
    return value


def _refuse_constant(text: str) -> None:
    raise BadInputError(f"{text} is not JSON; write null, or leave the key out")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise BadInputError(f"the key {show_value(repeated)} stands twice in one object")
    return value


def _refuse_half_pairs(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadInputError("a text holds half of a surrogate pair; send valid Unicode") from None


def split_json_lines(text: str) -> list[str]:
    """Return the lines of JSON lines; only a line feed ends one.

    Not `splitlines`: a text within may hold U+2028 and others, which JSON leaves as they are.
    """
    return [line for line in text.split("\n") if line]
