"""Recorded replies: found again by the whole request, by another process and after a fork; errors,
keys, files of older code, and many writers at once.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from finagent_model._redact import make_redactor, redact_key_shapes
from finagent_model.cassette.cassette import Cassette, open_cassette_file
from finagent_model.cassette.fingerprint import Outline, OutlineMessage, fingerprint
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.cassette.records import RecordedError, RecordedReply, ToolCall
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError, CorruptPackageError, LocalStateError
from finagent_model.settings import Settings

ONE, TWO = RecordedReply("one", "stop", 1, 2), RecordedReply("two", "stop", 3, 4)
FAILED = RecordedReply.from_error(Status.MODEL_ERROR, "no reply within 45 s")
CALLING = replace(ONE, content="", tool_calls=(ToolCall("c1", "bars", '{"days": 5}'),))
OUTLINE = Outline(
    "Executor", (("model", "a"),), (OutlineMessage("desk", 12, "0a1b2c3d", (("atr", "00"),)),)
)
KEYLIKE = "sk-proj-0123456789abcdefABCDEF"


@pytest.fixture(params=["r.sqlite", "r.jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of a file in either format."""
    return tmp_path / str(request.param)


def test_fingerprint_covers_every_part_of_request() -> None:
    request: dict[str, Any] = {"model": "a", "base_url": None, "sampling": {"seed": 7}, "said": []}
    others = [
        request | {"model": "b"},
        request | {"base_url": "http://x"},
        request | {"sampling": {"seed": 8}},
        request | {"said": ["hello"]},
    ]
    assert len({fingerprint(r) for r in [request, *others]}) == 5
    assert fingerprint(dict(reversed(request.items()))) == fingerprint(request)


def test_dump_replies_round_trips_sorted() -> None:
    text = dump_replies({"b": TWO, "a": ONE})
    assert text == dump_replies({"a": ONE, "b": TWO})
    assert load_replies(text.splitlines()) == {"a": ONE, "b": TWO}


def test_load_replies_names_damaged_line() -> None:
    with pytest.raises(CorruptPackageError, match="cassette line 2"):
        load_replies([*dump_replies({"a": ONE}).splitlines(), '{"key": "b"}'])


def test_load_replies_old_line_keeps_bytes() -> None:
    line = (
        '{"key": "a", "content": "one", "finish_reason": "stop", '
        '"prompt_tokens": 1, "completion_tokens": 2}\n'
    )
    assert load_replies([line]) == {"a": ONE}
    assert dump_replies({"a": ONE}) == line


@pytest.mark.parametrize(
    "reply", [ONE, FAILED, CALLING, replace(ONE, outline=OUTLINE), replace(ONE, content="ä\u2028b")]
)
def test_cassette_reply_round_trips(reply: RecordedReply, path: Path) -> None:
    [read] = load_replies(dump_replies({"a": reply}).splitlines()).values()
    assert (read, read.outline) == (reply, reply.outline)
    Cassette(None, path).put("a", reply)
    filed = Cassette(None, path).get("a", errors=True)
    assert filed is not None
    assert (filed, filed.outline) == (reply, reply.outline)


@pytest.mark.parametrize(
    "changes",
    [
        {"content": 1},
        {"prompt_tokens": "1"},
        {"tool_calls": [{"id": "1"}]},
        {"error": {"status": "tired", "reason": "?"}},
        {"outline": {"agent": "X"}},
        {"extra": 1},
    ],
)
def test_load_replies_refuses_invalid_line(changes: dict[str, Any]) -> None:
    row = json.loads(dump_replies({"a": ONE}))
    with pytest.raises(CorruptPackageError, match="cassette line 1"):
        load_replies([json.dumps(row | changes)])


def test_cassette_packaged_reply_wins(path: Path) -> None:
    Cassette(None, path).put("a", TWO)
    assert Cassette({"a": ONE}, path).get("a") == ONE


def test_cassette_reply_survives_reopen(path: Path) -> None:
    deep = path.parent / "deep" / path.name
    Cassette(None, deep).put("a", ONE)
    again = Cassette(None, deep)
    assert (again.get("a"), again.get("b")) == (ONE, None)
    assert again.used_replies == {"a": ONE}


def test_cassette_sees_reply_of_other_process(path: Path) -> None:
    early, late = Cassette(None, path), Cassette(None, path)
    late.put("a", ONE)
    assert early.get("a") == ONE


def test_cassette_fork_opens_own_connection(path: Path) -> None:
    cassette = Cassette(None, path)
    cassette.put("parent", ONE)
    child = os.fork()
    if child == 0:
        cassette.put("child", TWO)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (cassette.get("child"), cassette.get("parent")) == (TWO, ONE)


@pytest.mark.parametrize("name", ["r.sqlite", "r.jsonl"])
def test_cassette_unwritable_path_names_way_out(name: str) -> None:
    with pytest.raises(BadInputError, match="set FINAGENT_HOME"):
        Cassette(None, Path("/proc/nowhere") / name)


def test_cassette_file_refuses_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"ends in \.jsonl, \.sqlite"):
        open_cassette_file(tmp_path / "replies.txt")


def test_cassette_disk_failure_is_no_cache_miss(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cassette = Cassette(None, path)
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as other:
            other.execute("drop table entry")
    else:
        path.unlink()
        path.mkdir()
    with caplog.at_level(logging.WARNING):
        cassette.put("a", ONE)
        assert cassette.get("a") == ONE
        with pytest.raises(LocalStateError, match="can't be read"):
            cassette.get("b")
    assert "kept in memory only" in caplog.text


# Errors


def test_cassette_error_counts_only_in_replay(path: Path) -> None:
    Cassette(None, path).put("a", FAILED)
    for cassette in (Cassette(None, path), Cassette({"a": FAILED})):
        assert cassette.get("a") is None
        assert cassette.used_replies == {}
        assert cassette.get("a", errors=True) == FAILED
        assert cassette.used_replies == {"a": FAILED}


def test_cassette_error_never_supersedes_reply(path: Path) -> None:
    cassette = Cassette(None, path)
    cassette.put("a", FAILED)
    cassette.put("a", ONE)
    assert cassette.get("a", errors=True) == ONE
    cassette.put("a", FAILED)
    assert cassette.used_replies == {"a": FAILED}  # what happened last in this run
    assert cassette.get("a", errors=True) == Cassette(None, path).get("a", errors=True) == ONE
    cassette.put("a", TWO)
    assert Cassette(None, path).get("a") == TWO


def test_cassette_packaged_error_is_kept_for_replay(path: Path) -> None:
    cassette = Cassette({"a": FAILED}, path)
    cassette.put("a", ONE)
    assert cassette.get("a") == ONE
    assert cassette.get("a", errors=True) == FAILED


# Room


def test_cassette_stores_equal_replies_once(tmp_path: Path) -> None:
    cassette = Cassette(None, tmp_path / "r.sqlite")
    for number in range(50):
        cassette.put(f"{number}", replace(ONE, content="the same " * 50), OUTLINE)
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as store:
        assert store.execute("select count(*) from content").fetchone() == (2,)
        assert store.execute("select count(*) from entry").fetchone() == (50,)
        [longest] = store.execute("select max(length(body)) from content").fetchone()
    assert longest < 200


# Keys


def test_cassette_redacts_keys_before_storing(path: Path) -> None:
    mine = "a-secret-of-mine"
    cassette = Cassette(None, path, make_redactor([mine]))
    reply = RecordedReply(
        f'{{"said": "{KEYLIKE}"}}',
        "stop",
        1,
        2,
        tool_calls=(ToolCall("1", "ask", f'{{"header": "Bearer {"0a" * 10}"}}'),),
        error=RecordedError("model_error", f"401 for {mine}"),
    )
    outline = replace(OUTLINE, fields=(("base_url", f"http://x/{mine}"),))
    kept = cassette.put("a", reply, outline)
    assert kept.content == '{"said": "[redacted: key]"}'
    assert kept.tool_calls[0].arguments == '{"header": "Bearer [redacted: key]"}'
    assert kept.error == RecordedError("model_error", "401 for [redacted: key]")
    assert kept.outline == replace(OUTLINE, fields=(("base_url", "http://x/[redacted: key]"),))
    assert Cassette(None, path).get("a", errors=True) == cassette.used_replies["a"] == kept
    assert mine.encode() not in b"".join(p.read_bytes() for p in path.parent.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        KEYLIKE,
        "sk-ant-api03-abcdefghijklmnop",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_" + "a1" * 18,
        "hf_" + "aB" * 17,
        "xoxb-1234567890-abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "AIza" + "b2" * 17 + "c",
    ],
)
def test_redact_removes_key_shapes(text: str) -> None:
    assert redact_key_shapes(f"got ({text}), denied") == "got ([redacted: key]), denied"


@pytest.mark.parametrize(
    "text",
    [
        "risk-adjusted-returns-are-acceptable",
        "the bearer internationalisation of bonds",
        "a task-oriented-decision-process, sk-short",
        "BUY at 580.25, stop 550",
    ],
)
def test_redact_keeps_prose(text: str) -> None:
    assert redact_key_shapes(text) == text


def test_redact_keeps_short_placeholder_keys() -> None:
    assert make_redactor(["none", "x"])("there is none, except x") == "there is none, except x"


def test_settings_secrets_are_complete() -> None:
    settings = Settings.load({"OPENAI_API_KEY": "abcdefghij"})
    assert settings.secrets == ("abcdefghij",)
    held = [
        name
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    ]
    given = {name: SecretStr(f"https://example.com/{name}") for name in held}
    full = settings.model_copy(update=given)
    assert set(full.secrets) == {value.get_secret_value() for value in given.values()}


# Files of older code


def old_file(path: Path, replies: dict[str, str]) -> None:
    with closing(sqlite3.connect(path)) as store:
        store.execute(
            "create table if not exists reply (key text primary key, body text) without rowid"
        )
        store.executemany("insert into reply values (?, ?)", replies.items())
        store.commit()


OLD = '{"content": "one", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2}'


def test_cassette_migrates_old_database(tmp_path: Path) -> None:
    path, key = tmp_path / "r.sqlite", fingerprint({"a": 1})
    old_file(path, {key: OLD, "b": OLD.replace("one", "two"), "bad": "{"})
    cassette = Cassette(None, path)
    assert cassette.get(key) == ONE
    assert cassette.get("b") == replace(ONE, content="two")
    with closing(sqlite3.connect(path)) as store:  # what can't be read stays for whoever can
        assert store.execute("select * from reply").fetchall() == [("bad", "{")]


def test_cassette_keeps_rows_of_running_old_code(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Cassette(None, path).put("a", TWO)
    old_file(path, {"a": OLD, "b": OLD})
    again = Cassette(None, path)
    assert (again.get("a"), again.get("b")) == (TWO, ONE)


def test_cassette_refuses_newer_database(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with closing(sqlite3.connect(path)) as store:
        store.execute("pragma user_version = 99")
    with pytest.raises(BadInputError, match="format 99"):
        Cassette(None, path)


# Many writers


def write_many(path: Path, process: int) -> None:
    """Four threads, each with recordings of its own and some that everybody has."""
    cassette = Cassette(None, path)

    def write(thread: int) -> None:
        for number in range(25):
            own = f"{process}-{thread}-{number}"
            cassette.put(own, replace(ONE, content=own), OUTLINE)
            cassette.put(f"shared {number}", TWO)
            cassette.put(f"shared {number}", FAILED)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))


def test_cassette_concurrent_writers_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(4, mp_context=context) as processes:
        list(processes.map(write_many, [path] * 4, range(4)))
    cassette = Cassette(None, path)
    for process in range(4):
        for thread in range(4):
            for number in range(25):
                own = f"{process}-{thread}-{number}"
                assert cassette.get(own) == replace(ONE, content=own)
    assert {cassette.get(f"shared {number}") for number in range(25)} == {TWO}
    file = open_cassette_file(path)
    assert file.check_integrity() == [row.damage for row in file.rows() if row.damage] == []


def test_cassette_half_line_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Cassette(None, path).put("a", ONE)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    cassette = Cassette(None, path)
    cassette.put("b", TWO)
    again = Cassette(None, path)
    assert (again.get("a"), again.get("b")) == (ONE, TWO)
    assert [row.reply is None for row in open_cassette_file(path).rows()] == [False, True, False]


def test_cassette_writes_to_replaced_file(path: Path) -> None:
    cassette = Cassette(None, path)
    cassette.put("a", ONE)
    cassette.put("b", TWO)
    open_cassette_file(path).prune(lambda row: row.key == "b")
    cassette.put("c", ONE)
    again = Cassette(None, path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (None, TWO, ONE)


def test_cassette_damaged_row_can_be_recorded_again(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    Cassette(None, path).put("a", ONE)
    with closing(sqlite3.connect(path)) as store:
        store.execute("update content set body = cast('{}' as blob)")
        store.commit()
    cassette = Cassette(None, path)
    assert cassette.get("a") is None
    cassette.put("a", ONE)
    assert Cassette(None, path).get("a") == ONE
