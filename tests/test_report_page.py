"""The report of a training, opened in a real browser without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Place
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.slow


@pytest.mark.browser
def test_the_page_says_the_verdict_first_draws_everything_and_fetches_nothing(
    trained: Place, tmp_path: Path
) -> None:
    page_file = next(trained.folder.rglob("report.html"))
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser_path, "install chromium: the report is tested in a real browser"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1150, "height": 900}, offline=True)
        asked: list[str] = []
        troubles: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        heading = page.inner_text("h1")
        drawn = page.locator(".plotly-graph-div").count()
        checks = page.locator("table").first.inner_text()
        first = page.locator("p.lead").first.inner_text()
        bars = page.locator(".barlayer .point").count()
        width = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert heading.startswith("NO evidence of an edge")
    assert first.startswith("FB: the desk ")
    assert drawn == 3  # no confidence: FB has too few outcomes to calibrate it
    assert bars > 5, "the distribution under chance is empty"
    for name in ("replay_equal", "features_causal", "better_than_buy_and_hold"):
        assert name in checks
    assert width <= 1150, "the page is wider than the window"
    assert asked == [page_file.as_uri()]
    assert troubles == []


def test_verify_passes_on_the_champion_and_fails_on_a_changed_package(
    trained: Place, tmp_path: Path
) -> None:
    done = trained.finagent("verify", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    names = [check["name"] for check in found["checks"]]
    assert names == [
        "package_hashes",
        "news_dated",
        "replay_equal",
        "features_causal",
        "questions_causal",
        "fills_possible",
        "survives_delay",
        "memory_dated",
        "clock_free",
        "learned_again",
    ]
    copy = tmp_path / "changed"
    model = next(trained.folder.rglob("MLmodel")).parent
    shutil.copytree(model, copy)
    [policy] = copy.rglob("policy.json")
    policy.write_text(policy.read_text().replace("0.", "0.0", 1))
    done = trained.finagent("verify", str(copy), "--json")
    assert done.returncode == 5, done.stderr
    [check] = json.loads(done.stdout)["checks"]
    assert (check["name"], check["passed"]) == ("package_hashes", False)
    assert "policy.json" in check["found"]
