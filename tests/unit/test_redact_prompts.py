"""Copies of prompts and keys are found and redacted; what a desk says itself is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finagent_model._redact import (
    KEY_MARK,
    MIN_PASSAGE_CHARS,
    NOTES,
    PROMPT_MARK,
    redact,
    redact_secrets,
)
from finagent_model.config.desk_config import Prompts
from finagent_model.decision.signal import TradingSignal
from finagent_model.desk._reply_signal import redact_signal

PROMPTS = tuple(Prompts({}).text(name) for name in ("technical", "news", "risk", "executor"))
LINES = [" ".join(text.split()) for text in PROMPTS]
SECRET = "sk-abc123/DEF-xyz789"


def passages(least: int = MIN_PASSAGE_CHARS) -> st.SearchStrategy[str]:
    """Any piece of a prompt that is long enough."""
    return st.sampled_from(LINES).flatmap(
        lambda line: st.integers(0, len(line) - least).flatmap(
            lambda start: st.integers(start + least, len(line)).map(lambda end: line[start:end])
        )
    )


def signal(**changes: object) -> TradingSignal:
    fields = {
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
    return TradingSignal.model_validate(fields | changes)


@given(before=st.text(max_size=50), passage=passages(), after=st.text(max_size=50))
def test_redact_any_passage_of_40_characters(before: str, passage: str, after: str) -> None:
    assume(len(passage.strip()) >= MIN_PASSAGE_CHARS and KEY_MARK not in before + after)
    redacted, notes = redact(before + passage + after, (), PROMPTS)
    assert PROMPT_MARK in redacted and passage not in redacted
    assert notes == (NOTES[PROMPT_MARK],)


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
def test_redact_disguised_passage(
    disguise: Callable[[str], str],
) -> None:
    passage = LINES[3][200:300].strip()
    redacted, _ = redact(f"It said: {disguise(passage)}!", (), PROMPTS)
    assert redacted == f"It said: {PROMPT_MARK}!"


def test_redact_keeps_text_around_passage() -> None:
    text = f"First. {LINES[0][:60]} Then {LINES[2][80:140].upper()} and last."
    redacted, _ = redact(text, (), PROMPTS)
    assert redacted == f"First. {PROMPT_MARK} Then {PROMPT_MARK} and last."


def test_redact_leaves_short_agreement() -> None:
    text = f"~{LINES[1][: MIN_PASSAGE_CHARS - 1]}~"
    assert redact(text, (), PROMPTS) == (text, ())


@given(text=st.text(max_size=300))
def test_redact_leaves_other_text(text: str) -> None:
    assume(PROMPT_MARK not in text and KEY_MARK not in text)
    assert redact(text, (SECRET,), PROMPTS) == (text, ())


@given(parts=st.lists(st.text(max_size=30) | passages() | st.just(SECRET), max_size=5))
def test_redact_is_idempotent(parts: list[str]) -> None:
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
def test_redact_keys_by_value_or_shape(text: str) -> None:
    redacted, notes = redact(text, (SECRET,), ())
    assert KEY_MARK in redacted
    assert notes == (NOTES[KEY_MARK],)
    assert not any(len(word) > len("OPENAI_API_KEY=[redacted:") for word in redacted.split())


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
def test_redact_leaves_words_that_sound_like_keys(text: str) -> None:
    assert redact(text, (SECRET,), PROMPTS) == (text, ())


def test_redact_mark_makes_no_key_of_its_neighbour() -> None:
    run = "a-very-long-run-of-words-and-hyphens"
    assert redact(f"{SECRET} {run}", (SECRET,), ())[0] == f"{KEY_MARK} {run}"
    assert redact(f"{KEY_MARK} {run}", (), ())[0] == f"{KEY_MARK} {run}"


def test_redact_leaves_placeholder_key() -> None:
    text = '{"direction": "none"}'
    assert redact(text, ("none",), ()) == (text, ())
    assert redact_secrets(text, ("none",)) == text


def test_redact_passage_spread_over_texts() -> None:
    pieces = tuple(LINES[3][i : i + 30] for i in range(0, 300, 30))
    redacted = redact_signal(signal(key_factors=pieces), (), PROMPTS)
    assert set(redacted.key_factors) == {PROMPT_MARK}
    assert redacted.clamps == (NOTES[PROMPT_MARK],)
    assert redacted.reasoning == "Nothing of note happened."


def test_redact_signal_covers_every_text() -> None:
    leaking = signal(
        reasoning=f"I was told: {PROMPTS[0]}",
        key_factors=("trend", SECRET),
        warnings=(f"left out: {PROMPTS[1]}",),
        clamps=("stop derived",),
    )
    redacted = redact_signal(leaking, (SECRET,), PROMPTS)
    assert redacted.reasoning == f"I was told: {PROMPT_MARK}"
    assert redacted.key_factors == ("trend", KEY_MARK)
    assert redacted.warnings == (f"left out: {PROMPT_MARK}",)
    assert redacted.clamps == ("stop derived", NOTES[KEY_MARK], NOTES[PROMPT_MARK])


def test_redact_signal_without_leak_is_unchanged() -> None:
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
def test_redact_secrets_keeps_json_in_every_spelling(spelled: str) -> None:
    text = f'{{"reasoning": "It is {spelled}, they say", "score": 1.0}}'
    redacted = redact_secrets(text, (SECRET,))
    assert json.loads(redacted) == {"reasoning": f"It is {KEY_MARK}, they say", "score": 1.0}
