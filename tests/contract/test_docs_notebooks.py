"""The notebooks of docs/examples run as they are, and print what is committed with them.

The one that asks a real model on this machine is run by `make test-local`. A cell with the tag
`model-writes` prints what the model wrote, which may differ from processor to processor: there it
counts that something is printed.

`FINAGENT_REFRESH_PAGES=1` commits what they print now.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from support.places import ROOT, Place

NOTEBOOKS = sorted((ROOT / "docs" / "examples").glob("*.ipynb"))
WITH_MODEL, MODEL_WRITES = "desk_with_local_model", "model-writes"
REFRESHES = bool(os.environ.get("FINAGENT_REFRESH_PAGES"))


def test_there_are_three_notebooks() -> None:
    assert len(NOTEBOOKS) == 3
    assert WITH_MODEL in [path.stem for path in NOTEBOOKS]


@pytest.mark.filterwarnings("ignore")  # of the kernel's client, not ours
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=pytest.mark.local if path.stem == WITH_MODEL else pytest.mark.slow,
        )
        for path in NOTEBOOKS
    ],
)
def test_notebook_prints_what_is_committed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    for name in [name for name in os.environ if name.startswith(("FINAGENT_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    committed = texts(notebook)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
        record_timing=False,
    )
    client.execute(
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    )
    drop_messages(notebook)
    if REFRESHES:
        nbformat.write(notebook, path)
        committed = texts(notebook)
    assert texts(notebook) == committed
    assert all(committed), "a cell without output says nothing to a reader"


def drop_messages(notebook: Any) -> None:
    """Drop what cells write to stderr: progress and log lines, which have times of day."""
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]


def texts(notebook: Any) -> list[str]:
    """Return what each cell with output prints, without charts."""
    printed = []
    for cell in notebook.cells:
        # Logs of libraries go to stderr, and have times in them.
        outputs = [o for o in cell.get("outputs", ()) if o.get("name") != "stderr"]
        if outputs and MODEL_WRITES in cell.metadata.get("tags", ()):
            printed.append(MODEL_WRITES)
        elif outputs:
            parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
            printed.append("".join(parts))
    return printed
