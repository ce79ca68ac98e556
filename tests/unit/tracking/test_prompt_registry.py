"""A prompt gets a new version where its text is new, and only there."""

from __future__ import annotations

import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from finagent_model.tracking.prompt_registry import (
    PromptVersion,
    as_registered,
    linked,
    prompt_name,
    register_prompts,
)
from finagent_model.tracking.runs import RunLog, open_run
from support.places import Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
TEXTS = {"technical": "Say what the {{chart}} says.", "executor": "Decide."}


def model_of(run: RunLog) -> str:
    made = MlflowClient().create_logged_model(run.experiment_id, "desk", run.run_id)
    return str(made.model_id)


def registered(texts: dict[str, str]) -> list[PromptVersion]:
    """By a training of its own."""
    run = open_run("train", {})
    return register_prompts("desk", texts, run.run_id, model_of(run))


def versions(prompt: str) -> int:
    query = f"name = 'desk.{prompt}' and tags.`mlflow.prompt.is_prompt` = 'true'"
    return len(MlflowClient().search_model_versions(query))


def test_the_same_text_is_the_same_version_and_another_text_another(place: Place) -> None:
    first, again = registered(TEXTS), registered(TEXTS)
    assert first == again == [PromptVersion(f"desk.{name}", "1") for name in TEXTS]
    changed = registered(TEXTS | {"executor": "Decide at last."})
    assert changed == [PromptVersion("desk.technical", "1"), PromptVersion("desk.executor", "2")]
    assert registered(TEXTS) == first
    assert (versions("technical"), versions("executor")) == (1, 2)


def test_versions_are_linked_to_the_run_and_the_logged_model(place: Place) -> None:
    run = open_run("train", {})
    model_id = model_of(run)
    found = register_prompts("desk", TEXTS, run.run_id, model_id)
    client = MlflowClient()
    assert linked(client.get_run(run.run_id).data.tags) == found
    assert linked(client.get_logged_model(model_id).tags) == found
    assert client.get_prompt_version("desk.executor", "1").template == "Decide."


def test_trainings_that_register_a_text_at_once_end_with_one_version(place: Place) -> None:
    found: list[list[str]] = []

    def work() -> None:
        found.append([version.name for version in registered(TEXTS)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(names == ["desk.technical", "desk.executor"] for names in found)
    assert (versions("technical"), versions("executor")) == (1, 1)


def test_a_text_that_was_changed_in_the_registry_is_told(place: Place) -> None:
    [version] = registered({"executor": "Decide."})
    assert as_registered(version) is True
    MlflowClient().set_prompt_version_tag("desk.executor", 1, "mlflow.prompt.text", "Buy.")
    assert as_registered(version) is False
    assert as_registered(PromptVersion("desk.executor", "9")) is None


def test_a_name_that_mlflow_does_not_take_is_written_as_it_does() -> None:
    assert prompt_name("desk", "my prompt/ä") == "desk.my_prompt__"


def test_a_registry_that_refuses_is_a_warning(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run("train", {})
    assert register_prompts("desk", {"executor": "Decide."}, run.run_id, "m-none") == []
    assert "prompt desk.executor is not in MLflow's registry" in caplog.text
    assert mlflow.get_tracking_uri().endswith("mlflow.db")
