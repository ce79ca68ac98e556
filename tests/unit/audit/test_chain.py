"""An audit holds everything once, in one form, and nobody edits it unnoticed: what was done to it
is found, and the line is named.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.audit.chain import LIBRARIES, LONG, AuditChain, audit_chain, chain_decisions
from finagent_model.audit.tampering import ChainFault, verify_chain
from finagent_model.decision.decision import Decision, Event
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import BadInputError
from finagent_model.pipeline.record import verify_audit
from support.places import AS_OF, Place

NOON = datetime(2012, 6, 29, 12, tzinfo=UTC)
PROMPT = "You are an analyst. " * 20


def signal(number: int = 0, **changes: Any) -> TradingSignal:
    blank = {
        "symbol": "GOOG",
        "action": "HOLD",
        "confidence": "LOW",
        "confidence_score": 0,
        "raw_confidence_score": 0,
        "calibrated": False,
        "status": "ok",
        "reasoning": "nothing to be done",
        "model_used": "rules",
        "generated_at": NOON + timedelta(milliseconds=250),
        "as_of": NOON,
        "conversation_id": f"{number:016x}",
        "tokens": 0,
        "cost_usd": 0.0,
    }
    return TradingSignal.model_validate(blank | changes)


def event(kind: Any = "reply", agent: str = "Executor", **body: Any) -> Event:
    return Event(kind, NOON, agent, body)


def conversation(number: int) -> tuple[Event, ...]:
    question = f"question {number} " * 30
    asked = [{"role": "system", "text": PROMPT}, {"role": "user", "text": question}]
    return (
        event("question", "", text=question),
        event("request", messages=asked),
        event("reply", text="HOLD", tokens={"prompt": 10, "completion": 2}),
    )


def audited(decisions: int = 3) -> AuditChain:
    made = [(signal(number), conversation(number)) for number in range(decisions)]
    return chain_decisions(made, {"code_hash": "c" * 64, "pandas": None})


def rows(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


# --- what an audit holds -------------------------------------------------------------------------


def test_an_audit_begins_with_versions_and_ends_with_its_length() -> None:
    found = rows(audited(1).lines)
    assert [row["kind"] for row in found] == [
        "begin",
        "question",
        "request",
        "reply",
        "signal",
        "end",
    ]
    versions = {"code_hash": "c" * 64, "pandas": None}
    assert found[0]["body"] == {"format": 1, "versions": versions}
    assert found[-1]["body"] == {"lines": 6}
    fields = {"seq", "prev", "hash", "kind", "at", "agent", "conversation_id", "symbol", "as_of"}
    assert all(row.keys() == fields | {"body"} for row in found)
    assert [row["seq"] for row in found] == [1, 2, 3, 4, 5, 6]


def test_a_decision_ends_with_its_whole_signal_and_the_time_it_took() -> None:
    said = rows(audited(1).lines)[4]
    assert TradingSignal.model_validate(
        {k: v for k, v in said["body"]["signal"].items() if k != "is_actionable"}
    ) == signal(0)
    assert said["body"]["elapsed_ms"] == 250.0
    assert (said["symbol"], said["conversation_id"]) == ("GOOG", "0" * 16)
    silent = rows(chain_decisions([(signal(), ())], {}).lines)[1]
    assert silent["body"]["elapsed_ms"] is None


def test_each_line_is_hashed_and_names_the_one_before_so_that_two_tools_can_check_it(
    tmp_path: Path,
) -> None:
    made = audited()
    before = "0" * 64
    for line in made.lines.splitlines():
        content, _, tail = line.rpartition(',"hash":"')
        assert hashlib.sha256(f"{content}}}".encode()).hexdigest() == tail.removesuffix('"}')
        assert json.loads(line)["prev"] == before
        plain = {key: value for key, value in json.loads(line).items() if key != "hash"}
        assert content + "}" == json.dumps(plain, sort_keys=True, separators=(",", ":"))
        before = tail.removesuffix('"}')
    assert made.head == before
    path = tmp_path / "audit.jsonl"
    path.write_text(made.lines)
    shell = f"""tail -n1 {path} | sed 's/,"hash":"[0-9a-f]*"}}$/}}/' | tr -d '\\n' | sha256sum"""
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == made.head


def test_equal_decisions_have_equal_audits() -> None:
    assert audited() == audited()


def test_a_long_text_is_written_once_and_referred_to_afterwards() -> None:
    lines = audited(3).lines
    assert lines.count(PROMPT) == 1
    requests = [row["body"]["messages"] for row in rows(lines) if row["kind"] == "request"]
    assert requests[0][0] == {"role": "system", "text": PROMPT}
    reference = {"sha256": hashlib.sha256(PROMPT.encode()).hexdigest()}
    assert requests[1][0] == requests[2][0] == {"role": "system", "text": reference}
    for number, messages in enumerate(requests):
        question = f"question {number} " * 30
        assert lines.count(question) == 1
        assert messages[1]["text"] == {"sha256": hashlib.sha256(question.encode()).hexdigest()}


def test_short_texts_and_texts_of_the_same_line_are_written_in_full() -> None:
    long = "x" * LONG
    twice = chain_decisions(
        [(signal(), [event(text=long, messages=[long, long[1:], long[1:]])])], {}
    )
    assert rows(twice.lines)[1]["body"] == {"text": long, "messages": [long, long[1:], long[1:]]}
    assert verify_chain(twice.lines, twice.head) == ()


def test_any_text_can_be_kept_and_a_line_is_ascii() -> None:
    texts = ["Zürich \u2028 \x85 \r\n\x00", "\ud83d " * LONG, "😀" * LONG]
    made = chain_decisions([(signal(), [event(text=text) for text in texts * 2])], {})
    assert made.lines.isascii()
    assert made.lines.count("\n") == 9
    assert [row["body"]["text"] for row in rows(made.lines)[1:4]] == texts
    assert verify_chain(made.lines, made.head) == ()


@pytest.mark.parametrize(
    "body",
    [{"x": float("nan")}, {"x": NOON}, {"text": {"sha256": "0" * 64}}],
)
def test_an_event_that_is_not_plain_json_is_named(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"event 'reply' of Executor can't be kept in an audit"):
        chain_decisions([(signal(), [event(**body)])], {})


def test_the_audit_of_a_run_says_which_libraries_and_which_package() -> None:
    decision = Decision(signal(), events=conversation(0))
    found = rows(audit_chain([decision], "c" * 64, "d" * 64).lines)
    versions = found[0]["body"]["versions"]
    assert (versions["code_hash"], versions["content_hash"]) == ("c" * 64, "d" * 64)
    assert all(versions[name] for name in LIBRARIES)
    assert len(found) == 6


def test_events_do_not_make_decisions_differ() -> None:
    assert Decision(signal(), events=conversation(0)) == Decision(signal())


# --- one thing done to it ------------------------------------------------------------------------

Lines = list[str]


def sealed(line: str, **changes: Any) -> str:
    """The line with other fields and a hash that is right again."""
    fields = {**json.loads(line), **changes}
    del fields["hash"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return f'{text[:-1]},"hash":"{hashlib.sha256(text.encode()).hexdigest()}"}}'


def resealed(lines: Sequence[str]) -> Lines:
    """Every line numbered, linked and hashed again: what only a head kept elsewhere tells."""
    done: Lines = []
    for number, line in enumerate(lines, 1):
        before = json.loads(done[-1])["hash"] if done else "0" * 64
        body = json.loads(line)["body"]
        if json.loads(line)["kind"] == "end":
            body = {"lines": number}
        done.append(sealed(line, seq=number, prev=before, body=body))
    return done


def found(lines: Iterable[str], head: str | None) -> list[tuple[int, str]]:
    faults = verify_chain("".join(f"{line}\n" for line in lines), head)
    return [(fault.line, fault.what) for fault in faults]


MADE = audited()
WRITTEN = MADE.lines.splitlines()
COUNT = len(WRITTEN)
HEADS = pytest.mark.parametrize("head", [MADE.head, None])
EVERY = range(COUNT)


def test_an_audit_as_it_was_written_has_no_fault() -> None:
    assert verify_chain(MADE.lines, MADE.head) == verify_chain(MADE.lines) == ()
    nothing = chain_decisions([], {})
    assert verify_chain(nothing.lines, nothing.head) == ()


@HEADS
@pytest.mark.parametrize(
    "edit",
    [
        lambda line: line.replace('"agent":"', '"agent":"X', 1),
        lambda line: line.replace('"body":{', '"body":{"new":1,', 1),
        lambda line: line.replace(":", ": ", 1),
        lambda line: line.replace('"prev":"', '"prev":"f', 1),
        lambda line: line.replace('"seq":', '"seq":1', 1),
        lambda line: line[:-2] + ("0" if line[-3] == "f" else "f") + line[-2:],
        lambda line: line[:-3] + ("0" if line[-3] == "f" else "f") + line[-2:],
        lambda line: line + " ",
        lambda line: line + "\r",
    ],
)
def test_a_changed_line_is_named(edit: Callable[[str], str], head: str | None) -> None:
    for at in EVERY:
        lines = WRITTEN.copy()
        lines[at] = edit(lines[at])
        assert found(lines, head) == [(at + 1, "changed")]


@HEADS
@pytest.mark.parametrize("text", ["", "gone", "[1]", "{}", "[" * 100_000, '{"seq":' + "9" * 5000])
def test_a_line_that_cannot_be_read_is_named(text: str, head: str | None) -> None:
    for at in EVERY:
        lines = WRITTEN.copy()
        lines[at] = text
        assert found(lines, head) == [(at + 1, "unreadable")]


@HEADS
def test_a_line_with_a_hash_of_its_own_again_is_named(head: str | None) -> None:
    for at in EVERY[:-1]:
        lines = WRITTEN.copy()
        lines[at] = sealed(lines[at], agent="Mallory")
        assert found(lines, head) == [(at + 1, "changed")]


@HEADS
def test_a_removed_line_is_named(head: str | None) -> None:
    for at in EVERY[:-1]:
        lines = WRITTEN.copy()
        del lines[at]
        assert found(lines, head) == [(at + 1, "removed")]


@HEADS
def test_lines_removed_together_are_told_together(head: str | None) -> None:
    lines = WRITTEN[:3] + WRITTEN[7:]
    [fault] = verify_chain("\n".join([*lines, ""]), head)
    assert fault == ChainFault(4, "removed", "lines 4 to 7 of the chain missing")


@HEADS
def test_two_swapped_lines_are_named_and_no_other(head: str | None) -> None:
    for one in EVERY:
        for other in range(one + 1, COUNT):
            lines = WRITTEN.copy()
            lines[one], lines[other] = lines[other], lines[one]
            assert found(lines, head) == [(one + 1, "swapped"), (other + 1, "swapped")]


@HEADS
def test_a_line_carried_elsewhere_is_the_one_that_is_named(head: str | None) -> None:
    lines = WRITTEN.copy()
    lines.insert(8, lines.pop(2))
    assert found(lines, head) == [(9, "swapped")]


@HEADS
def test_an_added_line_is_named(head: str | None) -> None:
    for at in range(COUNT + 1):
        forged = sealed(WRITTEN[at - 1], kind="reply", prev="a" * 64, seq=at + 1)
        for line in ("", "gone", "{}", WRITTEN[3].replace("GOOG", "FB"), forged):
            lines = [*WRITTEN[:at], line, *WRITTEN[at:]]
            assert found(lines, head) == [(at + 1, "added")]


@HEADS
def test_a_line_that_fits_its_place_but_is_none_of_the_chain_is_added(head: str | None) -> None:
    for at in EVERY[1:]:
        before = json.loads(WRITTEN[at - 1])
        forged = sealed(WRITTEN[at - 1], kind="reply", prev=before["hash"], seq=at + 1)
        lines = [*WRITTEN[:at], forged, *WRITTEN[at:]]
        assert found(lines, head) == [(at + 1, "added")]


@HEADS
def test_a_line_said_twice_is_added(head: str | None) -> None:
    for at in EVERY:
        for copied in set(EVERY) - {at, at - 1}:
            lines = [*WRITTEN[:at], WRITTEN[copied], *WRITTEN[at:]]
            assert found(lines, head) == [(at + 1, "added")]


@HEADS
def test_lines_added_behind_the_last_are_named(head: str | None) -> None:
    last = json.loads(WRITTEN[-1])
    more = sealed(WRITTEN[3], seq=COUNT + 1, prev=last["hash"])
    again = sealed(WRITTEN[-1], seq=COUNT + 2, prev=json.loads(more)["hash"])
    assert found([*WRITTEN, more, again], head) == [(COUNT + 1, "added"), (COUNT + 2, "added")]


@HEADS
def test_a_tail_that_was_cut_off_is_missed(head: str | None) -> None:
    for kept in range(1, COUNT):
        assert found(WRITTEN[:kept], head) == [(kept + 1, "cut off")]
    assert verify_chain("", head)[0].what == "cut off"


@HEADS
def test_a_file_that_ends_within_a_line_is_cut_off(head: str | None) -> None:
    for size in range(len(MADE.lines) - 700, len(MADE.lines)):
        text = MADE.lines[:size]
        kept = text.count("\n") + (not text.endswith("\n"))
        [fault] = verify_chain(text, head)
        assert fault.what == "cut off"
        assert fault.line == kept + text.endswith("\n")


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: [*lines[:2], lines[2].replace("Executor", "Mallory"), *lines[3:]],
        lambda lines: [*lines[:4], *lines[5:]],
        lambda lines: [*lines[:4], lines[8], *lines[4:]],
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        lambda lines: [*lines[:5], lines[-1]],
    ],
)
def test_whoever_writes_every_hash_again_is_found_by_the_head_alone(
    edit: Callable[[Lines], Lines],
) -> None:
    forged = resealed(edit(WRITTEN))
    assert found(forged, MADE.head) == [(len(forged), "other head")]
    assert found(forged, None) == []


def test_a_reference_to_a_text_that_nobody_said_is_named() -> None:
    forged = resealed([WRITTEN[0], *WRITTEN[5:]])
    assert found(forged, None) == [(3, "changed"), (7, "changed")]
    text = "\n".join([*forged, ""])
    assert "refers to a text that no line above has" in verify_chain(text)[0].words


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[1:],
        lambda lines: [*lines[:-1], lines[3], lines[-1].replace("reply", "end")],
        lambda lines: [*lines[:4], lines[0], *lines[4:]],
        lambda lines: [*lines[:4], lines[-1], *lines[4:]],
    ],
)
def test_a_forgery_that_is_no_chain_is_found_without_a_head(edit: Callable[[Lines], Lines]) -> None:
    assert found(resealed(edit(WRITTEN))[:-1], None)


def test_a_number_that_no_file_can_have_takes_no_time() -> None:
    for number in (10**9, 10**11, 10**40):
        forged = sealed(WRITTEN[-1], seq=number, body={"lines": number})
        assert found([*WRITTEN[:-1], forged], None)
        assert found([*WRITTEN[:-1], forged], MADE.head)


def test_another_format_is_not_judged() -> None:
    newer = resealed([sealed(WRITTEN[0], body={"format": 2}), *WRITTEN[1:]])
    with pytest.raises(BadInputError, match="format 2, this code reads format 1"):
        found(newer, None)


# --- several things done to it -------------------------------------------------------------------


@HEADS
@pytest.mark.parametrize("first", ["changed", "sealed", "removed", "added"])
@pytest.mark.parametrize("second", ["changed", "sealed", "removed", "added"])
def test_two_things_at_once_are_both_named(first: str, second: str, head: str | None) -> None:
    def done(lines: Lines, at: int, what: str) -> Lines:
        here = {
            "changed": [lines[at].replace('"agent":"', '"agent":"X', 1)],
            "sealed": [sealed(lines[at], agent="Mallory")],
            "removed": [],
            "added": ["{}", lines[at]],
        }
        return [*lines[:at], *here[what], *lines[at + 1 :]]

    moved = {"removed": -1, "added": 1}
    called = {"sealed": "changed"}
    for one in EVERY:
        for other in range(one + 2, COUNT - 1):
            lines = done(done(WRITTEN, other, second), one, first)
            now = other + 1 + (0 if second == "removed" else moved.get(first, 0))
            expected = [(one + 1, called.get(first, first)), (now, called.get(second, second))]
            assert found(lines, head) == expected


plain = st.text(st.characters(codec="utf-8"), max_size=20) | st.integers() | st.none()
said = st.text(st.sampled_from("ab\n\u2028é"), max_size=5).map(lambda text: text * 60)
bodies = st.dictionaries(st.sampled_from(["text", "note", "tokens"]), plain | said, max_size=3)
messages = st.lists(said | bodies, max_size=3).map(lambda found: {"messages": found})
events = st.builds(
    Event, st.sampled_from(["request", "reply", "clamp"]), st.just(NOON), plain, bodies | messages
)
chains = st.lists(st.lists(events, max_size=4), max_size=4).map(
    lambda talks: chain_decisions([(signal(n), talk) for n, talk in enumerate(talks)], {})
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains)
def test_no_audit_has_a_fault_as_it_was_written(made: AuditChain) -> None:
    assert verify_chain(made.lines, made.head) == verify_chain(made.lines) == ()


@dataclass(frozen=True)
class Kept:
    """A line of a file that is being tampered with."""

    text: str
    origin: int | None
    """Its place in the chain; None for a line that was added."""
    touched: bool = False


@st.composite
def tampering(draw: st.DrawFn) -> tuple[AuditChain, list[Kept]]:
    """A chain, and what is left of its lines after up to four crude edits."""
    made = draw(chains)
    lines = [Kept(text, at) for at, text in enumerate(made.lines.splitlines())]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["change", "garble", "remove", "swap", "add", "copy"])):
            case "change":
                text = lines[at].text or "?"
                place = draw(st.integers(0, len(text) - 1))
                letter = draw(st.sampled_from('0a"{}:, é').filter(lambda c: c != text[place]))  # noqa: B023
                changed = text[:place] + letter + text[place + 1 :]
                lines[at] = replace(lines[at], text=changed, touched=True)
            case "garble":
                lines[at] = replace(lines[at], text=draw(st.sampled_from(["", "x"])), touched=True)
            case "remove" if len(lines) > 1:
                del lines[at]
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "add":
                lines.insert(at, Kept(draw(st.sampled_from(["", "x", "{}"])), None, True))
            case "copy":
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
    return made, lines


@pytest.mark.slow
@settings(max_examples=250, deadline=None, derandomize=True)
@given(tampering(), st.booleans())
def test_whatever_was_done_is_found_and_no_innocent_line_is_named(
    case: tuple[AuditChain, list[Kept]], anchored: bool
) -> None:
    made, kept = case
    text = "".join(f"{line.text}\n" for line in kept)
    written = made.lines.splitlines()
    innocent = {
        at: line.origin
        for at, line in enumerate(kept, 1)
        if line.origin is not None and line.text == written[line.origin]
    }
    try:
        faults = verify_chain(text, made.head if anchored else None)
    except BadInputError:
        assert not innocent  # nothing is left of it
        return
    assert bool(faults) == (text != made.lines)
    there = set(innocent.values())
    twice = {origin for origin in there if list(innocent.values()).count(origin) > 1}
    for fault in faults:
        origin = innocent.get(fault.line)
        match fault.what:
            case "changed" | "unreadable":
                assert origin is None
            case "added":
                assert origin is None or origin in twice
            case "removed":
                assert fault.line - 1 not in there
            case "swapped":
                assert origin is not None
                ahead = [o for at, o in innocent.items() if at < fault.line]
                behind = [o for at, o in innocent.items() if at > fault.line]
                assert max(ahead, default=-1) > origin or min(behind, default=len(written)) < origin
            case "cut off":
                assert fault.line == len(kept) + 1
                assert innocent.get(len(kept)) != len(written) - 1
            case _:
                raise AssertionError(fault)
    named = {fault.line for fault in faults if fault.what != "removed"}
    assert set(range(1, len(kept) + 1)) - set(innocent) <= named


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tampering())
def test_what_was_done_and_sealed_again_is_found_by_the_head(
    case: tuple[AuditChain, list[Kept]],
) -> None:
    made, kept = case
    lines = [line.text for line in kept if line.text.startswith("{") and not line.touched]
    if lines and resealed(lines) != made.lines.splitlines():
        assert found(resealed(lines), made.head)


# --- files, runs and the command line ------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    MADE.write(path)
    return path


def test_a_file_alone_is_not_anchored_and_the_words_say_so(file: Path) -> None:
    alone, held = verify_audit(str(file)), verify_audit(str(file), MADE.head)
    assert (alone.whole, alone.anchored, alone.head) == (True, False, MADE.head)
    assert "not anchored" in alone.words
    assert (held.whole, held.anchored, held.lines) == (True, True, COUNT)
    assert "not anchored" not in held.words


def test_bytes_that_are_no_text_are_a_change(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"GOOG", b"GO\xff\xfe", 1)
    file.write_bytes(b"".join(lines))
    assert [fault.line for fault in verify_audit(str(file), MADE.head).faults] == [5]


@pytest.mark.parametrize(
    ("what", "head", "said"),
    [
        ("nowhere.jsonl", None, "No such file"),
        (".", None, "Is a directory"),
        (__file__, None, "none of its lines is a line of an audit"),
        (__file__, "F" * 64, "is not a SHA-256"),
    ],
)
def test_what_is_no_audit_is_bad_input(what: str, head: str | None, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        verify_audit(what, head)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="can't be written: Is a directory"):
        MADE.write(tmp_path)


def runs(place: Place, query: str) -> list[tuple[str, ...]]:
    """Straight from MLflow's tables: a client takes six seconds to import."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as store:
        return store.execute(query).fetchall()


FIRST = "select run_uuid from runs where name = '{}' order by start_time limit 1"
"""Others may have trained in the same place."""


@pytest.mark.slow
def test_predict_writes_an_audit_that_verifies_until_somebody_edits_it(
    trained: Place, tmp_path: Path
) -> None:
    file = tmp_path / "audit.jsonl"
    options = ["FB", "--as-of", AS_OF, "--json", "--log", "--audit", str(file)]
    done = trained.finagent("predict", *options)
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines(keepends=True)
    first, said = json.loads(lines[0]), json.loads(lines[-2])
    assert said["body"]["signal"] == json.loads(done.stdout)
    listed = json.loads(trained.finagent("models", "--json").stdout)
    [row] = [each for each in listed if "champion" in each["aliases"]]
    assert first["body"]["versions"]["content_hash"] == row["content_hash"]

    head = json.loads(lines[-1])["hash"]
    assert f"audit {file}: its head is {head}" in done.stderr
    tagged = f"select run_uuid from tags where key = 'finagent.audit_head' and value = '{head}'"
    [[run]] = runs(trained, tagged)
    whole = trained.finagent("audit", "verify", run)
    assert (whole.returncode, "is whole: " in whole.stdout) == (0, True), whole.stderr
    alone = trained.finagent("audit", "verify", str(file))
    assert (alone.returncode, "not anchored" in alone.stdout) == (0, True), alone.stderr

    at = len(lines) - 2
    lines[at] = lines[at].replace('"status":"ok"', '"status":"no"')
    file.write_text("".join(lines))
    edited = trained.finagent("audit", "verify", str(file), "--head", head)
    assert edited.returncode == 5
    assert edited.stdout.startswith(f"line {at + 1} changed: ")
    told = trained.finagent("audit", "verify", str(file), "--json")
    assert told.returncode == 5
    report = json.loads(told.stdout)
    assert (report["whole"], report["anchored"], report["head"]) == (False, False, head)
    assert [(fault["line"], fault["what"]) for fault in report["faults"]] == [(at + 1, "changed")]


@pytest.mark.slow
def test_the_audit_of_a_backtest_is_held_against_its_runs_tag(trained: Place) -> None:
    [[run]] = runs(trained, FIRST.format("backtest FB"))
    [file] = (trained.folder / "mlruns").rglob(f"{run}/artifacts/audit.jsonl")
    whole = file.read_text()
    assert len({row["conversation_id"] for row in rows(whole)} - {""}) == 71
    try:
        file.write_text("\n".join([*resealed(whole.splitlines()[:-2]), ""]))
        edited = trained.finagent("audit", "verify", run, "--json")
    finally:
        file.write_text(whole)
    assert edited.returncode == 5, edited.stderr
    assert {fault["what"] for fault in json.loads(edited.stdout)["faults"]} >= {"cut off"}
    assert trained.finagent("audit", "verify", run).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"), [("0" * 32, "can't be read from sqlite"), (None, "has no tag")]
)
def test_a_run_without_an_audit_is_bad_input(trained: Place, what: str | None, said: str) -> None:
    [[training]] = runs(trained, FIRST.format("train FB"))
    done = trained.finagent("audit", "verify", what or training)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
