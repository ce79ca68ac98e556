"""A reply is one JSON object of the role's shape, or it is refused with what was wrong."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.agents._replies import (
    MAX_CHARS,
    ReplyError,
    ReplySize,
    parse_reply,
    reply_schema,
    unwrap,
)
from finagent_model.config.roster import Role

ANALYST: dict[str, Any] = {
    "trend": "bullish",
    "score": 0.5,
    "summary": "It rises, they say.",
    "key_factors": ["trend"],
}


def refused(text: str, role: Role = "analyst") -> str:
    with pytest.raises(ReplyError) as caught:
        parse_reply(text, role)
    return str(caught.value)


def test_parse_reply_reads_whole_reply() -> None:
    reply = parse_reply(json.dumps(ANALYST), "analyst")
    assert reply.model_dump() == ANALYST


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "0.5"}, "score"),
        ({"score": 1.5}, "score"),
        ({"trend": "up"}, "trend"),
        ({"summary": "short"}, "summary"),
        ({"key_factors": "trend"}, "key_factors"),
        ({"score": True}, "score"),
    ],
)
def test_parse_reply_names_wrong_value(changes: dict[str, Any], said: str) -> None:
    assert said in refused(json.dumps(ANALYST | changes))


def test_parse_reply_refuses_missing_key() -> None:
    for name in ANALYST:
        assert name in refused(json.dumps({k: v for k, v in ANALYST.items() if k != name}))


def test_parse_reply_refuses_what_is_no_strict_json() -> None:
    assert "not one JSON object" in refused("I recommend BUY")
    assert "not one JSON object" in refused(f"```json\n{json.dumps(ANALYST)}\n```")
    assert "NaN is not a number" in refused(json.dumps(ANALYST | {"score": float("nan")}))
    assert "given twice" in refused('{"score": 1, "score": -1}')
    assert "answer in fewer" in refused("x" * (MAX_CHARS + 1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists)))
def test_parse_reply_raises_only_reply_error(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    for role in get_args(Role):
        with contextlib.suppress(ReplyError):
            parse_reply(text, role)


ANSWER = json.dumps(ANALYST)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"\ufeff{ANSWER}", ("byte order mark",)),
        (f"<think>It {{rises}}?</think>\n\n{ANSWER}", ("thoughts",)),
        (f"It rises, so\n</think>{ANSWER}", ("thoughts",)),
        (f"```json\n{ANSWER}\n```", ("code fence",)),
        (f"```\r\n{ANSWER}```\n", ("code fence",)),
        (f"```json {ANSWER} ```", ("code fence",)),
        (f"```json\n{ANSWER}<|im_end|>\n```", ("code fence", "special tokens")),
        (f"<think>a</think>\n<think>b</think>{ANSWER}", ("thoughts",)),
        (f"{ANSWER}<|im_end|>", ("special tokens",)),
        (f"{ANSWER}</s> <|endoftext|>\n", ("special tokens",)),
        (f"{ANSWER}<\uff5cend\u2581of\u2581sentence\uff5c>", ("special tokens",)),
        (
            f"\ufeff<think></think>```json\n{ANSWER}\n```<|eot_id|>",
            ("byte order mark", "thoughts", "special tokens", "code fence"),
        ),
    ],
)
def test_unwrap_takes_off_what_is_no_answer(text: str, names: tuple[str, ...]) -> None:
    assert unwrap(text) == (ANSWER, names)


@pytest.mark.parametrize(
    "text",
    [
        f"\n {ANSWER}\n",
        "I recommend BUY",
        f"Here it is: {ANSWER}",
        f"<think>cut off {ANSWER}",
        json.dumps(ANALYST | {"summary": "It says </think> or <|im_end|> or ```json"}),
        "",
    ],
)
def test_unwrap_leaves_anything_else_as_it_is(text: str) -> None:
    assert unwrap(text) == (text, ())


def test_unwrap_leaves_two_fences_to_be_refused() -> None:
    two = f"```json\n{ANSWER}\n```\nor\n```json\n{ANSWER}\n```"
    assert "not one JSON object" in refused(unwrap(two)[0])


@pytest.mark.parametrize("role", get_args(Role))
def test_reply_schema_with_size_bounds_every_text_and_list(role: Role) -> None:
    def unbounded(schema: Any) -> list[Any]:
        parts = [*schema.get("properties", {}).values(), schema.get("items", {})]
        open_text = schema.get("type") == "string" and not {"enum", "maxLength"} & set(schema)
        open_list = schema.get("type") == "array" and "maxItems" not in schema
        own = [schema] if open_text or open_list else []
        return own + [found for part in parts if part for found in unbounded(part)]

    assert unbounded(reply_schema(role, ReplySize.within(800))) == []
    assert "maxLength" not in json.dumps(reply_schema(role))


@pytest.mark.parametrize("role", get_args(Role))
def test_reply_schema_has_prose_last(role: Role) -> None:
    names = list(reply_schema(role)["properties"])
    assert names[0] in ("trend", "direction", "action")
    assert names[-1] in ("summary", "reasoning")


@pytest.mark.parametrize("role", get_args(Role))
def test_reply_schema_lengths_fit_grammars_of_llama_cpp(role: Role) -> None:
    text = json.dumps(reply_schema(role, ReplySize.within(32_000)))
    lengths = [int(part.split(",")[0].strip(" }")) for part in text.split('"maxLength":')[1:]]
    assert lengths and max(lengths) < 2000


def test_reply_size_fits_the_tokens_of_a_reply() -> None:
    size = ReplySize.within(800)
    assert size.prose_chars + size.factors * size.factor_chars <= 800 * 1.5


@pytest.mark.parametrize(
    "text",
    [
        " " * MAX_CHARS,
        "x" + " " * (MAX_CHARS - 2) + "x",
        "```" + "a" * (MAX_CHARS - 3),
        "<think>" * (MAX_CHARS // 7),
        "</think> " * (MAX_CHARS // 9),
        "<|a|>" * (MAX_CHARS // 5),
        "`" * MAX_CHARS,
    ],
    ids=lambda text: text[:9],
)
def test_unwrap_takes_little_time_of_a_long_text(text: str) -> None:
    started = time.process_time()
    unwrap(text)
    assert time.process_time() - started < 1
