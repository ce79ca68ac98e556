"""Bad bars and bad words through the commands: one line, its exit code, and nothing half done."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from finagent_model.data.bundled import BundledBars
from support.places import Place, small_options

pytestmark = pytest.mark.slow
Rows = list[list[object]]
HEADER = "date,open,high,low,close"


def rows() -> Rows:
    bars = BundledBars().bars("FB")
    return [
        [bars.close_time(i).date(), bars.open[i], bars.high[i], bars.low[i], bars.close[i]]
        for i in range(len(bars))
    ]


def changed(column: int, value: object) -> Callable[[Rows], Rows]:
    """Return what spoils every tenth row: a few bad ones would be mended, and said."""

    def change(given: Rows) -> Rows:
        for row in given[50::10]:
            row[column] = value
        return given

    return change


def left_behind(place: Place) -> tuple[list[str], int]:
    """States of all runs, and how many models there are, straight from MLflow's tables."""
    path = place.folder / "mlflow.db"
    if not path.exists():
        return [], 0
    with closing(sqlite3.connect(path)) as store:
        states = [state for (state,) in store.execute("select status from runs")]
        [(models,)] = store.execute("select count(*) from registered_models").fetchall()
    return states, models


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (changed(4, ""), 2, "close is not a positive number at bar"),
        (changed(3, -1.0), 2, "low is not a positive number at bar"),
        (lambda r: [row for row in r for _ in range(2)], 2, "is repeated"),
        (lambda r: [r[1], r[0], *r[2:]], 2, "is earlier than the bar before"),
        (lambda r: [], 2, "bars of FB: empty"),
        (lambda r: r[:100], 3, "100 sessions can't hold train_bars=120"),
    ],
    ids=["NaN", "negative", "duplicate", "unordered", "empty", "short"],
)
def test_bars_that_cannot_be_trained_on_leave_neither_run_nor_version(
    tmp_path: Path, change: Callable[[Rows], Rows], code: int, said: str
) -> None:
    place, folder = Place(tmp_path), tmp_path / "bars"
    folder.mkdir()
    lines = [",".join(str(cell) for cell in row) for row in change(rows())]
    (folder / "FB.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    done = place.finagent("train", *small_options(), FINAGENT_BARS=str(folder))
    assert done.returncode == code, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert said in line
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    states, models = left_behind(place)
    assert models == 0
    assert "RUNNING" not in states
