"""Disks, clocks and stores that fail under a command: what it says, and that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from support.chaos_place import add_version, assert_whole, champion, rows
from support.command_forks import CommandForks
from support.faults_page import Report
from support.places import AS_OF, DEFAULT_STORE, Place, free_port, post, small_options

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
ASKED = ["predict", "FB", f"--as-of={AS_OF}", "--log"]
TRAIN = ["train", *small_options(), "--json"]
BODY = {"dataframe_records": [{"symbol": "FB", "as_of": AS_OF}]}
REGISTRY = "finagent_model.tracking.registry"


def size(place: Place, name: str) -> int:
    return (place.folder / name).stat().st_size


@pytest.mark.slow
@pytest.mark.chaos("disk full while `train` logs")
def test_train_on_full_disk_is_repeated(forks: CommandForks, place: Place, report: Report) -> None:
    full = forks.run(place, *TRAIN, max_bytes=size(place, "mlflow.db") + 32_768)
    assert full.code == 2, full.err
    assert "Traceback" not in full.err
    assert_whole(place)
    assert champion(place) == 1
    done = forks.run(place, *TRAIN)
    assert (done.code, champion(place)) == (0, 2), done.err
    report(full, "version 1 stays champion; repeated with room: version 2")


@pytest.mark.chaos("folder of `finagent.db` is a file")
def test_predict_without_database_keeps_run(
    forks: CommandForks, place: Place, report: Report
) -> None:
    """The run has room, the database has not."""
    done = forks.run(place, *ASKED, FINAGENT_DATABASE="sqlite:////dev/null/finagent.db")
    assert done.code == 0, done.err
    assert "`finagent db sync` writes it" in done.err
    synced = json.loads(forks.run(place, "db", "sync", "--json").out)
    assert synced == {"written": 1, "already": 1, "failed": 0}
    report(done, "the decision is made and kept in its run, with a warning; `db sync` writes it")


@pytest.mark.chaos("disk full for MLflow's store")
def test_predict_on_full_store_says_so(forks: CommandForks, place: Place, report: Report) -> None:
    full = forks.run(place, *ASKED, max_bytes=size(place, "mlflow.db"))
    assert full.code == 2, full.err
    assert "Traceback" not in full.err
    assert forks.run(place, *ASKED).code == 0
    report(full, "repeated with room: recorded")


@pytest.mark.chaos("read-only home")
def test_predict_on_read_only_home_says_so(
    forks: CommandForks, place: Place, report: Report
) -> None:
    done = forks.run(place, *ASKED, FINAGENT_HOME="/proc/finagent")
    assert done.code == 0, done.err
    assert "FINAGENT_HOME /proc/finagent can't be made" in done.err
    synced = json.loads(forks.run(place, "db", "sync", "--json").out)
    assert synced["written"] == 1
    report(done, "the decision is made and kept in its run, with warnings; `db sync` writes it")


@pytest.mark.slow
@pytest.mark.chaos("clock a year ahead, then back")
def test_clock_that_jumps_stops_nobody(forks: CommandForks, place: Place, report: Report) -> None:
    year = 365 * 86_400.0
    for shift in (year, -year, 0.0):
        assert forks.run(place, *TRAIN, clock_s=shift).code == 0
        moved = forks.run(place, "promote", "1", clock_s=-shift)
        assert moved.code == 0, moved.err
        assert champion(place) == 1
    back = forks.run(place, "rollback", "--json")
    assert (back.code, json.loads(back.out)["version"]) == (0, "4")
    assert forks.run(place, *ASKED, clock_s=-year).code == 0
    report(back, "trained, promoted, rolled back and decided at each clock")


@pytest.mark.chaos("lock of the champion from the future")
def test_champion_lock_from_the_future_is_broken(
    forks: CommandForks, place: Place, report: Report
) -> None:
    holder = forks.start(place, "promote", "1", stop_at=f"{REGISTRY}.find_version", clock_s=9e8)
    holder.wait_until_stopped()
    holder.kill()
    began = time.monotonic()
    done = forks.run(place, "promote", "1")
    assert (done.code, champion(place)) == (0, 1), done.err
    assert time.monotonic() - began < 45
    report(done, "broken at once, since its process is dead")


@pytest.mark.chaos("four `promote` and a `rollback` at once")
def test_moves_of_the_champion_at_once_all_end(
    forks: CommandForks, place: Place, report: Report
) -> None:
    add_version(place)
    moves = [("promote", "1"), ("promote", "2"), ("promote", "1"), ("promote", "2"), ("rollback",)]
    started = [forks.start(place, *move) for move in moves]
    ended = [each.wait() for each in started]
    assert all(each.code == 0 or "no way back" in each.err for each in ended), ended
    assert champion(place) in (1, 2)
    assert_whole(place)
    locks = "select name from registered_models where name like '%-is-changing'"
    assert rows(place, locks) == []
    report(ended[0], "one after the other; no lock is left")


@pytest.mark.slow
@pytest.mark.chaos("two trainings at once")
def test_trainings_at_once_are_both_whole(
    forks: CommandForks, place: Place, report: Report
) -> None:
    """The second registers while the first has been judged and not yet registered."""
    first = forks.start(place, *TRAIN, stop_at=f"{REGISTRY}.create_version")
    first.wait_until_stopped()
    assert forks.run(place, *TRAIN).code == 0
    first.go_on()
    late = first.wait()
    assert late.code == 5
    assert "became champion while 3 was trained" in late.sentence
    assert champion(place) == 2
    assert_whole(place)
    report(late, "both are registered; the later one stays candidate")


@pytest.mark.slow
@pytest.mark.chaos("`promote` during `train`")
def test_promote_during_train_wins(forks: CommandForks, place: Place, report: Report) -> None:
    add_version(place)
    training = forks.start(place, *TRAIN, stop_at=f"{REGISTRY}.create_version")
    training.wait_until_stopped()
    assert forks.run(place, "promote", "1").code == 0
    training.go_on()
    late = training.wait()
    assert (late.code, champion(place)) == (5, 1), late.err
    assert forks.run(place, "promote", "3").code == 0
    report(late, "who promoted stays right; `promote` makes the new one champion")


@pytest.mark.parametrize("call", ["_record", "open_client"])
@pytest.mark.chaos("`promote` killed between alias and record")
def test_promote_killed_is_completed(
    forks: CommandForks, place: Place, report: Report, call: str
) -> None:
    add_version(place)
    moving = forks.start(place, "promote", "1", "--why", "drill", stop_at=f"{REGISTRY}.{call}")
    moving.wait_until_stopped()
    cut = moving.kill()
    done = forks.run(place, "promote", "1", "--why", "drill", "--json")
    assert (done.code, champion(place)) == (0, 1), done.err
    assert json.loads(done.out)["crowned"]["why"] == "drill"
    report(cut, "repeated: alias and record are both there")


@pytest.mark.chaos("first command killed while MLflow's file is made")
def test_first_command_killed_leaves_no_half_store(
    forks: CommandForks, tmp_path: Path, report: Report
) -> None:
    place = Place(tmp_path / "place")
    place.folder.mkdir()
    making = forks.start(place, "models", stop_at="alembic.op.create_table", **DEFAULT_STORE)
    making.wait_until_stopped()
    cut = making.kill()
    assert not (place.folder / "mlflow.db").exists()
    done = forks.run(place, "models", "--json", **DEFAULT_STORE)
    assert (done.code, done.out.strip(), done.err) == (0, "[]", "")
    assert sorted(path.name for path in place.folder.iterdir()) == ["mlflow.db"]
    report(cut, "repeated: made again, and nothing half is left")


@pytest.mark.slow
@pytest.mark.chaos("MLflow's database gone while `train` runs")
def test_registry_gone_while_training(forks: CommandForks, place: Place, report: Report) -> None:
    training = forks.start(place, *TRAIN, stop_at=f"{REGISTRY}.find_champion")
    training.wait_until_stopped()
    (place.folder / "mlflow.db").rename(place.folder / "away.db")
    training.go_on()
    gone = training.wait()
    assert gone.code == 2, gone.err
    assert "Traceback" not in gone.sentence
    (place.folder / "mlflow.db").unlink(missing_ok=True)
    (place.folder / "away.db").rename(place.folder / "mlflow.db")
    assert_whole(place)
    done = forks.run(place, *TRAIN)
    assert (done.code, champion(place)) == (0, 2), done.err
    report(gone, "put back and repeated: version 2 is champion")


@pytest.mark.slow
@pytest.mark.chaos("artifacts gone while `train` runs")
def test_artifacts_gone_while_training(forks: CommandForks, place: Place, report: Report) -> None:
    training = forks.start(place, *TRAIN, stop_at=f"{REGISTRY}.find_champion")
    training.wait_until_stopped()
    (place.folder / "mlruns").rename(place.folder / "away")
    (place.folder / "mlruns").write_text("no folder")
    training.go_on()
    gone = training.wait()
    assert gone.code in (2, 4), gone.err
    assert champion(place) == 1
    (place.folder / "mlruns").unlink()
    (place.folder / "away").rename(place.folder / "mlruns")
    assert_whole(place)
    done = forks.run(place, *TRAIN)
    assert (done.code, champion(place)) == (0, 2), done.err
    report(gone, "put back and repeated: version 2 is champion")


@pytest.mark.chaos("both stores gone, and the version deleted, while served")
def test_stores_gone_while_serving(forks: CommandForks, place: Place, report: Report) -> None:
    port = free_port()
    server = forks.start(place, "serve", "--port", str(port))
    try:
        wait_until_served(port)
        before = post(f"http://127.0.0.1:{port}", BODY)
        shutil.move(place.folder / "mlflow.db", place.folder / "away.db")
        shutil.move(place.folder / "mlruns", place.folder / "away")
        after = post(f"http://127.0.0.1:{port}", BODY)
        shutil.move(place.folder / "away.db", place.folder / "mlflow.db")
        shutil.move(place.folder / "away", place.folder / "mlruns")
        MlflowClient(place.env["MLFLOW_TRACKING_URI"]).delete_model_version("finagent", "1")
        shutil.rmtree(place.folder / "mlruns")
        deleted = post(f"http://127.0.0.1:{port}", BODY)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert [status for status, _ in (before, after, deleted)] == [200] * 3
    signals = [answer["predictions"][0] for _, answer in (before, after, deleted)]
    for answered in signals:
        answered.pop("generated_at")
    assert signals[0] == signals[1] == signals[2]
    report(None, "answers as before: the model is in memory")


def wait_until_served(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            post(f"http://127.0.0.1:{port}", BODY)
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.chaos("version deleted, asked by a new process")
def test_deleted_version_is_said(forks: CommandForks, place: Place, report: Report) -> None:
    MlflowClient(place.env["MLFLOW_TRACKING_URI"]).delete_model_version("finagent", "1")
    done = forks.run(place, "predict", "FB", f"--as-of={AS_OF}")
    assert done.code == 4, done.err
    report(done, "a training makes the next champion")


@pytest.mark.chaos("artifacts of the champion removed")
def test_removed_artifacts_are_said(forks: CommandForks, place: Place, report: Report) -> None:
    shutil.rmtree(place.folder / "mlruns")
    done = forks.run(place, "predict", "FB", f"--as-of={AS_OF}")
    assert done.code == 4, done.err
    assert "Traceback" not in done.err
    report(done, "put back, or train again")


@pytest.mark.chaos("everything lost, restored as the runbook says")
def test_backup_is_restored_as_the_runbook_says(
    forks: CommandForks, place: Place, report: Report
) -> None:
    home, backup = place.folder / "home", place.folder / "backup"
    backup.mkdir()
    target = f"sqlite:///{backup}/finagent.db"
    copied = forks.run(place, "db", "copy", str(home / "finagent.db"), FINAGENT_DATABASE=target)
    assert copied.code == 0, copied.err
    exported = forks.run(place, "cassette", "export", "--to", str(backup / "replies.sqlite"))
    assert exported.code == 0, exported.err
    shutil.copy(place.folder / "mlflow.db", backup)
    shutil.copytree(place.folder / "mlruns", backup / "mlruns")
    before = forks.run(place, "models", "--json").out
    shutil.rmtree(home)
    shutil.rmtree(place.folder / "mlruns")
    (place.folder / "mlflow.db").unlink()
    home.mkdir()
    for name in ("finagent.db", "replies.sqlite"):
        shutil.move(backup / name, home / name)
    for name in ("mlflow.db", "mlruns"):
        shutil.move(backup / name, place.folder / name)
    assert forks.run(place, "db", "upgrade").code == 0
    verified = forks.run(place, "verify")
    assert verified.code == 0, verified.err
    assert forks.run(place, "models", "--json").out == before
    kept = forks.run(place, "predict", "FB", "--as-of=2013-01-30", "--log")
    assert kept.code == 0
    signals = "select count(*) from artifacts where type = 'signal'"
    assert rows(place, signals, "home/finagent.db") == [(1,)]
    report(verified, "`verify` passes; a decision from before is handed back")


@pytest.mark.parametrize("name", ["finagent.db", "replies.sqlite"])
@pytest.mark.chaos("`finagent.db` or `replies.sqlite` emptied")
def test_emptied_file_is_said(forks: CommandForks, place: Place, report: Report, name: str) -> None:
    (place.folder / "home" / name).write_bytes(b"")
    command = ["db", "sync"] if name == "finagent.db" else ["predict", "FB", f"--as-of={AS_OF}"]
    done = forks.run(place, *command)
    assert done.code == (3 if name == "finagent.db" else 0), done.err
    assert "put a copy back" in done.err
    assert size(place, f"home/{name}") == 0
    report(done, "left as it is; the copy is put back")
