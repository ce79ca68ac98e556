"""What the cases share: the process that forks, a trained place, and the table of outcomes."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chaos_place import clone
from support.command_forks import CommandForks, Outcome
from support.faults_page import LOCAL_TITLE, Report, provider_part, tried_cases, write_page
from support.places import DEFAULT_STORE, Place, small_options

HEAD = f"""{LOCAL_TITLE}
This table is written by `make test-chaos` (tests/chaos). Each case is tried with the real
commands; processes are killed at random moments, 20 times where it says so. The exit code and
the last line are those of the command that met the fault (-9: it was killed); the last column
is what the test checked afterwards. A full disk is simulated by a limit on the size of files
(RLIMIT_FSIZE, which needs no privileges); SQLite reports both as an I/O error.

| case | exit code | what it says | afterwards |
|---|---|---|---|
"""

MAX_SENTENCE = 250
"""Characters: MLflow may quote a whole statement."""


@pytest.fixture(scope="session")
def kills() -> int:
    """How often each command is killed."""
    return int(os.environ.get("FINAGENT_CHAOS_KILLS", "2"))


@pytest.fixture
def moment() -> random.Random:
    """Draws when; the same moments each time."""
    return random.Random(7)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandForks]:
    with CommandForks(tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.fixture(scope="session")
def timing() -> dict[str, float]:
    """Seconds that each command took when nothing happened to it; killed within as many."""
    return {"serve": 4.0, "outbox": 3.0}


@pytest.fixture(scope="session")
def base(
    forks: CommandForks, timing: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """Where version 1 is champion, and one decision is recorded."""
    place = Place(tmp_path_factory.mktemp("base"))
    assert (
        forks.run(place, "models", **DEFAULT_STORE).code == 0
    )  # not to time the imports, nor the new tables
    for argv in (["train", *small_options()], ["predict", "FB", "--as-of=2013-01-30", "--log"]):
        began = time.monotonic()
        done = forks.run(place, *argv)
        assert done.code == 0, done.err
        timing[argv[0]] = time.monotonic() - began
    return place


@pytest.fixture
def place(base: Place, tmp_path: Path) -> Place:
    """A clone of it, to break."""
    return clone(base, tmp_path / "place")


@pytest.fixture(scope="session")
def outcomes(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """Rows of the table by case, with those of earlier sessions, which pytest's cache holds.

    Written where the variable says so and every case has one.
    """
    cases = tried_cases()
    found = {case: row for case in cases if (row := pytestconfig.cache.get(key_of(case), ""))}
    yield found
    if os.environ.get("FINAGENT_WRITE_FAULTS") and set(found) == set(cases):
        write_page(provider_part(), HEAD + "".join(found[case] for case in cases))


@pytest.fixture
def report(
    request: pytest.FixtureRequest,
    outcomes: dict[str, str],
    tmp_path: Path,
    kills: int,
) -> Report:
    """Keep the outcome of this case; without one, nothing met the fault with an exit code."""
    case = case_of(request.node)

    def keep(outcome: Outcome | None, then: str) -> None:
        # A kill may come when the command has ended; the table shows the others.
        code = "-" if outcome is None else "-9" if "20 times" in case else str(outcome.code)
        said = "-" if outcome is None or outcome.code <= 0 else tidy(outcome.sentence, tmp_path)
        if "20 times" not in case or kills >= 20:
            outcomes[case] = f"| {case} | {code} | {said} | {then} |\n"
            request.config.cache.set(key_of(case), outcomes[case])

    return keep


def case_of(item: pytest.Item) -> str:
    """Return the case that the test names."""
    return str(item.get_closest_marker("chaos").args[0])  # type: ignore[union-attr]


def key_of(case: str) -> str:
    """Return the name under which pytest's cache keeps the row of a case."""
    return "chaos/" + re.sub(r"\W+", "-", case)


def tidy(sentence: str, folder: Path) -> str:
    """Replace what differs from run to run."""
    text = sentence.replace(str(folder / "place"), "FOLDER").replace(str(folder), "FOLDER")
    text = re.sub(r"\b[0-9a-f]{32}\b", "RUN", text)
    text = re.sub(r"\bm-RUN\b|\bm-[0-9a-f]{32}\b", "MODEL", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)
    return text[:MAX_SENTENCE].replace("|", "\\|")
