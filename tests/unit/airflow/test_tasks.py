"""What a task of the DAG answers to a request, whichever Python it is asked in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finagent_model.airflow.tasks import TASKS, answer, read_train_request, reply_of
from finagent_model.errors import (
    ApprovalPendingError,
    BadInputError,
    DagRunFailedError,
    FinagentError,
    StoreError,
)

CONTEXT = {
    "dag_id": "desk",
    "dag_run_id": "manual__1",
    "run_date": "2013-01-31",
    "execution_id": "manual__1",
    "task_id": "open_run",
    "map_index": -1,
    "try_number": 1,
    "max_tries": 2,
    "params": {"as_of": None, "model": "models:/finagent/3", "symbols": ["GOOG"], "train": {}},
}


def asked(task: str, *arguments: object, **context: object) -> dict[str, Any]:
    return answer({"task": task, "context": {**CONTEXT, **context}, "arguments": arguments})


def failing(error: Exception) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def test_answer_has_the_result_of_a_task() -> None:
    inputs = {"as_of": "2013-01-31", "model_uri": "models:/fresh/1"}
    assert asked("resolve_inputs", {"name": "fresh", "version": "1"}) == {"result": inputs}


def test_answer_prefers_as_of_of_the_run() -> None:
    params = {**CONTEXT["params"], "as_of": "2012-06-29"}  # type: ignore[dict-item]
    reply = asked("resolve_inputs", {"name": "fresh", "version": "1"}, params=params)
    assert reply["result"]["as_of"] == "2012-06-29"


def test_answer_refuses_unknown_parameter_with_the_known_ones() -> None:
    reply = asked("open_run", ["symbol"], ["mode", "symbols"])
    assert reply == {
        "error": "BadInputError: parameter 'symbol' is unknown; there is: mode, symbols",
        "retry": False,
    }


def test_answer_refuses_task_of_another_version() -> None:
    reply = asked("paint")
    assert "task 'paint' is unknown" in reply["error"] and "of one version" in reply["error"]
    assert all(name in reply["error"] for name in TASKS)


def test_answer_refuses_context_of_another_version() -> None:
    reply = asked("open_run", [], [], colour="red")
    assert reply["error"].startswith("BadInputError: unknown parameter 'colour'")


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (BadInputError("no such thing"), False),
        (StoreError("the database is down"), True),
    ],
)
def test_reply_says_whether_to_retry(error: FinagentError, retry: bool) -> None:
    message = f"{type(error).__name__}: {error}"
    assert reply_of(failing(error)) == {"error": message, "retry": retry}


def test_answer_about_an_unknown_approval_is_no_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path))
    reply = asked("has_pending_approval", ["a1"])
    assert reply["retry"] is False and "a1" in reply["error"]


def test_train_request_is_registered_by_the_environments_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FINAGENT_MODEL_NAME", "desk")
    params = {"symbols": ["GOOG"], "train": {}}
    assert read_train_request(params).register_as == "desk"
    named = {**params, "train": {"register_as": "other"}}
    assert read_train_request(named).register_as == "other"


def test_train_request_takes_fields_and_the_older_object() -> None:
    fields = {"train_bars": 130, "train_mode": "replay", "schedule": "5", "mode": "both"}
    params = {"symbols": ["GOOG"], "train": {}, "register_as": None, **fields}
    request = read_train_request(params)
    assert (request.train_bars, request.mode, request.schedule) == (130, "replay", 5)
    assert request.register_as == "finagent"
    older = read_train_request({**params, "train": {"train_bars": 140, "mode": "live"}})
    assert (older.train_bars, older.mode) == (140, "live")


KNOWN = ["symbols", "train", "mode", "train_mode", "train_bars"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train_bars": 130, "train": {"train_bars": 140}}, "'train_bars' is given twice"),
        ({"train_mode": "replay", "train": {"mode": "live"}}, "'train_mode' is given twice"),
        ({"train": {"symbols": ["IBM"]}}, "train has symbols"),
        # What is not refused here is parsed, and then its value is wrong.
        ({"train_bars": 504, "train": {"train_bars": "many"}}, "train_bars"),
        ({"train_bars": "many", "train": {"train_bars": "many"}}, "train_bars"),
        ({"mode": "train_backtest", "train": {"mode": "dead"}}, "'dead'"),
    ],
    ids=["other", "mode", "symbols", "default", "equal", "mode of the DAG"],
)
def test_open_run_refuses_what_contradicts(given: dict[str, Any], said: str) -> None:
    params = {**CONTEXT["params"], **given}  # type: ignore[dict-item]
    reply = asked("open_run", list(given), KNOWN, params=params)
    assert reply["error"].startswith("BadInputError: ")
    assert said in reply["error"]
    assert ("given twice" in reply["error"]) == ("given twice" in said)


def test_reply_about_the_dag_run_is_a_sentence() -> None:
    error = DagRunFailedError("no signal on GOOG")
    assert reply_of(failing(error)) == {"error": "no signal on GOOG", "retry": False}


def test_reply_names_the_approvals_that_are_waited_for() -> None:
    reply = reply_of(failing(ApprovalPendingError(("a1", "a2"))))
    assert reply["waits_for"] == ["a1", "a2"]
    assert "finagent approve" in reply["message"]


def test_reply_passes_unforeseen_errors_through() -> None:
    with pytest.raises(ZeroDivisionError):
        reply_of(failing(ZeroDivisionError()))


@pytest.mark.slow
def test_tasks_import_no_airflow() -> None:
    script = (
        "import sys, finagent_model.airflow.task_process\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'airflow'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
