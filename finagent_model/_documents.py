"""Read JSON and YAML that somebody else wrote: the reader behind every HTTP door, and of files.

Of JSON, size and shape are checked before a value is built, so that a small text can't become a
large object or exhaust the stack. What two readers could understand differently (a repeated key,
NaN, half a surrogate pair, a number that no float holds) is refused. A door limits the bytes, see
`MAX_DEPTH` and `MAX_VALUES` for the rest.

YAML is in files of the user's own. PyYAML takes the last of two equal keys without a word, and
fails on a date that does not exist; here both are errors that name the line. Aliases count as what
they stand for.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Hashable
from itertools import accumulate
from typing import Any

import yaml

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
_KINDS = {"timestamp": "a date", "int": "a number", "float": "a number"}
"""What a value is, by the end of YAML's tag."""
_MERGE_TAG = "tag:yaml.org,2002:merge"
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


def load_yaml(text: str) -> Any:
    """Return what a YAML `text` holds. Raises ValueError that says what is wrong, in one line."""
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        # Aliases of aliases make a small text a large object, of which a dump has every copy.
        if _count_values(node, {}) > MAX_VALUES:
            raise ValueError(f"with its aliases (*) it has over {MAX_VALUES} values; remove some")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        message = ", ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark
        # Without the line itself, which PyYAML quotes: it may hold a secret.
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{message}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _count_values(node: yaml.Node, counts: dict[int, float]) -> float:
    """Return how many values a node has, each alias as many as its anchor; inf if it is a loop."""
    if id(node) not in counts:
        counts[id(node)] = math.inf  # for an alias within its own anchor
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [each for pair in parts for each in pair]
        counts[id(node)] = 1 + sum(_count_values(each, counts) for each in parts)
    return counts[id(node)]


class _StrictLoader(yaml.SafeLoader):
    # A SafeLoader: a file must not construct Python objects.
    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        # PyYAML lets through what Python's constructors raise.
        except (ValueError, OverflowError, LookupError, AttributeError, TypeError):
            kind = _KINDS.get(node.tag.rpartition(":")[2], "a value")
            raise _error(node, f"{show_value(node.value)} can't be read as {kind}") from None
        if isinstance(value, str) and not _is_utf8(value):
            raise _error(node, f"{show_value(value)} is not text in UTF-8")
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        # Before keys of `<<` are merged in: those may be overridden.
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise _error(key_node, f"key {show_value(key)} stands twice; keep one of them")
                seen.add(key)
        return super().construct_mapping(node, deep)


def _error(node: Any, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
