"""`mlflow run . -e predict`: the command `finagent predict`, run from this checkout."""

import sys

from finagent_model.cli import app

if __name__ == "__main__":
    app(["predict", *sys.argv[1:]])
