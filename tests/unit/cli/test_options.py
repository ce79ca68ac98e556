"""What the commands print for people: plain lines in a pipe, a coloured table on a terminal."""

from __future__ import annotations

import errno
import json
import re
import sys
import warnings
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import finagent_model.cli
from finagent_model.cli import app
from finagent_model.cli.options import (
    STYLES,
    TypedErrors,
    echo,
    print_json,
    print_summary,
    print_table,
    shorten_hash,
    show_progress,
)
from finagent_model.reports.signal_summary import HEADLINES, SignalSummary
from support.decisions import signal
from support.places import AS_OF

SUMMARY = SignalSummary.from_signal(
    signal(evidence="none", confidence_score=40, confidence="LOW", model_uri="models:/a[red]b/1")
)


def test_print_summary_in_pipe_is_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary("GOOG as of 2012-06-29", SUMMARY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "GOOG as of 2012-06-29: BUY. Do not act"
    assert lines[1] == "  why      confidence 40 is below 50; no evidence of an edge"
    assert len(lines) == 1 + len(SUMMARY.rows)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_print_summary_on_terminal_is_as_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    print_summary("GOOG as of 2012-06-29", SUMMARY)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width + 20, "codes of styles aside"
    assert any("models:/a[red]b/1" in line for line in lines), "a name is no markup"


HEAD = ("RESULT", "CHECK", "COST", "DETAILS")
ROWS = [("passed", "a[red]b", "1", "x" * 50), ("FAILED", "other\x1b[31m", "20", "y" * 50)]


def test_print_table_in_pipe_is_the_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEAD, ROWS, ["one", "two\x1b[31m"])
    assert capsys.readouterr().out == "one\ntwo\\x1b[31m\n"


@pytest.mark.parametrize(("width", "is_whole"), [(60, False), (80, True)])
def test_print_table_on_terminal_is_as_wide(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    is_whole: bool,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(HEAD, ROWS, [], numbers=("COST",), droppable=("DETAILS",))
    out = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= width
    assert ("a wider terminal also shows: DETAILS" not in out) == is_whole
    assert "a[red]b" in out and "\x1b" not in out
    assert [line.split()[2] for line in out.splitlines()[1:3]] == ["1", "20"]


@pytest.mark.parametrize("no_colour", [False, True])
def test_print_table_has_colours_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_colour: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    print_table(HEAD, ROWS, [])
    assert ("\x1b[32mpassed" in capsys.readouterr().out) != no_colour


def test_print_summary_has_a_style_for_every_verdict() -> None:
    assert STYLES.keys() == HEADLINES.keys()


def test_shorten_hash_keeps_what_tells_it() -> None:
    assert shorten_hash("0123456789abcdef" * 4) == "0123456789ab"


def test_echo_shows_control_characters_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    text = "caf\u00e9\t\x1b[31mred\x1b]0;title\x07\r\x9b2J\x7f\u202eabc\n"
    echo(text, nl=False)
    shown = "caf\u00e9\t\\x1b[31mred\\x1b]0;title\\x07\\r\\x9b2J\\x7f\\u202eabc\n"
    assert capsys.readouterr().out == shown


def test_print_json_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "caf\u00e9 \x1b[31m \x9b2J \u202eabc"}
    print_json(value)
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out) == value


def test_print_summary_on_terminal_shows_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    foreign = signal(model_uri="models:/a\x1b]0;title\x07b/1")
    print_summary("GOOG \x1b]0;title\x07", SignalSummary.from_signal(foreign))
    assert "\x1b]0" not in capsys.readouterr().out


def test_commands_print_by_echo_alone() -> None:
    """Typer's own would print the control characters of foreign text."""
    folder = Path(finagent_model.cli.__file__).parent
    files = [*folder.glob("*.py"), folder.parent / "contrib/upstream/_commands.py"]
    found = [f.name for f in files if re.search(r"typer\.s?echo\(|\bprint\(", f.read_text())]
    assert sorted(found) == ["__main__.py", "_registry_commands.py", "options.py"]


PREDICT = ["predict", "GOOG", "--as-of", AS_OF, "--config", "default"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PREDICT, "--model", "m"], "--model names a version and --config a desk; give one of"),
        (["backtest", "--rule", "sma:5,20", "--model", "m"], "--model belongs to a version"),
        (["backtest", "--rule", "sma:5,20", "--mode", "replay"], "--mode belongs to a version"),
        (["lineage", "abc", "--name", "other"], "--name belongs to --version"),
        (["lineage", "--data", "abc", "--name", "other"], "--name belongs to --version"),
    ],
)
def test_option_that_another_would_hide_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_predict_config_passes_over_model_of_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINAGENT_MODEL", "models:/nobody/1")
    done = CliRunner().invoke(app, [*PREDICT, "--json"])
    assert done.exit_code == 0, done.stderr


def test_reader_of_a_pipe_that_has_gone_is_no_stack_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer(cls=TypedErrors)

    @app.command()
    def show() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    @app.command()
    def other() -> None:
        """With one command alone there would be no group."""

    with pytest.raises(SystemExit) as ended:
        app(["show"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""


def test_output_that_an_encoding_lacks_is_no_stack_trace() -> None:
    app = typer.Typer(cls=TypedErrors)

    @app.command()
    def show() -> None:
        print_json({"name": "日本🚀"})
        echo("日本 \ud800")

    @app.command()
    def other() -> None:
        """With one command alone there would be no group."""

    runner = CliRunner(charset="latin-1")
    result = runner.invoke(app, ["show"])
    assert result.exit_code == 0, result.output
    first, second = result.output.splitlines()
    assert json.loads(first) == {"name": "日本🚀"}
    assert second == r"\u65e5\u672c \ud800"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--max-rounds", "1e3"], "must be a whole number, not '1e3'"),
        (["--max-rounds", "101"], "must be at most 100, not '101'"),
        (["--budget-usd", "nan"], "must be at least 0.0, not 'nan'"),
    ],
)
def test_bad_option_is_told_in_words_of_ours(option: list[str], message: str) -> None:
    done = CliRunner().invoke(app, [*PREDICT, *option])
    assert done.exit_code == 2
    assert f"Invalid value for '{option[0]}': {message}" in " ".join(done.stderr.split())


def test_print_table_in_pipe_has_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME"], [], ["ours\n2  champion", "next"])
    assert capsys.readouterr().out == "ours 2  champion\nnext\n"


def test_show_progress_writes_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with show_progress() as progress:
        progress("[/x] of\x1b[31m", 1)()
    assert "[/x] of\\x1b[31m" in capsys.readouterr().err


def test_warning_is_a_line_without_the_code_that_found_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    CliRunner().invoke(app, ["models", "--help"])
    at = ("finagent_model/model/predictor.py", 114)
    assert warnings.formatwarning("other code", UserWarning, *at) == "warning: other code\n"
    assert warnings.formatwarning("old", FutureWarning, *at) == "FutureWarning: old\n"
