"""Addresses of the pages that MLflow and Airflow have about the same things; None where nobody said
where those are, and then the id stands there as text.
"""

from __future__ import annotations

from urllib.parse import quote

from finagent_model.settings import Settings


class Links:
    """By FINAGENT_MLFLOW_UI_URL and FINAGENT_AIRFLOW_UI_URL."""

    def __init__(self, settings: Settings) -> None:
        self._mlflow = _base(settings.mlflow_ui_url)
        self._airflow = _base(settings.airflow_ui_url)

    def run(self, experiment_id: str | None, run_id: str | None) -> str | None:
        if not (self._mlflow and experiment_id and run_id):
            return None
        return f"{self._mlflow}/#/experiments/{_part(experiment_id)}/runs/{_part(run_id)}"

    def version(self, model_uri: str | None) -> str | None:
        """Of `models:/NAME/VERSION`."""
        name, _, number = (model_uri or "").removeprefix("models:/").partition("/")
        if not (self._mlflow and name and number.isdigit()):
            return None
        return f"{self._mlflow}/#/models/{_part(name)}/versions/{number}"

    def task(
        self,
        dag_id: str | None,
        dag_run_id: object,
        task_id: str | None = None,
        map_index: object = None,
    ) -> str | None:
        """The task's page, or the run's where it is not known."""
        if not (self._airflow and dag_id and dag_run_id and isinstance(dag_run_id, str)):
            return None
        found = f"{self._airflow}/dags/{_part(dag_id)}/runs/{_part(dag_run_id)}"
        if task_id:
            found += f"/tasks/{_part(task_id)}"
            if isinstance(map_index, int) and map_index >= 0:
                found += f"/mapped/{map_index}"
        return found


def _base(url: str | None) -> str | None:
    return url.rstrip("/") if url else None


def _part(text: str) -> str:
    return quote(text, safe="")
