"""The documentation site in a real browser: drawings, search and both themes, without a network."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.places import ROOT
from support.site import build_site

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    # Where `make docs` has just built it, there is nothing left to build.
    folder = ROOT / "out" / "docs"
    done = build_site(folder, ROOT / "out" / "doctrees")
    assert done.returncode == 0, done.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page of the site, which fails where it asks another host."""
    page = browser.new_page()
    foreign: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(address) else foreign.append(r.url))
    yield page
    page.close()
    assert [url for url in foreign if not url.startswith("data:")] == []


def test_site_draws_every_mermaid_drawing(page: Page, address: str) -> None:
    page.goto(f"{address}/docs/model-logic.html")
    drawings = page.locator(".mermaid")
    count = drawings.count()
    assert count >= 7
    # A drawing is made when it comes into view.
    for number in range(count):
        drawings.nth(number).scroll_into_view_if_needed()
        expect(drawings.nth(number).locator("svg").first).to_be_visible(timeout=30_000)
    assert page.get_by_text("Syntax error").count() == 0


def test_site_search_finds_a_page(page: Page, address: str) -> None:
    page.goto(f"{address}/search.html?q=walk-forward")
    expect(page.locator("#search-results li").first).to_be_visible(timeout=30_000)


def test_site_root_leads_to_the_home_page(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    page.wait_for_url("**/docs/index.html")
    expect(page.locator("h1").first).to_contain_text("finagent_model")
