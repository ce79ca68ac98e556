"""The JSON reader of the HTTP doors: what it gives, and what it refuses in one sentence."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from finagent_model._documents import (
    MAX_DEPTH,
    MAX_VALUES,
    load_yaml,
    read_json,
    read_json_object,
)
from finagent_model.errors import BadInputError


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, True, None, 'text "quoted" \\ [{,'], "ü": {"\u2028": []}},
        json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH),
        "[" * 1000,
        10**300,
        1.7e308,
    ],
)
def test_read_json_returns_what_was_written(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert read_json(text.encode()) == value


def test_read_json_takes_a_pair_of_surrogates() -> None:
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: Expecting value"),
        (b"{'a': 1}", "the body is not JSON: Expecting property name"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (json.dumps({}).encode("utf-16"), "not UTF-8"),
        (b"[" * 1000 + b"]" * 1000, f"nested 1000 deep; at most {MAX_DEPTH}"),
        (b"[" * 100_000, "nested 100000 deep"),
        (b'{"a":' * 100_000, "nested 100000 deep"),
        (b"[" + b"1," * MAX_VALUES + b"1]", f"values; at most {MAX_VALUES}"),
        (b"[" + b"[]," * MAX_VALUES + b"1]", f"values; at most {MAX_VALUES}"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' stands twice in one object"),
        (b'{"a": 1, "\\u0061": 2}', "the key 'a' stands twice"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "the number 1e999 is too large"),
        (b"1" + b"0" * 400, "has 401 digits; no float holds it"),
        (b"-1" + b"0" * 5000, "digits; no float holds it"),
        (b'{"a\\ud800": 1}', "half of a surrogate pair"),
        (b'["\\uDFFF\\ud83d\\ude00"]', "half of a surrogate pair"),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",  # bodies are too long for names
)
def test_read_json_refuses_text_in_one_sentence(body: bytes, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_json(body)
    assert len(str(caught.value)) < 150


def test_read_json_shows_beginning_of_a_long_key() -> None:
    key = b'"' + b"k" * 10**6 + b'": 1'
    with pytest.raises(BadInputError, match="the key 'kkk") as caught:
        read_json(b"{" + key + b"," + key + b"}")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 500_000, b'"' * 500_001, b'"\\' * 500_000])
def test_read_json_reads_unclosed_text_once(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadInputError):
        read_json(body)
    # Read again from each quote it would take hours.
    assert time.process_time() - began < 5


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"3"])
def test_read_json_object_refuses_other_values(body: bytes) -> None:
    with pytest.raises(BadInputError, match=r'the body is not a JSON object; send \{"a": 1\}'):
        read_json_object(body, '{"a": 1}')


ALIASES = "a0: &a0 [1]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join(9 * [f'*a{i}'])}]\n" for i in range(9)
)


def test_load_yaml_lets_a_key_stand_beside_the_merged_ones() -> None:
    text = "base: &base {a: 1, b: 2}\nown: {<<: *base, a: 3}\nagain: *base\n"
    assert load_yaml(text) == {
        "base": {"a": 1, "b": 2},
        "own": {"a": 3, "b": 2},
        "again": {"a": 1, "b": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "key 'c' stands twice; keep one of them at line 2, column 11"),
        ("day: 2012-02-30", "'2012-02-30' can't be read as a date at line 1, column 6"),
        ("[" * 5000, "nested too deeply"),
        ("key: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("token: canary-pw, x: y", "mapping values are not allowed here at line 1, column 20"),
        ("a: &a [1, *a]", "with its aliases (*) it has over 1000000 values; remove some"),
        (ALIASES, "with its aliases (*) it has over 1000000 values; remove some"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_load_yaml_says_in_one_line_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_yaml(text)
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
