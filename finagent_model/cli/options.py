"""Options and output that the commands share: JSON on stdout, progress on stderr, one-line errors.

Exit codes of errors are those of the error classes (`errors.FinagentError.exit_code`).
"""

from __future__ import annotations

import errno
import gc
import io
import json
import logging
import re
import sys
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.exceptions import TyperException

from finagent_model._public import CHAMPION as CHAMPION
from finagent_model._secrets import redact_output
from finagent_model.cli._help import HelpGroup as HelpGroup
from finagent_model.cli._help import format_examples as format_examples
from finagent_model.errors import BadInputError, FinagentError

if TYPE_CHECKING:
    from finagent_model.reports.signal_summary import SignalSummary

CONSOLE_WIDTH = 1000
"""Columns; wide enough for any line."""
HEAD_WIDTH = 16
"""Columns of the name of a table's column."""
EXIT_BUG = 1
EXIT_NO_DATA = 3
"""Some records could not be written to the database, or sent."""
EXIT_NOT_OK = 4
"""The desk failed: with `--strict` in a decision, or in every decision of a backtest."""
EXIT_REFUSED = 5
"""A check failed."""
MODE_HELP = (
    "Where model replies come from: cached (recorded ones, else a call), live (always a call) or "
    "replay (recorded ones only, free)."
)
SYMBOLS_HELP = "Tickers, separated by commas. Default: those of the training."
# C0 without tab and line feed, DEL, C1, and the marks that turn the direction of a text.
_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
GC_THRESHOLDS = (10_000, 20, 20)
"""Python's own, (700, 10, 10), search all objects for cycles every few hundred that are made. While
libraries are imported that is a fifth of a command's time, and finds nothing.
"""
_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")
]
Model = Annotated[
    str, typer.Option(envvar="FINAGENT_MODEL", help="URI of a logged or registered model version.")
]
Name = Annotated[
    str, typer.Option(envvar="FINAGENT_MODEL_NAME", help="Name of the registered model.")
]


class TypedErrors(HelpGroup):
    """Print errors of this package and of MLflow's store in one line on stderr, and set exit codes.

    Any other exception is a bug, whose stack trace is printed. No secret of the environment is,
    whoever prints: also a library's log, a warning or a stack trace.
    """

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        gc.set_threshold(*GC_THRESHOLDS)
        from finagent_model.settings import configure_mlflow_environment

        # Before MLflow is imported: among other things this turns its telemetry off.
        configure_mlflow_environment()
        # It logs a stack trace of what it then raises, which is said below in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal of another encoding must not end a command that has its result.
                stream.reconfigure(errors="backslashreplace")
        warnings.formatwarning = _format_warning
        with redact_output():
            return self._invoke(ctx)

    def _invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FinagentError as error:
            _exit_with_error(ctx, error)
        except typer.BadParameter as error:
            _reword(error)
            raise
        except (TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            # Typer ends without a word where the reader of a pipe, such as `head`, has gone.
            raise
        except Exception as error:
            if known := _as_disk_error(error) or _as_tracking_error(error):
                _exit_with_error(ctx, known)
            # Not left to the interpreter, which would print what nobody has redacted.
            traceback.print_exception(error)
            ctx.exit(EXIT_BUG)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning as a line that says what is the matter, not which line of code found it."""
    if category is UserWarning:
        return f"warning: {message}\n"
    return f"{category.__name__}: {message}\n"


def _reword(error: typer.BadParameter) -> None:
    """Say what an option must be in the words of all other messages, with the value given."""
    # Typer passes on pydantic's sentence. Without its error pydantic may not be imported yet.
    if type(error.__cause__).__name__ == "ValidationError":
        from pydantic import ValidationError

        from finagent_model._base import first_error_message

        if isinstance(error.__cause__, ValidationError):
            error.message = first_error_message(error.__cause__)


def _as_disk_error(error: Exception) -> FinagentError | None:
    # Files are written in many places, and a disk may fill in each.
    if not isinstance(error, OSError) or error.errno not in _DISK_FULL:
        return None
    where = error.filename or tempfile.gettempdir()
    return BadInputError(
        f"no room to write {where}: {error.strerror}; free some space there, or move TMPDIR and "
        "FINAGENT_HOME, and repeat the command"
    )


def _as_tracking_error(error: Exception) -> FinagentError | None:
    # MLflow takes seconds to import; if nobody did, the error is not MLflow's.
    if "mlflow" not in sys.modules:
        return None
    from finagent_model.tracking.runs import as_tracking_error

    return as_tracking_error(error)


def _exit_with_error(ctx: typer.Context, error: FinagentError) -> NoReturn:
    echo(f"error: {error}", err=True)
    ctx.exit(error.exit_code)


def refuse_given(ctx: typer.Context, names: Iterable[str], reason: str) -> None:
    """Raise BadInputError where the command line has one of the options, which would be ignored.

    A variable of the environment is for every command, and nobody's answer to this one.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise BadInputError(f"--{name.replace('_', '-')} {reason}")


def require_store(uri: str = "models:/", *, is_short: bool = False) -> None:
    """Raise TrackingError where the store that `uri` is looked up in is named and is not there.

    For commands that only read from it. A folder or an address of its own needs no store. With
    `is_short` a server that does not answer is given up soon.
    """
    from finagent_model.settings import shorten_mlflow_waits

    if not uri.startswith(("models:", "runs:")):
        return
    if is_short:
        shorten_mlflow_waits()
    from finagent_model.tracking import local_store

    local_store.require_store()


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or on stderr with `err`, its control characters as escapes.

    A run's name, a reply or another program's report may hold codes that a terminal would obey.
    """
    typer.echo(escape_controls(text), err=err, nl=nl)


def escape_controls(text: str) -> str:
    """Return the text with control characters as Python writes them; line ends and tabs stay."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON on stdout."""
    # Elsewhere a character that the encoding lacks would be written as no JSON can be.
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=not is_utf8)
    # JSON itself leaves these as they are, though a terminal obeys some of them.
    typer.echo(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


STYLES: dict[str, str] = {
    "act": "bold green",
    "care": "bold yellow",
    "wait": "bold yellow",
    "hold": "bold",
    "past": "bold",
    "no": "bold red",
}
"""Styles of rich by verdict of a summary."""
CELL_STYLES: dict[str, str] = {
    "passed": "green",
    "FAILED": "bold red",
    "SIGN": "bold red",
    "refused": "bold red",
    "no verdict": "yellow",
    "strong": "green",
    "none": "yellow",
    "not assessed": "yellow",
    "champion": "bold green",
    "approved": "green",
    "rejected": "red",
    "expired": "yellow",
}
"""Styles of rich by the words of a table's cell."""


def print_summary(title: str, summary: SignalSummary) -> None:
    """Print on stdout whether a signal may be acted on, and why.

    On a terminal it is a coloured table as wide as that; elsewhere one line a row, so that it can
    be searched.
    """
    says = f"{title}: {summary.action}."
    if not sys.stdout.isatty():
        echo(f"{says} {summary.headline}")
        for name, text in summary.rows:
            echo(f"  {name.lower():8} {text}")
        return
    # Rich takes a while to import, and only a terminal has use for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        Text.assemble(
            (escape_controls(says), "bold"), " ", (summary.headline, STYLES[summary.verdict])
        )
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in summary.rows:
        # As text, never as markup: a foreign name may hold brackets.
        table.add_row(f"  {name}", Text(escape_controls(text)))
    console.print(table)


def print_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    plain: Iterable[str],
    *,
    numbers: Collection[str] = (),
    droppable: Sequence[str] = (),
) -> None:
    """Print rows of cells on stdout: as a coloured table on a terminal, else the lines `plain`.

    Columns of `numbers` end on the right. Where the terminal is too narrow, the columns of
    `droppable` are left out, the first one first, and named below the table; then cells wrap.
    """
    if not sys.stdout.isatty():
        for line in plain:
            # A foreign text of several lines must not look like further rows.
            echo(" ".join(line.splitlines()))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    dropped: list[str] = []

    def draw() -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in head:
            if name not in dropped:
                # A long name takes several lines: it must not make its column wide.
                title = textwrap.fill(name, HEAD_WIDTH)
                side: Literal["left", "right"] = "right" if name in numbers else "left"
                table.add_column(title, justify=side, overflow="fold")
        for row in rows:
            cells = [cell for name, cell in zip(head, row, strict=True) if name not in dropped]
            table.add_row(
                *(Text(escape_controls(cell), CELL_STYLES.get(cell, "")) for cell in cells)
            )
        return table

    unbounded = console.options.update(max_width=CONSOLE_WIDTH)
    for name in droppable:
        if console.measure(draw(), options=unbounded).maximum <= console.width:
            break
        dropped.append(name)
    console.print(draw())
    if dropped:
        console.print(f"a wider terminal also shows: {', '.join(dropped)}", style="dim")


def shorten_hash(text: str) -> str:
    """Return the first twelve characters of a hash, by which people tell it; JSON has all of it."""
    return text[:12]


def show_progress() -> Any:
    """Return a context manager that shows bars on stderr and yields the pipeline's `progress`."""
    # Rich is imported here: it takes half a second, which `--help` and `--json` need not pay.
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
    from rich.table import Column

    @contextmanager
    def bars_on_stderr() -> Any:
        # Where there is no room for a line, the phase alone is wrapped: a cut number is none.
        # As text, never as markup: a foreign name may hold brackets.
        text = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
        columns = (
            text,
            BarColumn(12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("so far,"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
        )
        console = Console(stderr=True)
        with Progress(*columns, console=console) as bars:

            def progress(name: str, steps: int) -> Callable[[], object]:
                task = bars.add_task(escape_controls(name), total=steps)
                return lambda: bars.advance(task)

            yield progress

    return bars_on_stderr()
