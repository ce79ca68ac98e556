"""Keep the old import path of `FinagentModel`, for versions that were registered under it.

Such a version stores a `model_code.py` that imports the class from here. MLflow runs that file
whenever the version is loaded, so this module must stay as long as one of them may be loaded.
"""

from __future__ import annotations

from finagent_model.model.pyfunc import FinagentModel

__all__ = ["FinagentModel"]
