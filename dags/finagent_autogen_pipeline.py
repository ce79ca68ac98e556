"""The desk as an Airflow DAG: train and register, or infer with a registered version, or both.

Modes, by `dag_run.conf`: `inference` (default), `train_backtest`, `both`, which infers with the
version that it has just registered. A symbol is a mapped task, so that Airflow's executor spreads
the work. Ids and small numbers pass between tasks; everything else is in MLflow. `as_of` comes from
the run, never from the clock: a retry asks the same question.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup, get_current_context, task

CHAMPION = "models:/finagent@champion"
TRAINS = ("train_backtest", "both")
INFERS = ("inference", "both")
REGISTER = "train_backtest.register"


@task.branch
def choose_branch() -> str:
    trains = get_current_context()["params"]["mode"] in TRAINS
    return "train_backtest.fit" if trains else "skip_training"


@task
def skip_training() -> None:
    """Where the branch goes that doesn't train."""


@task
def fit() -> str:
    """Fit the policies; gives the id of the training's run."""
    _keep_to_ourselves()
    from finagent_model.pipeline.train import start_training
    from finagent_model.settings import Settings
    from finagent_model.training.request import TrainRequest

    params = get_current_context()["params"]
    with _no_retry_for_bad_input():
        request = TrainRequest.read(**{**params["train"], "symbols": params["symbols"]})
        return start_training(request, Settings.load())


@task
def symbols() -> list[str]:
    return list(get_current_context()["params"]["symbols"])


@task
def backtest(training: str, symbol: str) -> str:
    """Let the desk decide on what no fit has seen; gives the id of a run of its own."""
    _keep_to_ourselves()
    from finagent_model.pipeline.train import backtest_symbol
    from finagent_model.settings import Settings

    with _no_retry_for_bad_input():
        return backtest_symbol(training, symbol, Settings.load())


@task
def register(training: str, children: Any) -> dict[str, str]:
    """Package, ask the gate, register; gives the version's address and its run."""
    _keep_to_ourselves()
    from finagent_model.pipeline.finish import finish_training
    from finagent_model.settings import Settings

    with _no_retry_for_bad_input():
        trained = finish_training(training, list(children), Settings.load())
    return {"model_uri": f"models:/{trained.name}/{trained.version}", "run_id": trained.run_id}


@task.short_circuit(trigger_rule="none_failed_min_one_success")
def wants_inference() -> bool:
    return get_current_context()["params"]["mode"] in INFERS


@task
def questions() -> list[dict[str, str]]:
    """One row a symbol: what to ask, as of when, and of which version."""
    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    as_of = params["as_of"] or (run.logical_date or run.run_after).date().isoformat()
    registered = context["ti"].xcom_pull(task_ids=REGISTER)
    uri = registered["model_uri"] if registered else params["model"]
    return [{"symbol": s, "as_of": as_of, "model_uri": uri} for s in params["symbols"]]


@task(map_index_template="{{ task.op_kwargs['symbol'] }}")
def decide(symbol: str, as_of: str, model_uri: str) -> dict[str, Any]:
    """Decide, and log signal, conversation and chart to a run, whose id is given."""
    _keep_to_ourselves()
    from finagent_model.domain.clock import parse_as_of
    from finagent_model.pipeline.infer import infer
    from finagent_model.settings import Settings

    with _no_retry_for_bad_input():
        inferred = infer(symbol, parse_as_of(as_of), Settings.load(), model_uri)
    signal = inferred.signal
    return {
        "run_id": inferred.run_id,
        "symbol": symbol,
        "status": signal.status.value,
        "action": signal.action,
        "model_version": signal.model_version,
    }


def _keep_to_ourselves() -> None:
    """No task reports to MLflow's makers; said before MLflow is imported."""
    from finagent_model.settings import keep_to_ourselves

    keep_to_ourselves()


def _no_retry_for_bad_input() -> Any:
    """What the caller got wrong, or the gate refused, is not worth a second try."""
    from contextlib import contextmanager

    from airflow.sdk.exceptions import AirflowFailException

    from finagent_model.errors import BadInputError, GateRefusedError

    @contextmanager
    def guarded() -> Any:
        try:
            yield
        except (BadInputError, GateRefusedError) as error:
            raise AirflowFailException(str(error)) from error

    return guarded()


with DAG(
    "finagent_autogen_pipeline",
    schedule=None,
    catchup=False,
    tags=["finagent"],
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "mode": Param("inference", enum=["inference", "train_backtest", "both"]),
        "symbols": Param(["GOOG"], type="array", items={"type": "string"}, minItems=1),
        "as_of": Param(None, type=["null", "string"], format="date"),
        "model": Param(CHAMPION, type="string"),
        "train": Param({}, type="object", description="Parameters of the training, by name."),
    },
):
    chosen, skipped, wanted = choose_branch(), skip_training(), wants_inference()
    with TaskGroup("train_backtest"):
        fitted = fit()
        children = backtest.partial(training=fitted).expand(symbol=symbols())
        registered = register(fitted, children)
    with TaskGroup("inference"):
        rows = questions()
        decide.expand_kwargs(rows)
    chosen >> [skipped, fitted]
    skipped >> wanted
    registered >> wanted
    wanted >> rows
