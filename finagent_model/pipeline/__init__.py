"""What the entry points, the DAG's tasks and the command line all call: train, backtest, infer."""
