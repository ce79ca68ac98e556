"""The DAG's file, imported anew where some environment variables are set."""

from __future__ import annotations

from importlib import util
from typing import Any

import pytest

from support.places import ROOT


def load_dag_file(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Any:
    """The file as a module of its own; raises what Airflow would show as an import error."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    spec = util.spec_from_file_location("a_dag", ROOT / "dags" / "finagent_autogen_pipeline.py")
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
