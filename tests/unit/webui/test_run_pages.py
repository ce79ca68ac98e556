"""Pages of versions, runs and what is at work, over an MLflow store with runs made by hand."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from starlette.testclient import TestClient

from finagent_model.errors import TrackingError
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.policy.trained_state import dump_outcomes
from finagent_model.tracking import registry
from finagent_model.tracking.queries import list_running_runs, list_stage_runs, read_run
from finagent_model.tracking.runs import STAGE, RunLog, open_run
from finagent_model.webui import _live as live
from finagent_model.webui import _model_pages as models
from finagent_model.webui import _run_pages as runs
from finagent_model.webui._equity_curves import EquityCurves
from finagent_model.webui._run_records import DecidedSymbols, FinishedBacktests
from support.pages import OURS
from support.places import Place

pytestmark = [
    pytest.mark.usefixtures("place"),
    pytest.mark.filterwarnings("ignore"),  # MLflow's store has warnings of its own
]
START = datetime(2012, 1, 3, 21, tzinfo=UTC)


def facts(symbol: str, returns: tuple[float, ...]) -> str:
    days = [START + timedelta(days=i) for i in range(len(returns))]
    return SymbolFacts(
        symbol=symbol,
        closed_at=tuple(int(day.timestamp() * 1000) for day in days),
        returns=returns,
        benchmark_returns=tuple(0.0 for _ in returns),
        total_return=0.0,
        random_returns=None,
        delayed_returns=returns,
        cost_curve=(),
        break_even_commission=None,
        commission=0.0,
        slippage=0.0,
        lagged_sharpe=None,
    ).model_dump_json()


def training(symbols: str = "AAPL,IBM") -> RunLog:
    run = open_run(f"train {symbols}", {STAGE: "train"})
    run.log(params={"symbols": symbols})
    return run


def below(run: RunLog, symbol: str, returns: tuple[float, ...] = (0.1,), **ends: Any) -> RunLog:
    tags = {STAGE: "backtest", "finagent.symbol": symbol}
    child = open_run(f"backtest {symbol}", tags, parent=run.run_id)
    if ends.get("facts", True):
        child.log_text("facts.json", facts(symbol, returns))
        child.log_text("closed_calls.jsonl", dump_outcomes([]))
    child.end(ends.get("status", "FINISHED"))
    return child


def version(name: str, run_id: str = "0" * 32, verdict: str = "passed") -> str:
    return registry.create_version(name, "somewhere", run_id, {registry.VERDICT: verdict})


@pytest.fixture
def three() -> str:
    """A name with three versions that were champion in turn, then one roll back: 2 is champion."""
    for _ in range(3):
        registry.promote("finagent", version("finagent"))
    return registry.rollback("finagent").version


def back(pages: TestClient, seen: str, who: str = "Ann") -> Any:
    data = {"who": who, "why": "worse", "instead_of": seen}
    return pages.post("/models/finagent/rollback", data=data, headers=OURS)


def test_models_page_roll_back_names_target(three: str, pages: TestClient) -> None:
    assert three == "2"
    page = pages.get("/models").text
    assert "Version 1, the champion before version 2, becomes champion again" in page
    assert 'name="instead_of" value="2"' in page
    assert "Version 1 is champion now" in back(pages, "2").text
    assert "no champion before it" in pages.get("/models").text


def test_models_page_second_roll_back_is_refused(three: str, pages: TestClient) -> None:
    registry.promote("finagent", "3")  # from 2: the way back from 3 leads to 2 now
    assert back(pages, "3").status_code == 200
    again = back(pages, "3")
    assert again.status_code == 409
    assert "version 2 of finagent is champion, no longer 3" in again.text
    assert registry.find_version("finagent", "2").aliases == ("champion",)


def test_models_page_promote_refused_if_champion_moved(three: str, pages: TestClient) -> None:
    data = {"who": "Ann", "instead_of": "3"}
    answer = pages.post("/models/finagent/1/promote", data=data, headers=OURS)
    assert answer.status_code == 409
    assert "version 2 of finagent became champion while 1 was trained or chosen" in answer.text
    data["instead_of"] = "2"
    assert pages.post("/models/finagent/1/promote", data=data, headers=OURS).status_code == 200


def test_models_page_promotes_first_champion(pages: TestClient) -> None:
    version("finagent")
    assert 'name="instead_of" value="none"' in pages.get("/models").text
    data = {"who": "Ann", "instead_of": "none"}
    assert pages.post("/models/finagent/1/promote", data=data, headers=OURS).status_code == 200
    # Asked again, say by a reload of the page: it is champion, and stays as Ann made it.
    again = data | {"who": "Bob"}
    assert pages.post("/models/finagent/1/promote", data=again, headers=OURS).status_code == 200
    record = registry.find_version("finagent", "1").crowned
    assert record is not None
    assert record["who"] == "Ann"


def test_models_page_change_needs_name(three: str, pages: TestClient) -> None:
    assert back(pages, "2", "  ").status_code == 400
    assert "say who changes the champion" in back(pages, "2", "").text
    for seen in ("", "x"):
        assert "open the page of the versions again" in back(pages, seen).text
    assert "by Ann, rolled back: worse" in back(pages, "2", "Ann").text


def test_version_page_without_training_run(pages: TestClient) -> None:
    version("finagent", "ab" * 16)
    page = pages.get("/models/finagent/1")
    assert page.status_code == 200
    assert f"Run {'ab' * 16}, which trained it, is not in the MLflow store" in page.text


def test_version_page_404_for_unknown_version(pages: TestClient) -> None:
    version("finagent")
    answer = pages.get("/models/finagent/7")
    assert answer.status_code == 404
    assert "it has: 1" in answer.text
    for name in ("a/b", "", "a'b", "x" * 101):
        answer = pages.get("/models", params={"name": name})
        assert answer.status_code == 400
        assert "no model can be named" in answer.text


@pytest.mark.parametrize("gate", ['{"verdict":"passed"}', '["a"]', "5", '{"integrity": 1}', "["])
def test_read_gate_of_other_shape_is_none(pages: TestClient, gate: str) -> None:
    run, other = training(), training()
    run.log_text("gate.json", gate)
    for path in (f"/runs/{run.run_id}", f"/runs/compare?run={run.run_id}&run={other.run_id}"):
        answer = pages.get(path)
        assert answer.status_code == 200, path
        assert "gate passed" not in answer.text


def test_ablation_page_says_what_was_left_out(pages: TestClient) -> None:
    run = open_run("ablate", {STAGE: "ablate"})
    whole = {"variant": "whole", "same_action": 1.0, "hold_share": 0.5, "tokens": 0}
    unknown = dict.fromkeys(("annual_return_difference", "low", "high", "sharpe", "cost_usd"))
    why = "the view has no <news>, so it equals the whole desk"
    said = {"decisions": 3, "rows": [whole | unknown], "left_out": {"without news": why}}
    run.log_json("ablation.json", said)
    page = pages.get(f"/runs/{run.run_id}").text
    assert "without news</strong>: the view has no &lt;news&gt;, so" in page
    run.log_json("ablation.json", {name: said[name] for name in ("decisions", "rows")})
    assert "Left out" not in pages.get(f"/runs/{run.run_id}").text


@pytest.mark.parametrize("said", ['{"rows": []}', '["a"]', '{"decisions": 1, "rows": [{}]}'])
def test_read_ablation_of_other_shape_is_none(pages: TestClient, said: str) -> None:
    run = open_run("ablate", {STAGE: "ablate"})
    run.log_text("ablation.json", said)
    answer = pages.get(f"/runs/{run.run_id}")
    assert answer.status_code == 200
    assert "There is no result." in answer.text


def desk_curve(found: EquityCurves) -> list[float]:
    assert found.pool
    values: list[float] = found.pool.curve(found.pool.desk).tolist()
    return values


def test_equity_curves_begin_with_one_where_first_bar_is_known(pages: TestClient) -> None:
    run = training("AAPL")
    child = below(run, "AAPL", (0.1, -0.5))
    first = int((START - timedelta(days=1)).timestamp() * 1000)
    child.log_json("outcome.json", {"first_closed_at": first})
    drawn = pages.get(f"/runs/equity.json?run={run.run_id}").json()
    assert drawn["days"] == ["2012-01-02", "2012-01-03", "2012-01-04"]
    held, desk = drawn["panes"][0]["series"]
    assert (held["name"], held["values"]) == ("buy and hold", [1.0, 1.0, 1.0])
    assert (desk["name"], desk["values"]) == ("desk", [1.0, 1.1, 0.55])
    assert drawn["panes"][1]["series"][1]["values"] == [0.0, 0.0, -0.5]


@pytest.mark.parametrize(
    "outcome", ["[]", "{", '{"first_closed_at": "x"}', '{"first_closed_at": 1e99}']
)
def test_equity_curves_of_odd_outcome_begin_a_bar_later(outcome: str) -> None:
    run = training("AAPL")
    below(run, "AAPL", (0.1,)).log_text("outcome.json", outcome)
    assert desk_curve(EquityCurves.from_run(read_run(run.run_id))) == [pytest.approx(1.1)]


def test_equity_of_two_runs_is_on_one_calendar(pages: TestClient) -> None:
    one, other = training("AAPL"), training("IBM")
    below(one, "AAPL", (0.1, 0.1, 0.1))
    below(other, "IBM", (0.5,))
    drawn = pages.get(f"/runs/equity.json?run={one.run_id}&run={other.run_id}").json()
    names = [series["name"] for series in drawn["panes"][0]["series"]]
    assert names == ["buy and hold", "run 1", "run 2"]
    assert drawn["panes"][0]["series"][2]["values"] == [1.5, None, None]
    assert len(drawn["days"]) == 3


def test_equity_without_backtest_says_so(pages: TestClient) -> None:
    drawn = pages.get(f"/runs/equity.json?run={training().run_id}").json()
    assert drawn["days"] == []
    assert "nothing was decided" in drawn["empty"]


def test_returns_csv_of_a_run(pages: TestClient) -> None:
    run = training("AAPL")
    answer = pages.get(f"/runs/{run.run_id}/returns.csv")
    assert answer.status_code == 404
    assert "no finished backtest" in answer.text
    below(run, "AAPL", (0.1,))
    answer = pages.get(f"/runs/{run.run_id}/returns.csv")
    assert answer.text == "date,desk,buy_and_hold\n2012-01-03,0.1,0\n"
    assert answer.headers["content-type"].startswith("text/csv")


def test_equity_curves_use_newest_finished_backtest() -> None:
    run = training()
    below(run, "AAPL", (0.5,))
    below(run, "AAPL", (0.2,))
    below(run, "AAPL", (0.9,), status="FAILED", facts=False)
    found = EquityCurves.from_run(read_run(run.run_id))
    assert desk_curve(found) == [1.2]
    assert found.incomplete == "1 of 2 symbols: the others have no finished backtest"
    below(run, "IBM", (0.4,))
    found = EquityCurves.from_run(read_run(run.run_id))
    assert desk_curve(found) == pytest.approx([1.3])
    assert found.incomplete is None


def test_equity_curves_name_missing_symbols(pages: TestClient) -> None:
    run = training()
    below(run, "AAPL")
    drawn = pages.get(f"/runs/equity.json?run={run.run_id}").json()
    assert drawn["incomplete"].startswith("desk: 1 of 2 symbols")


def test_equity_curves_error_names_unreadable_backtest(pages: TestClient) -> None:
    run = training("AAPL")
    child = below(run, "AAPL", facts=False)
    with pytest.raises(TrackingError, match=child.run_id):
        EquityCurves.from_run(read_run(run.run_id))
    answer = pages.get(f"/runs/equity.json?run={run.run_id}")
    assert answer.status_code == 503
    assert "facts.json" in answer.json()["message"]


def test_equity_curves_leave_out_an_unreadable_backtest_and_say_so(pages: TestClient) -> None:
    run = training()
    below(run, "AAPL", (0.2,))
    bad = below(run, "IBM")
    bad.log_text("facts.json", "{}")
    found = EquityCurves.from_run(read_run(run.run_id))
    assert desk_curve(found) == [1.2]
    drawn = pages.get(f"/runs/equity.json?run={run.run_id}").json()
    assert f"IBM is left out: facts.json of run {bad.run_id} is not" in drawn["incomplete"]


def test_finished_backtests_skip_failed() -> None:
    run = training()
    below(run, "AAPL")
    below(run, "IBM", status="FAILED", facts=False)
    found = FinishedBacktests.from_run(read_run(run.run_id))
    assert [each.tags["finagent.symbol"] for each in found.runs] == ["AAPL"]


def test_live_page_shows_our_runs_only(pages: TestClient) -> None:
    mine = training()
    for _ in range(3):
        MlflowClient().create_run(mine.experiment_id)
    assert [run.run_id for run in list_running_runs(2).runs] == [mine.run_id]
    assert "train AAPL,IBM" in pages.get("/live").text


def test_live_page_says_that_there_are_more(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_RUNS", 1)
    training("AAPL"), training("IBM")
    page = pages.get("/live").text
    assert "train IBM" in page
    assert "The newest 1; others began before" in page


def test_decided_symbols_counts_finished_symbols() -> None:
    run, decided = training(), DecidedSymbols()
    assert decided.count(read_run(run.run_id)) == 0
    for symbol in ("AAPL", "AAPL"):
        below(run, symbol)
        assert decided.count(read_run(run.run_id)) == 1
    below(run, "IBM", status="FAILED")
    assert decided.count(read_run(run.run_id)) == 1
    below(run, "IBM")
    assert decided.count(read_run(run.run_id)) == 2
    decided.retain(set())
    assert decided.count(read_run(run.run_id)) == 2


def test_runs_page_links_to_older_runs(pages: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_RUNS", 2)
    for i in range(5):
        training(f"S{i}")
        open_run(f"ablate {i}", {STAGE: "ablate"})
    seen, path = [], "/runs"
    for _ in range(3):
        page = pages.get(path).text
        seen += re.findall(r">train (S\d)<", page)
        assert page.count(">ablate ") == 2
        path = next(iter(re.findall(r'rel="next" href="([^"]*trained=[^"]*)"', page)), "")
        path = path.replace("&amp;", "&")
    assert seen == ["S4", "S3", "S2", "S1", "S0"]
    assert "No training began before" in pages.get("/runs?trained=1").text
    assert pages.get("/runs?trained=x").status_code == 422


def test_version_page_shows_its_ablations_only(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MAX_RUNS", 1)
    version("finagent")
    mine = {STAGE: "ablate", "finagent.model_uri": "models:/finagent/1"}
    open_run("ablate mine", mine)
    open_run("ablate another", mine | {"finagent.model_uri": "models:/finagent/2"})
    page = pages.get("/models/finagent/1").text
    assert "ablate mine" in page
    assert "ablate another" not in page
    assert len(list_stage_runs("ablate", 5).runs) == 2


def test_conversation_page_survives_deep_reply(place: Place, pages: TestClient) -> None:
    run = open_run("infer", {STAGE: "infer"})
    turn = {
        "agent_name": "A",
        "message_type": "response",
        "message_content": '{"a":' * 5000,
        "timestamp": START.isoformat(),
        "tokens": {"prompt": 1, "completion": 1},
        "model": "m",
        "cached": False,
    }
    run.log_text("autogen_conversation.jsonl", json.dumps(turn) + "\n")
    row = {"name": "s", "type": "signal", "symbol": "GOOG", "run_id": run.run_id}
    assert pages.post("/api/artifacts", json=row).status_code == 201
    assert pages.get("/signals/1/conversation").status_code == 200


def finished_training(**metrics: float) -> RunLog:
    run = training("GOOG")
    run.log(metrics=metrics)
    run.end("FINISHED")
    return run


def gate_json(passed: bool = False) -> dict[str, Any]:
    check = {"passed": passed, "number": 0.4, "threshold": 0.05, "at_least": False}
    return {
        "integrity": [
            {"name": "replay_equal", "passed": True, "found": "fine"},
            {"name": "clock_free", "passed": passed, "found": "a clock <was> read"},
        ],
        "evidence": {
            "grade": "none",
            "checks": [{"name": "alpha_above_zero", "needed_for": "weak", **check}],
            "numbers": {},
        },
        "required": "none",
        "champion": None,
    }


def test_version_page_answers_before_the_details(pages: TestClient) -> None:
    run = finished_training(
        total_return=0.181, benchmark_total_return=1.143, sharpe=0.32, max_drawdown=0.28
    )
    run.log_json("gate.json", gate_json())
    version("finagent", run.run_id, "refused")
    page = pages.get("/models/finagent/1").text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert (
        "The gate refused it; there is no evidence of an edge; on out-of-sample days it earned"
        in text
    )
    assert "+18.1% after costs, less than buying and holding (+114.3%)." in text
    assert "Why the gate refused it: clock_free: a clock &lt;was&gt; read" in text
    assert "-28.0%" in text
    assert "its interval is undefined" in text
    assert "Cost of its models unknown" in text
    assert page.index("1 of 2 failed") < page.index("replay equal"), "failures come first"
    assert page.index("clock free") < page.index("replay equal")


def test_version_page_of_unknown_metrics_invents_no_number(pages: TestClient) -> None:
    version("finagent", finished_training().run_id)
    text = re.sub(r"<[^>]+>", " ", pages.get("/models/finagent/1").text)
    assert "what it earned on out-of-sample days is unknown" in text
    assert text.count("undefined") >= 4
    assert "0.0%" not in text


def test_models_page_lists_what_trainings_recorded(pages: TestClient) -> None:
    run = finished_training(total_return=0.5, benchmark_total_return=0.25, sharpe=1.5)
    run.log_json("gate.json", gate_json())
    version("finagent", run.run_id, "refused")
    version("finagent")
    page = pages.get("/models").text
    for words in ("+50.0%", "+25.0%", "1.50", "GOOG", "clock_free: a clock &lt;was&gt; read"):
        assert words in page


def test_models_page_pages_through_versions(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MAX_VERSIONS", 2)
    for _ in range(5):
        version("finagent")
    registry.promote("finagent", "1")
    first = pages.get("/models").text
    assert re.findall(r'href="/models/finagent/(\d)"', first) == ["5", "4", "1"]
    assert "before=4" in first
    last = pages.get("/models?before=2").text
    assert re.findall(r'href="/models/finagent/(\d)"', last) == ["1"]
    assert "Older versions" not in last
    assert pages.get("/models?before=0").status_code == 422


def test_version_page_links_to_comparison_with_champion(pages: TestClient) -> None:
    one, two = finished_training(), finished_training()
    version("finagent", one.run_id)
    version("finagent", two.run_id)
    registry.promote("finagent", "1")
    link = f"/runs/compare?run={one.run_id}&amp;run={two.run_id}"
    assert link in pages.get("/models/finagent/2").text
    assert "Compare with the champion" not in pages.get("/models/finagent/1").text


@pytest.mark.parametrize(
    ("progress", "phase", "remaining"),
    [
        (None, None, None),
        ((0, 3), "fitting policies", None),
        ((1, 3), "deciding: 1 of 3", 200),
        ((3, 3), "all 3 symbols decided; packaging", None),
    ],
)
def test_live_run_tells_phase_and_time_left(
    progress: tuple[int, int] | None, phase: str | None, remaining: float | None
) -> None:
    run = read_run(training().run_id)
    live_run = live.LiveRun(run, False, progress)
    assert (live_run.phase or "").startswith(phase or "")
    assert (live_run.phase is None) == (phase is None)
    assert live_run.remaining_s(run.started_at + timedelta(seconds=100)) == remaining
    assert live.LiveRun(run, True, progress).remaining_s(run.started_at) is None


def test_overview_shows_champion_with_its_numbers(pages: TestClient) -> None:
    run = finished_training(total_return=0.5, benchmark_total_return=0.25)
    version("finagent", run.run_id)
    registry.promote("finagent", "1")
    page = pages.get("/").text
    assert "finagent version 1" in page
    assert "+50.0% after costs, more than buying and holding (+25.0%)" in page
    assert "no decision is stored" in page, "GOOG is on the watchlist"
    assert "Unknown: no champion names its data." in page
