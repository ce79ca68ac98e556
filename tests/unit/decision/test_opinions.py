"""What agents thought, read from replies of any form; who disagreed; how long each took."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finagent_model.decision.decision import Turn
from finagent_model.decision.opinions import (
    MAX_LINE_CHARS,
    Opinion,
    dump_opinions,
    load_opinions,
    measure_seconds,
    read_opinions,
)
from support.decisions import at, events, turns


def reply(**fields: Any) -> str:
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("text", "stance", "score", "confidence"),
    [
        (reply(trend="bullish", score=0.4, summary="It rises."), "up", 0.4, None),
        (reply(direction="short", summary="No room."), "down", None, None),
        (reply(action="HOLD", trend="bullish", confidence_score=40), "flat", None, 40.0),
        (reply(trend="sideways", score="0.4"), None, None, None),
        (reply(score=7, confidence_score=-1), None, None, None),
        (reply(score=True), None, None, None),
        ('{"score": 1e999}', None, None, None),
        (f'{{"score": {10**400}}}', None, None, None),
        ("It rises, they say.", None, None, None),
        ("[" * 5000, None, None, None),
        ('{"a": ' * 5000, None, None, None),
        (None, None, None, None),
    ],
)
def test_opinion_from_reply_takes_only_what_is_said(
    text: str | None, stance: str | None, score: float | None, confidence: float | None
) -> None:
    opinion = Opinion.from_reply("A", text)
    assert (opinion.stance, opinion.score, opinion.confidence) == (stance, score, confidence)


def test_opinion_line_is_one_line_and_bounded() -> None:
    opinion = Opinion.from_reply("A", reply(reasoning="a\nb " * 500, summary="other"))
    assert opinion.line is not None
    assert opinion.line.startswith("a b a b")
    assert len(opinion.line) == MAX_LINE_CHARS


def test_opinion_dissents_only_from_opposite_call() -> None:
    up, down, flat = (
        Opinion("A", "up"),
        Opinion("A", "down"),
        Opinion("A", "flat"),
    )
    assert [o.dissents("BUY") for o in (up, down, flat, Opinion("A"))] == [
        False,
        True,
        False,
        False,
    ]
    assert [o.dissents("SELL") for o in (up, down, flat)] == [True, False, False]
    assert not any(o.dissents(action) for o in (up, down, flat) for action in ("HOLD", None))


def test_read_opinions_joins_rounds_of_debater() -> None:
    said = [
        Turn("Bear", "response", reply(trend="bullish"), at(0)),
        Turn("Bear_2", "response", reply(trend="bearish", summary="It falls."), at(1)),
        Turn("Desk_7", "response", reply(trend="neutral"), at(2)),
        Turn("Quiet", "skipped", "no news", at(2)),
    ]
    assert [(o.agent, o.stance) for o in read_opinions(said)] == [
        ("Bear", "down"),
        ("Desk_7", "flat"),
    ]


def test_opinions_survive_their_file_or_are_unknown() -> None:
    opinions = read_opinions(turns())
    assert load_opinions(dump_opinions(opinions)) == opinions
    for text in (None, "", "{", '[{"agent": "A", "mood": 1}]', "[1]"):
        assert load_opinions(text) is None


def test_measure_seconds_of_each_reply() -> None:
    # Of the mended analyst both; of who was never asked, and without events, nobody knows.
    assert measure_seconds(turns(), events()) == [None, None, 1.5, None, 0.75, 2.0, 1.5]
    assert measure_seconds(turns(), ()) == [None] * 7
