"""Runs whenever the DAG has registered a version of the model `finagent`, and is told which."""

from airflow.sdk import DAG, Asset, get_current_context, task

MODEL = Asset("finagent-model://finagent")

with DAG("after_training", schedule=[MODEL]):

    @task
    def tell() -> str:
        [registered] = get_current_context()["triggering_asset_events"][MODEL]
        return f"models:/{registered.extra['name']}/{registered.extra['version']}"

    tell()
