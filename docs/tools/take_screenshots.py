"""Take the pictures of docs/img/ from the real product: `make screenshots`.

A model is trained in an empty place and asked about some days; then `finagent ui`, MLflow's server and
Airflow's are started one after the other and looked at by headless Chromium, in light and dark.
`ui`, `mlflow` or `airflow` as an argument takes that part alone. SCREENSHOTS_PLACE names a folder in
which a model was trained before.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "img"
BIN = Path(sys.executable).parent
DAYS = ("2012-06-29", "2012-10-26", "2012-11-13", "2013-01-31", "2012-08-15")
"""Days that are asked about; the last one is a BUY, whose page is shown."""
WIDTH, HEIGHT = 1280, 900
THEMES = ("light", "dark")
MAX_BYTES = 250_000
START_S = 180.0
DAG = "finagent_autogen_pipeline"


@dataclass(frozen=True)
class Place:
    """An empty folder in which the product runs."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of every command."""
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("FINAGENT_", "AIRFLOW", "MLFLOW"))
        }
        return {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            "FINAGENT_HOME": str(self.folder / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-a-picture-" * 3,
        }

    def run(self, *command: str) -> None:
        """Run a command to its end. Raises CalledProcessError."""
        subprocess.run(command, cwd=self.folder, env=self.env, check=True)

    @contextmanager
    def serving(self, *command: str, port: int, path: str = "/") -> Iterator[str]:
        """Run a server for the time of the block, and yield its address."""
        log = (self.folder / f"server-{port}.log").open("w")
        server = subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{address}{path}")
            yield address
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            server.wait(30)
            log.close()


def wait_for(url: str) -> None:
    """Wait until `url` answers. Raises TimeoutError."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.5)
    raise TimeoutError(f"{url} does not answer within {START_S:g} s")


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def page_of(browser: Browser, theme: str) -> Iterator[Page]:
    """Open an empty page in a theme, for the time of the block."""
    size = {"width": WIDTH, "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme=theme)  # type: ignore[arg-type]
    try:
        context.set_default_timeout(60_000)
        yield context.new_page()
    finally:
        context.close()


def save(page: Page, name: str, theme: str) -> None:
    """Write the page as a WebP picture, below `MAX_BYTES`."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        page.screenshot(path=str(shot), animations="disabled")
        picture = Image.open(shot).convert("RGB")
        target = FOLDER / f"{name}-{theme}.webp"
        for quality in (90, 80, 70, 60, 50):
            picture.save(target, "WEBP", quality=quality, method=6)
            if target.stat().st_size < MAX_BYTES:
                break
    sys.stdout.write(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes\n")
    sys.stdout.flush()


def open_drawn(page: Page, url: str) -> None:
    """Open a page of `finagent ui` and wait until its charts are drawn."""
    page.goto(url, wait_until="networkidle")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every("
        "chart => ['drawn', 'failed'].includes(chart.dataset.state))"
    )


def take_ui(place: Place, browser: Browser) -> None:
    """Take the pages of `finagent ui`, and the report of the training."""
    port = free_port()
    command = (str(BIN / "finagent"), "ui", "--port", str(port))
    with place.serving(*command, port=port, path="/ping") as address:
        for theme in THEMES:
            with page_of(browser, theme) as page:
                number = newest_signal(page, address)
                page.goto(f"{address}/models/finagent/1")
                report = page.locator("a[href$='/files/report.html']").first.get_attribute("href")
                for name, path, height in (
                    ("overview", "/", 900),
                    ("signal", f"/signals/{number}", 1290),
                    ("models", "/models", 400),
                    ("version", "/models/finagent/1", 1000),
                    ("report", report, 900),
                ):
                    page.set_viewport_size({"width": WIDTH, "height": height})
                    open_drawn(page, f"{address}{path}")
                    save(page, name, theme)


def newest_signal(page: Page, address: str) -> str:
    """Return the id of the signal that was stored last."""
    rows = page.request.get(f"{address}/api/artifacts?type=signal&limit=1").json()
    return str(rows["artifacts"][0]["id"])


def take_mlflow(place: Place, browser: Browser) -> None:
    """Take the page of the training's run in MLflow."""
    port = free_port()
    store = place.env["MLFLOW_TRACKING_URI"]
    command = (str(BIN / "mlflow"), "server", "--backend-store-uri", store, "--port", str(port))
    with place.serving(*command, port=port, path="/health") as address:
        for theme in THEMES:
            with page_of(browser, theme) as page:
                found = page.request.post(
                    f"{address}/api/2.0/mlflow/runs/search",
                    data={
                        "experiment_ids": ["1"],
                        "filter": "tags.`finagent.stage` = 'train'",
                        "max_results": 1,
                    },
                ).json()
                info = found["runs"][0]["info"]
                dark = "true" if theme == "dark" else "false"
                page.add_init_script(
                    f"localStorage.setItem('_mlflow_dark_mode_toggle_enabled', '{dark}');"
                    # Else the assistant opens by itself and takes a third of the page.
                    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
                )
                page.goto(
                    f"{address}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}",
                    wait_until="networkidle",
                )
                page.get_by_text("backtest GOOG").first.wait_for()
                save(page, "mlflow-run", theme)


def take_airflow(place: Place, browser: Browser) -> None:
    """Take the graph of a DAG run in Airflow."""
    airflow = str(BIN / "airflow")
    place.run(airflow, "db", "migrate")
    place.run(airflow, "dags", "reserialize")
    place.run(airflow, "dags", "test", DAG, "--conf", '{"as_of": "2012-08-15"}')
    port = free_port()
    command = (airflow, "api-server", "--port", str(port), "--workers", "1")
    with place.serving(*command, port=port, path="/api/v2/version") as address:
        for theme in THEMES:
            with page_of(browser, theme) as page:
                page.set_viewport_size({"width": WIDTH, "height": 500})
                page.add_init_script(f"localStorage.setItem('theme', {theme!r})")
                page.goto(address, wait_until="networkidle")
                runs = page.evaluate(
                    f"fetch('/api/v2/dags/{DAG}/dagRuns?order_by=-run_after&limit=1').then(r => r.json())"
                )
                run = runs["dag_runs"][0]["dag_run_id"]
                page.add_init_script("localStorage.setItem('default_dag_view', '\"graph\"')")
                page.goto(f"{address}/dags/{DAG}/runs/{run}", wait_until="networkidle")
                page.locator(".react-flow__node").first.wait_for()
                page.add_style_tag(content=".react-flow__minimap { display: none }")
                page.get_by_label("Collapse Details Panel").click()
                page.get_by_label("Expand all task groups").click()
                page.wait_for_timeout(3000)  # the graph moves into place
                page.locator(".react-flow__controls-fitview").click()
                page.wait_for_timeout(2000)
                save(page, "airflow-dag", theme)


PARTS = {"ui": take_ui, "mlflow": take_mlflow, "airflow": take_airflow}


def main(arguments: list[str]) -> None:
    """Train in an empty place and take the parts that are named, by default all."""
    unknown = [name for name in arguments if name not in PARTS]
    if unknown:
        raise SystemExit(f"unknown part {unknown[0]!r}; there is: {', '.join(PARTS)}")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("install chromium: the pictures are taken by a real browser")
    FOLDER.mkdir(exist_ok=True)
    kept = os.environ.get("SCREENSHOTS_PLACE")
    with tempfile.TemporaryDirectory(prefix="screenshots") as folder:
        place = Place(Path(kept or folder))
        if not (place.folder / "mlflow.db").is_file():
            finagent = str(BIN / "finagent")
            place.run(finagent, "train")
            for day in DAYS:
                place.run(finagent, "predict", "GOOG", "--as-of", day, "--log")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name in arguments or PARTS:
                PARTS[name](place, browser)
            browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
