"""The file that MLflow stores and runs at load (models-from-code): it names the model class, which
comes from the installed wheel. Nothing is pickled.
"""

from __future__ import annotations

from mlflow.models import set_model

from finagent_model.model.pyfunc import FinagentModel

set_model(FinagentModel())
