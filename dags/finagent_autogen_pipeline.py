"""The desk as an Airflow DAG: train and register, or infer with a registered version, or both.

Modes, by `dag_run.conf`: `inference` (default), `train_backtest`, `both`, which infers with the
version that it has just registered. A symbol is a mapped task, so that Airflow's executor spreads
the work. Ids and small numbers pass between tasks; everything else is in MLflow, below one run for
the whole DAG run. `as_of` comes from the run, never from the clock: a retry asks the same question.

The file is wiring; what tasks do is in `finagent_model/airflow`. Its variables say how it is
wired into this Airflow and are read when it is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from airflow.sdk import (
    DAG,
    Asset,
    AssetAlias,
    BaseOperator,
    Param,
    TaskGroup,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

T = TypeVar("T")


def given(name: str, read: Callable[[str], T], default: T) -> T:
    """An environment variable; empty counts as not set."""
    text = os.environ.get(name, "")
    try:
        return read(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text!r} can't be used; the default is {default!r}") from None


def seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text))


SCHEDULE = given("FINAGENT_DAG_SCHEDULE", str, None)
POOL = given("FINAGENT_DAG_POOL", str, "default_pool")
AT_ONCE = given("FINAGENT_DAG_AT_ONCE", int, None)
AT_ONCE_A_RUN = given("FINAGENT_DAG_AT_ONCE_A_RUN", int, None)
RETRIES = given("FINAGENT_DAG_RETRIES", int, 2)
RETRY_DELAY = given("FINAGENT_DAG_RETRY_DELAY_S", seconds, timedelta(seconds=30))
TRAIN_WITHIN = given("FINAGENT_DAG_TRAIN_WITHIN_S", seconds, timedelta(hours=6))
DECIDE_WITHIN = given("FINAGENT_DAG_DECIDE_WITHIN_S", seconds, timedelta(minutes=15))

MODES = ("inference", "train_backtest", "both")
TICKER = {
    "type": "string",
    "pattern": r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,18}[^\s\x00-\x1f\x7f])?$",
    "description": "A symbol as its source lists it, such as GOOG; at most 20 characters.",
}
MOST_SYMBOLS = 600
"""As many as what passes between tasks may tell apart in 2 KiB."""
MODELS = AssetAlias("finagent-models")
REGISTER = "train_backtest.register"
TRAINING = {"pool": POOL, "execution_timeout": TRAIN_WITHIN}
MAPPED = {"max_active_tis_per_dag": AT_ONCE, "max_active_tis_per_dagrun": AT_ONCE_A_RUN}
SYMBOL = "{{ params.symbols[ti.map_index] }}"


def note_failure(context: Any) -> None:
    from finagent_model.airflow import tasks as closing

    closing.note_failure(context)


@task
def begin() -> str:
    """Check what the run was asked, and open its run in MLflow, whose id is given."""
    from finagent_model.airflow import tasks

    return tasks.open_run(get_current_context())


@task
def places() -> list[int]:
    """A zero a symbol. A mapped task finds its symbol by its index: names would not stay small."""
    return [0] * len(get_current_context()["params"]["symbols"])


@task.branch
def choose_branch() -> str:
    mode = get_current_context()["params"]["mode"]
    return "inference.questions" if mode == "inference" else "train_backtest.fit"


@task(**TRAINING)
def fit(parent: str) -> str:
    from finagent_model.airflow import tasks

    return tasks.fit(get_current_context(), parent)


@task(**TRAINING, **MAPPED, map_index_template=SYMBOL)
def backtest(training: str, place: int) -> str:
    from finagent_model.airflow import tasks

    return tasks.backtest(get_current_context(), training)


@task(**TRAINING, outlets=[MODELS], multiple_outputs=False)
def register(training: str, children: Any) -> dict[str, str]:
    """Gives the version, and tells those DAGs that are scheduled on its model."""
    from finagent_model.airflow import tasks

    made = tasks.register(training, children)
    asset = Asset(f"finagent-model://{made['name']}")
    get_current_context()["outlet_events"][MODELS].add(asset, extra=dict(made))
    return made


@task(trigger_rule="none_failed_min_one_success", multiple_outputs=False)
def questions() -> dict[str, str]:
    """As of when to ask, and which version: the same for all symbols of the run."""
    from finagent_model.airflow import tasks

    context = get_current_context()
    if context["params"]["mode"] == "train_backtest":
        raise AirflowSkipException("nothing is to be inferred")
    return tasks.resolve_inputs(context, context["ti"].xcom_pull(task_ids=REGISTER))


class Decide(BaseOperator):
    """One symbol's signal; while a human is asked, no worker is held."""

    template_fields = ("asked", "parent")

    def __init__(self, *, asked: Any, parent: Any, place: int, **options: Any) -> None:
        super().__init__(**options)
        self.asked, self.parent, self.place = asked, parent, place

    def execute(self, context: Any) -> dict[str, Any]:
        from finagent_model.airflow import tasks
        from finagent_model.errors import ApprovalPendingError

        try:
            return tasks.decide(context, self.asked, self.parent)
        except ApprovalPendingError as waiting:
            self.log.info("%s", waiting)
            self.defer(trigger=tasks.approval_trigger(waiting.approval_ids), method_name="answered")

    def answered(self, context: Any, event: Any) -> dict[str, Any]:
        """Somebody answered, or nobody did in time."""
        return self.execute(context)


@task
def close(parent: str) -> None:
    """End the run in MLflow, whatever happened; fails where the DAG run must not look green."""
    from finagent_model.airflow import tasks as closing

    closing.close_run(get_current_context(), parent)


with DAG(
    "finagent_autogen_pipeline",
    schedule=SCHEDULE,
    catchup=False,
    tags=["finagent"],
    doc_md=__doc__,
    default_args={
        "retries": RETRIES,
        "retry_delay": RETRY_DELAY,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=10),
        "on_failure_callback": note_failure,
    },
    params={
        "mode": Param("inference", enum=list(MODES)),
        "symbols": Param(
            ["GOOG"],
            type="array",
            items=TICKER,
            minItems=1,
            maxItems=MOST_SYMBOLS,
            uniqueItems=True,
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            pattern=r"^\d{4}-\d\d-\d\d$",
            examples=["2012-06-29"],  # unlike a description, an error shows it
            description="A day, after its close; empty: the run's own date.",
        ),
        "model": Param("models:/finagent@champion", type="string"),
        "train": Param({}, type="object", description="Parameters of the training, by name."),
        "max_failed_share": Param(
            0.2,
            type="number",
            minimum=0,
            maximum=1,
            description="Of a run's decisions whose status is a failure; beyond it, the run fails.",
        ),
        "execution_id": Param(None, type=["null", "string"], maxLength=200),
        "workflow_id": Param(None, type=["null", "string"], maxLength=200),
    },
):
    parent, by_symbol, chosen = begin(), places(), choose_branch()
    with TaskGroup("train_backtest"):
        fitted = fit(parent)
        children = backtest.partial(training=fitted).expand(place=by_symbol)
        registered = register(fitted, children)
    with TaskGroup("inference"):
        asked = questions()
        decided = Decide.partial(
            task_id="decide",
            asked=asked,
            parent=parent,
            pool=POOL,
            execution_timeout=DECIDE_WITHIN,
            map_index_template=SYMBOL,
            **MAPPED,
        ).expand(place=by_symbol)
    closed = close(parent).as_teardown(setups=parent, on_failure_fail_dagrun=True)
    parent >> [chosen, by_symbol]
    chosen >> [fitted, asked]
    registered >> asked
    [registered, decided] >> closed
