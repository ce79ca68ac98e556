"""What the commands share: options, JSON on stdout, progress on stderr, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from finagent_model._public import CHAMPION as CHAMPION
from finagent_model.errors import FinagentError

NO_DATA, NOT_OK, REFUSED = 3, 4, 5
"""Exit codes of a result that was asked to be better: conversations not in the database, a status
with `--strict`, a failed check.
"""
Json = Annotated[bool, typer.Option("--json", help="The result alone, as JSON, on stdout.")]
Model = Annotated[str, typer.Option(help="URI of a logged or registered model.")]
Name = Annotated[str, typer.Option(help="Name of the registered model.")]


class TypedErrors(TyperGroup):
    """Turns this package's errors, and those of MLflow's store, into one line on stderr and their
    exit code. No command reports to anybody.
    """

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        from finagent_model.settings import configure_mlflow_environment

        configure_mlflow_environment()
        try:
            return super().invoke(ctx)
        except FinagentError as error:
            _say_and_exit(ctx, error)
        except Exception as error:  # only what MLflow and its store raise is said in a line
            if "mlflow" not in sys.modules:
                raise
            from finagent_model.tracking.runs import as_tracking_error

            if said := as_tracking_error(error):
                _say_and_exit(ctx, said)
            raise


def _say_and_exit(ctx: typer.Context, error: FinagentError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    ctx.exit(error.exit_code)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def progress() -> Any:
    """Bars on stderr, MLflow's own off; a context that gives the `watch` of the pipeline."""
    import os
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    @contextmanager
    def shown() -> Any:
        text, done = TextColumn("{task.description}"), MofNCompleteColumn()
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(text, BarColumn(), done, *times, console=console) as progress:

            def watch(name: str, steps: int) -> Callable[[], object]:
                task = progress.add_task(name, total=steps)
                return lambda: progress.advance(task)

            yield watch

    return shown()
