"""What `import finagent_model` offers: names, docstrings, types, and nothing read on import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import finagent_model
from support.places import ROOT

FUNCTIONS = {
    "backtest",
    "estimate",
    "evaluate",
    "infer",
    "load",
    "load_config",
    "make_decision",
    "market_view",
    "run_backtest",
    "train",
    "verify",
}
CONSUMER = '''
"""A strict consumer's file: every public function, with its types said out loud."""
import finagent_model as fm

model: fm.Predictor = fm.load("models:/finagent@champion")
decision: fm.Decision = model.decide("GOOG", as_of="2012-06-29")
signal: fm.TradingSignal = decision.signal
view: fm.MarketView = fm.market_view("GOOG", "2012-06-29")
bars: fm.BarSeries = view.bars


class Mine:
    def decide(self, view: fm.MarketView) -> fm.Decision:
        return fm.make_decision(view, "HOLD", reasoning="nothing to do", author="mine")


decider: fm.Decider = Mine()
evaluation: fm.Evaluation = fm.evaluate(Mine(), ["GOOG"])
gate: fm.GateReport = evaluation.gate
report: str = evaluation.report
result: fm.BacktestResult = fm.run_backtest(bars, [signal], fm.Costs(), cash=1.0)
passed: bool = fm.verify().passed
'''


def test_public_names_are_as_listed() -> None:
    assert len(finagent_model.__all__) >= 24
    assert set(finagent_model.__all__) >= FUNCTIONS
    assert finagent_model.__all__ == sorted(finagent_model.__all__)
    for name in finagent_model.__all__:
        assert getattr(finagent_model, name).__name__ == name


def test_public_name_that_is_unknown_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        finagent_model.nonsense  # noqa: B018


def test_exports_of_every_package_can_be_imported() -> None:
    packages = [p.parent for p in (ROOT / "finagent_model").rglob("__init__.py")]
    for folder in packages:
        name = ".".join(folder.relative_to(ROOT).parts)
        module = import_module(name)
        for exported in getattr(module, "__all__", ()):
            assert getattr(module, exported) is not None, f"{name}.{exported}"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_public_function_has_a_docstring_that_stands_alone(name: str) -> None:
    lines = inspect.getdoc(getattr(finagent_model, name)).splitlines()  # type: ignore[union-attr]
    assert lines[0].endswith(".")
    assert lines[0].split()[0] in {
        "Decide",
        "Fit",
        "Judge",
        "Prove",
        "Return",
        "Run",
        "Trade",
    }, lines[0]


@pytest.mark.parametrize("module", ["finagent_model", "finagent_model.cli.__main__"])
def test_import_reads_no_heavy_library(module: str) -> None:
    script = (
        f"import sys, {module}; "
        "print([m for m in ('numpy', 'pandas', 'pydantic', 'yaml', 'rich', 'mlflow', "
        "'autogen_core') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_strict_consumer_type_checks_against_the_wheel(tmp_path: Path) -> None:
    from finagent_model.model.wheel import build_wheel

    wheel, site = build_wheel(tmp_path), tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    assert (site / "finagent_model" / "py.typed").is_file()
    (tmp_path / "consumer.py").write_text(CONSUMER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "consumer.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(site), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stdout.splitlines() if line.startswith("consumer.py")]
    assert ours == [], done.stdout
