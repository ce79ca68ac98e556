"""Keep prompts as versions of MLflow's prompt registry: a new version only where the text is new.

A prompt is `NAME.PROMPT`, NAME being that of the registered model; its version is tagged with the
SHA-256 of the text. Registration is best effort: the package has the texts itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mlflow.entities import model_registry as entities
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.tracing.constant import TraceTagKey
from mlflow.tracking import MlflowClient

from finagent_model.tracking.local_store import open_client

log = logging.getLogger(__name__)
HASH = "finagent.prompt_sha256"
LINKED: str = TraceTagKey.LINKED_PROMPTS
"""The tag by which MLflow itself links versions to a run, a logged model and a trace."""


@dataclass(frozen=True)
class PromptVersion:
    """One version of a prompt in MLflow's registry, by name and number."""

    name: str
    version: str


def register_prompts(
    model: str, texts: Mapping[str, str], run_id: str, model_id: str
) -> list[PromptVersion]:
    """Register each text of a trained desk and link it to the run and the logged model.

    `texts` are by prompt. Returns the versions; a text that can't be registered is logged as a
    warning and left out.
    """
    client = open_client()
    versions = []
    for prompt, text in texts.items():
        name = prompt_name(model, prompt)
        try:
            version = _register_text(client, name, text)
            client.link_prompt_version_to_run(run_id, f"prompts:/{name}/{version}")
            client.link_prompt_version_to_model(name, version, model_id)
        except MlflowException as error:
            log.warning("prompt %s is not in MLflow's registry: %s", name, error)
        else:
            versions.append(PromptVersion(name, version))
    return versions


def prompt_name(model: str, prompt: str) -> str:
    """Return the registry's name of a prompt, with `_` for every character that MLflow refuses."""
    return f"{model}.{re.sub(r'[^A-Za-z0-9_.-]', '_', prompt)}"


def linked_prompts(tags: Mapping[str, str]) -> list[PromptVersion]:
    """Return the versions that the tags of a run or a logged model link."""
    rows = json.loads(tags.get(LINKED, "[]"))
    return [PromptVersion(row["name"], str(row["version"])) for row in rows]


def link_prompts_to_trace(trace_id: str, model_id: str) -> None:
    """Link the versions that a logged model links to a trace of it, too."""
    client = open_client()
    versions = [v for v in _linked_versions(client.tracking_uri, model_id) if v is not None]
    client.link_prompt_versions_to_trace(versions, trace_id)


def is_unchanged(version: PromptVersion) -> bool | None:
    """Return whether the registry still has the text that was registered; None if it is gone."""
    try:
        row = open_client().get_prompt_version(version.name, version.version)
    except MlflowException:
        return None
    return None if row is None else row.tags.get(HASH) == _sha256(str(row.template))


# A model's links do not change, and every traced decision of it asks for them.
@lru_cache(maxsize=64)
def _linked_versions(store: str, model_id: str) -> list[entities.PromptVersion | None]:
    """Return MLflow's versions that a logged model links; none where the store lacks the model."""
    client = MlflowClient(store)
    try:
        tags = client.get_logged_model(model_id).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    return [client.get_prompt_version(each.name, each.version) for each in linked_prompts(tags)]


def _register_text(client: MlflowClient, name: str, text: str) -> str:
    """Return the oldest version that has this text, registered if there is none."""
    digest = _sha256(text)
    if versions := _find_versions(client, name, digest):
        return str(versions[0])
    try:
        created = client.register_prompt(name, text, f"SHA-256 {digest[:12]}", {HASH: digest})
    except MlflowException as error:
        # Another training has created the name at this moment; the retry adds a version to it.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        created = client.register_prompt(name, text, f"SHA-256 {digest[:12]}", {HASH: digest})
    # MLflow knows no unique texts: two trainings may both have registered this one. The older
    # version stays, the other is taken back.
    oldest = _find_versions(client, name, digest)[0]
    if oldest != created.version:
        client.delete_prompt_version(name, str(created.version))
    return str(oldest)


def _find_versions(client: MlflowClient, name: str, digest: str) -> Sequence[int]:
    """Return the numbers of the versions whose text has this hash, oldest first."""
    filters = f"tags.`{HASH}` = '{digest}' and tags.`{IS_PROMPT_TAG_KEY}` = 'true'"
    rows = client.search_model_versions(f"name = '{name}' and {filters}")
    return sorted(int(row.version) for row in rows)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
