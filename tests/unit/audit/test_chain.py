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

from finagent_model.audit.chain import (
    LIBRARIES,
    LONG_TEXT_CHARS,
    AuditChain,
    audit_decisions,
    chain_decisions,
)
from finagent_model.audit.verification import ChainFault, verify_chain
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


def make_audit(decisions: int = 3) -> AuditChain:
    made = [(signal(number), conversation(number)) for number in range(decisions)]
    return chain_decisions(made, {"code_hash": "c" * 64, "pandas": None})


def rows(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


# --- what an audit holds -------------------------------------------------------------------------


def test_audit_begins_with_versions() -> None:
    lines = rows(make_audit(1).lines)
    assert [row["kind"] for row in lines] == [
        "begin",
        "question",
        "request",
        "reply",
        "signal",
        "end",
    ]
    versions = {"code_hash": "c" * 64, "pandas": None}
    assert lines[0]["body"] == {"format": 1, "versions": versions}
    assert lines[-1]["body"] == {"lines": 6}
    fields = {"seq", "prev", "hash", "kind", "at", "agent", "conversation_id", "symbol", "as_of"}
    assert all(row.keys() == fields | {"body"} for row in lines)
    assert [row["seq"] for row in lines] == [1, 2, 3, 4, 5, 6]


def test_audit_decision_ends_with_signal_with_elapsed_time() -> None:
    said = rows(make_audit(1).lines)[4]
    assert TradingSignal.model_validate(
        {k: v for k, v in said["body"]["signal"].items() if k != "is_actionable"}
    ) == signal(0)
    assert said["body"]["elapsed_ms"] == 250.0
    assert (said["symbol"], said["conversation_id"]) == ("GOOG", "0" * 16)
    silent = rows(chain_decisions([(signal(), ())], {}).lines)[1]
    assert silent["body"]["elapsed_ms"] is None


def test_audit_chain_checks_by_python_or_shell(
    tmp_path: Path,
) -> None:
    made = make_audit()
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


def test_audit_of_equal_decisions_is_equal() -> None:
    assert make_audit() == make_audit()


def test_audit_writes_long_text_once() -> None:
    lines = make_audit(3).lines
    assert lines.count(PROMPT) == 1
    requests = [row["body"]["messages"] for row in rows(lines) if row["kind"] == "request"]
    assert requests[0][0] == {"role": "system", "text": PROMPT}
    reference = {"sha256": hashlib.sha256(PROMPT.encode()).hexdigest()}
    assert requests[1][0] == requests[2][0] == {"role": "system", "text": reference}
    for number, messages in enumerate(requests):
        question = f"question {number} " * 30
        assert lines.count(question) == 1
        assert messages[1]["text"] == {"sha256": hashlib.sha256(question.encode()).hexdigest()}


def test_audit_writes_short_or_same_line_text_in_full() -> None:
    long = "x" * LONG_TEXT_CHARS
    twice = chain_decisions(
        [(signal(), [event(text=long, messages=[long, long[1:], long[1:]])])], {}
    )
    assert rows(twice.lines)[1]["body"] == {"text": long, "messages": [long, long[1:], long[1:]]}
    assert verify_chain(twice.lines, twice.head) == ()


def test_audit_line_is_ascii_for_any_text() -> None:
    texts = ["Zürich \u2028 \x85 \r\n\x00", "\ud83d " * LONG_TEXT_CHARS, "😀" * LONG_TEXT_CHARS]
    made = chain_decisions([(signal(), [event(text=text) for text in texts * 2])], {})
    assert made.lines.isascii()
    assert made.lines.count("\n") == 9
    assert [row["body"]["text"] for row in rows(made.lines)[1:4]] == texts
    assert verify_chain(made.lines, made.head) == ()


@pytest.mark.parametrize(
    "body",
    [{"x": float("nan")}, {"x": NOON}, {"text": {"sha256": "0" * 64}}],
)
def test_audit_names_event_that_is_not_json(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"event 'reply' of Executor can't be kept in an audit"):
        chain_decisions([(signal(), [event(**body)])], {})


def test_audit_names_libraries_with_package_hash() -> None:
    decision = Decision(signal(), events=conversation(0))
    lines = rows(audit_decisions([decision], "c" * 64, "d" * 64).lines)
    versions = lines[0]["body"]["versions"]
    assert (versions["code_hash"], versions["content_hash"]) == ("c" * 64, "d" * 64)
    assert all(versions[name] for name in LIBRARIES)
    assert len(lines) == 6


def test_decision_equality_ignores_events() -> None:
    assert Decision(signal(), events=conversation(0)) == Decision(signal())


# --- one thing done to it ------------------------------------------------------------------------

Lines = list[str]


def reseal_line(line: str, **changes: Any) -> str:
    """The line with other fields and a hash that is right again."""
    fields = {**json.loads(line), **changes}
    del fields["hash"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return f'{text[:-1]},"hash":"{hashlib.sha256(text.encode()).hexdigest()}"}}'


def reseal_chain(lines: Sequence[str]) -> Lines:
    """Every line numbered, linked and hashed again: what only a head kept elsewhere tells."""
    done: Lines = []
    for number, line in enumerate(lines, 1):
        before = json.loads(done[-1])["hash"] if done else "0" * 64
        body = json.loads(line)["body"]
        if json.loads(line)["kind"] == "end":
            body = {"lines": number}
        done.append(reseal_line(line, seq=number, prev=before, body=body))
    return done


def find_faults(lines: Iterable[str], head: str | None) -> list[tuple[int, str]]:
    faults = verify_chain("".join(f"{line}\n" for line in lines), head)
    return [(fault.line, fault.what) for fault in faults]


AUDIT = make_audit()
LINES = AUDIT.lines.splitlines()
COUNT = len(LINES)
HEADS = pytest.mark.parametrize("head", [AUDIT.head, None])
EVERY = range(COUNT)


def test_verify_unedited_audit_has_no_fault() -> None:
    assert verify_chain(AUDIT.lines, AUDIT.head) == verify_chain(AUDIT.lines) == ()
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
def test_verify_names_changed_line(edit: Callable[[str], str], head: str | None) -> None:
    for at in EVERY:
        lines = LINES.copy()
        lines[at] = edit(lines[at])
        assert find_faults(lines, head) == [(at + 1, "changed")]


@HEADS
@pytest.mark.parametrize("text", ["", "gone", "[1]", "{}", "[" * 100_000, '{"seq":' + "9" * 5000])
def test_verify_names_unreadable_line(text: str, head: str | None) -> None:
    for at in EVERY:
        lines = LINES.copy()
        lines[at] = text
        assert find_faults(lines, head) == [(at + 1, "unreadable")]


@HEADS
def test_verify_names_changed_line_with_new_hash(head: str | None) -> None:
    for at in EVERY[:-1]:
        lines = LINES.copy()
        lines[at] = reseal_line(lines[at], agent="Mallory")
        assert find_faults(lines, head) == [(at + 1, "changed")]


@HEADS
def test_verify_names_removed_line(head: str | None) -> None:
    for at in EVERY[:-1]:
        lines = LINES.copy()
        del lines[at]
        assert find_faults(lines, head) == [(at + 1, "removed")]


@HEADS
def test_verify_names_removed_range_once(head: str | None) -> None:
    lines = LINES[:3] + LINES[7:]
    [fault] = verify_chain("\n".join([*lines, ""]), head)
    assert fault == ChainFault(4, "removed", "lines 4 to 7 of the chain missing")


@HEADS
def test_verify_names_only_the_two_swapped_lines(head: str | None) -> None:
    for one in EVERY:
        for other in range(one + 1, COUNT):
            lines = LINES.copy()
            lines[one], lines[other] = lines[other], lines[one]
            assert find_faults(lines, head) == [(one + 1, "swapped"), (other + 1, "swapped")]


@HEADS
def test_verify_names_only_the_moved_line(head: str | None) -> None:
    lines = LINES.copy()
    lines.insert(8, lines.pop(2))
    assert find_faults(lines, head) == [(9, "swapped")]


@HEADS
def test_verify_names_added_line(head: str | None) -> None:
    for at in range(COUNT + 1):
        forged = reseal_line(LINES[at - 1], kind="reply", prev="a" * 64, seq=at + 1)
        for line in ("", "gone", "{}", LINES[3].replace("GOOG", "FB"), forged):
            lines = [*LINES[:at], line, *LINES[at:]]
            assert find_faults(lines, head) == [(at + 1, "added")]


@HEADS
def test_verify_names_added_line_with_valid_link(head: str | None) -> None:
    for at in EVERY[1:]:
        before = json.loads(LINES[at - 1])
        forged = reseal_line(LINES[at - 1], kind="reply", prev=before["hash"], seq=at + 1)
        lines = [*LINES[:at], forged, *LINES[at:]]
        assert find_faults(lines, head) == [(at + 1, "added")]


@HEADS
def test_verify_names_copied_line_as_added(head: str | None) -> None:
    for at in EVERY:
        for copied in set(EVERY) - {at, at - 1}:
            lines = [*LINES[:at], LINES[copied], *LINES[at:]]
            assert find_faults(lines, head) == [(at + 1, "added")]


@HEADS
def test_verify_names_lines_added_at_end(head: str | None) -> None:
    last = json.loads(LINES[-1])
    more = reseal_line(LINES[3], seq=COUNT + 1, prev=last["hash"])
    again = reseal_line(LINES[-1], seq=COUNT + 2, prev=json.loads(more)["hash"])
    assert find_faults([*LINES, more, again], head) == [(COUNT + 1, "added"), (COUNT + 2, "added")]


@HEADS
def test_verify_detects_missing_tail(head: str | None) -> None:
    for kept in range(1, COUNT):
        assert find_faults(LINES[:kept], head) == [(kept + 1, "cut off")]
    assert verify_chain("", head)[0].what == "cut off"


@HEADS
def test_verify_detects_half_a_last_line(head: str | None) -> None:
    for size in range(len(AUDIT.lines) - 700, len(AUDIT.lines)):
        text = AUDIT.lines[:size]
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
def test_verify_detects_rewritten_chain_by_head_alone(
    edit: Callable[[Lines], Lines],
) -> None:
    forged = reseal_chain(edit(LINES))
    assert find_faults(forged, AUDIT.head) == [(len(forged), "other head")]
    assert find_faults(forged, None) == []


def test_verify_names_dangling_text_reference() -> None:
    forged = reseal_chain([LINES[0], *LINES[5:]])
    assert find_faults(forged, None) == [(3, "changed"), (7, "changed")]
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
def test_verify_detects_impossible_chain_without_head(edit: Callable[[Lines], Lines]) -> None:
    assert find_faults(reseal_chain(edit(LINES))[:-1], None)


def test_verify_is_fast_for_huge_line_number() -> None:
    for number in (10**9, 10**11, 10**40):
        forged = reseal_line(LINES[-1], seq=number, body={"lines": number})
        assert find_faults([*LINES[:-1], forged], None)
        assert find_faults([*LINES[:-1], forged], AUDIT.head)


def test_verify_refuses_other_format() -> None:
    newer = reseal_chain([reseal_line(LINES[0], body={"format": 2}), *LINES[1:]])
    with pytest.raises(BadInputError, match="format 2, this code reads format 1"):
        find_faults(newer, None)


# --- several things done to it -------------------------------------------------------------------


@HEADS
@pytest.mark.parametrize("first", ["changed", "sealed", "removed", "added"])
@pytest.mark.parametrize("second", ["changed", "sealed", "removed", "added"])
def test_verify_names_both_of_two_edits(first: str, second: str, head: str | None) -> None:
    def done(lines: Lines, at: int, what: str) -> Lines:
        here = {
            "changed": [lines[at].replace('"agent":"', '"agent":"X', 1)],
            "sealed": [reseal_line(lines[at], agent="Mallory")],
            "removed": [],
            "added": ["{}", lines[at]],
        }
        return [*lines[:at], *here[what], *lines[at + 1 :]]

    moved = {"removed": -1, "added": 1}
    called = {"sealed": "changed"}
    for one in EVERY:
        for other in range(one + 2, COUNT - 1):
            lines = done(done(LINES, other, second), one, first)
            now = other + 1 + (0 if second == "removed" else moved.get(first, 0))
            expected = [(one + 1, called.get(first, first)), (now, called.get(second, second))]
            assert find_faults(lines, head) == expected


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
def test_verify_random_unedited_audit_has_no_fault(made: AuditChain) -> None:
    assert verify_chain(made.lines, made.head) == verify_chain(made.lines) == ()


@dataclass(frozen=True)
class EditedLine:
    """A line of a file that is being tampered with."""

    text: str
    origin: int | None
    """Its place in the chain; None for a line that was added."""
    touched: bool = False


@st.composite
def edited_audits(draw: st.DrawFn) -> tuple[AuditChain, list[EditedLine]]:
    """A chain, and what is left of its lines after up to four crude edits."""
    made = draw(chains)
    lines = [EditedLine(text, at) for at, text in enumerate(made.lines.splitlines())]
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
                lines.insert(at, EditedLine(draw(st.sampled_from(["", "x", "{}"])), None, True))
            case "copy":
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
    return made, lines


@pytest.mark.slow
@settings(max_examples=250, deadline=None, derandomize=True)
@given(edited_audits(), st.booleans())
def test_verify_localises_random_edits(
    case: tuple[AuditChain, list[EditedLine]], anchored: bool
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
@given(edited_audits())
def test_verify_detects_random_resealed_edits_by_head(
    case: tuple[AuditChain, list[EditedLine]],
) -> None:
    made, kept = case
    lines = [line.text for line in kept if line.text.startswith("{") and not line.touched]
    if lines and reseal_chain(lines) != made.lines.splitlines():
        assert find_faults(reseal_chain(lines), made.head)


# --- files, runs and the command line ------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    AUDIT.write(path)
    return path


def test_verify_audit_without_head_is_not_anchored(file: Path) -> None:
    alone, held = verify_audit(str(file)), verify_audit(str(file), AUDIT.head)
    assert (alone.is_intact, alone.anchored, alone.head) == (True, False, AUDIT.head)
    assert "not anchored" in alone.summary
    assert (held.is_intact, held.anchored, held.lines) == (True, True, COUNT)
    assert "not anchored" not in held.summary


def test_verify_audit_names_line_with_invalid_utf8(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"GOOG", b"GO\xff\xfe", 1)
    file.write_bytes(b"".join(lines))
    assert [fault.line for fault in verify_audit(str(file), AUDIT.head).faults] == [5]


@pytest.mark.parametrize(
    ("what", "head", "said"),
    [
        ("nowhere.jsonl", None, "No such file"),
        (".", None, "Is a directory"),
        (__file__, None, "none of its lines is a line of an audit"),
        (__file__, "F" * 64, "is not a SHA-256"),
    ],
)
def test_verify_audit_refuses_what_is_no_audit(what: str, head: str | None, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        verify_audit(what, head)


def test_audit_write_names_unwritable_path(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="can't be written: Is a directory"):
        AUDIT.write(tmp_path)


def runs(place: Place, query: str) -> list[tuple[str, ...]]:
    """Straight from MLflow's tables: a client takes six seconds to import."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as store:
        return store.execute(query).fetchall()


FIRST = "select run_uuid from runs where name = '{}' order by start_time limit 1"
"""Others may have trained in the same place."""


@pytest.mark.slow
def test_audit_of_predict_verifies_until_edited(trained: Place, tmp_path: Path) -> None:
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
def test_audit_of_backtest_is_checked_by_run_tag(trained: Place) -> None:
    [[run]] = runs(trained, FIRST.format("backtest FB"))
    [file] = (trained.folder / "mlruns").rglob(f"{run}/artifacts/audit.jsonl")
    whole = file.read_text()
    assert len({row["conversation_id"] for row in rows(whole)} - {""}) == 71
    try:
        file.write_text("\n".join([*reseal_chain(whole.splitlines()[:-2]), ""]))
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
def test_audit_verify_refuses_run_without_audit(
    trained: Place, what: str | None, said: str
) -> None:
    [[training]] = runs(trained, FIRST.format("train FB"))
    done = trained.finagent("audit", "verify", what or training)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
