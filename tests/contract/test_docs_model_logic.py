"""The drawings of docs/model-logic.md are the code's own, and real Mermaid draws each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.decision.signal import Status
from finagent_model.reports.charts import render_mermaid
from support.places import ROOT, Place

PAGE = (ROOT / "docs" / "model-logic.md").read_text()
DRAWINGS = re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.S)
MERMAID = "mermaid@11.12.1"
GRAPH = """
import gc, json, sys
sys.path.insert(0, {folder!r})
import finagent_autogen_pipeline
from airflow.sdk import DAG
[dag] = [found for found in gc.get_objects() if isinstance(found, DAG)]
short = lambda name: name.rpartition(".")[2]
print(json.dumps(sorted(
    [short(name), short(after)]
    for name, task in dag.task_dict.items() for after in task.downstream_task_ids
)))
"""


def drawing(name: str) -> str:
    [found] = re.findall(rf"<!-- {name} -->\n```mermaid\n(.*?)```", PAGE, flags=re.S)
    return str(found)


def test_the_agents_are_the_default_desks() -> None:
    assert drawing("agents") == render_mermaid(load_preset())


def test_drawing_ends_in_every_status() -> None:
    ends = set(re.findall(r"--> (\w+)$", drawing("statuses"), flags=re.M))
    assert ends == {status.value for status in Status}


def test_drawing_has_every_check_of_the_gate() -> None:
    rooms = (
        "evaluation/gate.py",
        "evaluation/probes.py",
        "evaluation/deep_checks.py",
        "evaluation/retraining.py",
        "pipeline/verify.py",
        "pipeline/deep_verification.py",
    )
    files = [f for room in rooms for f in _files(ROOT / "finagent_model" / room)]
    code = {
        name for file in files for name in re.findall(r'Check\(\s*name="(\w+)"', file.read_text())
    }
    drawn = set(re.findall(r"^        (\w+)$", drawing("gate"), flags=re.M))
    assert drawn == code - {"answers_repeat"}  # of a decider that is no package


@pytest.mark.slow
def test_the_tasks_hang_together_as_drawn(tmp_path: Path) -> None:
    script = GRAPH.format(folder=str(ROOT / "dags"))
    done = Place(tmp_path).run(sys.executable, "-c", script, AIRFLOW_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    edges = re.findall(r"^ *(\w+) --> (\w+)", drawing("dag"), flags=re.M)
    assert sorted(list(edge) for edge in edges) == json.loads(done.stdout.splitlines()[-1])


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore")  # playwright's own
def test_mermaid_draws_every_drawing(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    npm = shutil.which("npm")
    assert npm, "npm brings Mermaid"
    subprocess.run([npm, "pack", "--silent", MERMAID], cwd=tmp_path, check=True)
    [packed] = tmp_path.glob("mermaid-*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    with sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(offline=True)
        page.goto("about:blank")
        page.add_script_tag(path=tmp_path / "package" / "dist" / "mermaid.min.js")
        for i, text in enumerate(DRAWINGS):
            drawn = page.evaluate(f"text => mermaid.render('d{i}', text).then(r => r.svg)", text)
            assert drawn.startswith("<svg")
            assert "Syntax error" not in drawn
        browser.close()
    assert len(DRAWINGS) == 7


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.py"))
