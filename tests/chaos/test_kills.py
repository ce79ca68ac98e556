"""Commands that are killed at random moments lose nothing and leave nothing half registered."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request

import pytest

from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from support.chaos_place import assert_whole, champion, rows
from support.command_forks import CommandForks
from support.decisions import decision
from support.fake_platform import PlatformDouble, serving
from support.faults_page import Report
from support.places import AS_OF, Place, free_port, post, small_options

ASKED = ["predict", "FB", f"--as-of={AS_OF}", "--log"]


@pytest.mark.chaos("`train` killed 20 times")
def test_train_killed_is_never_half_registered(
    forks: CommandForks,
    base: Place,
    place: Place,
    kills: int,
    moment: random.Random,
    timing: dict[str, float],
    report: Report,
) -> None:
    command = ["train", *small_options(), "--json"]
    for _ in range(kills):
        training = forks.start(place, *command)
        time.sleep(moment.uniform(0, timing["train"]))
        last = training.kill()
        assert_whole(place)
        assert champion(place) is not None
    done = forks.run(place, *command)
    assert done.code == 0, done.err
    [expected] = json.loads(forks.run(base, "models", "--json").out)
    assert json.loads(done.out)["content_hash"] == expected["content_hash"]
    assert champion(place) == int(json.loads(done.out)["version"])
    assert rows(place, "select 1 from runs where status = 'RUNNING'") == []
    report(last, "repeated: the same package is champion; killed runs are marked so")


@pytest.mark.chaos("`predict --log` killed 20 times")
def test_predict_killed_loses_no_record(
    forks: CommandForks,
    place: Place,
    kills: int,
    moment: random.Random,
    timing: dict[str, float],
    report: Report,
) -> None:
    for _ in range(kills):
        asking = forks.start(place, *ASKED)
        time.sleep(moment.uniform(0, timing["predict"]))
        last = asking.kill()
    assert forks.run(place, *ASKED).code == 0
    synced = forks.run(place, "db", "sync", "--json")
    assert (synced.code, json.loads(synced.out)["failed"]) == (0, 0)
    signals = "select count(*) from artifacts where type = 'signal' and finagent_as_of like "
    assert rows(place, f"{signals} '{AS_OF}%'", "home/finagent.db") == [(1,)]
    unstored = "select 1 from tags where key = 'finagent.stored' and value = 'no'"
    assert rows(place, unstored) == []
    report(last, "repeated: one signal; `db sync` finds what a killed one left in its run")


@pytest.mark.chaos("`serve` killed 20 times")
def test_serve_killed_answers_the_same_again(
    forks: CommandForks,
    place: Place,
    kills: int,
    moment: random.Random,
    timing: dict[str, float],
    report: Report,
) -> None:
    port = free_port()
    answers = []
    for number in range(kills + 1):
        server = forks.start(place, "serve", "--port", str(port))
        if number < kills:
            time.sleep(moment.uniform(0, timing["serve"]))
            last = server.kill()
            continue
        wait_for(f"http://127.0.0.1:{port}/ping")
        body = {"dataframe_records": [{"symbol": "FB", "as_of": AS_OF}]}
        answers = [post(f"http://127.0.0.1:{port}", body) for _ in range(2)]
        server.kill()
    assert [status for status, _ in answers] == [200, 200]
    [signal] = answers[0][1]["predictions"]
    told = json.loads(forks.run(place, "predict", "FB", f"--as-of={AS_OF}", "--json").out)
    assert signal.pop("generated_at") != told.pop("generated_at")
    assert signal == told
    assert_whole(place)
    report(last, "started again on the same port: the same signal as by `predict`")


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.chaos("`outbox send` killed 20 times")
def test_outbox_killed_sends_each_row_once(
    forks: CommandForks,
    place: Place,
    kills: int,
    moment: random.Random,
    timing: dict[str, float],
    report: Report,
) -> None:
    settings = Settings.load({"FINAGENT_HOME": str(place.folder / "home")})
    database = Database.from_settings(settings)
    for number in range(8):
        store = DecisionStore(database, queue=True)
        store.write(decision(conversation_id=f"c{number}"), f"r{number}")
    platform = PlatformDouble()
    queued = rows(place, "select count(*) from finagent_outbox", "home/finagent.db")[0][0]
    with serving(platform.app(), platform.port):
        for _ in range(kills):
            end_leases(database)
            sending = forks.start(place, "outbox", "send", FINAGENT_PLATFORM_URL=platform.url)
            time.sleep(moment.uniform(0, timing["outbox"]))
            last = sending.kill()
        end_leases(database)
        done = forks.run(place, "outbox", "send", "--json", FINAGENT_PLATFORM_URL=platform.url)
    assert (done.code, json.loads(done.out)["waiting"]) == (0, 0), done.err
    keys = [row["metadata"]["key"] for row in platform.rows]
    assert len(keys) == len(set(keys)) == queued
    report(last, "sent again after the lease: each row is there once, in order")


def end_leases(database: Database) -> None:
    """Let two minutes pass, as it were."""
    with database.transaction() as connection:
        connection.exec_driver_sql("update finagent_outbox set leased_until = null")
