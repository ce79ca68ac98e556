"""`mlflow run . -e ablate`: the command `finagent ablate`, run from this checkout."""

import sys

from finagent_model.cli import app

if __name__ == "__main__":
    app(["ablate", *sys.argv[1:]])
