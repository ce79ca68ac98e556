"""`mlflow run . -e train`: the command `finagent train`, run from this checkout."""

import sys

from finagent_model.cli import app

if __name__ == "__main__":
    app(["train", *sys.argv[1:]])
