"""How often a worker that dies is started again, shown by scripted answers; and what is
looked at before each start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.contrib.upstream.source import PinnedSource, UpstreamError, UpstreamSourceError
from finagent_model.contrib.upstream.worker_process import WorkerProcess, WorkerReply
from support.upstream_repository import FILES, make_repository


class ScriptedWorker(WorkerProcess):
    """No process: it answers, or fails, as the words say."""

    def __init__(self, *words: str) -> None:
        super().__init__(lambda: FILES)
        self.words = list(words)

    def _exchange(self, request: str) -> WorkerReply:
        word = self.words.pop(0)
        if word != "answer":
            raise UpstreamError(word, "as told")
        return WorkerReply({}, {}, "")

    def next_code(self) -> str:
        """The next date: `answer`, or the word of its failure."""
        try:
            self.ask("GOOG", "2012-06-30", [])
        except UpstreamError as error:
            return error.code
        return "answer"


@pytest.mark.parametrize("alive", ["exception", "answer"])
def test_worker_deaths_with_an_answer_between_are_not_in_a_row(alive: str) -> None:
    worker = ScriptedWorker(
        "crash", "crash", alive, "timeout", "protocol", alive, "timeout", "answer"
    )
    codes = [worker.next_code() for _ in range(7)]
    assert codes == ["crash", alive, "timeout", "protocol", alive, "timeout", "answer"]


@pytest.mark.parametrize("last", ["timeout", "protocol", "crash"])
def test_worker_deaths_in_a_row_are_final(last: str) -> None:
    worker = ScriptedWorker("timeout", "protocol", last, "answer")
    assert [worker.next_code() for _ in range(4)] == ["timeout", "protocol", last, last]


def test_worker_retries_a_crash_once() -> None:
    assert ScriptedWorker("crash", "answer").next_code() == "answer"
    assert ScriptedWorker("crash", "exception").next_code() == "exception"


def test_worker_import_error_is_final() -> None:
    worker = ScriptedWorker("import", "answer")
    assert [worker.next_code(), worker.next_code()] == ["import", "import"]


def test_worker_start_verifies_the_code_first(tmp_path: Path) -> None:
    stub = make_repository(tmp_path / "clone")
    (stub.folder_of_code / "more.py").touch()
    source = PinnedSource(stub.folder, stub.pin, "download the model again")
    worker = WorkerProcess(lambda: source.verify().code)
    for _ in range(5):  # what was changed may be put right, so it is never given up
        with pytest.raises(UpstreamSourceError, match="remove the folder and download the model"):
            worker.ask("GOOG", "2012-06-30", [])
    assert worker._child is None
