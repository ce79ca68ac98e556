"""A prompt gets a new version where its text is new, and only there."""

from __future__ import annotations

import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from finagent_model.tracking.prompt_registry import (
    PromptVersion,
    is_unchanged,
    linked_prompts,
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
    model = MlflowClient().create_logged_model(run.experiment_id, "desk", run.run_id)
    return str(model.model_id)


def registered(texts: dict[str, str]) -> list[PromptVersion]:
    """By a training of its own."""
    run = open_run("train", {})
    return register_prompts("desk", texts, run.run_id, model_of(run))


def versions(prompt: str) -> int:
    query = f"name = 'desk.{prompt}' and tags.`mlflow.prompt.is_prompt` = 'true'"
    return len(MlflowClient().search_model_versions(query))


def test_register_prompts_adds_version_only_for_new_text(place: Place) -> None:
    first, again = registered(TEXTS), registered(TEXTS)
    assert first == again == [PromptVersion(f"desk.{name}", "1") for name in TEXTS]
    changed = registered(TEXTS | {"executor": "Decide at last."})
    assert changed == [PromptVersion("desk.technical", "1"), PromptVersion("desk.executor", "2")]
    assert registered(TEXTS) == first
    assert (versions("technical"), versions("executor")) == (1, 2)


def test_register_prompts_links_run_with_logged_model(place: Place) -> None:
    run = open_run("train", {})
    model_id = model_of(run)
    registered_versions = register_prompts("desk", TEXTS, run.run_id, model_id)
    client = MlflowClient()
    assert linked_prompts(client.get_run(run.run_id).data.tags) == registered_versions
    assert linked_prompts(client.get_logged_model(model_id).tags) == registered_versions
    assert client.get_prompt_version("desk.executor", "1").template == "Decide."


def test_register_prompts_at_once_ends_with_one_version(place: Place) -> None:
    results: list[list[str]] = []

    def work() -> None:
        results.append([version.name for version in registered(TEXTS)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(names == ["desk.technical", "desk.executor"] for names in results)
    assert (versions("technical"), versions("executor")) == (1, 1)


def test_is_unchanged_detects_changed_prompt(place: Place) -> None:
    [version] = registered({"executor": "Decide."})
    assert is_unchanged(version) is True
    MlflowClient().set_prompt_version_tag("desk.executor", 1, "mlflow.prompt.text", "Buy.")
    assert is_unchanged(version) is False
    assert is_unchanged(PromptVersion("desk.executor", "9")) is None


def test_prompt_name_replaces_refused_characters() -> None:
    assert prompt_name("desk", "my prompt/ä") == "desk.my_prompt__"


def test_register_prompts_failure_is_only_a_warning(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run("train", {})
    assert register_prompts("desk", {"executor": "Decide."}, run.run_id, "m-none") == []
    assert "prompt desk.executor is not in MLflow's registry" in caplog.text
    assert mlflow.get_tracking_uri().endswith("mlflow.db")
