"""Name the model class for MLflow, which stores this file and runs it at load (models from code).

The class comes from the installed wheel; nothing is pickled. The import path below is stored with
every version, so it stays.
"""

from __future__ import annotations

from pathlib import Path

from mlflow.models import set_model

from finagent_model.model.pyfunc import FinagentModel

# Its own folder is the model: `MLmodel` could name the files of another one.
set_model(FinagentModel(Path(__file__).parent))
