"""From a signal to the data it came from, and back, over a real training's record."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from pydantic import SecretStr

from finagent_model._base import Mode
from finagent_model.data.bundled import BundledBars
from finagent_model.data.snapshots import Dataset
from finagent_model.decision.decision import NO_EXECUTION, Execution
from finagent_model.errors import BadInputError
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from finagent_model.tracking.queries import RunRecord, read_run, search_runs
from finagent_model.tracking.registry import CONTENT
from finagent_model.tracking.runs import RunLog, open_run
from support.places import ROOT, Place

if TYPE_CHECKING:
    from finagent_model.pipeline.infer import InferenceResult
    from finagent_model.pipeline.lineage import SignalLineage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
AS_OF = "2013-02-13"
"""A day of its own: the store is shared, and a question is decided once."""
EXECUTION = Execution(
    execution_id="e-7", dag_id="desk", dag_run_id="manual", task_id="t", map_index=2
)
FB = BundledBars().bars("FB")


@pytest.fixture(scope="module")
def settings(trained: Place) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FINAGENT_HOME", "MLFLOW_TRACKING_URI"):
            patch.setenv(name, trained.env[name])
        yield Settings.load()


@pytest.fixture(scope="module")
def lineage() -> ModuleType:
    from finagent_model.pipeline import lineage  # MLflow warns when it is imported

    return lineage


def decide(
    settings: Settings, execution: Execution = NO_EXECUTION, mode: Mode = "cached"
) -> InferenceResult:
    from finagent_model._public import CHAMPION
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question
    from finagent_model.pipeline.infer import infer

    question = Question("FB", parse_as_of(AS_OF))
    return infer(load_predictor(CHAMPION), question, CHAMPION, mode, execution=execution)


@pytest.fixture(scope="module")
def decided(settings: Settings, trained: Place) -> InferenceResult:
    """The champion's decision, asked for by a workflow."""
    mlflow.set_tracking_uri(trained.env["MLFLOW_TRACKING_URI"])
    return decide(settings, EXECUTION)


@pytest.fixture(autouse=True)
def store(decided: InferenceResult, trained: Place) -> None:
    """Another test may have left this process with another one."""
    mlflow.set_tracking_uri(trained.env["MLFLOW_TRACKING_URI"])


@pytest.fixture
def traced(decided: InferenceResult, settings: Settings, lineage: ModuleType) -> SignalLineage:
    result: SignalLineage = lineage.lineage_of_signal(decided.signal.signal_id, settings)
    return result


def train_run() -> RunRecord:
    return search_runs("tags.`finagent.stage` = 'train' and tags.`finagent.model_version` = '1'")[0]


def test_run_tags_name_execution_code_desk_and_version(
    decided: InferenceResult,
) -> None:
    tags = read_run(decided.run_id).tags
    values = {name.removeprefix("finagent."): value for name, value in tags.items()}
    assert (values["workflow_execution_id"], values["dag_id"]) == ("e-7", "desk")
    assert (values["dag_run_id"], values["task_id"], values["map_index"]) == ("manual", "t", "2")
    assert "workflow_id" not in values
    assert (values["signal_id"], values["symbol"]) == (decided.signal.signal_id, "FB")
    assert (values["model_uri"], values["model_version"]) == ("models:/finagent/1", "1")
    assert values["training_run_id"] == decided.signal.run_id
    for name in ("code", "config", "package", "audit_head"):
        assert re.fullmatch("[0-9a-f]{64}", values[name]), name
    assert re.fullmatch("[0-9a-f]{40}", values["mlflow.source.git.commit"])
    assert values["git_dirty"] in ("true", "false")


def test_run_tags_are_all_documented(decided: InferenceResult) -> None:
    page = (ROOT / "docs" / "lineage.md").read_text()
    rows = re.findall(r"^\| `(.*?)\| ", page, flags=re.M)
    documented = {f"finagent{name}" for row in rows for name in re.findall(r"(\.[a-z_]+)`", row)}
    runs = (read_run(decided.run_id), train_run())
    ours = {name for run in runs for name in run.tags if name.startswith("finagent.")}
    # Those of an unfinished training tell nobody anything afterwards.
    assert ours - documented == {"finagent.request", "finagent.process", "finagent.fitted"}


def test_runs_name_their_data_and_model(decided: InferenceResult) -> None:
    client, training = MlflowClient(), train_run()
    [child] = search_runs(f"tags.`mlflow.parentRunId` = '{training.run_id}'")
    for run, context in ((training, "training"), (child, "backtest")):
        assert [each.name for each in run.datasets] == ["FB bars", "FB news"]
        assert run.datasets[0].sha256 == FB.digest()
        inputs = client.get_run(run.run_id).inputs.dataset_inputs
        assert {tag.value for each in inputs for tag in each.tags} == {context}
    inputs = client.get_run(decided.run_id).inputs
    assert [each.dataset.digest for each in inputs.dataset_inputs] == [
        FB.until(parse_as_of(AS_OF)).digest()[:32]
    ]
    [model] = client.get_logged_model(inputs.model_inputs[0].model_id).tags.items() & {
        ("mlflow.modelVersions", json.dumps([{"name": "finagent", "version": 1}]))
    }
    assert model
    assert child.tags["finagent.config"] == training.tags["finagent.config"]


def test_lineage_of_signal_leads_to_version_training_and_data(
    decided: InferenceResult, traced: SignalLineage
) -> None:
    assert traced.is_intact
    assert [check.name for check in traced.every_check] == [
        "signal_as_decided",
        "audit_as_written",
        "package_as_registered",
        "prompts_as_registered",
    ]
    row = json.loads(json.dumps(traced.row()))
    assert row["signal"]["action"] == decided.signal.action
    assert row["run"]["asked_by"]["map_index"] == "2"
    assert row["origin"]["version"]["aliases"] == ["candidate", "champion"]
    training = row["origin"]["training"]
    assert training["run_id"] == train_run().run_id
    assert training["hashes"]["package"] == row["origin"]["version"]["content_hash"]
    assert [each["now"] for each in (*row["data"], *training["data"])] == ["same"] * 3
    assert {"name": "finagent.executor", "version": "1"} in training["prompts"]
    assert len(row["audit_head"]) == 64


def test_lineage_of_version_and_data_lead_to_signals(
    decided: InferenceResult, settings: Settings, lineage: ModuleType
) -> None:
    back = lineage.lineage_of_version("finagent", "1", settings)
    assert decided.signal.signal_id in [each["signal_id"] for each in back.row()["signals"]]
    for digest in (FB.digest(), FB.digest()[:8]):
        by_data = lineage.lineage_of_data(digest)
        assert train_run().run_id in [run.run_id for run in by_data.trainings]
        signals = [each["signal_id"] for each in by_data.row()["signals"]]
        assert decided.signal.signal_id in signals
        assert by_data.backtests
    by_decision_data = lineage.lineage_of_data(FB.until(parse_as_of(AS_OF)).digest())
    assert by_decision_data.trainings == ()
    assert decided.signal.signal_id in [
        each["signal_id"] for each in by_decision_data.row()["signals"]
    ]


def test_lineage_lists_signal_decided_twice_once(
    decided: InferenceResult, settings: Settings, lineage: ModuleType
) -> None:
    again = decide(settings, mode="live")
    assert again.signal.signal_id == decided.signal.signal_id
    traced = lineage.lineage_of_signal(decided.signal.signal_id, settings)
    assert traced.run.run_id == again.run_id
    assert decided.run_id in traced.earlier
    listed = [
        run.tags["finagent.signal_id"]
        for run in lineage.lineage_of_version("finagent", "1", settings).signals
    ]
    assert listed.count(decided.signal.signal_id) == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda read, s: read.lineage_of_signal("0" * 16, s),
            "no run has signal 0000000000000000; known are",
        ),
        (lambda read, s: read.lineage_of_signal("x' or 1", s), "is not an id: 16 digits"),
        (lambda read, s: read.lineage_of_data("f" * 64), "no run was given data ffff"),
        (lambda read, s: read.lineage_of_data("'%"), "write 8 to 64 digits"),
        (
            lambda read, s: read.lineage_of_version("finagent", "9", s),
            "has no version '9'; it has: 1",
        ),
    ],
)
def test_lineage_unknown_id_is_a_clear_error(
    lineage: ModuleType, settings: Settings, ask: Any, message: str
) -> None:
    with pytest.raises(BadInputError, match=re.escape(message)):
        ask(lineage, settings)


def test_lineage_tells_revised_and_missing_data(
    decided: InferenceResult, settings: Settings, lineage: ModuleType, tmp_path: Path
) -> None:
    frame = FB.to_frame()
    frame.loc[10, "volume"] += 1
    frame.to_csv(tmp_path / "FB.csv", index=False)
    here = settings.model_copy(update={"bars": SecretStr(str(tmp_path))})
    traced = lineage.lineage_of_signal(decided.signal.signal_id, here)
    assert [each.now for each in traced.data] == ["changed"]
    assert traced.origin and traced.origin.training
    states = {each.recorded.name: each.now for each in traced.origin.training.data}
    assert states == {"FB bars": "changed", "FB news": "changed"}
    (tmp_path / "FB.csv").rename(tmp_path / "GOOG.csv")
    [gone] = lineage.lineage_of_signal(decided.signal.signal_id, here).data
    assert (gone.now, traced.is_intact) == ("not at hand", True)


def test_lineage_check_fails_for_another_package_hash(
    decided: InferenceResult, settings: Settings, lineage: ModuleType
) -> None:
    client = MlflowClient()
    content = client.get_model_version("finagent", "1").tags[CONTENT]
    client.set_model_version_tag("finagent", "1", CONTENT, "0" * 64)
    try:
        traced = lineage.lineage_of_signal(decided.signal.signal_id, settings)
    finally:
        client.set_model_version_tag("finagent", "1", CONTENT, content)
    assert not traced.is_intact
    [failed] = [check for check in traced.every_check if not check.passed]
    assert "the tags of version 1 of finagent say 000000000000" in failed.found


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_lineage_check_fails_for_changed_package_file(
    decided: InferenceResult, settings: Settings, lineage: ModuleType, trained: Place, damage: str
) -> None:
    from finagent_model.pipeline.verify import verify

    files = {p: p.read_text() for p in (trained.folder / "mlruns").rglob("package/policy.json")}
    for path, whole in files.items():
        path.write_text(whole + "\n") if damage == "changed" else path.unlink()
    try:
        traced = lineage.lineage_of_signal(decided.signal.signal_id, settings)
        verified = verify("models:/finagent/1")
    finally:
        for path, whole in files.items():
            path.write_text(whole)
    [failed] = [check for check in traced.every_check if not check.passed]
    message = "differs from what was registered" if damage == "changed" else "is missing from the"
    assert failed.name == "package_as_registered"
    assert f"policy.json {message}" in failed.found
    assert [(c.name, c.passed) for c in verified.checks] == [("package_hashes", False)]


def test_model_card_is_in_registry_and_run_with_working_code(
    decided: InferenceResult,
) -> None:
    version = MlflowClient().get_model_version("finagent", "1")
    card = RunLog(version.run_id).read_artifact("MODEL_CARD.md").decode()
    assert version.description == card
    assert "**none** (required: none)" in card
    assert FB.digest()[:32] in card and version.tags[CONTENT] in card
    assert "finagent.executor version 1" in card
    [code] = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    *setup, call = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(setup), names)
    [signal] = eval(call, names).to_dict("records")
    assert (signal["symbol"], signal["status"]) == ("FB", "ok")
    family = MlflowClient().get_registered_model("finagent").description
    assert "no return is promised" in family


def test_log_inputs_of_concurrent_runs_are_all_written(place: Place) -> None:
    many = [
        Dataset(f"S{i}", "bars", f"{i:064x}", "vendor", 9, FB.close_time(0), FB.close_time(1))
        for i in range(20)
    ]
    runs, failed = [open_run("infer", {}) for _ in range(4)], []

    def name(run: RunLog) -> None:
        try:
            run.log_inputs(many, "inference")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=name, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [len(read_run(run.run_id).datasets) for run in runs] == [20] * 4


def test_lineage_command_draws_tree_with_exit_code(
    trained: Place, decided: InferenceResult, traced: SignalLineage
) -> None:
    done = trained.finagent("lineage", decided.signal.signal_id)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"signal {decided.signal.signal_id}  FB as of {AS_OF}: {decided.signal.action}, ok"
    )
    assert FB.digest()[:32] in done.stdout and ": the same today" in done.stdout
    assert "FAILED" not in done.stdout
    client, last = MlflowClient(), traced.run
    client.set_tag(last.run_id, "finagent.audit_head", "0" * 64)
    try:
        changed = trained.finagent("lineage", decided.signal.signal_id, "--json")
    finally:
        client.set_tag(last.run_id, "finagent.audit_head", last.tags["finagent.audit_head"])
    assert changed.returncode == 5, changed.stderr
    row = json.loads(changed.stdout)
    assert row["whole"] is False
    assert [each["name"] for each in row["checks"] if not each["passed"]] == ["audit_as_written"]
