"""The pages without a browser: what they list, what they escape, whom they let in."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from finagent_model.approvals import APPROVALS_FILE, ApprovalStore, compute_approval_id
from finagent_model.cli import app as commands
from finagent_model.config.roster import Price
from finagent_model.config.rules import ApprovalRules
from finagent_model.data.bar_cache import BarStore, CachedBars
from finagent_model.data.bundled import BundledBars
from finagent_model.data.market import Market
from finagent_model.decision.decision import Execution, Turn
from finagent_model.decision.signal import Status, TradingSignal
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.tracking.runs import is_process_dead
from finagent_model.webui._conversation import Message, messages_from_turns
from finagent_model.webui._login import HEADERS
from finagent_model.webui._price_bars import chart_bars, read_chart_bars
from finagent_model.webui._rendering import STATUSES, format_json, is_failed
from support.decisions import at, decision, signal, turns
from support.pages import FAILED, HERE, OURS, client, fill, settings, write

pytestmark = pytest.mark.usefixtures("no_mlflow")
MARKUP = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>"


def symbols(page: str) -> list[str]:
    """Of the listed signals, in their order."""
    return re.findall(r'<a href="/signals/\d+[^"]*">(\S+) ', page)


def test_signal_list_empty_says_what_to_do(pages: TestClient) -> None:
    answer = pages.get("/signals")
    assert answer.status_code == 200
    assert "No signal yet" in answer.text
    assert "finagent predict" in answer.text


def test_signal_list_newest_first_by_filter(known: Settings, pages: TestClient) -> None:
    write(known, 1, symbol="AAPL")
    write(known, 2, "e1", symbol="GOOG")
    write(known, 3, "e1", symbol="MSFT", **FAILED)
    assert symbols(pages.get("/signals").text) == ["MSFT", "GOOG", "AAPL"]
    for query, expected in (
        ("symbol=goog", ["GOOG"]),
        ("execution_id=e1", ["MSFT", "GOOG"]),
        ("status=model_error", ["MSFT"]),
        ("action=BUY", ["GOOG", "AAPL"]),
        ("as_of_from=2012-01-04", ["MSFT", "GOOG"]),
        ("as_of_to=2012-01-03", ["AAPL"]),
        ("symbol=&action=&status=", ["MSFT", "GOOG", "AAPL"]),
        ("symbol=ZZZ", []),
    ):
        assert symbols(pages.get(f"/signals?{query}").text) == expected, query
    assert "No signal matches" in pages.get("/signals?symbol=ZZZ").text


def test_signal_list_failure_is_no_hold(known: Settings, pages: TestClient) -> None:
    write(known, 1, **FAILED)
    page = pages.get("/signals").text
    assert "failed: model error" in page
    assert "no decision" in page
    assert "HOLD</span>" not in page
    number = re.findall(r'"/signals/(\d+)"', page)[0]
    assert "The desk could not decide." in pages.get(f"/signals/{number}").text


def test_labels_cover_every_status() -> None:
    assert set(STATUSES) == {status.value for status in Status}
    for status in Status:
        assert STATUSES[status.value].word.startswith("failed") == status.is_failure
        assert is_failed(status.value) == status.is_failure


def test_signal_list_groups_by_execution(known: Settings, pages: TestClient) -> None:
    write(known, 1, "e1", symbol="AAPL")
    write(known, 2, "e2", symbol="GOOG", **FAILED)
    write(known, 3, "e1", symbol="MSFT", **FAILED)
    write(known, 4, "e1", symbol="IBM", **{**FAILED, "status": Status.ABSTAINED})
    write(known, 5, symbol="CAT")
    page = pages.get("/signals?group=execution").text
    assert page.index("by hand<") < page.index("?execution_id=e1") < page.index("?execution_id=e2")
    assert "2012-01-03 21:00 UTC to 2012-01-06 21:00 UTC" in page
    only = pages.get("/signals?group=execution&symbol=GOOG").text
    assert "?symbol=GOOG&amp;execution_id=e2" in only
    assert "e1" not in re.findall(r"execution_id=(\w+)", only)


def test_signal_list_pages_keep_filter(known: Settings, pages: TestClient) -> None:
    fill(known, 52)
    first = pages.get("/signals?symbol=GOOG").text
    assert len(symbols(first)) == 50
    assert "1–50 of 52" in first  # noqa: RUF001
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = pages.get(older.replace("&amp;", "&")).text
    assert len(symbols(second)) == 2
    assert 'rel="prev"' in second
    assert 'rel="next"' not in second
    assert "There are only 52" in pages.get("/signals?page=9").text


def test_signal_list_marks_invalid_field(pages: TestClient) -> None:
    for query in ("as_of_from=yesterday", "status=fine", "action=BUY%20IT", "as_of_to=2012-13-01"):
        answer = pages.get(f"/signals?{query}")
        assert answer.status_code == 422
        assert "aria-invalid" in answer.text
        assert "This can't be searched for" in answer.text


def test_signal_list_invalid_page_is_nearest(pages: TestClient) -> None:
    for page in ("0", "-1", "x", "9" * 40, "²"):
        assert pages.get("/signals", params={"page": page}).status_code == 200


def test_signal_page_shows_all_fields(known: Settings, pages: TestClient) -> None:
    write(known, 1, "e1", run_id="f" * 32, model_uri="models:/finagent/3", model_version="3")
    page = pages.get("/signals/1").text
    for said in (
        "Both reports point the same way.",
        "the target was lowered",
        "580.25",
        "550.00",
        "650.00",
        "before calibration",
        "TechnicalAnalyst",
        "300 + 20 tokens",
        "recorded reply",
        "no reply within 45 s",
        "0.00088 USD",
        'href="/models/finagent/3"',
        f"/runs/{'f' * 32}/reliability?raw=70.0&amp;said=60.0",
        "dag",
    ):
        assert said in page, said


def test_signal_page_links_to_mlflow_with_airflow(tmp_path: Path) -> None:
    known = settings(
        tmp_path,
        FINAGENT_MLFLOW_UI_URL="https://mlflow.example/",
        FINAGENT_AIRFLOW_UI_URL="https://airflow.example",
    )
    made = decision(model_uri="models:/finagent/3")
    asked_by = Execution(dag_id="d", dag_run_id="manual__1+2", task_id="decide", map_index=4)
    DecisionStore(Database.from_settings(known)).write(made, "r1", asked_by, "7")
    with client(known) as pages:
        number = re.findall(r'"/signals/(\d+)"', pages.get("/signals").text)[0]
        page = pages.get(f"/signals/{number}").text
    assert 'href="https://mlflow.example/#/experiments/7/runs/r1"' in page
    assert 'href="https://mlflow.example/#/models/finagent/versions/3"' in page
    airflow = "https://airflow.example/dags/d/runs/manual__1%2B2/tasks/decide/mapped/4"
    assert f'href="{airflow}"' in page


def test_signal_page_escapes_foreign_text(known: Settings, pages: TestClient) -> None:
    write(known, 1, MARKUP, reasoning=MARKUP, key_factors=(MARKUP,), clamps=(MARKUP,))
    for path in ("/signals", "/signals?group=execution", "/signals/1", f"/signals?symbol={MARKUP}"):
        page = pages.get(path).text
        assert "&lt;script&gt;" in page.lower(), path
        assert "window.hurt=1</script>" not in page.lower(), path
        assert "<img" not in page.lower(), path


def test_signal_page_names_row_that_is_not_the_desks(known: Settings, pages: TestClient) -> None:
    write(known)
    planted = {"name": "x", "type": "signal", "action": "BUY", "metadata": {"status": "ok"}}
    number = pages.post("/api/artifacts", json=planted).json()["id"]
    assert pages.get("/signals").text.count("not the desk's</span>") == 1
    assert "A caller of the REST wrote it" in pages.get(f"/signals/{number}").text
    assert "no decision of the desk" not in pages.get("/signals/5").text


def test_signal_page_of_foreign_row(pages: TestClient) -> None:
    row = {
        "name": "theirs",
        "type": "signal",
        "symbol": None,
        "signal_data": {"suggested_entry_price": "high", "key_factors": "one", "fit_until": 3},
    }
    assert pages.post("/api/artifacts", json=row).status_code == 201
    assert "no symbol" in pages.get("/signals").text
    page = pages.get("/signals/1")
    assert page.status_code == 200, page.text
    assert pages.get("/signals/1/bars.json").status_code == 404


def test_signal_page_404_for_other_artifact(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    assert pages.get("/signals/2").status_code == 404  # its first reply
    for path in ("/signals/999", "/nowhere", "/signals/0", "/signals/abc", "/runs/no-run"):
        answer = pages.get(path)
        assert answer.status_code in (404, 422), path
        assert "<h1>" in answer.text


def test_signal_bars_hide_later_unless_asked(known: Settings, pages: TestClient) -> None:
    write(known, 180)
    day = "2012-06-30"
    seen = pages.get("/signals/1/bars.json").json()
    assert seen["seen"][-1]["time"] <= day
    assert seen["later"] == []
    both = pages.get("/signals/1/bars.json?later=1").json()
    assert both["seen"] == seen["seen"]
    assert both["later"][0]["time"] > day
    assert len(both["later"]) == 60


def test_chart_bars_in_prices_of_decision() -> None:
    bars = BundledBars().bars("AAPL")
    drawn = chart_bars(bars, parse_as_of("2005-02-25"), later=True)  # split 2:1 on the 28th
    assert drawn["seen"][-1]["close"] == pytest.approx(88.99, abs=0.01)
    assert drawn["later"][0]["close"] == pytest.approx(2 * 44.86, abs=0.1)


class Vendor:
    """Gives the bundled bars until it is away."""

    name = "vendor"

    def __init__(self) -> None:
        self.asked, self.away = 0, False

    def symbols(self) -> tuple[str, ...]:
        return ("GOOG",)

    def bars(self, symbol: str) -> BarSeries:
        self.asked += 1
        if self.away:
            raise DataSourceError("the vendor is away")
        return BundledBars().bars(symbol)


def test_read_chart_bars_asks_vendor_for_later_only(
    tmp_path: Path,
) -> None:
    vendor, as_of, now = Vendor(), parse_as_of("2012-06-29"), parse_as_of("2012-07-10")

    def look(later: bool) -> dict[str, Any]:
        market = Market(CachedBars(vendor, BarStore(tmp_path), lambda: now), None)
        return read_chart_bars(market, "GOOG", as_of, later, parse_as_of("2012-12-01"))

    first = look(False)
    assert (look(False), vendor.asked) == (first, 1)
    vendor.away = True
    assert (look(False), vendor.asked) == (first, 1)
    kept = look(True)
    assert [bar["time"] for bar in kept["later"]][-1] == "2012-07-10"
    assert "the vendor is away" in kept["note"]
    vendor.away, now = False, parse_as_of("2012-12-01")
    assert (len(look(True)["later"]), look(True)["note"]) == (60, None)
    assert vendor.asked == 3, "what was fetched once reaches"


def test_signal_bars_ask_no_vendor_for_odd_symbol(known: Settings, pages: TestClient) -> None:
    about = {"as_of": "2012-06-29T20:00:00+00:00"}
    for symbol in ("goog", "A B", "X" * 21):
        row = {"name": "theirs", "type": "signal", "symbol": symbol, "metadata": about}
        number = pages.post("/api/artifacts", json=row).json()["id"]
        answer = pages.get(f"/signals/{number}/bars.json")
        assert answer.status_code == 404
        assert "is not a symbol that a desk takes" in answer.json()["message"]


def test_signal_bars_missing_names_setting(known: Settings, pages: TestClient) -> None:
    write(known, 1, symbol="NOBODY")
    answer = pages.get("/signals/1/bars.json")
    assert answer.status_code == 404
    assert "FINAGENT_BARS" in answer.json()["message"]


def test_pages_have_content_security_policy(pages: TestClient) -> None:
    for path in ("/", "/live", "/nowhere", "/static/ui.css", "/api/artifacts"):
        answer = pages.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy


def test_pages_have_no_inline_script_or_style(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    for path in ("/", "/signals/1", "/signals", "/live", "/signals?as_of_to=x"):
        page = pages.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page), path
        for tag in re.findall(r"<script[^>]*>", page):
            assert "src=" in tag or "application/json" in tag, tag
        assert not re.search(r'(src|action)="(https?:)?//', page), path


def test_auth_without_token_admits_this_machine(known: Settings) -> None:
    for caller, base in (("10.0.0.7", HERE), ("127.0.0.1", "http://evil.example")):
        with client(known, caller, base) as pages:
            for path in ("/", "/api/artifacts", "/static/ui.css"):
                answer = pages.get(path)
                assert answer.status_code == 403
                assert "FINAGENT_API_TOKEN" in answer.text


def test_auth_with_token_asks_once(tmp_path: Path) -> None:
    known = settings(tmp_path, FINAGENT_API_TOKEN="open-sesame-0123")
    with client(known, "10.0.0.7", "http://desk.example") as pages:
        ours = {"origin": "http://desk.example", "sec-fetch-site": "same-origin"}
        asked = pages.get("/signals?symbol=A", follow_redirects=False)
        assert asked.headers["location"] == "/login?next=%2Fsignals%3Fsymbol%3DA"
        wrong = pages.post("/login", data={"token": "open"}, headers=ours)
        assert wrong.status_code == 401
        assert "That is not the token" in wrong.text
        data = {"token": "open-sesame-0123", "next": "//evil.example"}
        right = pages.post("/login", data=data, headers=ours, follow_redirects=False)
        assert right.headers["location"] == "/"
        cookie = right.headers["set-cookie"]
        assert "sesame" not in cookie
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert pages.get("/signals").status_code == 200
        assert pages.get("/api/artifacts").status_code == 401, "a cookie is no key to the API"
        pages.post("/logout", headers=ours)
        assert pages.get("/", follow_redirects=False).status_code == 303
        pages.cookies.set("finagent_session", "99999999999.0000")
        assert pages.get("/", follow_redirects=False).status_code == 303


FOREIGN: tuple[dict[str, str], ...] = (
    {},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": HERE, "sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site"},
)


def test_auth_refuses_cross_site_change(pages: TestClient) -> None:
    for path in ("/models/finagent/rollback", "/models/finagent/1/promote", "/approvals/abc"):
        for headers in FOREIGN:
            answer = pages.post(path, headers=headers, data={"by": "me"})
            assert answer.status_code == 403
            assert "from these pages alone" in answer.text


def asked(known: Settings) -> tuple[str, TradingSignal]:
    """A decision that waits for a human."""
    proposed = signal()
    desk = ApprovalStore(known.home / APPROVALS_FILE, notify=lambda line: None)
    rules = ApprovalRules(above_size_percent=5)

    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.require_approvals([decision()], rules, "v", sleep=leave)
    return compute_approval_id(proposed, "v"), proposed


def test_approval_is_settled_from_signal_page(known: Settings, pages: TestClient) -> None:
    key, _ = asked(known)
    assert "1 decision waits for a human" in pages.get("/signals").text
    assert "size 10 % is above 5 %" in pages.get("/live").text
    data = {"by": "Ann", "why": "too soon", "verdict": "reject"}
    answer = pages.post(f"/approvals/{key}", data=data, headers=OURS)
    assert answer.status_code == 200
    assert re.search(r"Ann, [-\d: ]{19}: too soon", answer.text)
    again = pages.post(f"/approvals/{key}", data=data, headers=OURS)
    assert again.status_code == 409
    assert "was rejected by Ann" in again.text
    DecisionStore(Database.from_settings(known)).write(decision(), "r1")
    assert "Approval rejected" in pages.get("/signals/1").text


def test_approval_of_other_version_is_not_shown(known: Settings, pages: TestClient) -> None:
    asked(known)  # in the same conversation, of the same symbol and day
    for uri in ("models:/finagent/2", None):
        DecisionStore(Database.from_settings(known)).write(decision(model_uri=uri), f"r{uri}")
    shown = {
        number: "Approval waits for you" in pages.get(f"/signals/{number}").text
        for number in re.findall(r'"/signals/(\d+)"', pages.get("/signals").text)
    }
    assert sorted(shown.values()) == [False, True]
    assert shown["1"] is False


def test_approval_file_unreadable_is_shown(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    (known.home / APPROVALS_FILE).write_text("no database")
    assert "Whether a decision waits for a human can&#39;t be read" in quoted(
        pages.get("/signals").text
    )
    page = quoted(pages.get("/signals/1").text)
    assert "Whether it waited for an approval can&#39;t be read" in page


def quoted(page: str) -> str:
    return page.replace("'", "&#39;")


def test_approval_needs_its_own_token(tmp_path: Path) -> None:
    known = settings(tmp_path, FINAGENT_APPROVAL_TOKEN="open-sesame-0123")
    key, _ = asked(known)
    with client(known) as pages:
        assert 'name="token" type="password"' in pages.get("/live").text
        data = {"by": "Ann", "verdict": "approve"}
        for token, status in (("", 401), ("open", 401), ("open-sesame-0123", 200)):
            answer = pages.post(f"/approvals/{key}", data=data | {"token": token}, headers=OURS)
            assert answer.status_code == status


def test_approval_form_needs_name_with_verdict(known: Settings, pages: TestClient) -> None:
    key, _ = asked(known)
    for data, said in (
        ({"by": "Ann"}, "approve, reject"),
        ({"verdict": "approve", "by": " "}, "say who settles"),
    ):
        answer = pages.post(f"/approvals/{key}", data=data, headers=OURS)
        assert answer.status_code == 400
        assert said in answer.text


def test_pages_show_signals_without_mlflow(known: Settings, pages: TestClient) -> None:
    write(known, 1, run_id="f" * 32)
    for path in ("/models", "/runs"):
        answer = pages.get(path)
        assert answer.status_code == 503
        assert "set MLFLOW_TRACKING_URI to one" in answer.text
    live = pages.get("/live")
    assert live.status_code == 200
    assert "MLflow can't be read" in live.text
    assert pages.get("/signals/1").status_code == 200
    for part in ("/signals/1/conversation", f"/runs/{'f' * 32}/reliability"):
        answer = pages.get(part, headers={"hx-request": "true"})
        assert answer.status_code in (404, 503)
        assert "<html" not in answer.text


def test_pages_name_newer_database_revision(known: Settings) -> None:
    write(known, 1)
    with Database.from_settings(known).transaction() as connection:
        connection.exec_driver_sql("update finagent_version set version_num = 'r9999'")
    with client(known) as pages:
        answer = pages.get("/signals")
        assert answer.status_code == 503
        assert "r9999" in answer.text
        assert pages.get("/live").status_code == 200


def test_pages_show_no_secret(tmp_path: Path) -> None:
    known = settings(
        tmp_path,
        FINAGENT_APPROVAL_TOKEN="open-sesame-0123",
        FINAGENT_PLATFORM_TOKEN="sesame-2",
        OPENAI_API_KEY="sesame-3",
        FINAGENT_DATABASE="postgresql+psycopg2://me:sesame-4@127.0.0.1:9/db",
    )
    with client(known) as pages:
        for path in ("/", "/live", "/runs", "/nowhere"):
            assert "sesame" not in pages.get(path).text


def test_cli_ui_refuses_other_host_without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINAGENT_API_TOKEN", raising=False)
    done = CliRunner().invoke(commands, ["ui", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "set FINAGENT_API_TOKEN" in done.stderr


def test_messages_from_turns_cost_at_list_price() -> None:
    price = Price(prompt=2.0, completion=10.0, as_of=date(2026, 1, 1))
    costs = [m.cost_usd for m in messages_from_turns(turns(), {"stub-1": price})]
    assert costs == [None, None, 400e-6, None, 600e-6, None, 800e-6]
    assert {m.cost_usd for m in messages_from_turns(turns(), {})} == {None}
    rules = Turn("A", "response", "{}", at(0), model="rules")
    assert messages_from_turns([rules], {})[0].cost_usd == 0


def test_is_process_dead_only_on_this_machine() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = f"{socket.gethostname()}:{os.getpid()}"
    host = here.rpartition(":")[0]
    told = [
        is_process_dead(tag) for tag in (f"{host}:{ended.pid}", here, f"elsewhere:{ended.pid}", "")
    ]
    assert told == [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "gist"),
    [
        ('{"summary": "It rises.", "score": 1}', "It rises."),
        ('{"reasoning": "Both say so.", "summary": "x"}', "Both say so."),
        ('{"summary": 3}', None),
        ("It rises.", None),
        ("{not json", None),
    ],
)
def test_message_summary_of_json_reply(text: str, gist: str | None) -> None:
    assert Message("A", "response", text, len(text)).summary == gist


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            '{"a": [1, 2.5, null], "b": ["x"]}',
            '{\n  "a": [1, 2.5, null],\n  "b": [\n    "x"\n  ]\n}',
        ),
        ('{"a": "[\\n1\\n]"}', '{\n  "a": "[\\n1\\n]"\n}'),
        ("[not json", "[not json"),
        ("It rises.", "It rises."),
    ],
)
def test_format_json_indents_json_only(text: str, shown: str) -> None:
    assert format_json(text) == shown


def test_static_files_have_licences(pages: TestClient) -> None:
    for name in ("ui.css", "ui.js", "theme.js", "charts.js", "icon.svg"):
        assert pages.get(f"/static/{name}").status_code == 200
    assert "Apache License" in pages.get("/static/vendor/lightweight-charts.LICENSE").text
    assert "Zero-Clause BSD" in pages.get("/static/vendor/htmx.LICENSE").text
    assert pages.get("/static/../app.py").status_code == 404


def test_pages_app_serves_api(known: Settings, pages: TestClient) -> None:
    write(known, 1)
    assert pages.get("/api/artifacts?type=signal").json()["total"] == 1
    assert "/api/artifacts" in json.dumps(pages.get("/api/openapi.json").json())
