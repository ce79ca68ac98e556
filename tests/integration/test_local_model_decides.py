"""A real language model on this machine decides: SmolLM2-135M-Instruct, served by llama.cpp."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from finagent_model.agents.local_model import find_model_file
from finagent_model.agents.local_server import find_server
from finagent_model.config.roster import ModelConfig
from finagent_model.decision.signal import Status
from finagent_model.market.bars import parse_as_of
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from support.pages import client, settings
from support.places import ROOT, Place

pytestmark = pytest.mark.local
PAGE = (ROOT / "docs" / "local.md").read_text()
UNUSABLE = (Status.PARSE_FAILED, Status.MODEL_ERROR)


def test_demo_decides_from_an_empty_folder(tmp_path: Path) -> None:
    """By the commands of the page, so that each of them is run."""
    place = Place(tmp_path)
    lines = [
        shlex.split(line)
        for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S)
        for line in block.splitlines()
        if line.startswith("finagent demo")
    ]
    assert lines == [["finagent", "demo"]]
    # No key, no proxy, no address: nothing but this machine is reached.
    gone = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = place.finagent("demo", "--json", **gone)
    assert done.returncode == 0, done.stderr
    signal = json.loads(done.stdout)
    assert signal["status"] not in UNUSABLE
    assert signal["model_used"] == "SmolLM2-135M-Instruct"
    assert (signal["cost_usd"], signal["knowledge_cutoff"]) == (0.0, "unknown")
    assert signal["tokens"] > 1000
    assert "TechnicalAnalyst asks SmolLM2-135M-Instruct" in done.stderr
    assert "135 million parameters cannot trade" in done.stderr
    [link] = re.findall(r"http://127.0.0.1:5002(/signals/key/[0-9a-f]{16})$", done.stderr.strip())
    with client(settings(tmp_path / "home")) as pages:
        page = pages.get(link)
    assert page.status_code == 200
    assert "SmolLM2-135M-Instruct" in page.text


def test_any_gguf_by_path_decides_in_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "smollm2-copy.gguf"
    shutil.copy(find_model_file(ModelConfig(client="local")), path)
    [block] = [b for b in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S) if "/path/" in b]
    config = tmp_path / "desk.yaml"
    config.write_text(block.replace("/path/to/model.gguf", str(path)) + "stream: true\n")
    known = settings(tmp_path / "home")
    predictor = Predictor.from_config(config, known, "cached")
    view = predictor.view(Question("AAPL", parse_as_of("2011-08-19")))
    [first] = predictor.decide_views([view], "cached")
    assert first.signal.status not in UNUSABLE, first.signal.reasoning
    assert first.signal.model_used == "smollm2-copy"
    assert first.calls >= 2
    # Moved elsewhere, the same file replays its replies, and no server is started.
    find_server(path).stop()
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    config.write_text(config.read_text().replace(str(path), str(moved)))
    again = Predictor.from_config(config, known, "replay")
    [replayed] = again.decide_views([view], "replay")
    assert replayed.signal.status == first.signal.status
    assert replayed.calls == 0
