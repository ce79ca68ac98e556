"""The same decision by every door: library, command line, REST and a DAG's task, in replay."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any

import pytest

from support.places import AS_OF, Place, free_port, post

pytestmark = pytest.mark.slow

NOT_COMPARED = {"generated_at"}
LIBRARY = f"""
import json, sys
import finagent_model
model = finagent_model.load("models:/finagent@champion")
decision = model.decide("FB", as_of="{AS_OF}", mode="replay")
print(json.dumps([decision.calls, decision.signal.model_dump(mode="json")]))
"""
TASK = f"""
import json
from mlflow.tracking import MlflowClient
import finagent_model
done = finagent_model.infer("FB", "{AS_OF}", mode="replay")
client = MlflowClient()
path = client.download_artifacts(done.run_id, "signal.json", "{{folder}}")
files = sorted(f.path for f in client.list_artifacts(done.run_id))
print(json.dumps([files, json.load(open(path))]))
"""


def comparable(signal: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in signal.items() if k not in NOT_COMPARED}


def test_doors_give_the_same_signal(trained: Place) -> None:
    # An empty home: what is replayed comes out of the package alone.
    empty = {"FINAGENT_HOME": str(trained.folder / "fresh-home")}
    library = trained.python(LIBRARY, **empty)
    assert library.returncode == 0, library.stderr
    calls, expected = json.loads(library.stdout.splitlines()[-1])
    assert (calls, expected["status"]) == (0, "ok")

    shell = trained.signal("FB", "--as-of", AS_OF, "--mode", "replay", **empty)

    downloads = trained.folder / "downloads"
    downloads.mkdir()
    task = trained.run(sys.executable, "-c", TASK.replace("{folder}", str(downloads)), **empty)
    assert task.returncode == 0, task.stderr
    files, logged = json.loads(task.stdout.splitlines()[-1])
    assert files == [
        "audit.jsonl",
        "autogen_conversation.jsonl",
        "bars.json",
        "chart.html",
        "chart.png",
        "market_data_snapshot.json",
        "signal.json",
    ]

    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/finagent@champion"]
    options = ["--env-manager", "local", "-p", str(port)]
    with trained.serving(*command, *options, port=port, **empty) as address:
        row = {"symbol": "FB", "as_of": AS_OF}
        body = {"dataframe_records": [row], "params": {"mode": "replay"}}
        status, answer = post(address, body)
    assert status == 200

    for signal in (shell, logged, answer["predictions"][0]):
        assert comparable(signal) == comparable(expected)


TWICE = f"""
import json
from finagent_model import infer
asked = ("FB", "{AS_OF}")
first, again = infer(*asked), infer(*asked)
live, last = infer(*asked, mode="live"), infer(*asked)
inferred = (first, again, live, last)
print(json.dumps([[d.run_id, d.decided_before, d.signal.signal_id] for d in inferred]))
"""


def test_infer_is_idempotent_except_live(trained: Place) -> None:
    home = trained.folder / "another-home"
    done = trained.python(TWICE, FINAGENT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    first, again, live, last = json.loads(done.stdout.splitlines()[-1])
    assert first[1] is False
    assert again == last == [first[0], True, first[2]]
    assert (live[1:], live[0] != first[0]) == ([False, first[2]], True)
    with closing(sqlite3.connect(home / "finagent.db")) as database:
        rows = database.execute(
            "select run_id, finagent_key, finagent_status from artifacts where type = 'signal'"
        ).fetchall()
    assert rows == [(first[0], first[2], "ok")]
