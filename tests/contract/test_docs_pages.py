"""The tutorial, the tasks and the signal's page: every command is run, every shown output compared.

`FINAGENT_REFRESH_PAGES=1` writes the present output into the pages where a shown line is no longer
true; read the difference before you commit it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from finagent_model.cli import app
from finagent_model.data.bundled import BundledBars
from finagent_model.decision.signal import Status, signal_columns
from finagent_model.reports.signal_summary import HEADLINES
from support.fake_llm import FakeProvider, Protocol
from support.fake_platform import PlatformDouble
from support.fake_yahoo import chart
from support.fake_yahoo import serving as yahoo_serving
from support.places import ROOT, Place
from support.shown_pages import (
    PageFile,
    PageRunner,
    ShownCommand,
    output_difference,
    read_steps,
    refresh,
)

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "start" / "tutorial.md"
README = ROOT / "README.md"
PAGES = sorted(
    path
    for folder in ("start", "concepts", "howto")
    for path in (DOCS / folder).glob("*.md")
    if path != TUTORIAL and "```console" in path.read_text()
)
REFRESHES = bool(os.environ.get("FINAGENT_REFRESH_PAGES"))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> PageRunner:
    """Return the shell in which the tutorial was followed: version 1 on GOOG is champion."""
    place = Place(tmp_path_factory.mktemp("demo"))
    runner = PageRunner(place, place.folder)
    runner.run_page(TUTORIAL, REFRESHES)
    return runner


@pytest.fixture(scope="module")
def demo(tutorial: PageRunner) -> Place:
    return tutorial.place


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, str]]:
    """Yield the variables by which the clients find doubles of their providers."""
    with FakeProvider() as llm:
        yield {
            "OPENAI_API_KEY": "sk-of-a-local-double",
            "AZURE_OPENAI_API_KEY": "key-of-a-local-double",
            "ANTHROPIC_API_KEY": "key-of-a-local-double",
            "OPENAI_BASE_URL": llm.address(Protocol.OPENAI),
            "AZURE_OPENAI_ENDPOINT": llm.address(Protocol.AZURE),
            "ANTHROPIC_BASE_URL": llm.address(Protocol.ANTHROPIC),
            "OLLAMA_HOST": llm.address(Protocol.OLLAMA),
        }


@pytest.mark.slow
def test_tutorial_shows_what_its_commands_print(demo: Place) -> None:
    """The fixture follows it; here: what it quotes from the report is in the report."""
    page = TUTORIAL.read_text()
    blocks = "\n".join(
        "\n".join(step.shown) for step in read_steps(page) if isinstance(step, ShownCommand)
    )
    quotes = re.findall(r'^\*\*"(.+?)[.]*"\*\*', page, flags=re.MULTILINE)
    assert len(quotes) >= 5
    assert [quote for quote in quotes if quote not in blocks] == []
    answer = (DOCS / "faq.md").read_text().split("**Does it make money?**")[1].split("\n\n")[0]
    assert len(numbers := re.findall(r"\+[\d.]+(?= %)", answer)) == 2
    assert [number for number in numbers if f"({number}%)" not in blocks] == []


def test_readme_shows_the_first_lines_of_the_report() -> None:
    """The tutorial's training has the same options, and is run."""
    [shown] = re.findall(r"```text\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert f"...\n{shown}" in TUTORIAL.read_text()


@pytest.mark.slow
def test_readme_shows_what_the_same_commands_of_the_tutorial_print(tutorial: PageRunner) -> None:
    commands = [step for step in read_steps(README.read_text()) if isinstance(step, ShownCommand)]
    assert len(commands) >= 2
    if REFRESHES:
        page = README.read_text()
        for step in commands:
            shown = refresh(step, tutorial.outputs[step.command])
            page = page.replace(step.block(), step.block(shown), 1)
        README.write_text(page)
        return
    problems = [output_difference(step, tutorial.outputs[step.command]) for step in commands]
    assert [problem for problem in problems if problem] == []


def bash_commands(page: str) -> list[str]:
    """Return the `finagent` lines of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("finagent ")]


@pytest.mark.slow
def test_commands_of_readme_run_in_order(tutorial: PageRunner, tmp_path: Path) -> None:
    """Those that the tutorial has as well were run there, on the same store."""
    lines = bash_commands(README.read_text())
    assert len(lines) >= 4
    runner = PageRunner(tutorial.place, tmp_path)
    for line in lines:
        if line not in tutorial.outputs:
            output = runner.run_command(line)
            assert runner.code == 0, f"{line}\n{output}"
    assert (tmp_path / "audit.jsonl").read_text()


@pytest.mark.slow
def test_commands_about_lineage_print_a_tree_as_shown(demo: Place, tmp_path: Path) -> None:
    page = (DOCS / "lineage.md").read_text()
    runner = PageRunner(demo, tmp_path)
    outputs = [runner.run_command(line) for line in bash_commands(page)]
    [signal] = re.findall(r"`finagent lineage ([0-9a-f]{16})`", outputs[0])
    [shown] = re.findall(r"```\n(signal .*?)```", page, flags=re.DOTALL)
    assert shape(shown) == shape(runner.run_command(f"finagent lineage {signal}"))
    assert runner.code == 0


def shape(tree: str) -> list[str]:
    """Return a lineage without what differs between trainings; a tarball has no commit."""
    differing = r"[0-9a-f]{12,}|\d{4}-\d\d-\d\d \d\d:\d\d UTC|BUY|SELL|HOLD"
    lines = re.sub(differing, "…", tree).splitlines()
    return [line for line in lines if " commit " not in line]


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_shows_what_its_commands_print(
    page: Path, demo: Place, providers: dict[str, str], tmp_path: Path
) -> None:
    runner = PageRunner(demo, tmp_path, dict(providers))
    assert runner.run_page(page, REFRESHES) > 0


def test_signals_page_explains_every_field_status_and_headline() -> None:
    page = (DOCS / "concepts" / "signal.md").read_text()
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    fields = [column.name for column in signal_columns()]
    assert [name for name in fields if f"`{name}`" not in prose] == ["symbol"]
    table = page.split("## Status")[1].split("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(named) == sorted(status.value for status in Status)
    table = page.split("## May I act on it?")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)) == sorted(
        HEADLINES.values()
    )


def bash_block(page: str) -> list[str]:
    """Return the lines of the bash block of a page of docs/howto."""
    [block] = re.findall(r"```bash\n(.*?)```", (DOCS / "howto" / page).read_text(), re.DOTALL)
    return [line for line in block.splitlines() if not line.startswith("export ")]


@pytest.mark.slow
def test_commands_that_send_to_a_platform_reach_a_stand_in(demo: Place, tmp_path: Path) -> None:
    # A database of its own: what was stored there before is not queued again.
    given = {"MLFLOW_TRACKING_URI": demo.env["MLFLOW_TRACKING_URI"]}
    with PlatformDouble().up() as platform:
        given |= {"FINAGENT_PLATFORM_URL": platform.url, "FINAGENT_PLATFORM_TOKEN": "a-token"}
        for line in bash_block("platform.md"):
            done = Place(tmp_path).finagent(*shlex.split(line)[1:], **given)
            assert done.returncode == 0, done.stderr
    assert platform.tokens == {"Bearer a-token"}
    sent = [row for row in platform.rows if row["type"] == "signal"]
    assert [(row["symbol"], row["action"]) for row in sent] == [("GOOG", "BUY")]


ASKS_LOCAL_YAHOO = """
import sys
from curl_cffi import CurlOpt
from finagent_model.cli.__main__ import app
from finagent_model.data._yfinance import YFinanceBars
from support.fake_yahoo import LATER

original = YFinanceBars.__init__

def with_socket(self, folder, clock, **options):
    curl = {CurlOpt.UNIX_SOCKET_PATH: sys.argv[1]}
    original(self, folder, lambda: LATER, **options, verify=False, curl_options=curl)

YFinanceBars.__init__ = with_socket
app(sys.argv[2:])
"""
"""`finagent`, with Yahoo behind a socket file."""


@pytest.mark.slow
def test_commands_about_yahoo_run_with_a_stand_in(tmp_path: Path) -> None:
    """The training is a short one, and today is the last day of the bundled bars."""
    lines = [line for line in bash_block("yahoo.md") if line.startswith("finagent ")]
    assert len(lines) == 3
    short = ["--train-bars", "1500", "--test-bars", "300", "--candidates", "8", "--schedule", "60"]
    place = Place(tmp_path)
    with yahoo_serving(tmp_path) as yahoo:
        for symbol in ("GOOG", "MSFT"):
            yahoo.says(symbol, chart(BundledBars().bars(symbol)))
        for line in lines:
            words = shlex.split(line.replace("$(date -u +%F)", "2013-03-01"))[1:]
            words += short if words[0] == "train" else []
            done = place.python(
                ASKS_LOCAL_YAHOO, str(yahoo.socket), *words, FINAGENT_BARS="yfinance"
            )
            assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("GOOG as of 2013-03-01: ")


def bash_lines() -> list[str]:
    """Return the `finagent` commands of bash blocks, most of which need a vendor or much time."""
    texts = [
        path.read_text() for folder in ("start", "howto") for path in (DOCS / folder).glob("*")
    ]
    blocks = [b for text in texts for b in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(?:\w+=\S+ )*finagent ", line)]


@pytest.mark.parametrize("line", bash_lines())
def test_command_of_a_bash_block_has_its_arguments(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("finagent") + 1 :]
    command = get_command(app)
    context = command.context_class(command, info_name="finagent")
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
    command.make_context(line, words, parent=context)


def test_pages_name_only_variables_that_are_read() -> None:
    """`_FILE` is the suffix by which any secret can come from a file."""
    known = (ROOT / "env.example").read_text()
    folders = ("start", "howto", "concepts")
    pages = [path.read_text() for folder in folders for path in (DOCS / folder).glob("*.md")]
    named = {name for page in pages for name in re.findall(r"\bFINAGENT_[A-Z_]+\b", page)}
    unknown = sorted(n for n in named if f"\n{n.removesuffix('_FILE')}=" not in known)
    assert unknown == []


def test_every_link_and_anchor_leads_somewhere() -> None:
    pages = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    anchors = {path.resolve(): anchors_of(path.read_text()) for path in pages}
    wrong = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page.resolve()
            if not file.exists() or (anchor and anchor not in anchors.get(file, {anchor})):
                wrong.append(f"{page.relative_to(DOCS)}: {target}")
    assert wrong == []


def anchors_of(page: str) -> set[str]:
    """Return the anchors that GitHub and MyST make of a page's headings."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_console_blocks_are_read_as_commands_with_output() -> None:
    text = (
        "<!-- file: a.txt -->\n```\nhello\n```\n\n"
        "```console\n$ cat \\\n>  a.txt\nhello\n$ true\n```\n"
    )
    assert list(read_steps(text)) == [
        PageFile("a.txt", "hello\n"),
        ShownCommand("cat \\\n a.txt", ("hello",)),
        ShownCommand("true", ()),
    ]


@pytest.mark.parametrize(
    ("shown", "is_true"),
    [
        (("one", "two", "three"), True),
        (("one", "three"), False),
        (("one", "..."), True),
        (("...", "three"), True),
        (("one", "...", "three"), True),
        (("one", "t...o", "three"), True),
        (("one", "two"), False),
        (("...", "four"), False),
        ((), True),
    ],
)
def test_output_difference_allows_gaps_only_where_shown(
    shown: tuple[str, ...], is_true: bool
) -> None:
    difference = output_difference(ShownCommand("cat", shown), "one\n\ntwo\n━━ 3/3\nthree\n")
    assert (difference is None) == is_true


def test_refresh_replaces_only_lines_that_are_no_longer_true() -> None:
    step = ShownCommand("finagent train", ("earned +1.5%", "...", "run ..."))
    assert refresh(step, "earned +1.7%\nmore\nrun 12ab\n") == ("earned +1.7%", "...", "run ...")
