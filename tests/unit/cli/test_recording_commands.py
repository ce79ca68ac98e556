"""`finagent cassette`: count, merge, prune, export and verify files of recordings."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finagent_model.cassette.cassette import Cassette, open_cassette_file
from finagent_model.cassette.fingerprint import Outline
from finagent_model.cassette.jsonl import dump_replies, load_replies
from finagent_model.cassette.records import RecordedReply
from finagent_model.cli import app
from finagent_model.decision.signal import Status
from finagent_model.errors import BadInputError
from finagent_model.pipeline.recordings import verify_recordings

ONE, TWO = RecordedReply("one", "stop", 10, 2), RecordedReply("two", "stop", 30, 4)
FAILED = RecordedReply.from_error(Status.MODEL_ERROR, "no reply within 45 s")
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
KEYLIKE = "sk-proj-0123456789abcdefABCDEF"


@dataclass(frozen=True)
class CommandResult:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def finagent(*words: object, **extra: str) -> CommandResult:
    done = CliRunner().invoke(app, ["cassette", *map(str, words)], env=extra)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return CommandResult(done.exit_code, done.stdout, done.stderr)


def outline(model: str) -> Outline:
    return Outline("Executor", (("client", "openai"), ("model", model)), ())


def recorded(path: Path, replies: Mapping[str, RecordedReply]) -> Path:
    cassette = Cassette(None, path)
    for key, reply in replies.items():
        cassette.put(key, reply)
    return path


def read(path: Path) -> dict[str, RecordedReply]:
    cassette = Cassette(None, path)
    replies = {key: cassette.get(key, errors=True) for key in (A, B, C)}
    return {key: reply for key, reply in replies.items() if reply is not None}


@pytest.fixture(params=["r.sqlite", "r.jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The path of a file in either format."""
    return tmp_path / str(request.param)


def test_cassette_stats_count_by_model(path: Path) -> None:
    recorded(path, {A: replace(ONE, outline=outline("x")), B: FAILED, C: ONE})
    Cassette(None, path).put(B, FAILED, outline("x"))
    stats = finagent("stats", path, "--json").json
    assert stats["bytes"] >= path.stat().st_size > 0
    assert {**stats, "bytes": 0, "file": ""} == {
        "file": "",
        "replies": 2,
        "errors": 1,
        "distinct": 2,
        "damaged": 0,
        "bytes": 0,
        "models": [
            {
                "client": "",
                "model": "",
                "replies": 1,
                "errors": 0,
                "prompt_tokens": 10,
                "completion_tokens": 2,
            },
            {
                "client": "openai",
                "model": "x",
                "replies": 1,
                "errors": 1,
                "prompt_tokens": 10,
                "completion_tokens": 2,
            },
        ],
    }
    words = finagent("stats", path).out
    assert "2 replies, 1 errors" in words
    assert "rules, or of unknown models: 1 replies" in words


def test_cassette_default_file_is_in_home(tmp_path: Path) -> None:
    recorded(tmp_path / "replies.sqlite", {A: ONE})
    for command in (["stats"], ["verify"], ["prune", "--errors"], ["export", "--to", "x.jsonl"]):
        where = [str(tmp_path / word) if word.endswith("jsonl") else word for word in command]
        assert finagent(*where, FINAGENT_HOME=str(tmp_path)).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stats", "none.sqlite"], "no cassette at none.sqlite"),
        (["verify", "none.jsonl"], "no cassette at none.jsonl"),
        (["export", "none.sqlite", "--to", "x.jsonl"], "no cassette at none.sqlite"),
        (["merge", "into.sqlite", "none.jsonl"], "no cassette at none.jsonl"),
        (["prune"], "say --errors, --damaged or --packaged MODEL"),
        (["merge", "into.sqlite", "none.jsonl", "--keep", "both"], "--keep 'both' is unknown"),
    ],
)
def test_cassette_bad_input_is_one_line_with_exit_code_2(words: list[str], message: str) -> None:
    done = finagent(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not Path("into.sqlite").exists()


# Merging


def test_cassette_merge_adds_missing_replies_over_errors(path: Path, tmp_path: Path) -> None:
    recorded(path, {A: ONE, B: FAILED})
    first = recorded(tmp_path / "first.sqlite", {A: FAILED, B: TWO})
    second = recorded(tmp_path / "second.jsonl", {A: ONE, C: FAILED})
    done = finagent("merge", path, first, second, "--json").json
    assert (done["added"], done["replaced"], done["same"], done["kept"]) == (1, 1, 1, 1)
    assert read(path) == {A: ONE, B: TWO, C: FAILED}


def test_cassette_merge_creates_missing_file(path: Path, tmp_path: Path) -> None:
    assert finagent("merge", path, recorded(tmp_path / "from.jsonl", {A: ONE})).code == 0
    assert read(path) == {A: ONE}


def test_cassette_merge_conflict_is_named_without_writing(path: Path, tmp_path: Path) -> None:
    recorded(path, {A: ONE})
    source = recorded(tmp_path / "from.sqlite", {B: TWO, A: replace(TWO, outline=outline("x"))})
    done = finagent("merge", path, source)
    assert done.code == 2
    assert f"aaaaaaaaaaaa of Executor in {source}" in done.err
    assert "--keep ours or --keep theirs" in done.err
    assert read(path) == {A: ONE}


@pytest.mark.parametrize(("keep", "expected"), [("ours", ONE), ("theirs", TWO)])
def test_cassette_merge_keep_settles_conflict(
    path: Path, tmp_path: Path, keep: str, expected: RecordedReply
) -> None:
    recorded(path, {A: ONE})
    source = recorded(tmp_path / "from.sqlite", {A: TWO, B: ONE})
    assert finagent("merge", path, source, "--keep", keep).code == 0
    assert read(path) == {A: expected, B: ONE}


def test_cassette_merge_detects_conflict_between_sources(path: Path, tmp_path: Path) -> None:
    first = recorded(tmp_path / "first.jsonl", {A: ONE})
    second = recorded(tmp_path / "second.jsonl", {A: TWO})
    assert finagent("merge", path, first, second).code == 2
    assert not path.exists()
    assert finagent("merge", path, first, second, "--keep", "theirs").code == 0
    assert read(path) == {A: TWO}


def test_cassette_merge_adds_outline_of_equal_reply(path: Path, tmp_path: Path) -> None:
    recorded(path, {A: ONE})
    source = recorded(tmp_path / "from.jsonl", {A: replace(ONE, outline=outline("x"))})
    assert finagent("merge", path, source, "--json").json["same"] == 1
    assert read(path)[A].outline == outline("x")


# Pruning


def test_cassette_prune_errors_shrinks_file(path: Path) -> None:
    many = {
        f"{n:064x}": RecordedReply.from_error(Status.MODEL_ERROR, f"{n} " * 50) for n in range(300)
    }
    open_cassette_file(path).put({**many, A: ONE})
    done = finagent("prune", path, "--errors", "--json").json
    assert (done["dropped"], done["left"]) == (300, 1)
    assert done["bytes_after"] < done["bytes_before"] / 3
    assert read(path) == {A: ONE}
    assert finagent("verify", path).code == 0


def test_cassette_prune_packaged_drops_packaged_replies(path: Path, tmp_path: Path) -> None:
    from support.packages import REPLY, write

    write(tmp_path / "package")
    recorded(path, {"a": REPLY, "b": replace(REPLY, content="another"), C: ONE})
    done = finagent("prune", path, "--packaged", tmp_path / "package", "--json").json
    assert (done["dropped"], done["left"]) == (1, 2)
    cassette = Cassette(None, path)
    assert (cassette.get("a"), cassette.get(C)) == (None, ONE)


@pytest.mark.slow
def test_cassette_prune_packaged_accepts_model_uri(trained: Any, tmp_path: Path) -> None:
    home = trained.folder / "home" / "replies.sqlite"
    copy = tmp_path / "copy.sqlite"
    assert finagent("export", home, "--to", copy).code == 0
    done = trained.finagent(
        "cassette", "prune", str(copy), "--packaged", "models:/finagent@champion", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dropped"] == 213


# Exporting


def test_cassette_export_is_equal_for_equal_recordings(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one.sqlite", {A: ONE, B: FAILED})
    two = recorded(tmp_path / "two.jsonl", {B: FAILED, A: TWO})
    recorded(two, {A: ONE})
    texts = []
    for source in (one, two):
        to = source.with_suffix(".out.jsonl")
        assert finagent("export", source, "--to", to, "--json").json["recordings"] == 2
        texts.append(to.read_text())
    assert texts[0] == texts[1]
    assert load_replies(texts[0].splitlines()) == {A: ONE, B: FAILED}


def test_cassette_export_round_trip_loses_nothing(tmp_path: Path) -> None:
    source = recorded(tmp_path / "r.jsonl", {A: replace(ONE, outline=outline("x")), B: FAILED})
    assert finagent("export", source, "--to", tmp_path / "r.sqlite").code == 0
    assert finagent("export", tmp_path / "r.sqlite", "--to", tmp_path / "again.jsonl").code == 0
    assert (tmp_path / "again.jsonl").read_bytes() == source.read_bytes()


def test_cassette_export_refuses_existing_file(path: Path) -> None:
    recorded(path, {A: ONE})
    done = finagent("export", path, "--to", path)
    assert done.code == 2
    assert "exists; remove it" in done.err


# Verifying


def test_cassette_verify_passes_sound_file(path: Path) -> None:
    recorded(path, {A: ONE, B: FAILED, C: replace(ONE, outline=outline("x"))})
    done = finagent("verify", path, "--json")
    assert done.code == 0
    assert done.json == {
        "passed": True,
        "file": str(path),
        "rows": 3,
        "unsealed": 0,
        "faults": [],
    }


def test_cassette_verify_counts_rows_without_hash(tmp_path: Path) -> None:
    path = tmp_path / "cassette.jsonl"
    path.write_text(dump_replies({A: ONE}))
    report = finagent("verify", path, "--json").json
    assert (report["passed"], report["rows"], report["unsealed"]) == (True, 1, 1)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]


def test_cassette_verify_detects_any_harmful_byte_flip(path: Path, tmp_path: Path) -> None:
    whole = {A: replace(ONE, outline=outline("x")), B: FAILED, C: replace(TWO, content="2 " * 99)}
    recorded(path, whole)
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as store:
            store.execute("pragma wal_checkpoint(truncate)")
    raw, detected = path.read_bytes(), 0
    for at in range(0, len(raw), max(1, len(raw) // 150)):
        damaged = tmp_path / f"{at}{path.suffix}"
        damaged.write_bytes(flipped(raw, at))
        try:
            passed = verify_recordings(damaged, str).passed
        except BadInputError:
            passed = False
        detected += not passed
        if passed:
            replies = read(damaged)
            assert replies == whole, at
            assert replies[A].outline == whole[A].outline, at
    assert detected > (100 if path.suffix == ".jsonl" else 5)


def test_cassette_verify_names_changed_reply_for_pruning(path: Path) -> None:
    recorded(path, {A: ONE, B: replace(TWO, content="a long reply")})
    if path.suffix == ".jsonl":
        path.write_bytes(path.read_bytes().replace(b"a long", b"a lung"))
    else:
        with closing(sqlite3.connect(path)) as store:
            body = dump_replies({B: replace(TWO, content="a lung reply")}).encode()
            store.execute("update content set body = ? where id = 2", (body,))
            store.commit()
    done = finagent("verify", path)
    assert done.code == 5
    assert "not as it was recorded" in done.out
    assert finagent("stats", path, "--json").json["damaged"] == 1
    refused = finagent("merge", path.with_name("into.sqlite"), path)
    assert refused.code == 2
    assert "--damaged" in refused.err
    assert finagent("prune", path, "--damaged", "--json").json["dropped"] == 1
    assert finagent("verify", path).code == 0
    assert read(path) == {A: ONE}


@pytest.mark.parametrize("where", ["content", "outline"])
def test_cassette_verify_detects_key_without_showing_it(path: Path, where: str) -> None:
    held = {
        "content": replace(TWO, content=f"use {KEYLIKE}"),
        "outline": replace(TWO, outline=outline(KEYLIKE)),
    }
    open_cassette_file(path).put({A: ONE, B: held[where]})
    done = finagent("verify", path)
    assert done.code == 5
    assert "looks like a key" in done.out
    assert KEYLIKE not in done.out + done.err
    finagent("prune", path, "--damaged")
    assert finagent("verify", path).code == 0
    assert read(path) == {A: ONE}


def test_cassette_verify_detects_secret_of_this_machine(path: Path) -> None:
    open_cassette_file(path).put({A: replace(ONE, content="mine is open-sesame-now")})
    assert finagent("verify", path).code == 0
    assert finagent("verify", path, OPENAI_API_KEY="open-sesame-now").code == 5


@pytest.mark.parametrize("name", ["r.sqlite", "r.jsonl"])
def test_cassette_verify_refuses_other_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no recordings here\n" * 100)
    assert finagent("verify", tmp_path / name).code == 5
