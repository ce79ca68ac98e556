"""A desk with a mask and a chat model is trained, probed, and trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.desk.masking import ALIAS
from finagent_model.errors import BadInputError
from finagent_model.model.loading import load_predictor
from finagent_model.pipeline.probe_memory import prepare_probes, probe_memory
from finagent_model.pipeline.train import train
from finagent_model.reports.model_card import CARD_FILE
from finagent_model.tracking.runs import RunLog
from finagent_model.training.request import TrainRequest
from support.memory_models import PROVIDER, stub_config, stub_settings
from support.places import SMALL, Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]


def test_masked_desk_is_trained_and_probed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINAGENT_COMPONENTS", PROVIDER)
    settings = stub_settings(FINAGENT_HOME=str(tmp_path / "home"))
    config = stub_config("honest", mask="levels").model_dump(mode="json")
    (tmp_path / "desk.yaml").write_text(yaml.safe_dump(config))
    request = TrainRequest.parse(**SMALL, config=str(tmp_path / "desk.yaml"))

    first = train(request, settings)
    # The gate asked the package again as it is served: the same masked questions.
    assert first.verdict == "passed"
    run = RunLog(first.run_id)
    checks = {c["name"]: c for c in run.read_json("gate.json")["evidence"]["checks"]}
    assert checks["no_sign_of_memory"]["why"] == "finagent memory was not run on such a desk"
    assert "was not probed" in run.read_artifact("report.md").decode()
    assert "Mask: `levels`" in run.read_artifact(CARD_FILE).decode()
    uri = f"models:/{first.name}/{first.version}"
    decision = load_predictor(uri).decide("FB", "2012-12-05", mode="replay")
    assert ALIAS in decision.turns[0].message_content
    assert '"FB"' not in decision.turns[0].message_content
    assert decision.signal.status == "ok"

    with pytest.raises(BadInputError, match="a price is unknown"):
        probe_memory(prepare_probes(uri, settings, budget_usd=1.0))
    done = CliRunner().invoke(app, ["memory", uri, "--days", "5", "--json"])
    # Three days that don't overlap are too few to say anything.
    assert done.exit_code == 5, done.output
    told = json.loads(done.stdout)
    assert (told["days"], told["signs"], told["passed"]) == (3, [], False)
    assert told["calls"] > 0
    assert "30 are needed" in told["verdict"]
    report = run.read_artifact("memory.json")
    again = probe_memory(prepare_probes(uri, settings, days=5))
    assert (again.calls, run.read_artifact("memory.json")) == (0, report)
    for name in ("report.md", "report.html"):
        assert "Nothing can be said of what" in run.read_artifact(name).decode()

    second = train(request, settings)
    assert second.content_hash == first.content_hash
    later = RunLog(second.run_id)
    checks = {c["name"]: c for c in later.read_json("gate.json")["evidence"]["checks"]}
    assert "30 are needed" in checks["no_sign_of_memory"]["why"]
    assert "Nothing can be said of what" in later.read_artifact("report.md").decode()
