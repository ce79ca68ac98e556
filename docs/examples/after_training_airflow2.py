"""Runs on Airflow 2 whenever the DAG has registered a version of the model `finagent`."""

from airflow.datasets import Dataset
from airflow.decorators import task
from airflow.models.dag import DAG
from airflow.operators.python import get_current_context
from pendulum import datetime

# Airflow 2 adds the slash to the URI that the DAG updates.
MODEL = Dataset("finagent-model://finagent/")

with DAG("after_training", start_date=datetime(2012, 1, 1), schedule=[MODEL]):

    @task
    def tell() -> str:
        [registered] = get_current_context()["triggering_dataset_events"][MODEL.uri]
        return f"models:/{registered.extra['name']}/{registered.extra['version']}"

    tell()
