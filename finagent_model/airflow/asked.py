"""Who asks, by Airflow's context, and how the work of a task fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from finagent_model.domain.execution import Execution
from finagent_model.errors import FinagentError, may_pass
from finagent_model.settings import keep_to_ourselves

Context = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def worked(work: Callable[P, T]) -> Callable[P, T]:
    """No task reports to MLflow's makers, and none is tried again in vain."""

    @wraps(work)
    def done(*given: P.args, **named: P.kwargs) -> T:
        from airflow.sdk.exceptions import AirflowFailException

        keep_to_ourselves()  # before MLflow is imported
        try:
            return work(*given, **named)
        except FinagentError as error:
            if may_pass(error):
                raise
            # Airflow logs what an error came from, with whatever a vendor's or driver's had in it.
            raise AirflowFailException(f"{type(error).__name__}: {error}") from None

    return done


def execution_of(context: Context, parent: str | None = None) -> Execution:
    """Who asks: names of the platform's that came with the run, else Airflow's own."""
    params, run, ti = context["params"], context["dag_run"], context["ti"]
    return Execution(
        execution_id=params["execution_id"] or run.run_id,
        workflow_id=params["workflow_id"] or run.dag_id,
        dag_id=run.dag_id,
        dag_run_id=run.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        parent_run_id=parent,
    )


def symbol_of(context: Context) -> str:
    """Of a mapped task: its index says which of the run's."""
    symbol: str = context["params"]["symbols"][context["ti"].map_index]
    return symbol
