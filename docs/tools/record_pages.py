"""Reference pages of what is answered and recorded: signals, statuses, runs, checks, metrics."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import finagent_model
from docs.tools import words
from docs.tools.markdown import code, describe, page, require_words, sentences, table
from finagent_model import errors
from finagent_model.backtesting import metrics
from finagent_model.backtesting.metrics import summarise
from finagent_model.config.rules import GateRules
from finagent_model.decision.signal import Status, TradingSignal, signal_columns
from finagent_model.evaluation import evidence, memory
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.gate import CHAMPION_CHECK
from finagent_model.evaluation.memory_probes import CHECK_NAME

PACKAGE = Path(finagent_model.__file__).parent


def constants(path: Path) -> Iterator[str]:
    """Yield the texts of a module, without its docstrings and parts of larger texts."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def checks_of_the_code() -> set[str]:
    """Return the `name` of every `Check(...)` that is built, and of those passed to a function."""
    found = {CHAMPION_CHECK}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if not re.search(r"import .*\bCheck\b|\(\s*(?:\w+,\s*)*Check\b|\n    Check,", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Check":
                given = [key.value for key in node.keywords if key.arg == "name"]
                found |= {v.value for v in given if isinstance(v, ast.Constant)}
        found |= set(re.findall(r'^    name = "(\w+)"$', text, flags=re.M))
    return found


def keys_of(function: FunctionType) -> set[str]:
    """Return the keys of the dictionaries that a function writes."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant)}


def render_signal() -> str:
    """Return the page of a signal's fields."""
    kinds = {column.name: column for column in signal_columns()}
    texts = {row.name: row.meaning for row in describe(TradingSignal)}
    texts["is_actionable"] = sentences(TradingSignal.is_actionable.fget.__doc__)
    rows = []
    for name, column in kinds.items():
        kind = {"array": "list of texts", "integer": "whole number", "boolean": "true or false"}
        shown = kind.get(column.kind, column.kind.replace("string", "text"))
        can_be_null = "may be null" if column.optional else ""
        rows.append((code(name), shown, can_be_null, texts[name].replace("None:", "null:")))
    return page(
        "Signal fields",
        "Every field of a signal, in the order of the JSON. All interfaces return the same fields: "
        "`finagent predict --json`, REST, Python, the DAG and `signal.json` of a run. Prices are as "
        "traded on the last bar. Times are texts in ISO 8601, in UTC.",
        table(("field", "type", "null", "meaning"), rows),
    )


def render_exit_codes() -> str:
    """Return the page of exit codes and of the errors behind them."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FinagentError)
    ]
    raised = {kind.exit_code for kind in kinds} | {0}
    require_words("exit codes", map(str, raised), map(str, words.EXIT_CODES))
    rows = [
        (code(kind.__name__), str(kind.exit_code), sentences(kind.__doc__ or ""))
        for kind in kinds
        if kind is not errors.FinagentError
    ]
    return page(
        "Exit codes and errors",
        "`finagent` ends with one of these codes. `mlflow run` ends with 1 whatever the code of its "
        "entry point is, whose message it prints.",
        table(("code", "meaning"), [(str(n), text) for n, text in words.EXIT_CODES.items()]),
        "## Errors\n\nEach error is a class of `finagent_model.errors`, all of them "
        "`FinagentError`. In Python they are raised; the command line prints the message in one line.",
        table(("error", "exit code", "meaning"), rows),
    )


def render_statuses() -> str:
    """Return the page of a signal's statuses."""
    require_words("statuses", [status.value for status in Status], words.STATUSES)
    rows = [
        (code(s.value), "yes" if s.is_failure else "no", words.STATUSES[s.value]) for s in Status
    ]
    return page(
        "Statuses",
        "Every signal has a `status`. Anything but `ok` is HOLD with confidence 0, without levels, "
        "and `reasoning` says what happened. A status that is a failure ends `finagent predict "
        "--strict` with code 4, and is decided again when the question is asked again. The "
        "[runbook](../runbook.md#a-signals-status) has a remedy for each.",
        table(("status", "failure", "meaning"), rows),
    )


def render_checks() -> str:
    """Return the page of the checks of gate, `verify` and `lineage`."""
    require_words("checks", checks_of_the_code(), words.CHECKS)
    rules = GateRules()
    graded = {each[0]: each[1] for each in evidence._thresholds(rules, 1 - rules.confidence)}
    graded[CHECK_NAME] = "strong"
    require_words("checks of the evidence", graded, words.EVIDENCE_CHECKS)
    return page(
        "Checks",
        "A check compares what is recorded with what is found, and says both. `gate` means that "
        "training asks it before a version may be champion; `verify` that `finagent verify` asks it "
        "of a registered version; `both` means both.",
        "## Integrity\n\n"
        + table(
            ("check", "asked by", "fails when"),
            [(code(name), *text) for name, text in words.CHECKS.items()],
        ),
        "## Evidence\n\n"
        "These make the grade: `weak` needs the checks for `weak`, `strong` needs those for both. "
        "Thresholds are in [Evidence](../evidence.md#checks).\n\n"
        + table(
            ("check", "needed for", "fails when"),
            [
                (code(name), graded[name].replace("none", "no grade"), text)
                for name, text in words.EVIDENCE_CHECKS.items()
            ],
        ),
    )


def render_metrics() -> str:
    """Return the page of the metrics."""
    own = {**vars(metrics)}
    rows = []
    for name, unit in words.UNITS.items():
        function = own[name.removesuffix("_95")]
        text = sentences(function.__doc__ or "").replace(
            " of returns of which a year has `periods`", ""
        )
        text = text.replace("below `MIN_YEARS`", "below a year").replace("nan ", "undefined ")
        rows.append(
            (code(name), unit, text.replace("`share`", "5 %").replace("`years`", "that time"))
        )
    rows += [(code(name), *text) for name, text in words.METRICS.items()]
    numbers = keys_of(evidence.grade_evidence) | keys_of(ConfidenceRecord.measure)
    require_words(
        "numbers of the evidence", numbers | keys_of(memory.measure_split), words.EVIDENCE
    )
    inside = keys_of(summarise) | keys_of(metrics.measure_curve) | keys_of(metrics.measure_trades)
    require_words("metrics", inside - words.METRICS.keys(), words.UNITS)
    return page(
        "Metrics",
        "Metrics of runs in MLflow, of `outcome.json` and of the report. Those of buy and hold have "
        "the prefix `benchmark_`. A metric that is undefined is left out of a run and is null in "
        "JSON; it is never 0. Returns are simple, per bar, after costs, and no risk-free rate is "
        "taken off. [Numbers](../backtest.md#numbers) says how annual numbers are computed.",
        table(("metric", "unit", "definition"), rows),
        "## Evidence\n\nA training's run has these as `evidence/NAME`, of the portfolio of all "
        "symbols, out of sample.\n\n"
        + table(
            ("number", "unit", "definition"),
            [(code(name), *text) for name, text in words.EVIDENCE.items()],
        ),
    )


def render_runs() -> str:
    """Return the page of what a run in MLflow holds."""
    texts = {text for path in PACKAGE.rglob("*.py") for text in constants(path)}
    tags = {text for text in texts if re.fullmatch(r"finagent\.[a-z_0-9]+", text)}
    # Loggers and spans are named like modules.
    modules = {f"finagent.{path.stem}" for path in PACKAGE.rglob("*.py")} - words.TAGS.keys()
    require_words("tags", tags - words.NOT_TAGS.keys() - modules, words.TAGS)
    return page(
        "Runs in MLflow",
        "Each training, backtest, recorded decision and ablation is a run. A training's backtests are "
        "its children. [Lineage](../lineage.md) shows how to follow them.",
        "## Tags\n\n"
        + table(
            ("tag", "on", "meaning"),
            [(code(words.TAG_SHAPES.get(name, name)), *text) for name, text in words.TAGS.items()],
        ),
        "## Params\n\nA training has the [training parameters](training_parameters.md) as well.\n\n"
        + table(
            ("param", "on", "meaning"), [(code(name), *text) for name, text in words.PARAMS.items()]
        ),
        "## Files\n\nFiles are artifacts of the run.\n\n"
        + table(
            ("file", "on", "holds"), [(code(name), *text) for name, text in words.FILES.items()]
        ),
        "## Metrics\n\n[Metrics](metrics.md) has names, units and definitions.",
    )
