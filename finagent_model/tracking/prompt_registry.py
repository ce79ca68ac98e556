"""Prompts as versions of MLflow's prompt registry: a new version only where the text is new.

A prompt is `NAME.PROMPT`, NAME being that of the registered model; its version is tagged with the
SHA-256 of the text. MLflow's registry holds no such rule, so two trainings that register a text at
once are told apart afterwards: the older version stays, the other is taken back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from mlflow.entities import model_registry as entities
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.tracing.constant import TraceTagKey
from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
HASH = "finagent.prompt_sha256"
LINKED: str = TraceTagKey.LINKED_PROMPTS
"""The tag by which MLflow itself links versions to a run, a logged model and a trace."""


@dataclass(frozen=True)
class PromptVersion:
    """One text under its name and number."""

    name: str
    version: str

    def row(self) -> dict[str, str]:
        return asdict(self)


def register_prompts(
    model: str, texts: Mapping[str, str], run_id: str, model_id: str
) -> list[PromptVersion]:
    """A version for each text of the desk that `run_id` trained, linked to the run and to the
    logged model. What can't be registered is a warning: the package has the texts.
    """
    client, found = MlflowClient(), []
    for prompt, text in texts.items():
        name = prompt_name(model, prompt)
        try:
            version = _version_of(client, name, text)
            client.link_prompt_version_to_run(run_id, f"prompts:/{name}/{version}")
            client.link_prompt_version_to_model(name, version, model_id)
        except MlflowException as error:
            log.warning("prompt %s is not in MLflow's registry: %s", name, error)
        else:
            found.append(PromptVersion(name, version))
    return found


def prompt_name(model: str, prompt: str) -> str:
    """MLflow takes letters, digits, `-`, `_` and `.` alone."""
    return f"{model}.{re.sub(r'[^A-Za-z0-9_.-]', '_', prompt)}"


def linked(tags: Mapping[str, str]) -> list[PromptVersion]:
    """The versions that the tags of a run or a logged model link."""
    rows = json.loads(tags.get(LINKED, "[]"))
    return [PromptVersion(row["name"], str(row["version"])) for row in rows]


def link_to_trace(trace_id: str, model_id: str) -> None:
    """The versions that a logged model links, linked to a trace of it too."""
    client = MlflowClient()
    found = [v for v in _linked_by(client.tracking_uri, model_id) if v is not None]
    client.link_prompt_versions_to_trace(found, trace_id)


@lru_cache(maxsize=64)
def _linked_by(store: str, model_id: str) -> list[entities.PromptVersion | None]:
    """As MLflow has them; none where the store does not have the model. A model's don't change."""
    client = MlflowClient(store)
    try:
        tags = client.get_logged_model(model_id).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    return [client.get_prompt_version(each.name, each.version) for each in linked(tags)]


def as_registered(version: PromptVersion) -> bool | None:
    """Whether the text is the one that was registered; None where it is there no longer."""
    try:
        found = MlflowClient().get_prompt_version(version.name, version.version)
    except MlflowException:
        return None
    return None if found is None else found.tags.get(HASH) == _sha256(str(found.template))


def _version_of(client: MlflowClient, name: str, text: str) -> str:
    """The oldest version that has this text, made if there is none."""
    digest = _sha256(text)
    if there := _versions(client, name, digest):
        return str(there[0])
    try:
        made = client.register_prompt(name, text, f"SHA-256 {digest[:12]}", {HASH: digest})
    except MlflowException as error:
        # Somebody else has just made the name; the second try finds it.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        made = client.register_prompt(name, text, f"SHA-256 {digest[:12]}", {HASH: digest})
    oldest = _versions(client, name, digest)[0]
    if oldest != made.version:
        client.delete_prompt_version(name, str(made.version))
    return str(oldest)


def _versions(client: MlflowClient, name: str, digest: str) -> Sequence[int]:
    ours = f"tags.`{HASH}` = '{digest}' and tags.`{IS_PROMPT_TAG_KEY}` = 'true'"
    query = f"name = '{name}' and {ours}"
    return sorted(int(found.version) for found in client.search_model_versions(query))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
