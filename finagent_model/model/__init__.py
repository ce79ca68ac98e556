"""What a registered version is: the package, its wheel, the MLflow model, and who answers with it.

A version is a package of plain files beside a wheel of the code that trained it. MLflow loads both
as `FinagentModel`; `Predictor` is the one class that turns a question into a decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.model.loading import load_predictor, log_package
    from finagent_model.model.package import Package, read_package, write_package
    from finagent_model.model.predictor import Predictor
    from finagent_model.model.pyfunc import FinagentModel
    from finagent_model.model.questions import Question
    from finagent_model.model.wheel import build_wheel, code_hash
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "loading": ["load_predictor", "log_package"],
            "package": ["Package", "read_package", "write_package"],
            "predictor": ["Predictor"],
            "pyfunc": ["FinagentModel"],
            "questions": ["Question"],
            "wheel": ["build_wheel", "code_hash"],
        },
    )

__all__ = [
    "FinagentModel",
    "Package",
    "Predictor",
    "Question",
    "build_wheel",
    "code_hash",
    "load_predictor",
    "log_package",
    "read_package",
    "write_package",
]
