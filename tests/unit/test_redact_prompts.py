"""Copies of prompts and keys are found and struck out; what a desk says itself is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finagent_model._redact import KEY, NOTES, PASSAGE, PROMPT, redact, without_keys
from finagent_model.agents.prompt_templates import Prompts
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk.desk import redact_signal

PROMPTS = tuple(Prompts({}).text(name) for name in ("technical", "news", "risk", "executor"))
LINES = [" ".join(text.split()) for text in PROMPTS]
SECRET = "sk-abc123/DEF-xyz789"


def passages(least: int = PASSAGE) -> st.SearchStrategy[str]:
    """Any piece of a prompt that is long enough."""
    return st.sampled_from(LINES).flatmap(
        lambda line: st.integers(0, len(line) - least).flatmap(
            lambda start: st.integers(start + least, len(line)).map(lambda end: line[start:end])
        )
    )


def signal(**changes: object) -> TradingSignal:
    given = {
        "symbol": "GOOG",
        "action": "HOLD",
        "confidence": "LOW",
        "confidence_score": 0,
        "raw_confidence_score": 0,
        "calibrated": False,
        "status": "ok",
        "reasoning": "Nothing of note happened.",
        "model_used": "stub",
        "generated_at": datetime(2020, 1, 1, tzinfo=UTC),
        "as_of": datetime(2012, 6, 29, tzinfo=UTC),
        "conversation_id": "0",
        "tokens": 0,
    }
    return TradingSignal.model_validate(given | changes)


@given(before=st.text(max_size=50), passage=passages(), after=st.text(max_size=50))
def test_any_passage_of_forty_characters_is_struck_out(
    before: str, passage: str, after: str
) -> None:
    assume(len(passage.strip()) >= PASSAGE and KEY not in before + after)
    kept, notes = redact(before + passage + after, (), PROMPTS)
    assert PROMPT in kept and passage not in kept
    assert notes == (NOTES[PROMPT],)


@pytest.mark.parametrize(
    "disguise",
    [
        str.upper,
        str.title,
        lambda text: text.replace(" ", "\n  "),
        " ".join,
        "\u200b".join,
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        lambda text: text.replace("e", "e\u0301").replace("a", "\u00e4"),
    ],
    ids=["capitals", "title", "newlines", "spaced", "zero width", "full width", "accents"],
)
def test_case_blanks_invisible_characters_and_accents_hide_nothing(
    disguise: Callable[[str], str],
) -> None:
    passage = LINES[3][200:300].strip()
    kept, _ = redact(f"It said: {disguise(passage)}!", (), PROMPTS)
    assert kept == f"It said: {PROMPT}!"


def test_what_stands_around_a_passage_is_kept() -> None:
    text = f"First. {LINES[0][:60]} Then {LINES[2][80:140].upper()} and last."
    kept, _ = redact(text, (), PROMPTS)
    assert kept == f"First. {PROMPT} Then {PROMPT} and last."


def test_a_shorter_agreement_is_a_coincidence() -> None:
    text = f"~{LINES[1][: PASSAGE - 1]}~"
    assert redact(text, (), PROMPTS) == (text, ())


@given(text=st.text(max_size=300))
def test_other_text_is_left_as_it_is(text: str) -> None:
    assume(PROMPT not in text and KEY not in text)
    assert redact(text, (SECRET,), PROMPTS) == (text, ())


@given(parts=st.lists(st.text(max_size=30) | passages() | st.just(SECRET), max_size=5))
def test_striking_out_twice_changes_nothing(parts: list[str]) -> None:
    once, notes = redact("|".join(parts), (SECRET,), PROMPTS)
    assert redact(once, (SECRET,), PROMPTS) == (once, notes)


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-4f8a0c2e6b1d9a7f",
        "Bearer abcdef0123",
        "authorization: BEARER eyJhbGciOiJIUzI1NiJ9.e30.abc_def-123",
        "the API key is 0123456789abcdef0123456789ABCDEF.",
        "OPENAI_API_KEY=QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=",
        "secret: deadbeefdeadbeefdeadbeefdeadbeef",
        "dGhpcyBpcyBhIGJhc2U2NCBydW4gb2YgNDA+Lw== is the token",
        f"{SECRET} as it is",
        f"{SECRET.upper()} in capitals",
        f"{' '.join(SECRET)} in pieces",
        f"{chr(0x200B).join(SECRET)} in pieces that can't be seen",
    ],
)
def test_keys_are_known_by_their_value_or_their_shape(text: str) -> None:
    kept, notes = redact(text, (SECRET,), ())
    assert KEY in kept
    assert notes == (NOTES[KEY],)
    assert not any(len(word) > len("OPENAI_API_KEY=[struck") for word in kept.split())


@pytest.mark.parametrize(
    "text",
    [
        "A bearer instrument; Bearer bonds outstanding fell.",
        "On a risk-adjusted-returns basis SK-Hynix-linked names look cheap.",
        "The key support is the low of the year, the secret is patience.",
        "https://example.com/a/very/long/address/that/goes/on/and/on/for/ever",
        "",
    ],
)
def test_words_that_only_sound_like_keys_stay(text: str) -> None:
    assert redact(text, (SECRET,), PROMPTS) == (text, ())


def test_a_mark_makes_no_key_of_what_stands_beside_it() -> None:
    run = "a-very-long-run-of-words-and-hyphens"
    assert redact(f"{SECRET} {run}", (SECRET,), ())[0] == f"{KEY} {run}"
    assert redact(f"{KEY} {run}", (), ())[0] == f"{KEY} {run}"


def test_a_placeholder_for_a_key_is_a_word_like_any_other() -> None:
    text = '{"direction": "none"}'
    assert redact(text, ("none",), ()) == (text, ())
    assert without_keys(text, ("none",)) == text


def test_a_passage_that_is_spread_over_several_texts_is_found() -> None:
    pieces = tuple(LINES[3][i : i + 30] for i in range(0, 300, 30))
    kept = redact_signal(signal(key_factors=pieces), (), PROMPTS)
    assert set(kept.key_factors) == {PROMPT}
    assert kept.clamps == (NOTES[PROMPT],)
    assert kept.reasoning == "Nothing of note happened."


def test_reasoning_key_factors_and_warnings_are_looked_at_and_clamps_say_so() -> None:
    leaking = signal(
        reasoning=f"I was told: {PROMPTS[0]}",
        key_factors=("trend", SECRET),
        warnings=(f"left out: {PROMPTS[1]}",),
        clamps=("stop derived",),
    )
    kept = redact_signal(leaking, (SECRET,), PROMPTS)
    assert kept.reasoning == f"I was told: {PROMPT}"
    assert kept.key_factors == ("trend", KEY)
    assert kept.warnings == (f"left out: {PROMPT}",)
    assert kept.clamps == ("stop derived", NOTES[KEY], NOTES[PROMPT])


def test_a_signal_that_gives_nothing_away_is_the_same_one() -> None:
    clean = signal(key_factors=("trend vote +0.41",), warnings=("untrained",))
    assert redact_signal(clean, (SECRET,), PROMPTS) is clean


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        SECRET.upper(),
        SECRET.replace("/", "\\/"),
        "".join(f"\\u{ord(c):04x}" for c in SECRET),
        "".join(f"\\u{ord(c):04X}" for c in SECRET),
        " ".join(SECRET),
        "\\n".join(SECRET),
        "\\u200b".join(SECRET),
    ],
)
def test_a_record_loses_the_key_in_every_spelling_and_stays_json(spelled: str) -> None:
    text = f'{{"reasoning": "It is {spelled}, they say", "score": 1.0}}'
    kept = without_keys(text, (SECRET,))
    assert json.loads(kept) == {"reasoning": f"It is {KEY}, they say", "score": 1.0}
