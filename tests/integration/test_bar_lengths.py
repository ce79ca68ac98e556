"""Bars of an hour and of a week, from a file to a model that is trained, verified and served."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finagent_model.evaluation.evidence import SymbolFacts
from support.places import ROOT, Place, free_port, post

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where the example of docs/bar_lengths.md has just been run; `shown` holds what it printed."""
    place = Place(tmp_path_factory.mktemp("hours"))
    page = (ROOT / "docs" / "bar_lengths.md").read_text()
    (bin_ := place.folder / "bin").mkdir()
    (bin_ / "finagent").write_text('#!/bin/sh\nexec python -m finagent_model.cli "$@"\n')
    (bin_ / "finagent").chmod(0o755)
    [block] = re.findall(r"```bash\n(.*?)```", page, flags=re.S)
    path = f"{bin_}:{place.env['PATH']}"
    done = place.run("bash", "-euo", "pipefail", "-c", block, PATH=path)
    assert done.returncode == 0, done.stderr
    [shown] = re.findall(r"```\n(good .*?)```", page, flags=re.S)
    assert all(line in done.stdout for line in shown.splitlines())
    (place.folder / "shown").write_text(done.stdout)
    return place


def test_example_of_hours_decides_at_a_moment(hours: Place) -> None:
    last = (hours.folder / "shown").read_text().splitlines()[-1]
    signal = json.loads(last)
    assert (signal["status"], signal["as_of"]) == ("ok", "2024-02-27T13:00:00Z")
    assert signal["timeframe_analyzed"] == "1 hour"


def test_hours_are_annualised_by_the_hour(hours: Place) -> None:
    [file] = hours.folder.glob("mlruns/*/*/artifacts/facts.json")
    held = np.array(SymbolFacts.model_validate_json(file.read_text()).benchmark_returns)
    with closing(sqlite3.connect(hours.folder / "mlflow.db")) as store:
        query = "select value from metrics where key = 'benchmark_volatility' and run_uuid = ?"
        [(volatility,)] = store.execute(query, (file.parent.parent.name,)).fetchall()
    assert volatility == pytest.approx(held.std(ddof=1) * math.sqrt(24 * 365))


def test_hours_are_served_and_other_bars_refused(hours: Place) -> None:
    port = free_port()
    row = {"symbol": "BTC-USD", "as_of": "2024-02-27T13:00:00Z"}
    late = {"symbol": "BTC-USD", "as_of": "2024-02-28T14:00:00Z"}
    daily = [
        {"closed_at": f"{day:%Y-%m-%d}", "open": 10, "high": 12, "low": 9, "close": 10 + i % 2}
        for i, day in enumerate(pd.bdate_range("2023-06-01", "2024-02-27"))
    ]
    other = {"symbol": "BTC-USD", "as_of": "2024-02-27", "bars": daily}
    command = [sys.executable, "-m", "finagent_model.cli", "serve"]
    command += ["--model", "models:/hours/1", "--port", str(port)]
    with hours.serving(*command, port=port, FINAGENT_BARS="./hours") as address:
        status, body = post(address, {"dataframe_records": [row, late]})
        assert status == 200
        first, second = body["predictions"]
        assert first["status"] == "ok"
        assert second["status"] == "data_missing"
        assert "6 bars before as_of 2024-02-28 14:00 UTC (at most 5)" in second["reasoning"]
        status, body = post(address, {"dataframe_records": [other]})
        [third] = body["predictions"]
        assert third["status"] == "data_missing"
        assert "last 1 day, and the model was trained on bars of 1 hour" in third["reasoning"]


def test_hours_pass_every_check(hours: Place) -> None:
    done = hours.finagent("verify", "models:/hours/1", "--deep", FINAGENT_BARS="./hours")
    assert done.returncode == 0, done.stdout + done.stderr


def test_weeks_train_and_decide(tmp_path: Path) -> None:
    place = Place(tmp_path)
    rng = np.random.default_rng(3)
    monday = pd.date_range("2005-01-03", periods=400, freq="W-MON")
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(monday))))
    start = np.r_[50, close[:-1]]
    frame = pd.DataFrame({"date": monday, "open": start, "close": close, "volume": 9})
    frame = frame.assign(
        high=frame[["open", "close"]].max(axis=1), low=frame[["open", "close"]].min(axis=1)
    )
    (tmp_path / "weeks").mkdir()
    frame.to_csv(tmp_path / "weeks" / "WK.csv", index=False)
    options = ["--train-bars", "200", "--test-bars", "100", "--candidates", "8"]
    bars = {"FINAGENT_BARS": "./weeks"}
    done = place.finagent("train", "--symbols", "WK", *options, "--json", **bars)
    assert done.returncode == 0, done.stderr
    ask = ["WK", "--model", "models:/finagent/1", "--as-of"]
    signal = place.signal(*ask, "2012-08-26", **bars)
    assert (signal["status"], signal["timeframe_analyzed"]) == ("ok", "1 week")
    # Two weeks are missing a fortnight after the last one ended.
    late = place.finagent("predict", *ask, "2012-09-16", **bars)
    assert "bars before as_of 2012-09-16 (at most 1)" in late.stdout + late.stderr
