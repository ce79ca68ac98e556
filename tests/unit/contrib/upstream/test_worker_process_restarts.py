"""How often a worker that dies is started again, told by answers that are made up; and what is
looked at before each start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.contrib.upstream.source import Source
from finagent_model.contrib.upstream.worker_process import WorkerProcess, WorkerReply
from finagent_model.errors import UpstreamError, UpstreamSourceError
from support.upstream_repository import FILES, make_repository


class Told(WorkerProcess):
    """No process: it answers, or fails, as the words say."""

    def __init__(self, *words: str) -> None:
        super().__init__(lambda: FILES)
        self.words = list(words)

    def _asked(self, request: str) -> WorkerReply:
        word = self.words.pop(0)
        if word != "answer":
            raise UpstreamError(word, "as told")
        return WorkerReply({}, {}, "")

    def hear(self) -> str:
        """The next date: `answer`, or the word of its failure."""
        try:
            self.ask("GOOG", "2012-06-30", [])
        except UpstreamError as error:
            return error.code
        return "answer"


@pytest.mark.parametrize("alive", ["exception", "answer"])
def test_deaths_with_an_answer_between_are_not_in_a_row(alive: str) -> None:
    told = Told("crash", "crash", alive, "timeout", "protocol", alive, "timeout", "answer")
    heard = [told.hear() for _ in range(7)]
    assert heard == ["crash", alive, "timeout", "protocol", alive, "timeout", "answer"]


@pytest.mark.parametrize("last", ["timeout", "protocol", "crash"])
def test_deaths_in_a_row_are_the_end(last: str) -> None:
    told = Told("timeout", "protocol", last, "answer")
    assert [told.hear() for _ in range(4)] == ["timeout", "protocol", last, last]


def test_a_crash_is_asked_once_more() -> None:
    assert Told("crash", "answer").hear() == "answer"
    assert Told("crash", "exception").hear() == "exception"


def test_code_that_can_not_be_loaded_is_not_tried_again() -> None:
    told = Told("import", "answer")
    assert [told.hear(), told.hear()] == ["import", "import"]


def test_the_code_is_verified_before_a_worker_is_started(tmp_path: Path) -> None:
    stub = make_repository(tmp_path / "clone")
    (stub.folder_of_code / "more.py").touch()
    source = Source(stub.folder, stub.pin, "download the model again")
    resident = WorkerProcess(lambda: source.again().code)
    for _ in range(5):  # what was changed may be put right, so it is never given up
        with pytest.raises(UpstreamSourceError, match="remove the folder and download the model"):
            resident.ask("GOOG", "2012-06-30", [])
    assert resident._child is None
