"""Sources through the commands: what runs say of the bars that they saw, and how to repeat them."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from finagent_model.cli import app
from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import parse_as_of
from finagent_model.settings import Settings
from finagent_model.training.request import TrainRequest
from support.places import AS_OF, ROOT, SMALL, Place
from support.plugin_package import install

CSV = "date,open,high,low,close\n2012-06-28,2,3,1,2\n2012-06-29,2,3,1,2\n"


NEW_DAY = (
    "insert into bars (symbol, date, open, high, low, close, volume, split, dividend) "
    "values ('FB', '2013-03-04', 27, 28, 26, 27.5, 1000, 1, 0)"
)


def shell(*words: str, **variables: str) -> Result:
    return CliRunner().invoke(app, ["bars", *words], env=variables)


def read_json(done: Result, code: int = 0) -> Any:
    """The JSON of a command."""
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def bars_of_run(run_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run says of the bars of FB, and its tags."""
    import mlflow

    from finagent_model.tracking.runs import RunLog

    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    return RunLog(run_id).read_json("bars.json")["FB"], tags


def test_bars_check_lists_good_beside_refused_with_reason(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    folder.mkdir()
    for name in ("AAA", "BBB", "CCC"):
        (folder / f"{name}.csv").write_text(CSV)
    (folder / "BAD.csv").write_text(CSV.replace("3,1,2", "1,1,2", 1))
    rows = read_json(shell("check", "--all", "--json", FINAGENT_BARS=str(folder)), code=5)
    assert (rows["good"], rows["refused"]) == (3, 1)
    [bad] = [row for row in rows["symbols"] if not row["good"]]
    assert bad["symbol"] == "BAD"
    assert "high is below open or close at bar 0 (2012-06-28)" in bad["refused"]
    shown = shell("check", "AAA", "NOPE", FINAGENT_BARS=str(folder))
    assert shown.exit_code == 5
    assert "good  AAA  2 bars 2012-06-28 to 2012-06-29, hash" in shown.stdout
    assert "REFUSED  NOPE  unknown symbol" in shown.stdout


def test_bars_check_warns_of_what_looks_odd(tmp_path: Path) -> None:
    (tmp_path / "AAA.csv").write_text(CSV + "2012-08-29,2,3,1,2\n")
    (tmp_path / "notes.xlsx").write_text("no bars")
    shown = shell("check", "--all", FINAGENT_BARS=str(tmp_path))
    assert "  warning  a gap of 42 weekdays between 2012-06-29 and 2012-08-29" in shown.stdout
    assert "1 file passed over: notes.xlsx" in shown.stdout
    rows = read_json(shell("check", "--all", "--json", FINAGENT_BARS=str(tmp_path)))
    assert rows["passed_over"] == ["notes.xlsx"]
    assert rows["symbols"][0]["findings"][0].startswith("a gap of 42 weekdays")


def test_bars_import_writes_the_plain_form(tmp_path: Path) -> None:
    file = tmp_path / "ACME.csv"
    file.write_text("Datum;Zuletzt;Eröffn.;Hoch;Tief\n01.02.2012;1,5;1,4;1,6;1,3\n", "latin-1")
    out = str(tmp_path / "out")
    done = shell("import", str(file), "--out", out)
    assert done.exit_code == 0, done.stderr
    assert "ACME.csv  1 bars 2012-02-01 to 2012-02-01, hash" in done.stdout
    assert "  warning  not UTF-8: read as Windows-1252" in done.stdout
    written = (tmp_path / "out" / "ACME.csv").read_text()
    assert written.splitlines()[1] == "2012-02-01,1.4,1.6,1.3,1.5,,1.0,0.0"
    assert "is there already" in shell("import", str(file), "--out", out).stderr
    file.write_text("date,open,high,low,close\n01/02/2012,2,3,1,2\n")
    [row] = read_json(
        shell("import", str(file), "--out", out + "2", "--dates", "day-first", "--json")
    )
    assert row["first"].startswith("2012-02-01")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["import", "x.csv", "--out", "x", "--dates", "june"],
            "dates: must be 'day-first'",
        ),
        (["check"], "name the symbols to check, or --all"),
        (["check", "GOOG", "--all"], "name the symbols to check, or --all"),
        (["fetch", "GOOG"], "FINAGENT_BARS is bundled, of which nothing is fetched"),
        (["fetch", "GOOG", "--as-of", "june"], "as_of 'june' is not a date"),
    ],
)
def test_bars_command_with_bad_words_says_what_works(words: list[str], message: str) -> None:
    done = shell(*words)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
def test_run_names_its_bars_for_repeats_after_vendor_revision(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from finagent_model import infer
    from finagent_model.pipeline.backtest import backtest
    from finagent_model.pipeline.finalize import finish_training
    from finagent_model.pipeline.lineage import lineage_of_version
    from finagent_model.pipeline.train import backtest_symbol, start_training, train
    from finagent_model.pipeline.verify import verify

    monkeypatch.setenv("FINAGENT_HOME", str(place.folder / "home"))
    monkeypatch.setenv("FINAGENT_BARS", f"sqlite:///{place.folder}/eod.db")
    database, bars = place.folder / "eod.db", BundledBars().bars("FB")
    frame = bars.to_frame().assign(symbol="FB")
    frame["date"] = frame.pop("closed_at").dt.strftime("%Y-%m-%d")
    with closing(sqlite3.connect(database)) as connection:
        frame.to_sql("bars", connection, index=False)

    request = TrainRequest.parse(**SMALL)
    state = start_training(request, Settings.load())
    with closing(sqlite3.connect(database)) as connection:  # between two tasks: a day, a correction
        connection.execute(NEW_DAY)
        connection.execute("update bars set low = low - 0.01 where date = '2012-11-15'")
        connection.execute("update bars set volume = null where date = '2012-11-16'")
        connection.commit()
    children = [backtest_symbol(state, "FB", Settings.load())]
    first = finish_training(state, children, Settings.load())
    row, tags = bars_of_run(first.run_id)
    assert row["content_hash"] == bars.digest() == tags["finagent.bars_hash"]
    assert row["source"] == tags["finagent.bars_source"] == f"sqlite:///{database}#bars"
    assert row["fetched_at"] == tags["finagent.bars_fetched_at"].replace("+00:00", "Z")
    assert "finagent.bars_revised" not in tags

    # A day later, and corrected: the backtest of the version is on what its training saw.
    [rerun] = backtest("models:/finagent/1", [], Settings.load())
    assert rerun.same_as_registered is True

    # What was kept reaches the day: nobody is asked, and the bars are those of before.
    as_of = parse_as_of(AS_OF)
    _, tags = bars_of_run(infer("FB", as_of).run_id)
    assert tags["finagent.bars_hash"] == row["content_hash"]

    [now] = read_json(shell("check", "FB", "--json"))["symbols"]
    assert "has revised its history: 2012-11-15 low" in caplog.text
    assert [(c["closed_at"][:10], c["field"], c["after"]) for c in now["changes"]] == [
        ("2012-11-15", "low", pytest.approx(now["changes"][0]["before"] - 0.01)),
        ("2012-11-16", "volume", None),
    ]
    assert "  revised  2012-11-16 volume: " in shell("check", "FB").stdout
    _, tags = bars_of_run(infer("FB", as_of, mode="live").run_id)
    assert tags["finagent.bars_revised"] == "FB: 2 fields"
    assert tags["finagent.bars_hash"] == now["content_hash"] != row["content_hash"]

    # Whatever the vendor says now, the version is proven on what its training saw.
    assert verify(f"models:/{first.name}/{first.version}").passed

    database.unlink()
    gone = shell("check", "FB")
    assert (gone.exit_code, "there is no file" in gone.stdout) == (5, True)
    [data, *_] = lineage_of_version("finagent", "1", Settings.load()).origin.training.data  # type: ignore[union-attr]
    assert (data.recorded.kind, data.now, data.why) == ("bars", "same", "")
    monkeypatch.setenv("FINAGENT_BARS", f"kept:{row['content_hash'][:16]}")
    again = train(request, Settings.load())
    assert again.content_hash == first.content_hash
    assert bars_of_run(again.run_id)[0] == row


def test_failed_vendor_is_one_line_with_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
class Down:
    name = "acme"
    def __init__(self, settings):
        pass
    def symbols(self):
        raise OSError("no route")
    def bars(self, symbol):
        raise ConnectionError("no route")
"""
    site = install(tmp_path, "acme_down", code, "finagent.bars", "acme = acme_down:Down")
    monkeypatch.syspath_prepend(str(site))
    variables = {"FINAGENT_BARS": "acme", "FINAGENT_HOME": str(tmp_path / "home")}
    words = ["predict", "FB", "--as-of", AS_OF, "--config", "default"]
    done = CliRunner().invoke(app, words, env=variables)
    assert (done.exit_code, done.stdout) == (3, "")
    message = "acme, asked for bars of FB, failed: ConnectionError: no route"
    assert done.stderr.strip() == f"error: {message}"
    listed = read_json(shell("list", "--json", **variables))
    assert listed["symbols"] is None
    assert "no route" in listed["why"]


@pytest.mark.slow
def test_examples_of_data_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    place = Place(tmp_path)
    (bin_ := tmp_path / "bin").mkdir()
    (bin_ / "finagent").write_text('#!/bin/sh\nexec python -m finagent_model.cli "$@"\n')
    (bin_ / "finagent").chmod(0o755)
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.S)
    path = f"{bin_}:{place.env['PATH']}"
    done = place.run("bash", "-euo", "pipefail", "-c", "".join(blocks), PATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 good, 0 refused") == 3
    assert "kept ACME  3 bars 2012-06-27 to 2012-06-29" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["good"] == 1

    [code] = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    [group, entry] = re.findall(r'```toml\n\[project\.entry-points\."(.*)"\]\n(.*)\n```', page)[0]
    site = install(tmp_path / "site", "acme_bars", code, group, entry.replace('"', ""))
    checked = place.finagent(
        "bars",
        "check",
        "--all",
        FINAGENT_BARS="acme",
        PYTHONPATH=f"{site}:{place.env.get('PYTHONPATH', '')}",
    )
    assert checked.returncode == 0, checked.stderr
    assert "good  ACME  1 bars" in checked.stdout


def test_bars_check_of_a_file_says_where_to_name_it(tmp_path: Path) -> None:
    file = tmp_path / "FB.csv"
    file.write_text(CSV)
    done = shell("check", str(file))
    assert done.exit_code == 2
    assert f"FINAGENT_BARS={file} finagent bars check --all" in done.output
    assert shell("check", "--all", FINAGENT_BARS=str(file)).exit_code == 0
