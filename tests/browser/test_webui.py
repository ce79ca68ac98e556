"""The pages in a real browser: in both themes, narrow, by keyboard, without scripts."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from support.places import ACTED_ON, TESTS, Place, free_port

pytestmark = pytest.mark.browser

HURTING = (
    "<script>window.hurt=1</script>",
    '"><img src=x onerror="window.hurt=1">',
    "javascript:window.hurt=1",
    "</pre></details><svg onload=window.hurt=1>",
    "{{ 7 * 7 }} </script><script>window.hurt=1</script>",
)
AS_OF = ACTED_ON[0]
DONE_BEFORE = f"""
import json
from finagent_model.cli import app
from typer.testing import CliRunner
from finagent_model.tracking import registry
from finagent_model.pipeline.infer import infer
from finagent_model.config.rules import ApprovalRules
from finagent_model.model.loading import load_predictor
from finagent_model.model.questions import Question
from finagent_model.market.bars import parse_as_of
from finagent_model.decision.decision import Decision, Turn
from finagent_model.decision.decision import Execution
from finagent_model.approvals import APPROVALS_FILE, ApprovalStore
from finagent_model.settings import Settings
from finagent_model.store.database import Database
from finagent_model.store.decisions import DecisionStore
from finagent_model.tracking.runs import STAGE, open_run
from finagent_model.pipeline.ablation import ablate

settings, hurting = Settings.load(), {HURTING!r}
model = "models:/finagent@champion"
question = Question("FB", parse_as_of("{AS_OF}"))
execution = Execution(execution_id="e1")
done = infer(load_predictor(model), question, model, execution=execution)
ablated = ablate("models:/finagent/1", (), settings)
first = registry.find_version("finagent", "1")
tags = {{registry.VERDICT: "refused", registry.EVIDENCE: "none"}}
from mlflow.tracking import MlflowClient
source = MlflowClient().get_model_version("finagent", "1").source
registry.create_version("finagent", source, first.run_id, tags)

text = " ".join(hurting)
signal = done.signal.model_copy(update={{"reasoning": text, "key_factors": hurting,
    "clamps": hurting, "warnings": hurting, "conversation_id": "hostile", "model_uri": None}})
turns = [Turn("desk", "request", text, signal.as_of)]
turns += [Turn("NewsAnalyst", "response", said, signal.as_of, 1, 1) for said in
    (text, json.dumps({{"summary": text}}))]
hostile = Decision(signal, tuple(turns))
store = DecisionStore(Database.from_settings(settings))
store.write(hostile, "hostile", Execution(execution_id=text))

class Left(Exception):
    pass
def leave(seconds):
    raise Left
try:
    ApprovalStore(settings.home / APPROVALS_FILE).require_approvals([Decision(done.signal)],
        ApprovalRules(above_size_percent=0, timeout_s=3600), "v", sleep=leave)
except Left:
    pass
at_work = open_run("train AAPL IBM", {{STAGE: "train", "finagent.process": "here:1"}})
at_work.log(params={{"symbols": "AAPL,IBM"}})
decided = {{STAGE: "backtest", "finagent.symbol": "AAPL"}}
open_run("backtest AAPL", decided, parent=at_work.run_id).end("FINISHED")

# A second training whose desk earned a little more, held where the first one bought, and saw less.
from pathlib import Path
import pyarrow as pa
from finagent_model.decision.decision import from_ledger_row, read_ledger, write_ledger
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.tracking.queries import find_finished_children, read_run
from finagent_model.tracking.runs import RunLog
[tested] = find_finished_children(read_run(first.run_id), "backtest")
kept = RunLog(tested.run_id)
other = open_run("train FB differently", {{STAGE: "train"}})
other.log(params={{"symbols": "FB"}}, metrics={{"total_return": 0.1}})
twin = open_run("backtest FB", {{STAGE: "backtest", "finagent.symbol": "FB"}}, parent=other.run_id)
facts = SymbolFacts.model_validate_json(kept.read_artifact("facts.json"))
better = tuple(value + 0.003 for value in facts.returns)
twin.log_text("facts.json", facts.model_copy(update={{"returns": better}}).model_dump_json())
made = [from_ledger_row(row)
    for row in read_ledger(pa.BufferReader(kept.read_artifact("ledger.parquet")))]
held = dict.fromkeys(("suggested_entry_price", "suggested_stop_loss", "suggested_take_profit"))
folder = Path("twin"); folder.mkdir()
write_ledger([each.model_copy(update={{"action": "HOLD", **held}}) for each in made],
    folder / "ledger.parquet")
twin.log_files(folder)
said = kept.read_artifact("autogen_conversation.jsonl").decode()
twin.log_text("autogen_conversation.jsonl", said.replace("bullish", "bearish"))
twin.log_text("closed_calls.jsonl", "")
for run in (twin, other):
    run.end("FINISHED")
registry.create_version("finagent", source, other.run_id, tags)
acted = next(each.as_of for each in made if each.action == "BUY")
print(json.dumps({{"trained": first.run_id, "ablated": ablated.run_id, "other": other.run_id,
    "decision": f"/runs/{{tested.run_id}}/decision?as_of={{acted:%Y-%m-%dT%H:%M:%S.%fZ}}"}}))
"""
REFRESHED_MS = 6000
"""After this long a page has asked for what is new."""
SIGNAL_LINKS = "tbody th a[href^='/signals']"


@dataclass
class Desk:
    """The pages at `address`, and what is in them."""

    address: str
    trained: str
    ablated: str
    other: str
    """A training of another desk on the same days."""
    decision: str
    """Path of a decision of the first training."""
    browser: Browser

    @property
    def paths(self) -> tuple[str, ...]:
        return (
            "/",
            "/signals",
            "/signals?group=execution",
            "/signals?symbol=NOBODY",
            "/signals?show=waiting",
            "/signals/1",
            "/live",
            "/models",
            "/models?name=nobody",
            "/models/finagent/1",
            "/runs",
            "/signals/1/conversation",
            f"/runs/{self.trained}/reliability",
            f"/runs/{self.trained}",
            f"/runs/{self.ablated}",
            f"/runs/compare?run={self.trained}&run={self.ablated}",
            f"/runs/compare?run={self.trained}&run={self.other}",
            self.decision,
            "/models/finagent/3",
            "/nowhere",
        )

    @contextmanager
    def page(self, **options: object) -> Iterator[Watched]:
        context = self.browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        try:
            yield Watched(self.address, context, context.new_page())
        finally:
            context.close()


@dataclass
class Watched:
    """A page whose complaints are heard."""

    address: str
    context: BrowserContext
    page: Page
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda m: self._hear(m.type, m.text))
        self.page.on("request", lambda r: self._look(r.url))
        self.page.on("dialog", lambda dialog: self.troubles.append(f"dialog {dialog.message}"))

    def open(self, path: str) -> Page:
        """Once all that it draws is drawn."""
        self.page.goto(self.address + path)
        for chart in self.page.locator("[data-chart]").all():
            expect(chart).to_have_attribute("data-state", re.compile("drawn|failed"))
        expect(self.page.locator("[hx-trigger=load] > p:first-child > a")).to_have_count(0)
        return self.page

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "status of 404" not in text:
            self.troubles.append(text)

    def _look(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.troubles.append(f"asked elsewhere: {url}")


@pytest.fixture(scope="module")
def desk(trained: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A small training, a decision on hostile news, an ablation, a second version, and a hostile
    signal; served as a user would.
    """
    place = Place(tmp_path_factory.mktemp("ui"))
    shutil.copy(trained.folder / "mlflow.db", place.folder)
    news = place.folder / "news.jsonl"
    news.write_text("".join(json.dumps(item) + "\n" for item in hostile_news()))
    done = place.python(DONE_BEFORE, FINAGENT_NEWS=str(news))
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout.splitlines()[-1])
    port = free_port()
    command = (sys.executable, "-m", "finagent_model.cli", "ui", "--port", str(port))
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "install chromium: the pages are tested in a real browser"
    with place.serving(*command, port=port) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield Desk(address=address, browser=browser, **ids)
        browser.close()


def hostile_news() -> Iterator[dict[str, str]]:
    lines = (TESTS / "support" / "hostile_news.jsonl").read_text().splitlines()
    known = [(row.get("headline"), row.get("body")) for row in map(json.loads, lines)]
    texts = [pair for pair in known if all(isinstance(text, str) for text in pair)]
    for headline, body in [*texts, *((text, text) for text in HURTING)]:
        stamp = {"symbol": "FB", "published_at": f"{AS_OF}T12:00:00+00:00"}
        yield {**stamp, "headline": headline, "body": body}


BY_COLOUR = ["color-contrast", "link-in-text-block"]
"""Rules of axe whose result a theme can change."""


def violations(page: Page, rules: list[str] | None = None) -> list[tuple[str, str]]:
    """What axe finds wrong, by all of its rules or by some."""
    # It is in no frame of the page, and would wait for an answer from each.
    options: dict[str, object] = {"resultTypes": ["violations"], "iframes": False}
    if rules is not None:
        options["runOnly"] = {"type": "rule", "values": rules}
    found = Axe().run(page, options=options).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found]


def test_browser_pages_are_accessible(desk: Desk) -> None:
    with desk.page(color_scheme="light", viewport={"width": 1280, "height": 900}) as watched:
        for path in desk.paths:
            page = watched.open(path)
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            assert violations(page) == [], path
            page.emulate_media(color_scheme="dark")
            assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
            assert violations(page, BY_COLOUR) == [], f"{path}, dark"
            page.emulate_media(color_scheme="light")
            assert watched.troubles == [], path


COLOURS = """chart => Math.max(...[...chart.querySelectorAll("canvas")].map(canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}))"""
"""How many a canvas of the chart has at most; one that is blank has one."""


def test_browser_walk_from_list_to_version(desk: Desk) -> None:
    with desk.page(viewport={"width": 1280, "height": 900}) as watched:
        page = watched.open("/signals?execution_id=e1")
        page.get_by_role("link", name=re.compile(f"FB {AS_OF}")).click()
        chart = page.locator("[data-chart=prices]")
        expect(chart).to_have_attribute("data-state", "drawn")
        assert chart.evaluate(COLOURS) > 5
        assert chart.get_attribute("data-later") == "0"
        height = chart.bounding_box()
        expect(page.locator("#hindsight")).to_be_hidden()
        page.get_by_role("button", name="What happened next").click()
        expect(page.locator("#hindsight")).to_be_visible()
        assert int(chart.get_attribute("data-later") or 0) > 10
        after = chart.bounding_box()
        assert height and after and height["height"] == after["height"], "the page jumped"
        expect(page.locator(".lazy")).to_contain_text("Calibration in force")

        strip = page.locator(".strip")
        expect(strip).to_contain_text("Waits for approval")
        expect(strip).to_contain_text("no evidence of an edge")
        expect(strip).to_contain_text(f"last bar {AS_OF}")
        thread = page.locator("#thread")
        expect(thread.locator(".badge", has_text="question")).to_have_count(0)
        page.get_by_role("link", name="Whole record from the run").click()
        expect(thread.locator(".badge", has_text="question")).to_have_count(1)
        for agent in ("TechnicalAnalyst", "NewsAnalyst", "RiskManager", "Executor"):
            expect(thread).to_contain_text(agent)

        page.get_by_role("link", name="models:/finagent/1").click()
        expect(page.locator("[data-chart=curves]")).to_have_attribute("data-state", "drawn")
        report = page.frame_locator("iframe.report")
        page.locator("iframe.report").scroll_into_view_if_needed()
        expect(report.locator("h1")).to_contain_text("NO evidence of an edge")
        expect(report.locator("[data-state=drawn]").first).to_be_visible()

        page.get_by_role("link", name="All versions, promote, roll back").click()
        page.get_by_text("Promote version 2").click()
        form = page.locator("details[open]")
        form.get_by_label("against the gate's verdict").check()
        form.get_by_label("Your name", exact=True).fill("Ann")
        form.get_by_label("Why").fill("to see it work")
        form.get_by_role("button", name="Make version 2 champion").click()
        expect(
            page.get_by_role("status").filter(has_text="Version 2 is champion now")
        ).to_be_visible()
        said = "by Ann, against the gate: to see it work"
        expect(page.locator("table")).to_contain_text(said)
        page.locator("summary", has_text="Roll back").click()
        page.locator("details[open]").get_by_label("Your name", exact=True).fill("Ann")
        page.get_by_role("button", name="Roll back to version 1").click()
        expect(
            page.get_by_role("status").filter(has_text="Version 1 is champion now")
        ).to_be_visible()
        assert watched.troubles == []


@pytest.mark.parametrize("width", [1440, 390])
def test_browser_curves_have_every_unseen_day(desk: Desk, width: int) -> None:
    with desk.page(viewport={"width": width, "height": 900}) as watched:
        page = watched.open("/models/finagent/1")
        chart = page.locator("[data-chart=curves]")
        assert chart.get_attribute("data-drawn") == "71"
        assert int(chart.get_attribute("data-shown") or 0) >= 70
        line = chart.locator(".readout")
        expect(line).to_contain_text("desk")
        last = line.inner_text()
        box = chart.bounding_box()
        assert box
        page.mouse.move(box["x"] + 30, box["y"] + 120)
        expect(line).not_to_have_text(last)
        page.get_by_role("button", name="Log scale").click()
        expect(chart).to_have_attribute("data-drawn", "71")
        after = chart.bounding_box()
        assert after
        assert after["height"] == box["height"], "the page jumped"
        with page.expect_download() as got:
            page.get_by_role("link", name="Returns as CSV").click()
        assert len(got.value.path().read_text().splitlines()) == 1 + 70
        assert watched.troubles == []


def test_browser_overview_leads_to_what_it_names(desk: Desk) -> None:
    with desk.page(viewport={"width": 390, "height": 800}) as watched:
        page = watched.open("/")
        expect(page.locator("main")).to_contain_text("1 of 2 symbols decided")
        expect(page.get_by_role("link", name="Look and settle")).to_be_visible()
        page.locator("table.watch").get_by_role("link", name="FB").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("FB")
        page = watched.open("/")
        page.get_by_role("link", name=re.compile("finagent version")).click()
        expect(page.locator("ul.tiles li")).to_have_count(6)
        expect(page.locator("p.lead")).to_contain_text("The gate let it pass")
        assert watched.troubles == []


def test_browser_version_is_compared_with_champion(desk: Desk) -> None:
    with desk.page() as watched:
        page = watched.open("/models/finagent/2")
        page.get_by_role("link", name="Compare with the champion").click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert watched.troubles == []


def test_browser_comparison_leads_to_decisions_that_differ(desk: Desk) -> None:
    with desk.page(viewport={"width": 1280, "height": 900}) as watched:
        page = watched.open("/models/finagent/3")
        beside = page.get_by_role("region", name="Compared with the champion, version 1")
        expect(beside.locator(".badge", has_text="better").first).to_be_visible()
        beside.get_by_role("link", name="Days that differ").click()
        chart = page.locator("[data-chart=curves]")
        expect(chart).to_have_attribute("data-state", "drawn")
        assert chart.get_attribute("data-drawn") == "70"
        different = page.get_by_role("region", name="Days on which they decided differently")
        expect(different).to_contain_text("decisions that both made differ")
        expect(page.get_by_role("region", name="Agents")).to_contain_text("Executor")
        different.get_by_role("link", name="BUY").first.click()
        expect(page.locator("[data-chart=prices]")).to_have_attribute("data-state", "drawn")
        expect(page.locator("table.agents")).to_contain_text("Executor")
        assert watched.troubles == []


SHIFTED = """() => new Promise((resolve) => {
    let shift = 0;
    const add = (entries) => {
        for (const each of entries) if (!each.hadRecentInput) shift += each.value;
    };
    const observer = new PerformanceObserver((list) => add(list.getEntries()));
    observer.observe({ type: "layout-shift", buffered: true });
    // What still may move the page: the load itself, fonts, charts and parts that are fetched.
    const settled = () => document.readyState === "complete" && document.fonts.status === "loaded"
        && [...document.querySelectorAll("[data-chart]")].every(
            (chart) => ["drawn", "failed"].includes(chart.dataset.state))
        && !document.querySelector(".htmx-request, [hx-trigger=load] > p:first-child > a");
    const idle = () => new Promise((done) => requestIdleCallback(done, { timeout: 500 }));
    const frames = (count) => new Promise((done) => {
        const next = (left) => left ? requestAnimationFrame(() => next(left - 1)) : done();
        next(count);
    });
    (async () => {
        // Quiet over some frames: an entry is delivered only after the frame that shows the shift,
        // and each one that comes starts the count again.
        let seen, quiet = 0;
        while (quiet < 3) {
            seen = shift;
            await frames(2);
            await idle();
            add(observer.takeRecords());
            quiet = settled() && shift === seen ? quiet + 1 : 0;
        }
        resolve(shift);
    })();
})"""
"""Cumulative layout shift of the page, once it is settled and several frames moved nothing."""


@pytest.mark.parametrize("width", [1440, 390])
def test_browser_pages_do_not_jump_while_they_load(desk: Desk, width: int) -> None:
    with desk.page(viewport={"width": width, "height": 900}) as watched:
        jumped = {}
        for path in desk.paths:
            page = watched.open(path)
            shift = page.evaluate(SHIFTED)
            if shift >= 0.01:
                jumped[path] = round(shift, 4)
            assert page.evaluate("document.documentElement.scrollWidth") == width, path
            if width == 390:
                page.set_viewport_size({"width": 360, "height": 740})
                assert page.evaluate("document.documentElement.scrollWidth") == 360, path
                page.set_viewport_size({"width": width, "height": 900})
        assert jumped == {}


def test_browser_jump_of_a_page_is_measured(desk: Desk) -> None:
    with desk.page(viewport={"width": 390, "height": 900}) as watched:
        page = watched.open("/signals")
        page.evaluate("document.querySelector('main').style.paddingTop = '120px'")
        assert page.evaluate(SHIFTED) >= 0.01


def test_browser_jump_that_a_late_chart_causes_is_measured(desk: Desk) -> None:
    with desk.page(viewport={"width": 390, "height": 900}) as watched:
        page = watched.open("/signals")
        page.evaluate(
            """() => {
                const chart = document.createElement("div");
                chart.dataset.chart = "late";
                document.querySelector("main").append(chart);
                setTimeout(() => {
                    document.querySelector("main").style.paddingTop = "120px";
                    chart.dataset.state = "drawn";
                }, 400);
            }"""
        )
        assert page.evaluate(SHIFTED) >= 0.01


@pytest.mark.parametrize("width", [1440, 390])
def test_browser_marker_of_decision_is_inside_its_chart(desk: Desk, width: int) -> None:
    with desk.page(viewport={"width": width, "height": 900}) as watched:
        page = watched.open(desk.decision)
        chart = page.locator("[data-chart=prices]")
        expect(chart).to_have_attribute("data-beside", re.compile(r"^([7-9]\d|\d{3})$"))


def test_browser_shows_hostile_text_as_text(desk: Desk) -> None:
    with desk.page() as watched:
        page = watched.open("/signals")
        listed = [a.get_attribute("href") for a in page.locator(SIGNAL_LINKS).all()]
        assert len(listed) == 2
        for path in ["/", "/signals", "/signals?group=execution", *listed, "/live"]:
            page = watched.open(str(path))
            if (whole := page.get_by_role("link", name="Whole record from the run")).count():
                with page.expect_response("**/conversation"):
                    whole.click()
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            page.wait_for_timeout(100)
            assert page.evaluate("window.hurt") is None, path
            assert page.locator("img, svg[onload]").count() == 0, path
        hostile = watched.open(str(listed[0])).locator("main").inner_text()
        for text in HURTING:
            assert text in hostile
        assert "49 " not in hostile, "a template was filled in"
        assert watched.troubles == []


def test_browser_pages_work_by_keyboard(desk: Desk) -> None:
    with desk.page(viewport={"width": 1280, "height": 900}) as watched:
        page = watched.open("/signals")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Look and settle")).to_be_focused()
        page.get_by_label("Symbol", exact=True).focus()
        page.keyboard.type("nobody")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_contain_text("No signal matches")
        assert "symbol=nobody" in page.url
        page.go_back()
        link = page.get_by_role("link", name=re.compile(f"FB {AS_OF}")).first
        link.focus()
        outline = link.evaluate("a => getComputedStyle(a).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("FB")
        theme = page.get_by_role("button", name="Dark")
        theme.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark", "forgotten"
        page = watched.open("/models")
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator("details[open] input").first).to_be_focused()


def test_browser_approval_is_decided_on_phone(desk: Desk) -> None:
    with desk.page(viewport={"width": 390, "height": 844}, has_touch=True) as watched:
        page = watched.open("/signals?show=waiting")
        card = page.locator(".card.waiting")
        expect(card.locator(".strip")).to_contain_text("Waits for approval")
        card.get_by_role("link", name=re.compile(AS_OF)).click()
        expect(page.locator("[data-chart=prices]")).to_have_attribute("data-state", "drawn")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        expect(page.locator(".strip")).to_contain_text("of equity lost at the stop")
        for name in ("Approve", "Reject"):
            box = page.get_by_role("button", name=name).bounding_box()
            assert box and box["height"] >= 48 and box["width"] >= 120, name
        counted = page.locator("[data-deadline]")
        before = counted.inner_text()
        expect(counted).not_to_have_text(before, timeout=5000)
        assert re.fullmatch(r"\d+ min \d+ s left", counted.inner_text())
        expect(page.get_by_role("button", name="What happened next")).to_have_count(0)
        page.get_by_role("button", name="Approve").click()
        # Without a name the browser asks for one, and nothing is sent.
        assert page.url.endswith(page.locator("form.settle").get_attribute("action") or "?")
        assert violations(page) == []
        assert watched.troubles == []


def test_browser_failed_decision_is_found_with_its_neighbours(desk: Desk) -> None:
    with desk.page(viewport={"width": 1280, "height": 900}) as watched:
        page = watched.open("/signals")
        page.get_by_role("link", name="Failed", exact=True).click()
        expect(page.locator("#found")).to_contain_text("No signal matches")
        page.get_by_role("link", name="All", exact=True).click()
        expect(page.locator("tbody tr")).to_have_count(2)
        page.get_by_role("link", name="As of").click()
        expect(page.locator("th[aria-sort=ascending]")).to_contain_text("As of")
        page.locator("tbody th a").first.click()
        page.get_by_role("link", name="Next", exact=True).click()
        expect(page.get_by_role("link", name="Previous", exact=True)).to_be_visible()
        assert "sort=as_of" in page.url
        page.get_by_role("link", name="All signals").click()
        expect(page.locator("th[aria-sort=ascending]")).to_contain_text("As of")
        page.get_by_label("Search").fill("Combined score")
        page.keyboard.press("Enter")
        expect(page.locator("#told")).to_have_text("1 signal found")
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        assert download.value.suggested_filename == "signals.csv"
        # Enter sends the form as its field changes: htmx says that the first of both is dropped.
        assert [t for t in watched.troubles if not t.startswith("htmx:")] == []


def test_browser_live_refresh_keeps_typing(desk: Desk) -> None:
    with desk.page() as watched:
        watched.page.clock.install()
        page = watched.open("/live")
        expect(page.locator("#now")).to_contain_text("train AAPL IBM")
        expect(page.locator("#now")).to_contain_text("1 of 2 symbols decided")
        assert page.title().startswith("(1) ")
        page.get_by_text("Approve or reject").click()
        page.get_by_label("Your name", exact=True).fill("Ann")
        with page.expect_response("**/live/now"):
            page.clock.fast_forward(REFRESHED_MS)
        page.wait_for_timeout(200)
        assert page.get_by_label("Your name", exact=True).input_value() == "Ann"
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_role("status").filter(has_text="Rejected by Ann")).to_be_visible()
        expect(page.locator("form.settle")).to_have_count(0)
        page.get_by_role("link", name="All approvals").click()
        expect(page.locator("#now")).to_contain_text("rejected")
        assert not page.title().startswith("(")
        assert watched.troubles == []


def test_browser_live_refresh_keeps_focus(desk: Desk) -> None:
    with desk.page() as watched:
        watched.page.clock.install()
        page = watched.open("/live")
        summary = page.locator("#now summary, #now a").first
        summary.focus()
        before = page.locator("#now > p").first.inner_text()
        page.wait_for_timeout(1000)  # the page shows its time in whole seconds
        page.clock.fast_forward(REFRESHED_MS)
        expect(page.locator("#now > p").first).not_to_have_text(before)
        expect(summary).to_be_focused()

        bad = {"status": 502, "body": "<html><h1>Bad Gateway</h1></html>"}
        page.route("**/live/now", lambda route: route.fulfill(**bad))
        page.clock.fast_forward(REFRESHED_MS)
        expect(page.locator("#lost")).to_be_visible()
        expect(page.locator("#now")).to_contain_text("train AAPL IBM")
        expect(page.locator("body")).not_to_contain_text("Bad Gateway")
        page.unroute("**/live/now")
        page.clock.fast_forward(REFRESHED_MS)
        expect(page.locator("#lost")).to_be_hidden()
        assert [t for t in watched.troubles if "502" not in t] == []


def test_browser_failed_later_bars_keep_chart(desk: Desk) -> None:
    with desk.page() as watched:
        page = watched.open("/signals")
        page = watched.open(str(page.locator("th a[href^='/signals']").last.get_attribute("href")))
        told = {"status": 400, "json": {"message": "FINAGENT_BARS is unknown"}}
        page.route("**/bars.json?later=1", lambda route: route.fulfill(**told))
        button = page.get_by_role("button", name="What happened next")
        button.click()
        expect(page.locator("#hindsight")).to_have_text("FINAGENT_BARS is unknown")
        expect(button).to_have_attribute("aria-pressed", "false")
        chart = page.locator("[data-chart=prices]")
        expect(chart).to_have_attribute("data-state", "drawn")
        assert chart.evaluate(COLOURS) > 5
        page.unroute("**/bars.json?later=1")
        button.click()
        expect(page.locator("#hindsight")).to_contain_text("Pale bars came after")
        expect(button).to_have_attribute("aria-pressed", "true")


def test_browser_filter_result_is_announced(desk: Desk) -> None:
    with desk.page() as watched:
        page = watched.open("/signals")
        told = page.locator("#told")
        expect(told).to_have_text("2 signals found")
        told.evaluate("told => { told.dataset.same = 'yes' }")
        page.get_by_text("More filters").click()
        page.get_by_label("Execution", exact=True).fill("e1")
        page.keyboard.press("Enter")
        expect(told).to_have_text("1 signal found")
        expect(told).to_have_attribute("data-same", "yes")


def test_browser_lost_record_keeps_conversation(desk: Desk) -> None:
    with desk.page() as watched:
        page = watched.open("/signals")
        page = watched.open(str(page.locator(SIGNAL_LINKS).first.get_attribute("href")))
        page.get_by_role("link", name="Whole record from the run").click()
        thread = page.locator("#thread")
        expect(thread).to_contain_text("The whole record can't be read")
        expect(thread).to_contain_text("NewsAnalyst")


def test_browser_pages_work_without_scripts(desk: Desk) -> None:
    with desk.page(java_script_enabled=False) as watched:
        page = watched.page
        page.goto(f"{desk.address}/signals")
        page.get_by_label("Symbol", exact=True).fill("FB")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name=re.compile(f"FB {AS_OF}")).last.click()
        expect(page.locator("main")).to_contain_text("Target")
        expect(page.locator("[data-chart]")).to_contain_text("Drawn by a script")
