"""A place whose records are on servers, and what a test asks of MLflow there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.places import Place
from support.record_servers import Server, Stores

LISTED = """
import json
from mlflow.tracking import MlflowClient
client, found = MlflowClient(), {}
def walk(listing, root, path=None):
    for each in listing(path):
        if each.is_dir:
            walk(listing, root, each.path)
        elif each.file_size:
            found[f"{root}/{each.path}"] = each.file_size
for experiment in client.search_experiments():
    id_ = experiment.experiment_id
    for run in client.search_runs([id_]):
        run_id = run.info.run_id
        walk(lambda path: client.list_artifacts(run_id, path), f"{id_}/{run_id}/artifacts")
    for model in client.search_logged_models([id_]):
        name, listing = model.model_id, client.list_logged_model_artifacts
        walk(lambda path: listing(name, path), f"{id_}/models/{name}/artifacts")
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Remote(Place):
    """Nothing but its environment tells the commands where the servers are."""

    address: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    """What else the environment says."""

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "MLFLOW_TRACKING_URI": self.address, **self.told}

    def artifacts(self) -> dict[str, int]:
        """Sizes of all that MLflow lists, by their keys in its store; empty files are left out."""
        done = self.run("python", "-c", LISTED)
        assert done.returncode == 0, done.stderr
        found: dict[str, int] = json.loads(done.stdout)
        return found


def server(stores: Stores, name: str) -> Server:
    found: Server = getattr(stores, name)
    return found


def require_whole(place: Remote, stores: Stores) -> None:
    """No run is open, each version has its verdict and all its files, no lock is left."""
    assert stores.rows("select name from runs where status = 'RUNNING'") == []
    assert stores.rows("select name from registered_models where name like '%changing'") == []
    # Prompts are in the same registry, as NAME.PROMPT.
    models = "where name not like '%.%'"
    versions = stores.rows(f"select storage_location from model_versions {models}")
    verdicts = stores.rows("select version from model_version_tags where key = 'finagent.verdict'")
    assert len(verdicts) == len(versions)
    sizes = stores.objects.sizes()
    assert place.artifacts().items() <= sizes.items()
    for (location,) in versions:
        here = str(location).partition(":/")[2]
        assert any(here in key and key.endswith("/manifest.json") for key in sizes), location
