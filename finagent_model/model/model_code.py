"""Name the model class for MLflow, which stores this file and runs it at load (models from code).

The class comes from the installed wheel; nothing is pickled. The import path below is stored with
every version, so it stays.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mlflow.models import set_model

from finagent_model.model.pyfunc import FinagentModel

# Python has just written the bytecode of this file beside it, where the model's check would find a
# file that nobody registered. Bytecode that somebody planted runs in place of this line, and stays.
if __spec__.cached is not None:
    with suppress(OSError):
        Path(__spec__.cached).unlink()
# Its own folder is the model: `MLmodel` could name the files of another one.
set_model(FinagentModel(Path(__file__).parent))
