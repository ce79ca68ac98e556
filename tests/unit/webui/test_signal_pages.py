"""The list of signals, what leads on from it, and the approval pages, without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from finagent_model.agents._replies import AnalystReply
from finagent_model.agents.policy_client import ColleagueReply, _combined_score
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore, compute_approval_id
from finagent_model.config.desk_config import load_config
from finagent_model.config.rules import ApprovalRules
from finagent_model.decision.decision import Decision, Turn
from finagent_model.decision.signal import Status
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings
from finagent_model.store.artifact_models import SignalFilter, SignalSort, SortColumn
from finagent_model.store.artifacts import ArtifactStore, table
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.webui._conversation import group_by_agent, messages_from_turns
from support.decisions import at, decision, signal, turns
from support.pages import FAILED, OURS, fill, write

pytestmark = pytest.mark.usefixtures("no_mlflow")
HOLD: dict[str, Any] = {**FAILED, "status": "ok"}
WEAK: dict[str, Any] = {"confidence_score": 40, "confidence": "LOW"}


def listed(page: str) -> list[tuple[int, str]]:
    """Number and symbol of the listed signals."""
    return [
        (int(number), symbol)
        for number, symbol in re.findall(r'<a href="/signals/(\d+)[^"]*">(\S+) <span', page)
    ]


def symbols(pages: TestClient, query: str) -> list[str]:
    answer = pages.get(f"/signals?{query}")
    assert answer.status_code == 200, query
    return [symbol for _, symbol in listed(answer.text)]


def put(known: Settings, name: str, **changes: Any) -> None:
    """A decision in a run and a conversation of that name, by default about it."""
    made = decision(**{"symbol": name, "conversation_id": name, **changes})
    DecisionStore(Database.from_settings(known)).write(made, f"r-{name}")


def links(page: str, rel: str) -> list[str]:
    return [unescape(each) for each in re.findall(rf'rel="{rel}" href="([^"]+)"', page)]


def words(page: str) -> str:
    """The text of a page on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_signal_page_strip_says_do_not_act_and_why(known: Settings, pages: TestClient) -> None:
    write(known, 1, evidence="none", **WEAK)
    for path in ("/signals", "/signals/1"):
        text = words(pages.get(path).text)
        assert "Do not act" in text, path
        assert "confidence 40 is below 50" in text, path
        assert "no evidence of an edge" in text, path
    page = words(pages.get("/signals/1").text)
    assert "about 40 of 100 such calls made money" in page
    assert (
        "stop 5.2% below the entry, target 12.0% above the entry, size 10% of equity, 0.52%" in page
    )
    assert "7 s" in page, "how long it took was stored"


def test_signal_list_sorts_by_day_of_decision(known: Settings, pages: TestClient) -> None:
    write(known, 9, symbol="NEW")
    write(known, 1, symbol="OLD")
    assert symbols(pages, "") == ["NEW", "OLD"], "the row that was written last is the older one"
    assert symbols(pages, "sort=as_of") == ["OLD", "NEW"]
    assert symbols(pages, "sort=-recorded") == ["OLD", "NEW"]
    assert symbols(pages, "sort=symbol") == ["NEW", "OLD"]
    write(known, 5, symbol="SURE", confidence_score=90, confidence="HIGH")
    assert symbols(pages, "sort=-confidence") == ["SURE", "OLD", "NEW"]
    page = pages.get("/signals?sort=symbol").text
    assert 'aria-sort="ascending"><a href="/signals?sort=-symbol"' in page
    for query in ("sort=nothing", "sort=--as_of", "show=everything"):
        assert pages.get(f"/signals?{query}").status_code == 422


def test_signal_list_chips_select(known: Settings, pages: TestClient) -> None:
    today = datetime.now(UTC) - timedelta(hours=2)
    put(known, "SURE", as_of=today, generated_at=today)
    put(known, "UNSURE", as_of=today, **WEAK)
    put(known, "PAST", as_of=today - timedelta(days=60))
    put(known, "HELD", as_of=today, **HOLD)
    put(known, "BROKEN", as_of=today, **FAILED)
    assert symbols(pages, "show=act") == ["SURE"]
    assert symbols(pages, "show=failed") == ["BROKEN"]
    assert symbols(pages, "show=today") == ["SURE"], "the others were decided in March"
    assert len(symbols(pages, "")) == 5
    assert "Too old to act on" in words(pages.get("/signals?symbol=PAST").text)


def test_signal_list_hold_is_a_choice(known: Settings, pages: TestClient) -> None:
    write(known, 1, symbol="HELD", **HOLD)
    write(known, 2, symbol="BROKEN", **FAILED)
    write(known, 3, symbol="UNDONE", **{**FAILED, "status": Status.ABSTAINED})
    assert symbols(pages, "action=HOLD") == ["HELD"]


def test_signal_list_filters_by_version_and_evidence(known: Settings, pages: TestClient) -> None:
    run = "f" * 32
    write(known, 1, symbol="A", model_uri="models:/finagent/3", model_version="3", run_id=run)
    write(known, 2, symbol="B", model_uri="models:/other/3", model_version="3", evidence="weak")
    write(known, 3, symbol="C")
    assert symbols(pages, "version=3") == ["B", "A"]
    assert symbols(pages, "version=models:/finagent/3") == ["A"]
    assert symbols(pages, f"trained_by={run}") == ["A"]
    assert symbols(pages, "evidence=weak") == ["B"]
    assert symbols(pages, "evidence=unknown") == ["C", "A"]
    assert pages.get("/signals?evidence=proof").status_code == 422


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("POINT THE SAME", ["A"]),
        ("Zürich", ["B"]),
        ('says "50 %" \\ more', ["B"]),
        ("%", ["B"]),
        ("Z_rich", []),
        ("reasoning", []),
        ("null", []),
        ("' or 1=1 --", []),
    ],
)
def test_signal_list_searches_words_as_they_stand(
    known: Settings, pages: TestClient, text: str, found: list[str]
) -> None:
    write(known, 1, symbol="A", reasoning="Both reports point the same way.")
    write(known, 2, symbol="B", reasoning='Zürich says "50 %" \\ more than before.')
    rows = [symbol for _, symbol in listed(pages.get("/signals", params={"text": text}).text)]
    assert rows == found


def test_signal_list_pages_are_jumped_to(known: Settings, pages: TestClient) -> None:
    fill(known, 120)
    page = pages.get("/signals?symbol=GOOG&page=2").text
    assert 'name="page" type="number" min="1" max="3" value="2"' in page
    assert '<input type="hidden" name="symbol" value="GOOG">' in page


def test_signal_page_neighbours_keep_filter(known: Settings, pages: TestClient) -> None:
    for number in (1, 2, 3, 4):
        write(known, number, symbol="GOOG" if number % 2 else "IBM")
    [(newest, _), (oldest, _)] = listed(pages.get("/signals?symbol=GOOG").text)
    first = pages.get(f"/signals/{newest}?symbol=GOOG").text
    assert links(first, "next") == [f"/signals/{oldest}?symbol=GOOG"]
    assert links(first, "prev") == []
    last = pages.get(f"/signals/{oldest}?symbol=GOOG").text
    assert links(last, "prev") == [f"/signals/{newest}?symbol=GOOG"]
    assert links(last, "next") == []
    assert 'href="/signals?symbol=GOOG">Back to the list' in last
    assert pages.get(f"/signals/{oldest}?symbol=GOOG&sort=nothing").status_code == 200


@pytest.mark.parametrize("column", ["as_of", "recorded", "symbol", "confidence"])
@pytest.mark.parametrize("ascending", [True, False])
def test_signal_neighbours_follow_order_of_list(
    known: Settings, column: SortColumn, ascending: bool
) -> None:
    for number in range(6):
        # Pairs of equals, so that the order of rows decides.
        day = datetime(2012, 1, 2 + number // 2, 21, tzinfo=UTC)
        put(known, f"n{number}", symbol="AB"[number % 2], as_of=day)
    store, sort = ArtifactStore(Database.from_settings(known)), SignalSort(column, ascending)
    every = SignalFilter(type="signal")
    rows = store.list_signals(every, sort).artifacts
    ids = [None, *(row.id for row in rows), None]
    assert len(rows) == 6
    for number, row in enumerate(rows):
        assert store.find_neighbours(every, sort, row) == (ids[number], ids[number + 2])


@pytest.mark.parametrize(
    ("column", "cells", "found", "told"),
    [
        ("signal_data", "'{\"trend\": '", ["GOOD"], "1 signal of another system can't be read"),
        ("signal_data", "null", ["BAD", "GOOD"], None),
        ("artifact_metadata", "'no JSON'", ["BAD", "GOOD"], None),
    ],
)
@pytest.mark.parametrize("query", ["", "evidence=unknown", "kind=act", "group=execution"])
def test_signal_list_leaves_out_foreign_row_that_is_no_json(
    known: Settings,
    pages: TestClient,
    column: str,
    cells: str,
    found: list[str],
    told: str | None,
    query: str,
) -> None:
    put(known, "GOOD")
    with Database.from_settings(known).transaction() as connection:
        connection.exec_driver_sql(
            f"insert into artifacts (name, type, symbol, {column}, finagent_as_of) "
            f"values ('n', 'signal', 'BAD', {cells}, '2012-01-03 00:00:00.000000')"
        )
    answer = pages.get(f"/signals?{query}")
    assert answer.status_code == 200
    if not query:
        assert sorted(symbol for _, symbol in listed(answer.text)) == found
    assert (told is None) == ("another system can't be read" not in answer.text)
    assert told is None or told in answer.text


def test_version_filter_skips_metadata_that_is_no_json(known: Settings, pages: TestClient) -> None:
    put(known, "GOOD")
    with Database.from_settings(known).transaction() as connection:
        connection.exec_driver_sql("update artifacts set artifact_metadata = '{'")
    assert symbols(pages, "version=3") == []


def test_signal_list_is_read_from_an_index(known: Settings) -> None:
    """A row is long: without the index a page takes seconds where there are many."""
    from sqlalchemy import select
    from sqlalchemy.dialects import sqlite

    for criteria in ({}, {"kind": "act"}, {"kind": "failed"}, {"action": "HOLD"}, {"symbol": "A"}):
        clauses = SignalFilter.model_validate({"type": "signal", **criteria}).where_clauses()
        query = select(table.c.id).where(*clauses)
        text = str(query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
        with Database.from_settings(known).connection() as connection:
            plan = connection.exec_driver_sql(f"explain query plan {text}").fetchall()
        assert "COVERING INDEX ix_finagent_artifacts_" in str(plan[0]), criteria


def test_signal_export_has_what_the_list_shows(known: Settings, pages: TestClient) -> None:
    write(known, 1, symbol="A", reasoning="=cmd|' /C calc'!A0 and more", **WEAK)
    write(known, 2, symbol="B", **FAILED)
    rows = pages.get("/signals.json?symbol=A").json()["signals"]
    [row] = rows
    assert (row["symbol"], row["verdict"], row["action"]) == ("A", "no", "BUY")
    assert row["stop"] == 550.0
    answer = pages.get("/signals.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    cells = list(csv.DictReader(io.StringIO(answer.text)))
    assert [each["symbol"] for each in cells] == ["B", "A"]
    assert cells[1]["reasoning"].startswith("'=cmd"), "a spreadsheet would run it"
    assert (cells[0]["stop"], cells[0]["verdict"]) == ("", "no")
    assert pages.get("/signals.csv?symbol=NOBODY").text.strip() == "id"
    assert pages.get("/signals.json?status=fine").status_code == 400


def test_signal_export_too_large_names_way_out(
    known: Settings, pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finagent_model.webui._signal_list.MAX_EXPORT_ROWS", 2)
    fill(known, 3)
    answer = pages.get("/signals.json")
    assert answer.status_code == 400
    assert (
        "3 signals are more than the 2 of one file; narrow the filter" in answer.json()["message"]
    )


def test_signal_permanent_link_leads_to_row(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    page = pages.get("/signals/1").text
    [link] = set(re.findall(r'href="(/signals/key/[0-9a-f]{16})"', page))
    answer = pages.get(link, follow_redirects=False)
    assert answer.headers["location"] == "/signals/1"
    nobody = pages.get("/signals/key/nobody")
    assert nobody.status_code == 404
    assert "no signal has the key" in nobody.text


def test_signal_list_shows_outcome_from_local_bars(known: Settings, pages: TestClient) -> None:
    write(known, 120, symbol="GOOG", suggested_stop_loss=1.0, suggested_take_profit=5000.0)
    write(known, 2, symbol="NOBODY")
    assert "after 20 bars" in words(pages.get("/signals?symbol=GOOG").text)
    row = pages.get("/signals.json?symbol=NOBODY").json()["signals"][0]
    assert (row["outcome"], row["earned"]) == (None, None)


DEBATE = (
    Turn("desk", "request", "{}", at(0)),
    Turn("Bull", "response", json.dumps({"trend": "bullish", "score": 0.5}), at(1), 10, 2, "m"),
    Turn("Bear", "response", "It falls.", at(1), 10, 2, "m"),
    Turn("Bear", "request", "That was not usable: prose. Answer again.", at(1)),
    Turn("Bear", "response", json.dumps({"trend": "bearish", "score": -0.4}), at(2), 10, 2, "m"),
    Turn("Bull_2", "response", json.dumps({"trend": "bullish", "score": 0.6}), at(3), 10, 2, "m"),
    Turn("Bear_2", "response", json.dumps({"trend": "bearish", "score": -0.2}), at(3), 10, 2, "m"),
    Turn("Executor", "response", json.dumps({"action": "BUY"}), at(4), 10, 2, "m"),
)


def test_group_by_agent_folds_rounds_with_retries() -> None:
    agents = {a.name: a for a in group_by_agent(messages_from_turns(DEBATE, {}), "BUY")}
    assert list(agents) == ["desk", "Bull", "Bear", "Executor"]
    bear = agents["Bear"]
    assert (len(bear.rounds), bear.notes) == (2, "2 rounds, 2 tries")
    assert (bear.opinion.score, bear.dissents, bear.tokens) == (-0.2, True, 36)
    assert [agents[name].dissents for name in ("Bull", "Executor", "desk")] == [False] * 3
    assert (bear.seconds, bear.cost_usd) == (None, None), "nobody knows them here"


def weighed(executor_model: str, policy: Policy) -> dict[str, float]:
    """Weights of the analysts of a desk with debaters, one of whom said nothing usable."""
    desk = load_config("debate")
    asked = json.dumps({"policy": policy.model_dump(mode="json")})
    scores = {"TechnicalAnalyst": 0.5, "NewsAnalyst": -0.5, "Bull": 0.9}
    said = [
        Turn(name, "response", json.dumps({"trend": "neutral", "score": score}), at(1), 1, 1, "m")
        for name, score in scores.items()
    ]
    said.append(
        Turn("Executor", "response", '{"action": "HOLD"}', at(2), 1, 1, model=executor_model)
    )
    messages = messages_from_turns([Turn("desk", "request", asked, at(0)), *said], {})
    agents = group_by_agent(messages, None, desk.agents)
    return {a.name: round(a.weight, 6) for a in agents if a.weight is not None}


def test_group_by_agent_weighs_analysts_as_the_rules_do() -> None:
    policy = Policy(news_weight=0.25)
    weights = weighed("rules", policy)
    assert weights == {"TechnicalAnalyst": 0.8, "NewsAnalyst": 0.2}
    colleagues = [
        ColleagueReply(
            name,
            prompt,
            AnalystReply(trend="neutral", score=score, summary="It moves little.", key_factors=[]),
        )
        for name, prompt, score in (
            ("TechnicalAnalyst", "technical", 0.5),
            ("NewsAnalyst", "news", -0.5),
            ("Bull", "bull", 0.9),
        )
    ]
    combined = _combined_score(policy, colleagues)
    assert combined == pytest.approx(
        0.5 * weights["TechnicalAnalyst"] - 0.5 * weights["NewsAnalyst"]
    )


def test_group_by_agent_knows_no_weights_of_a_chat_model() -> None:
    assert weighed("gpt-4o", Policy()) == {}


def test_signal_page_groups_messages_by_agent(known: Settings, pages: TestClient) -> None:
    made = Decision(signal(conversation_id="debate"), DEBATE)
    DecisionStore(Database.from_settings(known)).write(made, "r1")
    number = listed(pages.get("/signals").text)[0][0]
    text = words(pages.get(f"/signals/{number}").text)
    assert "Bear 2 rounds, 2 tries" in text
    assert text.count("disagrees") == 1
    assert "Round 1" in text


def propose(known: Settings, said: tuple[Turn, ...] = (), **changes: Any) -> str:
    """The id of an approval that waits."""
    store = ApprovalStore(known.home / APPROVALS_FILE, notify=lambda line: None)
    made = Decision(signal(**changes), said)

    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.require_approvals([made], ApprovalRules(above_size_percent=5), "v", sleep=leave)
    return compute_approval_id(made.signal, "v")


def test_signal_list_says_that_a_signal_waits(known: Settings, pages: TestClient) -> None:
    propose(known, DEBATE)
    DecisionStore(Database.from_settings(known)).write(Decision(signal(), DEBATE), "r1")
    page = words(pages.get("/signals").text)
    assert "Waits for approval a human must approve it by" in page
    assert "Too old to act on" not in page
    [row] = pages.get("/signals.json").json()["signals"]
    assert row["verdict"] == "wait"


def test_approval_page_has_all_that_a_human_needs(known: Settings, pages: TestClient) -> None:
    key = propose(known, DEBATE)
    page = pages.get(f"/approvals/{key}").text
    text = words(page)
    for said in (
        "Waits for approval",
        "the desk is untrained",
        "size 10 % is above 5 %",
        "1 of 3 agents saw it the other way",
        "Both reports point the same way.",
        "the target was lowered",
        "Approve Reject",
    ):
        assert said in text, said
    assert 'data-deadline="' in page
    assert f'data-src="/approvals/{key}/bars.json"' in page
    bars = pages.get(f"/approvals/{key}/bars.json?later=1").json()
    assert bars["later"] == [], "who is to approve must not see what came of it"
    assert pages.get("/approvals/nobody").status_code == 404


def test_approval_page_after_verdict_has_no_form(known: Settings, pages: TestClient) -> None:
    key = propose(known)
    data = {"by": "Ann", "why": "too soon", "verdict": "reject"}
    answer = pages.post(f"/approvals/{key}", data=data, headers=OURS)
    assert answer.url.path == f"/approvals/{key}"
    assert "by Ann" in answer.text
    assert '<form class="settle"' not in answer.text
    assert "Waits for approval" not in words(answer.text)


def test_pages_say_how_many_decisions_wait(known: Settings, pages: TestClient) -> None:
    assert "<title>Signals" in pages.get("/signals").text
    assert pages.get("/waiting.json").json() == {"waiting": 0}
    key = propose(known)
    propose(known, conversation_id="other", symbol="IBM")
    overview = pages.get("/").text
    assert f'href="/approvals/{key}"' in overview
    assert "2 decisions</strong>" in overview
    for path in ("/", "/signals", "/live", "/nowhere"):
        assert "<title>(2) " in pages.get(path).text, path
    assert pages.get("/waiting.json").json() == {"waiting": 2}
    waiting = pages.get("/signals?show=waiting").text
    assert waiting.count('class="card waiting"') == 2
    assert pages.get("/signals.csv?show=waiting").status_code == 400


def test_approval_card_of_older_file_says_opinions_are_unknown(
    known: Settings, pages: TestClient
) -> None:
    import sqlite3
    from contextlib import closing

    key = propose(known, turns())
    with closing(sqlite3.connect(known.home / APPROVALS_FILE)) as connection, connection:
        connection.execute("alter table approval drop column opinions")
    text = words(pages.get(f"/approvals/{key}").text)
    assert "The agents' opinions were not kept." in text


def test_signal_page_links_keep_foreign_query_inside(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    odd = '"><script>window.hurt=1</script>'
    page = pages.get("/signals/1", params={"text": odd, "sort": odd, "show": odd}).text
    assert "<script>window" not in page
    assert pages.get("/signals", params={"show": odd}).status_code == 422
