"""`mlflow run . -e backtest`: the command `finagent backtest`, run from this checkout."""

import sys

from finagent_model.cli import app

if __name__ == "__main__":
    app(["backtest", *sys.argv[1:]])
