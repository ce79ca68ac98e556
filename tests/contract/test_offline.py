"""Training and predicting ask no server for anything, unless a chat model is configured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.places import AS_OF, Place, small_options

pytestmark = pytest.mark.slow
WATCHED = """
import atexit, sys
asked = []
def watch(event, args):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
        asked.append(str(args[:2]))
sys.addaudithook(watch)
atexit.register(lambda: print(asked))  # the first to register is the last to run
from finagent_model.cli import app
app(sys.argv[1:], standalone_mode=False)
"""
MARKS = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")
"""Variables by which MLflow would keep quiet of itself."""


def test_training_needs_no_network(
    tmp_path: Path,
) -> None:
    place = Bare(tmp_path)
    for command in (["train", *small_options()], ["predict", "FB", "--as-of", AS_OF]):
        done = place.run(sys.executable, "-c", WATCHED, *command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"


class Bare(Place):
    """A place whose environment says nothing about tests or telemetry."""

    @property
    def env(self) -> dict[str, str]:
        return {k: v for k, v in super().env.items() if k not in MARKS}
