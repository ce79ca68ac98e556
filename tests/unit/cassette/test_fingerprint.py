"""Requests in outline: each kind of difference is named, and no text of a request is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finagent_model.cassette.cassette import Cassette, RecordedReply, fingerprint
from finagent_model.cassette.fingerprint import (
    Outline,
    clean_outline,
    differences,
    from_row,
    from_text,
    nearest,
    outline_of,
    to_row,
    to_text,
)

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
    found = outline_of(asked, agent)
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
def test_each_kind_of_difference_is_named(there: dict[str, Any], named: str) -> None:
    assert differences(outline(there), HERE) == [named]


def test_a_picture_beside_the_question_is_told_apart_from_its_text() -> None:
    here = outline(request(messages=[said("desk", [json.dumps(QUESTION), {"image": "0a"}])]))
    there = outline(request(messages=[said("desk", [json.dumps(QUESTION), {"image": "0b"}])]))
    assert differences(there, here) == ["the question's (picture)"]


def test_a_tools_results_are_told_apart() -> None:
    def answered(text: str) -> Outline:
        result = {"type": "FunctionExecutionResultMessage", "content": [{"content": text}]}
        return outline(request(messages=[*messages(), result]))

    assert differences(answered("1"), answered("10")) == [
        "the tools' message (17 characters there, 18 here)"
    ]


def test_the_nearest_is_named_with_all_that_differs() -> None:
    question = QUESTION | {"policy": {"fast": 30}, "news": []}
    close = outline(request(model="b", messages=messages(question=question)))
    far = outline(request(model="b", messages=messages("?", {"symbol": "FB"}, {"score": 0})))
    assert nearest(HERE, [("f" * 64, far), ("3fa2" * 16, close)]) == (
        "the nearest is 3fa23fa23fa2, which differs in model ('b' there, 'a' here) "
        "and in the question's news, policy"
    )


def test_three_differences_read_as_a_sentence() -> None:
    there = outline(request(model="b", response="risk", tools=[1]))
    assert nearest(HERE, [("0" * 64, there)]) == (
        "the nearest is 000000000000, which differs in model ('b' there, 'a' here), "
        "in response ('risk' there, 'executor' here) and in tools"
    )


def test_a_question_of_another_day_names_a_few_of_its_keys() -> None:
    keys = {f"key_{number}": number for number in range(9)}
    here = outline(request(messages=messages(question=keys)))
    there = outline(request(messages=messages(question={name: -1 for name in keys})))
    assert differences(there, here) == [
        "the question's key_0, key_1, key_2, key_3, key_4, key_5 and 3 more"
    ]


def test_of_equals_the_smallest_key_is_named() -> None:
    same = [("b" * 64, outline(request(model="b"))), ("a" * 64, outline(request(model="c")))]
    assert nearest(HERE, same) == nearest(HERE, same[::-1])
    assert "aaaaaaaaaaaa" in nearest(HERE, same)


def test_only_requests_of_the_same_agent_count() -> None:
    other = outline(request(), agent="RiskManager")
    assert nearest(HERE, [("a" * 64, other)]) == "no request of Executor is on record"


def test_another_fingerprint_is_another_outline() -> None:
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


def test_rules_need_no_outline() -> None:
    assert outline_of({"client": "rules", "version": "1", "messages": messages()}, "X") is None


def test_an_outline_is_small_and_has_no_text_of_the_request() -> None:
    long = QUESTION | {"news": ["a headline that nobody must find here"] * 50}
    shape, marks = to_text(outline(request(messages=messages(question=long))))
    assert len(shape) + len(marks) < 700
    for text in (b"headline", b"You decide", b"It rises", b"580"):
        assert text not in shape + marks


def test_a_message_with_keys_that_are_prose_is_told_apart_as_a_whole() -> None:
    for report in ({"x" * 41: 1}, dict.fromkeys(map(str, range(41)))):
        assert outline(request(messages=messages(report=report))).messages[2].parts == ()


def test_what_was_written_is_what_is_read() -> None:
    for asked in (request(), request(messages=[]), request(messages=messages("", "", "{}"))):
        found = outline(asked)
        assert from_text(*to_text(found)) == from_row(to_row(found)) == found


@pytest.mark.parametrize(
    "changes",
    [{"marks": ""}, {"marks": "x y"}, {"messages": [[]]}, {"asked": {"a": []}}, {"asked": 1}],
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        from_row(to_row(HERE) | changes)


def test_an_address_with_a_secret_can_be_cleaned() -> None:
    found = outline(request(base_url="http://x/secret"))
    clean = clean_outline(found, lambda text: text.replace("secret", "[struck out: key]"))
    assert differences(clean, HERE) == ["base_url ('http://x/[struck out: key]' there, None here)"]
    assert clean_outline(found, str) is found


def test_a_cassette_looks_among_all_that_it_knows(tmp_path: Any) -> None:
    path = tmp_path / "r.sqlite"
    reply = RecordedReply("{}", "stop", 1, 2)
    Cassette(None, path).put("b" * 64, reply, outline(request(model="b")))
    cassette = Cassette(None, path)
    asked = outline(request(model="c"))
    assert "'b' there, 'c' here" in cassette.nearest(asked)
    cassette.put("a" * 64, reply, outline(request(model="c", tool_choice="none")))
    assert "tool_choice ('none' there, 'auto' here)" in cassette.nearest(asked)
    packaged = Cassette(cassette.used)
    assert "tool_choice" in packaged.nearest(asked)
    assert Cassette().nearest(asked) == "no request of Executor is on record"
