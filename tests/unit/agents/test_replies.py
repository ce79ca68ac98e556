"""A reply is one JSON object of the role's shape, or it is refused with what was wrong."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.agents._replies import MAX_CHARS, ReplyError, parse_reply
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
    assert "NaN is no number" in refused(json.dumps(ANALYST | {"score": float("nan")}))
    assert "given twice" in refused('{"score": 1, "score": -1}')
    assert "answer in fewer" in refused("x" * (MAX_CHARS + 1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists)))
def test_parse_reply_raises_only_reply_error(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    for role in get_args(Role):
        with contextlib.suppress(ReplyError):
            parse_reply(text, role)
