"""Do the work of one task of the DAG in a Python without Airflow.

`python -m finagent_model.airflow.task_process` reads a request, one line of JSON, from standard
input, and writes the reply of `tasks.answer` to standard output. Everything else that is printed or
logged goes to standard error, where the DAG file reads it into the task's log. The process ends
when its standard input is closed: whoever asked is gone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from finagent_model._secrets import redact_message, redact_output
from finagent_model.airflow.tasks import answer

MAX_REQUEST_CHARS = 10_000_000
STOP_S = 10.0
"""Seconds between being told to stop and being killed."""


def main() -> None:
    """Answer the request on standard input; exits with 0 whatever the reply says."""
    # MLflow's progress bars would fill the task's log.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A library that prints must not end up in the reply.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = sys.stdin.readline(MAX_REQUEST_CHARS)
    stdin = sys.stdin.fileno()
    threading.Thread(target=_stop_with_caller, args=[stdin], daemon=True).start()
    with redact_output():
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        reply = _answer(request)
    with replies:
        json.dump(reply, replies)


def _answer(request: str) -> dict[str, Any]:
    try:
        return answer(json.loads(request))
    except Exception as error:
        # As in Airflow's own process: what nobody foresaw is shown whole, and tried again.
        traceback.print_exc()
        message = redact_message(f"{type(error).__name__}: {error}")
        return {"error": message, "retry": True}


def _stop_with_caller(stdin: int) -> None:
    # A killed caller can't stop this process, but its end of the pipe closes.
    # Not by `sys.stdin`: Python can't shut down while a thread reads that.
    while os.read(stdin, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
