"""Signal, reasoning and chart of DAG runs on the platform itself, with its own database and version
of Airflow: `make test-platform` with FINAGENT_PLATFORM_SOURCE. Pictures of its pages are left in
`out/platform`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from support.airflow2 import make_airflow2
from support.places import ACTED_ON, ROOT, Place, free_port
from support.platform_tables import run as run_sql
from support.real_platform import (
    backend,
    copy_platform,
    install_backend,
    make_tables,
    serve_libraries,
)
from support.record_servers import Listening, ObjectStore

pytestmark = pytest.mark.platform
DAG = "finagent_autogen_pipeline"
DAY = ACTED_ON[0]
MOMENT = f"{DAY}T00:00:00+00:00"
PICTURES = ROOT / "out" / "platform"
WIDTHS = (1440, 390)
FAR_TIMEOUT_MS = 60_000
"""Its page of runs asks Airflow several times before it shows anything."""


@dataclass(frozen=True)
class Shown:
    """The platform, where a DAG run has just decided."""

    address: str
    url: str
    place: Place
    folder: Path

    def get(self, path: str, **params: str) -> Any:
        found = httpx.get(f"{self.address}/api/{path}", params=params, timeout=60)
        assert found.status_code == 200, found.text
        return found.json()

    def rows(self, **params: str) -> dict[str, dict[str, Any]]:
        """Artifacts by their step."""
        return {row["step_name"]: row for row in self.get("artifacts/", **params)["artifacts"]}


@pytest.fixture(scope="module")
def shown(
    trained: Place,
    postgres: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shown]:
    platform = copy_platform(tmp_path_factory.mktemp("platform"))
    url = postgres()
    make_tables(platform, url)
    run_sql(url, "insert into workflow_executions (status) values ('running')")
    airflow = make_airflow2(tmp_path_factory.mktemp("airflow2"), trained)
    auth = {"AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth"}
    person = ["-u", "airflow", "-p", "airflow", "-e", "a@example.org", "-f", "A", "-l", "B"]
    conf = json.dumps({"symbols": ["FB"], "platform_execution_id": 1})
    ours = {"FINAGENT_DATABASE": url, "FINAGENT_DAG_EXECUTION_ID": "logical_date"}
    for command in (
        ["db", "migrate"],
        ["users", "create", "-r", "Admin", *person],
        ["dags", "reserialize"],
        ["dags", "test", DAG, DAY, "--conf", conf],
    ):
        done = airflow.run("airflow", *command, **auth, **ours)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    ports = {"airflow-webserver": free_port(), "mlflow-server": free_port()}
    web = [airflow.program("airflow"), "webserver", "--workers", "1"]
    web += ["--port", str(ports["airflow-webserver"]), "--hostname", "127.0.0.1"]
    mlflow = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(ports["mlflow-server"])]
    mlflow += ["--backend-store-uri", trained.env["MLFLOW_TRACKING_URI"], "--workers", "1"]
    mlflow += ["--allowed-hosts", "mlflow-server:5500,127.0.0.1:*"]
    objects_folder = tmp_path_factory.mktemp("objects")
    with ExitStack() as stack:
        objects = ObjectStore(objects_folder)
        servers = [
            objects,
            Listening(
                web,
                airflow.folder,
                {**trained.env, **airflow.variables, **auth},
                f"http://127.0.0.1:{ports['airflow-webserver']}/health",
            ),
            Listening(
                mlflow,
                trained.folder,
                trained.env,
                f"http://127.0.0.1:{ports['mlflow-server']}/health",
            ),
        ]
        for server in servers:
            stack.callback(server.kill)
            server.start()
        objects.wait_for_room()
        served = backend(platform, install_backend(platform), url, objects, ports)
        yield Shown(stack.enter_context(served), url, trained, platform)


def test_platform_api_shows_signal_reasoning_and_chart(shown: Shown) -> None:
    rows = shown.rows(execution_id=MOMENT)
    signal, chart = rows.pop("99_signal"), rows.pop("00_chart")
    decided = shown.place.signal("FB", "--as-of", DAY, "--mode", "replay")
    assert signal["action"] == decided["action"] != "HOLD"
    assert signal["signal_data"]["reasoning"] == decided["reasoning"]
    assert signal["signal_data"]["entry_price"] == decided["suggested_entry_price"]
    assert [row["type"] for row in rows.values()] == ["llm"] * 3
    assert rows["03_Executor"]["signal_data"]["reasoning"] == decided["reasoning"]
    # What it makes of the signal for a chart, if the signal is the newest row.
    analysis = shown.get(f"artifacts/{chart['id']}")["metadata"]["llm_analysis"]
    assert analysis["reasoning_snippet"] == decided["reasoning"][:200]
    assert len(shown.get(f"artifacts/{chart['id']}/market-data")["data"]) == 50
    for _ in range(2):  # drawn, then from its object store
        image = httpx.get(f"{shown.address}/api/artifacts/{chart['id']}/image", timeout=120)
        assert (image.status_code, image.headers["content-type"]) == (200, "image/jpeg")
        assert image.content.startswith(b"\xff\xd8")


def test_platform_tables_have_the_conversation_and_the_decision(shown: Shown) -> None:
    import psycopg2

    with psycopg2.connect(shown.url.replace("+psycopg2", "")) as db, db.cursor() as cursor:
        cursor.execute("select workflow_execution_id, agent_name from agent_conversations")
        messages = cursor.fetchall()
        cursor.execute("select symbol, status from finagent_decisions")
        decisions = cursor.fetchall()
    assert {number for number, _ in messages} == {1}
    assert {"desk", "TechnicalAnalyst", "RiskManager", "Executor"} <= {name for _, name in messages}
    assert decisions == [("FB", "ok")]


def test_platform_takes_what_is_sent_to_it(shown: Shown, tmp_path: Path) -> None:
    sent = {
        "FINAGENT_PLATFORM_URL": shown.address,
        "FINAGENT_DATABASE": f"sqlite:///{tmp_path}/own.db",
    }
    done = shown.place.finagent("predict", "FB", "--as-of", ACTED_ON[1], "--log", **sent)
    assert done.returncode == 0, done.stderr
    status = shown.place.finagent("outbox", "status", "--json", **sent)
    assert json.loads(status.stdout)["waiting"] == 0, status.stdout
    rows = [row for row in shown.get("artifacts/")["artifacts"] if ACTED_ON[1] in row["name"]]
    assert sorted(row["type"] for row in rows) == ["chart", "llm", "llm", "llm", "signal"]
    [chart] = [row["id"] for row in rows if row["type"] == "chart"]
    image = httpx.get(f"{shown.address}/api/artifacts/{chart}/image", timeout=120)
    assert image.content.startswith(b"\xff\xd8")


@pytest.mark.filterwarnings("ignore")  # playwright's own
def test_platform_pages_show_the_run(shown: Shown) -> None:
    rows = shown.rows(execution_id=MOMENT)
    signal, chart = rows["99_signal"], rows["00_chart"]
    reasoning = signal["signal_data"]["reasoning"]
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "install chromium: the platform's pages are opened in a real browser"
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width in WIDTHS:
            context = browser.new_context(viewport={"width": width, "height": 900})
            context.set_default_timeout(FAR_TIMEOUT_MS)
            serve_libraries(context, shown.folder / f"libraries-{width}", shown.address)
            page = context.new_page()

            def picture(
                name: str, page: Page = page, width: int = width, whole: bool = True
            ) -> None:
                page.screenshot(path=PICTURES / f"{name}-{width}.png", full_page=whole)

            page.goto(f"{shown.address}/artifacts")
            page.get_by_text("List", exact=True).click()  # of the groups only the newest is open
            named = page.get_by_text(f"FB {DAY} signal").locator("visible=true")
            expect(named.first).to_be_visible()
            picture("artifacts")
            page.goto(f"{shown.address}/artifacts/{signal['id']}")
            expect(page.get_by_text(signal["action"], exact=True)).to_be_visible()
            expect(page.locator("pre", has_text=reasoning).first).to_be_visible()
            picture("signal")
            page.goto(f"{shown.address}/artifacts/{chart['id']}")
            drawn = page.locator(f"img[alt='{chart['name']}']")
            drawn.scroll_into_view_if_needed()
            page.wait_for_function("image => image.naturalWidth > 1000", arg=drawn.element_handle())
            page.get_by_text("Refresh").first.click()
            expect(page.get_by_text("Showing 50 bars")).to_be_visible()
            picture("chart")
            page.goto(f"{shown.address}/airflow")
            runs = page.locator("tbody").first
            runs.locator("tr", has_text=DAY).locator("button").first.click()
            card = page.locator("div.cursor-pointer", has_text=f"FB {DAY} Executor").first
            card.scroll_into_view_if_needed()
            expect(card.get_by_text(signal["action"], exact=True)).to_be_visible()
            expect(card.get_by_text(reasoning)).to_be_visible()
            # A window over the page, which scrolls by itself.
            picture("run", whole=False)
            page.goto(f"{shown.address}/mlflow")
            expect(page.get_by_text("MLflow Connected")).to_be_visible()
            expect(page.get_by_text("finagent", exact=True).first).to_be_visible()
            picture("mlflow")
            context.close()
        browser.close()
