"""`mlflow run . -e predict`: the command `finagent predict --log`, run from this checkout."""

import sys

from finagent_model.cli import app

if __name__ == "__main__":
    app(["predict", "--log", *sys.argv[1:]])
