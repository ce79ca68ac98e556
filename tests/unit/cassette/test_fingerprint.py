"""Requests in outline: each kind of difference is named, and no text of a request is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.fingerprint import (
    Outline,
    canonical_json,
    describe_differences,
    describe_nearest,
    fingerprint,
    fingerprint_of_parts,
    make_outline,
    outline_from_row,
    outline_to_row,
    redact_outline,
)
from finagent_model.cassette.records import RecordedReply

QUESTION = {"symbol": "GOOG", "last_close": 580.0, "policy": {"fast": 20}, "news": ["a headline"]}
REPORT = {"trend": "bullish", "score": 0.5, "summary": "It rises, they say."}


def said(source: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str | list) else json.dumps(content)
    return {"type": "UserMessage", "source": source, "content": text}


def request(**changes: Any) -> dict[str, Any]:
    return {
        "client": "openai",
        "base_url": None,
        "model": "a",
        "sampling": {"temperature": 0.0, "seed": 7},
        "tools": [],
        "tool_choice": "auto",
        "response": "executor",
        "messages": messages(),
    } | changes


def messages(
    prompt: str = "You decide.", question: Any = QUESTION, report: Any = REPORT
) -> list[dict[str, Any]]:
    system = {"type": "SystemMessage", "content": prompt}
    return [system, said("desk", question), said("NewsAnalyst", report)]


def outline(asked: dict[str, Any], agent: str = "Executor") -> Outline:
    found = make_outline(asked, agent)
    assert found is not None
    return found


HERE = outline(request())


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (request(model="b"), "model ('b' there, 'a' here)"),
        (request(base_url="http://x"), "base_url ('http://x' there, None here)"),
        (request(sampling={"temperature": 0.0, "seed": 8}), "sampling.seed (8 there, 7 here)"),
        (
            request(sampling={"temperature": 0, "seed": 7}),
            "sampling.temperature (0 there, 0.0 here)",
        ),
        (request(tools=[{"name": "bars"}]), "tools"),
        (request(response="risk"), "response ('risk' there, 'executor' here)"),
        (request(structured=True), "structured (True there, not given here)"),
        (
            request(messages=messages(prompt="You decide now.")),
            "the prompt (15 characters there, 11 here)",
        ),
        (
            request(messages=messages(question=QUESTION | {"policy": {"fast": 30}, "news": []})),
            "the question's news, policy",
        ),
        (request(messages=messages(question=QUESTION | {"memory": None})), "the question's memory"),
        (
            request(messages=messages(question=json.dumps(QUESTION, indent=1))),
            "the layout of the question",
        ),
        (
            request(messages=messages(question="What now?")),
            "the question (9 characters there, 87 here)",
        ),
        (
            request(messages=messages(report=REPORT | {"score": 0.6})),
            "NewsAnalyst's score",
        ),
        (request(messages=messages()[:2]), "NewsAnalyst's message (only here)"),
        (
            request(messages=[*messages(), said("desk", "That was not usable.")]),
            "the desk's message 2 (only there)",
        ),
        (
            request(messages=[messages()[0], messages()[2], messages()[1]]),
            "the order of the messages",
        ),
        (
            request(messages=[*messages()[:2], messages()[2] | {"thought": "hm"}]),
            "the layout of NewsAnalyst's message",
        ),
    ],
)
def test_outline_difference_is_named(there: dict[str, Any], named: str) -> None:
    assert describe_differences(outline(there), HERE) == [named]


def test_outline_picture_differs_from_text() -> None:
    here = outline(request(messages=[said("desk", [json.dumps(QUESTION), {"image": "0a"}])]))
    there = outline(request(messages=[said("desk", [json.dumps(QUESTION), {"image": "0b"}])]))
    assert describe_differences(there, here) == ["the question's (picture)"]


def test_outline_tool_result_difference_is_named() -> None:
    def answered(text: str) -> Outline:
        result = {"type": "FunctionExecutionResultMessage", "content": [{"content": text}]}
        return outline(request(messages=[*messages(), result]))

    assert describe_differences(answered("1"), answered("10")) == [
        "the tools' message (17 characters there, 18 here)"
    ]


def test_nearest_outline_lists_all_differences() -> None:
    question = QUESTION | {"policy": {"fast": 30}, "news": []}
    close = outline(request(model="b", messages=messages(question=question)))
    far = outline(request(model="b", messages=messages("?", {"symbol": "FB"}, {"score": 0})))
    assert describe_nearest(HERE, [("f" * 64, far), ("3fa2" * 16, close)]) == (
        "the nearest is 3fa23fa23fa2, which differs in model ('b' there, 'a' here) "
        "and in the question's news, policy"
    )


def test_nearest_outline_words_are_a_sentence() -> None:
    there = outline(request(model="b", response="risk", tools=[1]))
    assert describe_nearest(HERE, [("0" * 64, there)]) == (
        "the nearest is 000000000000, which differs in model ('b' there, 'a' here), "
        "in response ('risk' there, 'executor' here) and in tools"
    )


def test_outline_difference_names_few_keys() -> None:
    keys = {f"key_{number}": number for number in range(9)}
    here = outline(request(messages=messages(question=keys)))
    there = outline(request(messages=messages(question={name: -1 for name in keys})))
    assert describe_differences(there, here) == [
        "the question's key_0, key_1, key_2, key_3, key_4, key_5 and 3 more"
    ]


def test_nearest_outline_tie_takes_smallest_key() -> None:
    same = [("b" * 64, outline(request(model="b"))), ("a" * 64, outline(request(model="c")))]
    assert describe_nearest(HERE, same) == describe_nearest(HERE, same[::-1])
    assert "aaaaaaaaaaaa" in describe_nearest(HERE, same)


def test_nearest_outline_is_of_same_agent() -> None:
    other = outline(request(), agent="RiskManager")
    assert describe_nearest(HERE, [("a" * 64, other)]) == "no request of Executor is on record"


def test_outline_differs_where_fingerprint_does() -> None:
    variants = [
        request(),
        request(model="b"),
        request(new={"a": {"b": []}}),
        request(messages=messages(prompt="x" * 11)),
        request(messages=messages(report="x" * 100_000)),
        request(messages=[*messages(), {"type": "AssistantMessage", "content": [{"id": "1"}]}]),
    ]
    assert len({fingerprint(asked) for asked in variants}) == len(variants)
    assert len({outline(asked) for asked in variants}) == len(variants)


def test_outline_of_rules_client_is_none() -> None:
    assert make_outline({"client": "rules", "version": "1", "messages": messages()}, "X") is None


def test_outline_is_small_without_request_text() -> None:
    long = QUESTION | {"news": ["a headline that nobody must find here"] * 50}
    row = canonical_json(outline_to_row(outline(request(messages=messages(question=long)))))
    assert len(row) < 700
    for text in ("headline", "You decide", "It rises", "580"):
        assert text not in row


def test_outline_ignores_keys_that_are_prose() -> None:
    for report in ({"x" * 41: 1}, dict.fromkeys(map(str, range(41)))):
        assert outline(request(messages=messages(report=report))).messages[2].key_digests == ()


def test_outline_row_round_trips() -> None:
    for asked in (request(), request(messages=[]), request(messages=messages("", "", "{}"))):
        found = outline(asked)
        assert outline_from_row(outline_to_row(found)) == found


@pytest.mark.parametrize(
    "changes",
    [{"marks": ""}, {"marks": "x y"}, {"messages": [[]]}, {"asked": {"a": []}}, {"asked": 1}],
)
def test_outline_refuses_invalid_row(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        outline_from_row(outline_to_row(HERE) | changes)


def test_outline_redacts_secret_address() -> None:
    found = outline(request(base_url="http://x/secret"))
    clean = redact_outline(found, lambda text: text.replace("secret", "[redacted: key]"))
    assert describe_differences(clean, HERE) == [
        "base_url ('http://x/[redacted: key]' there, None here)"
    ]
    assert redact_outline(found, str) is found


def test_cassette_nearest_searches_all_replies(tmp_path: Any) -> None:
    path = tmp_path / "r.sqlite"
    reply = RecordedReply("{}", "stop", 1, 2)
    Cassette(None, path).put("b" * 64, reply, outline(request(model="b")))
    cassette = Cassette(None, path)
    asked = outline(request(model="c"))
    assert "'b' there, 'c' here" in cassette.describe_nearest(asked)
    cassette.put("a" * 64, reply, outline(request(model="c", tool_choice="none")))
    assert "tool_choice ('none' there, 'auto' here)" in cassette.describe_nearest(asked)
    packaged = Cassette(cassette.used_replies)
    assert "tool_choice" in packaged.describe_nearest(asked)
    assert Cassette().describe_nearest(asked) == "no request of Executor is on record"


@pytest.mark.parametrize("value", [None, "ü\ud800", 1.5, {"b": [1], "a": {}}])
def test_fingerprint_of_parts_is_that_of_the_whole(value: Any) -> None:
    request = {"symbol": "GOOG", 'a "name"': value, "as_of": "2012-06-29"}
    parts = {name: canonical_json(each) for name, each in request.items()}
    assert fingerprint_of_parts(parts) == fingerprint(request)
