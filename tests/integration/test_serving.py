"""`mlflow models serve` and `finagent serve`, asked as a user would: over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from finagent_model.data.bundled import BundledBars
from support.places import AS_OF, Place, free_port, post

pytestmark = pytest.mark.slow
ROW = {"symbol": "FB", "as_of": AS_OF}
ENDLESS = {"dataframe_records": [ROW] * 2000, "params": {"mode": "live"}}


@pytest.fixture(scope="module")
def address(trained: Place) -> Iterator[str]:
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/finagent@champion"]
    with trained.serving(*command, "--env-manager", "local", "-p", str(port), port=port) as url:
        yield url


def own_bars(**changes: object) -> list[dict[str, object]]:
    bars = BundledBars().bars("FB")
    records: list[dict[str, object]] = [
        {
            "closed_at": bars.close_time(i).date().isoformat(),
            **{name: float(getattr(bars, name)[i]) for name in ("open", "high", "low", "close")},
            "volume": int(bars.volume[i]),
        }
        for i in range(len(bars))
        if bars.close_time(i).date().isoformat() <= AS_OF
    ]
    records[-1] |= changes
    return records


def test_serving_gives_same_signal_for_every_request_form(address: str) -> None:
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    forms = [{"dataframe_records": [ROW]}, {"dataframe_split": split}, {"inputs": [ROW]}]
    answers = [post(address, form) for form in forms]
    assert [status for status, _ in answers] == [200, 200, 200]
    signals = [body["predictions"][0] for _, body in answers]
    for signal in signals:
        del signal["generated_at"]
    assert signals[0] == signals[1] == signals[2]
    assert signals[0]["status"] == "ok"


def test_serving_bad_row_leaves_other_rows_alone(address: str) -> None:
    rows = [ROW, {**ROW, "symbol": "NOPE"}, {**ROW, "as_of": "2001-01-02"}, ROW]
    status, body = post(address, {"dataframe_records": rows})
    assert status == 200
    statuses = [signal["status"] for signal in body["predictions"]]
    assert statuses == ["ok", "data_missing", "data_missing", "ok"]
    assert "unknown symbol 'NOPE'" in body["predictions"][1]["reasoning"]


def test_serving_decides_on_bars_of_the_request(address: str) -> None:
    bare = post(address, {"dataframe_records": [ROW]})[1]["predictions"][0]
    sent = post(address, {"dataframe_records": [{**ROW, "bars": own_bars()}]})[1]["predictions"][0]
    assert sent["status"] == "ok"
    assert sent["support_level"] == bare["support_level"]
    status, body = post(address, {"inputs": [{**ROW, "bars": own_bars(high=100)}]})
    assert (status, body["predictions"][0]["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"close": -1}, "close is not a positive number at bar"),
        ({"close": None}, "close is not a positive number at bar"),
        ({"closed_at": "2012-06-01"}, "closed_at is earlier than the bar before"),
        ({"closed_at": "2013-01-31T21:00:00"}, "has no time zone"),
    ],
)
def test_serving_bad_bars_are_their_rows_status(
    address: str, changes: dict[str, object], message: str
) -> None:
    rows = [{**ROW, "bars": own_bars(**changes)}, {**ROW, "bars": own_bars()}]
    status, body = post(address, {"dataframe_records": rows})
    bad, good = body["predictions"]
    assert (status, bad["status"], good["status"]) == (200, "data_missing", "ok")
    assert message in bad["reasoning"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_records": [{**ROW, "as_of": "soon"}]}, "as_of 'soon' is not a date"),
        ({"dataframe_records": [{**ROW, "symbol": "A" * 21}]}, "has 21 characters; at most 20"),
        ({"dataframe_records": [{"symbol": "FB"}]}, "missing inputs ['as_of']"),
        ({"dataframe_records": [ROW], "params": {"mode": "dry"}}, "mode 'dry' is unknown"),
        ({"dataframe_records": [ROW], "params": {"budget_usd": -1.0}}, "budget_usd -1.0"),
        ({"dataframe_records": [ROW], "params": {"max_rounds": 0}}, "max_rounds 0"),
        (b"not json", "valid JSON"),
    ],
)
def test_serving_refuses_malformed_request_without_stack_trace(
    address: str, body: object, message: str
) -> None:
    status, answer = post(address, body)
    assert status == 400
    assert message in answer["message"]
    assert "stack_trace" not in answer
    assert "Traceback" not in json.dumps(answer)


def test_serving_abstains_if_rounds_do_not_suffice(address: str) -> None:
    status, body = post(address, {"dataframe_records": [ROW], "params": {"max_rounds": 1}})
    assert (status, body["predictions"][0]["status"]) == (200, "abstained")


def test_finagent_serve_answers_429_above_its_threads(
    trained: Place,
) -> None:
    port = free_port()
    command = ["python", "-m", "finagent_model.cli", "serve", "--port", str(port)]
    narrow = {"FINAGENT_SERVE_THREADS": "1", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "8"}
    with trained.serving(*command, port=port, **narrow) as address:
        with urllib.request.urlopen(f"{address}/version", timeout=30) as answer:
            version = json.load(answer)
        assert version["model_uri"] == "models:/finagent/1"
        with urllib.request.urlopen(f"{address}/health", timeout=30) as answer:
            assert answer.status == 200
        assert post(address, {"dataframe_records": [ROW]})[0] == 200

        many = {"dataframe_records": [ROW] * 40}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: post(address, many), range(8)))
        codes = {status for status, _ in answers}
        assert codes == {200, 429}
        refused = next(body for status, body in answers if status == 429)
        assert "ask again later" in refused["message"]
        assert "stack_trace" not in refused

        status, body = post(address, ENDLESS)
        assert (status, body["error_code"]) == (504, "DEADLINE_EXCEEDED")
        assert post(address, {"dataframe_records": [ROW]})[0] == 200


def test_mlflow_serve_recovers_after_timeouts(trained: Place) -> None:
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/finagent@champion"]
    options = ["--env-manager", "local", "-p", str(port), "-t", "8"]
    with trained.serving(*command, *options, port=port) as address:
        assert post(address, {"dataframe_records": [ROW]})[0] == 200
        with ThreadPoolExecutor(8) as pool:  # more than it has threads
            answers = list(pool.map(lambda _: post(address, ENDLESS), range(8)))
        assert {status for status, _ in answers} == {504}
        assert "the work was stopped" in str(answers)
        # Those that waited in line are worked on after their 504, until their own deadline.
        after = [post(address, {"dataframe_records": [ROW]})[0] for _ in range(2)]
        assert after[-1] == 200, after
        trained.servers[port].terminate()
        trained.servers[port].wait(20)
