"""Recorded replies: found again by the whole request, by another process and after a fork."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from finagent_model.agents.cassette import (
    Cassette,
    RecordedReply,
    dump_replies,
    fingerprint,
    load_replies,
)
from finagent_model.errors import BadInputError, CorruptPackageError

ONE, TWO = RecordedReply("one", "stop", 1, 2), RecordedReply("two", "stop", 3, 4)


def test_every_part_of_a_request_is_part_of_its_fingerprint() -> None:
    request: dict[str, Any] = {"model": "a", "base_url": None, "sampling": {"seed": 7}, "said": []}
    others = [
        request | {"model": "b"},
        request | {"base_url": "http://x"},
        request | {"sampling": {"seed": 8}},
        request | {"said": ["hello"]},
    ]
    assert len({fingerprint(r) for r in [request, *others]}) == 5
    assert fingerprint(dict(reversed(request.items()))) == fingerprint(request)


def test_dumping_sorts_and_loading_gives_it_back() -> None:
    text = dump_replies({"b": TWO, "a": ONE})
    assert text == dump_replies({"a": ONE, "b": TWO})
    assert load_replies(text.splitlines()) == {"a": ONE, "b": TWO}


def test_a_damaged_line_is_named() -> None:
    with pytest.raises(CorruptPackageError, match="cassette line 2"):
        load_replies([*dump_replies({"a": ONE}).splitlines(), '{"key": "b"}'])


def test_what_came_packaged_wins_over_what_was_recorded_here(tmp_path: Path) -> None:
    Cassette(None, tmp_path / "r.sqlite").put("a", TWO)
    assert Cassette({"a": ONE}, tmp_path / "r.sqlite").get("a") == ONE


def test_what_was_recorded_is_there_for_the_next_process(tmp_path: Path) -> None:
    Cassette(None, tmp_path / "deep" / "r.sqlite").put("a", ONE)
    again = Cassette(None, tmp_path / "deep" / "r.sqlite")
    assert (again.get("a"), again.get("b")) == (ONE, None)
    assert again.used == {"a": ONE}


def test_a_forked_child_records_through_a_connection_of_its_own(tmp_path: Path) -> None:
    cassette = Cassette(None, tmp_path / "r.sqlite")
    cassette.put("parent", ONE)
    child = os.fork()
    if child == 0:
        cassette.put("child", TWO)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (cassette.get("child"), cassette.get("parent")) == (TWO, ONE)


def test_a_place_that_cannot_be_written_is_said_with_the_way_out() -> None:
    with pytest.raises(BadInputError, match="set FINAGENT_HOME"):
        Cassette(None, Path("/proc/nowhere/r.sqlite"))
