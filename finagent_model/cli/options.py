"""Options and output that the commands share: JSON on stdout, progress on stderr, one-line errors.

Exit codes of errors are those of the error classes (`errors.FinagentError.exit_code`).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from finagent_model._public import CHAMPION as CHAMPION
from finagent_model.errors import FinagentError

EXIT_NO_DATA = 3
"""Some records could not be written to the database, or sent."""
EXIT_NOT_OK = 4
"""With `--strict`: the signal's status is a failure of the desk."""
EXIT_REFUSED = 5
"""A check failed."""
Json = Annotated[bool, typer.Option("--json", help="The result alone, as JSON, on stdout.")]
Model = Annotated[str, typer.Option(help="URI of a logged or registered model.")]
Name = Annotated[str, typer.Option(help="Name of the registered model.")]


class TypedErrors(TyperGroup):
    """Print errors of this package and of MLflow's store in one line on stderr, and set exit codes.

    Any other exception is a bug and keeps its stack trace.
    """

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        from finagent_model.settings import configure_mlflow_environment

        # Before MLflow is imported: among other things this turns its telemetry off.
        configure_mlflow_environment()
        # It logs a stack trace of what it then raises, which is said below in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        try:
            return super().invoke(ctx)
        except FinagentError as error:
            _exit_with_error(ctx, error)
        except Exception as error:
            # MLflow takes seconds to import; if nobody did, the error is not MLflow's.
            if "mlflow" not in sys.modules:
                raise
            from finagent_model.tracking.runs import as_tracking_error

            if tracking_error := as_tracking_error(error):
                _exit_with_error(ctx, tracking_error)
            raise


def _exit_with_error(ctx: typer.Context, error: FinagentError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    ctx.exit(error.exit_code)


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def show_progress() -> Any:
    """Return a context manager that shows bars on stderr and yields the pipeline's `progress`."""
    # Rich is imported here: it takes half a second, which `--help` and `--json` need not pay.
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

    # MLflow's own bars would break ours.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    @contextmanager
    def bars_on_stderr() -> Any:
        text, steps_done = TextColumn("{task.description}"), MofNCompleteColumn()
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(text, BarColumn(), steps_done, *times, console=console) as bars:

            def progress(name: str, steps: int) -> Callable[[], object]:
                task = bars.add_task(name, total=steps)
                return lambda: bars.advance(task)

            yield progress

    return bars_on_stderr()
