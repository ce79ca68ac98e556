"""The platform from outside: one DAG run asked for by REST, and its signal read back through the
web UI. `make smoke` starts the containers before it and takes them down after; Python alone is
needed.

Who asks is said by AIRFLOW_USER, AIRFLOW_PASSWORD and FINAGENT_API_TOKEN in the environment, else
by `.env` and the folder of secrets; where, by two arguments that have the addresses of
docker-compose.yml.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

DAG = "finagent_autogen_pipeline"
SMALL = {"train_bars": 120, "test_bars": 30, "candidates": 24, "register_as": "smoke"}
CONF = {"mode": "both", "symbols": ["FB"], "as_of": "2013-01-31", "train": SMALL}
WAIT_S = 1200.0


def ask(address: str, token: str | None = None, body: Any = None) -> Any:
    """The JSON answer; a POST where there is a body. Raises urllib's errors."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def login(env_file: Path, folder: Path) -> dict[str, str]:
    """What the environment says first, then the files."""
    lines = env_file.read_text().splitlines() if env_file.is_file() else []
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    known = {name: value for name, _, value in pairs if value}
    for name in ("AIRFLOW_PASSWORD", "FINAGENT_API_TOKEN"):
        if (file := folder / name.lower()).is_file():
            known[name] = file.read_text().strip()
    return known | dict(os.environ)


def run_dag(airflow: str, user: str, password: str) -> str:
    """The id of a run that ended well. Raises SystemExit with the tasks' states if it did not."""
    body = {"username": user, "password": password}
    token = ask(f"{airflow}/auth/token", body=body)["access_token"]
    runs = f"{airflow}/api/v2/dags/{DAG}/dagRuns"
    run = str(ask(runs, token, {"conf": CONF, "logical_date": None})["dag_run_id"])
    here = f"{runs}/{urllib.parse.quote(run, safe='')}"
    deadline = time.monotonic() + WAIT_S
    while (state := ask(here, token)["state"]) not in ("success", "failed"):
        if time.monotonic() > deadline:
            break
        time.sleep(2)
    if state != "success":
        tasks = ask(f"{here}/taskInstances", token)["task_instances"]
        told = ", ".join(f"{task['task_id']} {task['state']}" for task in tasks)
        raise SystemExit(f"run {run} of {DAG} is {state}: {told}")
    return run


def signal_of(ui: str, token: str, run: str) -> dict[str, Any]:
    """The one that the run left. Raises SystemExit where there is none, or more than one."""
    # What others wrote under this execution is no signal of the run.
    wanted = {"execution_id": run, "type": "signal", "origin": "finagent"}
    query = urllib.parse.urlencode(wanted)
    found = ask(f"{ui}/api/artifacts?{query}", token)["artifacts"]
    if len(found) != 1:
        raise SystemExit(f"{ui} has {len(found)} signals of run {run}; one was expected")
    signal: dict[str, Any] = found[0]
    return signal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--airflow", default="http://127.0.0.1:8080")
    parser.add_argument("--ui", default="http://127.0.0.1:5002")
    parser.add_argument("--env-file", type=Path, default=Path(".env"))
    parser.add_argument("--secrets", type=Path, default=Path("secrets"))
    given = parser.parse_args()
    known = login(given.env_file, given.secrets)
    run = run_dag(given.airflow, known["AIRFLOW_USER"], known["AIRFLOW_PASSWORD"])
    signal = signal_of(given.ui, known["FINAGENT_API_TOKEN"], run)
    print(f"{signal['symbol']}: {signal['action']}, artifact {signal['id']} of run {run}")


if __name__ == "__main__":
    main()
