"""The report of a training, opened in a real browser without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import Orders
from finagent_model.backtesting.metrics import summarise
from finagent_model.config.rules import GateRules
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.evaluation.evidence import grade_evidence
from finagent_model.evaluation.gate import GateReport
from finagent_model.evaluation.out_of_sample import collect_symbol_facts, trade
from finagent_model.policy.trained_state import Calibration
from finagent_model.reports.report import render_report_page
from finagent_model.reports.tearsheet import SymbolPage, fold_spans
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import Trials
from finagent_model.training.walk_forward import fit_policies, out_of_sample_part
from support.places import Place

pytestmark = pytest.mark.slow
SMALL_GOOG = TrainRequest(train_bars=250, test_bars=60, candidates=24)


@pytest.mark.browser
def test_report_page_is_complete_offline(trained: Place, tmp_path: Path) -> None:
    page_file = next(trained.folder.rglob("report.html"))
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser_path, "install chromium: the report is tested in a real browser"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1150, "height": 900}, offline=True)
        requests: list[str] = []
        troubles: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector("[data-state=drawn]")
        heading = page.inner_text("h1")
        drawn = [chart.get_attribute("data-drawn") for chart in page.locator("[data-chart]").all()]
        checks = page.locator("table.checks").inner_text()
        folds = page.locator("table.folds tr").count()
        trades = page.locator("table.trades tbody tr").count()
        months = page.locator("table.months tbody tr").count()
        first = page.locator("p.lead").first.inner_text()
        bars = page.locator("svg .column").count()
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        title, language = page.title(), page.evaluate("document.documentElement.lang")
        widths = []
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            widths.append(page.evaluate("document.documentElement.scrollWidth"))
        page.wait_for_timeout(300)
        shown = [chart.get_attribute("data-shown") for chart in page.locator("[data-chart]").all()]
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert heading.startswith("NO evidence of an edge")
    assert first.startswith("FB: the desk ")
    assert drawn == ["71", "71"], "equity and prices, with every out-of-sample day"
    assert all(int(count or 0) >= 70 for count in shown), "a narrow window cuts days off"
    assert folds == 1 + 3, "a heading, and a row a fold"
    assert trades >= 1
    assert months == 2, "2012 and 2013"
    assert bars == 40, "the distribution under chance is empty"
    for name in ("replay_equal", "features_causal", "better_than_buy_and_hold"):
        assert name in checks
    assert widths == [1440, 390], "the page is wider than the window"
    assert title.startswith("finagent, run ")
    assert language == "en"
    assert page_file.stat().st_size < 500_000
    assert loaded < 5000, "milliseconds, also on a machine under load"
    assert requests == [page_file.as_uri()]
    assert troubles == []


@pytest.mark.filterwarnings("ignore")  # playwright's own
def test_report_page_draws_calibrated_beside_raw_confidence(tmp_path: Path) -> None:
    page_file = tmp_path / "report.html"
    page_file.write_text(calibrated_page())
    with sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(offline=True)
        page.goto(page_file.as_uri())
        page.wait_for_selector("[data-state=drawn]")
        drawn = {chart.get_attribute("data-drawn") for chart in page.locator("[data-chart]").all()}
        plot = page.locator("svg[aria-label^=Reliability]")
        points = plot.locator("circle").count()
        counts = page.locator("table.reliability tbody td:nth-child(3)").all_text_contents()
        text = page.inner_text("body")
        browser.close()
    assert points >= 8, "a point for each tenth of the scale, before and after"
    assert sum(int(count) for count in counts) == 100, "each call is in one row"
    assert len(drawn) == 2, "equity and prices have every day, rolling ratios those after a window"
    assert "Of 100 calls made with a calibrated confidence" in text
    assert "Confidence is calibrated by Platt scaling" in text


def calibrated_page() -> str:
    """Of a crossover on GOOG, whose confidence is made up."""
    bars = BundledBars().bars("GOOG")[:700]
    policies = fit_policies({"GOOG": bars}, SMALL_GOOG).policies
    part = bars[out_of_sample_part(bars, policies)]
    none = np.full(len(part), np.nan)
    actions = Crossover(10, 30).crossings(part.close)
    result = trade(part, Orders(actions, np.ones(len(part)), none, none), SMALL_GOOG)
    rng = np.random.default_rng(4)
    raw, said = rng.uniform(0.3, 0.95, 100), rng.uniform(0.4, 0.6, 100)
    true = (rng.random(100) < said).astype(float)
    confidence = ConfidenceRecord(
        raw=raw,
        calibrated=said,
        learned=said,
        climatology=np.full(100, 0.5),
        outcome=true,
        weight=np.ones(100),
        day=np.arange(100),
    )
    facts = collect_symbol_facts(result, 1)
    tried = Trials(configurations=24, scorings=48, sharpe_variance=1e-4, overfitting=0.4)
    evidence = grade_evidence([facts], tried, GateRules(), confidence, seed=1)
    gate = GateReport(integrity=(), evidence=evidence, required="none")
    metrics = summarise(result.result) | {
        f"benchmark_{name}": value for name, value in summarise(result.benchmark).items()
    }
    last = Calibration(
        method="platt",
        valid_from=part.close_time(-1),
        calls=200,
        effective=130,
        reason="200 outcomes known, worth 130 independent ones",
        base_rate=0.5,
        slope=0.2,
        intercept=0.1,
    )
    page = SymbolPage(part, fold_spans(part, policies), facts, result.result.trades, metrics)
    return render_report_page("a test", [page], gate, "rules", confidence, last)


def test_verify_fails_on_changed_package(trained: Place, tmp_path: Path) -> None:
    done = trained.finagent("verify", "--deep", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    names = [check["name"] for check in report["checks"]]
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
        "accounted_again",
        "exits_in_range",
        "equity_adds_up",
        "outcomes_again",
        "news_before_fill",
        "learned_again",
        "data_by_hash",
        "evidence_again",
        "fitted_again",
        "training_causal",
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
