"""The DAG's tasks in another Python than Airflow's: what passes between them, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.dag_file import load_dag_file

pytestmark = pytest.mark.slow
CONTEXT = {
    "dag_run": SimpleNamespace(
        dag_id="desk", run_id="manual__1", logical_date=None, run_after=SimpleNamespace()
    ),
    "ti": SimpleNamespace(task_id="decide", map_index=0, try_number=1, max_tries=2),
    "params": {"symbols": ["GOOG"]},
}
CONTEXT["dag_run"].run_after.date = lambda: SimpleNamespace(isoformat=lambda: "2013-01-31")
ECHO = """
import json, sys
print("a line of its log", file=sys.stderr)
request = json.loads(sys.stdin.readline())
json.dump({"result": [request, sys.argv[1:]]}, sys.stdout)
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the DAG's file with a program for another Python; its options are arguments of it."""

    def made(program: str) -> Any:
        path = tmp_path / "other python.py"
        path.write_text(program)
        return load_dag_file(monkeypatch, FINAGENT_DAG_PYTHON=f"{sys.executable} '{path}'")

    return made


def test_other_python_is_told_plain_values(stub: Any) -> None:
    dag, lines = stub(ECHO), []
    dag.log = SimpleNamespace(info=lambda form, line: lines.append(line))
    reply = dag.ask_package(CONTEXT, "decide", {"as_of": "2013-01-31"}, "run")
    request, options = dag.get_result(reply)
    assert request == {
        "task": "decide",
        "context": {
            "dag_id": "desk",
            "dag_run_id": "manual__1",
            "run_date": "2013-01-31",
            "execution_id": "manual__1",
            "task_id": "decide",
            "map_index": 0,
            "try_number": 1,
            "max_tries": 2,
            "params": {"symbols": ["GOOG"]},
        },
        "arguments": [{"as_of": "2013-01-31"}, "run"],
    }
    assert options == ["-P", "-m", "finagent_model.airflow.task_process"]
    assert lines == ["a line of its log"]


def test_other_python_error_is_retried_only_if_that_helps(stub: Any) -> None:
    dag = stub(ECHO)
    with pytest.raises(dag.AirflowFailException, match="BadInputError: no"):
        dag.get_result({"error": "BadInputError: no", "retry": False})
    with pytest.raises(dag.AirflowException, match="StoreError: later") as raised:
        dag.get_result({"error": "StoreError: later", "retry": True})
    assert not isinstance(raised.value, dag.AirflowFailException)


def test_other_python_that_is_missing_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = load_dag_file(monkeypatch, FINAGENT_DAG_PYTHON="/no/python")
    with pytest.raises(dag.AirflowFailException, match="FINAGENT_DAG_PYTHON=/no/python can't be"):
        dag.ask_package(CONTEXT, "decide")


@pytest.mark.parametrize("program", ["raise SystemExit('no such module')", "print('{')"])
def test_other_python_without_a_reply_is_an_error(stub: Any, program: str) -> None:
    dag = stub(f"import sys; print('no such module', file=sys.stderr)\n{program}")
    with pytest.raises(dag.AirflowException, match=r"and no result; it said last: no such module"):
        dag.ask_package(CONTEXT, "decide")


def test_other_python_that_hangs_is_killed(stub: Any) -> None:
    dag = stub("import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(dag.AirflowException, match=r"decide took longer than 0\.5 s"):
        dag.ask_package(CONTEXT, "decide", timeout=dag.timedelta(seconds=0.5))
    assert time.monotonic() - began < 20


def test_other_python_sees_no_path_of_airflows(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/opt/airflow/lib")
    dag = stub("import json, os, sys; json.dump({'result': dict(os.environ)}, sys.stdout)")
    assert "PYTHONPATH" not in dag.get_result(dag.ask_package(CONTEXT, "decide"))


def test_decide_waits_for_approval_without_the_package_in_the_triggerer(stub: Any) -> None:
    from airflow.sdk.exceptions import TaskDeferred

    replies = [
        {"waits_for": ["a1"], "message": "waiting"},
        {"result": True},
        {"result": False},
        {"result": {"symbol": "GOOG"}},
    ]
    dag = stub(ECHO)
    asked: list[tuple[Any, ...]] = []

    def answer(context: object, *arguments: Any, **options: Any) -> dict[str, Any]:
        asked.append(arguments)
        return replies[len(asked) - 1]

    dag.ask_package = answer
    task = dag.Decide(task_id="decide", inputs={}, parent="run", symbol_index=0)
    with pytest.raises(TaskDeferred) as waits:
        task.execute({})
    assert waits.value.trigger.serialize()[0].startswith("airflow.providers.standard.")
    assert (waits.value.method_name, waits.value.kwargs) == ("resume", {"keys": ["a1"]})
    with pytest.raises(TaskDeferred):
        task.resume({}, None, ["a1"])
    assert task.resume({}, None, ["a1"]) == {"symbol": "GOOG"}
    assert [name for name, *_ in asked] == [
        "decide",
        "has_pending_approval",
        "has_pending_approval",
        "decide",
    ]


@contextmanager
def task_process(work: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The process of a task that does this work, which has its request; its pipes are open."""
    program = (
        "import sys, time\n"
        "from finagent_model.airflow import task_process, tasks\n"
        f"def work(context):\n    {work}\n"
        "tasks.TASKS = {'work': work}\n"
        "task_process.main()\n"
    )
    context = {"dag_id": "d", "dag_run_id": "r", "run_date": "2013-01-31"}
    context |= {"execution_id": "r", "task_id": "t"}
    request = {
        "task": "work",
        "context": {**context, "try_number": 1, "max_tries": 0, "params": {}},
        "arguments": [],
    }
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    ) as process:
        assert process.stdin
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        yield process


def test_task_process_ends_with_its_caller() -> None:
    with task_process("print('begun', file=sys.stderr); time.sleep(60)") as process:
        assert process.stdin and process.stderr
        assert process.stderr.readline() == "begun\n"
        process.stdin.close()
        assert process.wait(30) == -signal.SIGTERM


def test_task_process_keeps_prints_and_secrets_out_of_its_reply() -> None:
    work = "print('printed'); raise ValueError('the key is hidden-secret-42')"
    with task_process(work, OPENAI_API_KEY="hidden-secret-42") as process:
        assert process.stdout and process.stderr
        stdout, stderr = process.stdout.read(), process.stderr.read()
    reply = json.loads(stdout)
    assert reply["retry"] is True and reply["error"].startswith("ValueError: the key is ")
    assert "printed" in stderr and "Traceback" in stderr
    assert "hidden-secret-42" not in stdout + stderr
