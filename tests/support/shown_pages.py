"""Run the commands of a documentation page and compare their output with the page.

A page shows commands in ```console blocks: a line that begins with `$ ` is a command, `> ` goes on
with it, and the lines below are its output. In the output a line `...` stands for any lines, `...`
within a line for any text. A block after the comment `<!-- file: NAME -->` is a file, which is
written before the next command runs. A command may fail only where the page then shows
`$ echo $?` with its exit code.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.command_forks import RUNNING, Fork, shared_forks
from support.places import Place, free_port

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n+)?```(?P<kind>[\w-]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
GAP = "..."
MAY_BE_LONGER = ("finagent predict",)
_SHELL = re.compile(r"[|<>&;$`*]")


@dataclass(frozen=True)
class PageFile:
    """A file that the page asks its reader to write."""

    name: str
    text: str


@dataclass(frozen=True)
class ShownCommand:
    """A command of the page and the output that the page shows for it."""

    command: str
    shown: tuple[str, ...]

    def block(self, shown: tuple[str, ...] | None = None) -> str:
        """Return the lines of the page: the command, and its output or another one."""
        head = "$ " + self.command.replace("\n", "\n> ")
        return "\n".join((head, *(self.shown if shown is None else shown))) + "\n"


def read_steps(page: str) -> Iterator[PageFile | ShownCommand]:
    """Yield the files and commands of a page in their order."""
    for block in _BLOCK.finditer(page):
        if block["file"]:
            yield PageFile(block["file"], block["text"])
        elif block["kind"] == "console":
            yield from _read_console(block["text"])


def _read_console(text: str) -> Iterator[ShownCommand]:
    command: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield ShownCommand("\n".join(command), tuple(shown))
            command, shown = [line[2:]], []
        elif line.startswith("> ") and not shown:
            command.append(line[2:])
        else:
            assert command, f"output before the first command: {line!r}"
            shown.append(line)
    if command:
        yield ShownCommand("\n".join(command), tuple(shown))


def output_lines(output: str) -> list[str]:
    """Return the lines of a command's output without blank ones and progress bars."""
    lines = [line.rstrip() for line in output.splitlines()]
    return [line for line in lines if line and "━" not in line]


def output_difference(step: ShownCommand, output: str) -> str | None:
    """Return what is wrong with the shown output; None where `output` matches it."""
    lines = output_lines(output)
    shown = [line.rstrip() for line in step.shown if line.strip()]
    # Facts are added to it now and then; what a page shows of them must be there, in its order.
    may_be_longer = step.command.startswith(MAY_BE_LONGER)
    position, is_gap = 0, False
    for line in shown:
        if line.strip() == GAP:
            is_gap = True
            continue
        is_gap = is_gap or may_be_longer
        stop = len(lines) if is_gap else min(position + 1, len(lines))
        found = next((i for i in range(position, stop) if _matches(line, lines[i])), None)
        if found is None:
            return f"the page shows what is not in the output: {line!r}"
        position, is_gap = found + 1, False
    if shown and position < len(lines) and not (is_gap or may_be_longer):
        return f"the page does not show {lines[position]!r}"
    return None


def _matches(shown: str, line: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in shown.split(GAP))
    return re.fullmatch(pattern, line) is not None


def refresh(step: ShownCommand, output: str) -> tuple[str, ...]:
    """Return the shown lines with each that is no longer true replaced by the most similar one."""
    lines = output_lines(output)
    if not step.shown:
        return tuple(line.rstrip() for line in output.splitlines() if "━" not in line)
    refreshed = []
    for line in step.shown:
        is_true = not line.strip() or any(_matches(line.rstrip(), real) for real in lines)
        if line.strip() == GAP or is_true:
            refreshed.append(line)
        else:
            refreshed += difflib.get_close_matches(line, lines, n=1, cutoff=0.5) or [line]
    return tuple(refreshed)


@dataclass
class PageRunner:
    """A shell for one page: its folder, exported variables, and jobs in the background.

    Commands and scripts are forks of a process that has imported everything, which saves the
    seconds of each one's imports.
    """

    place: Place
    """Whose store the page's commands use."""
    folder: Path
    """Where they run."""
    variables: dict[str, str] = field(default_factory=dict)
    code: int = 0
    """Exit code of the last command."""
    outputs: dict[str, str] = field(default_factory=dict)
    """What each command of the page printed when it was run first."""
    _jobs: list[_Job] = field(default_factory=list)
    _ports: dict[str, str] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def run_page(self, path: Path, refreshes: bool = False) -> int:
        """Run every step of a page and return how many commands there were.

        `refreshes` writes what is no longer true again instead of failing.
        """
        page = path.read_text()
        steps, count = list(read_steps(page)), 0
        try:
            for step, follower in itertools.zip_longest(steps, steps[1:]):
                if isinstance(step, PageFile):
                    self.write(step)
                    continue
                count += 1
                output = self.run_command(step.command)
                self.outputs.setdefault(step.command, output)
                is_told = isinstance(follower, ShownCommand) and follower.command == "echo $?"
                assert self.code == 0 or is_told, f"$ {step.command}\n{output}"
                problem = output_difference(step, output)
                if problem and refreshes:
                    page = page.replace(step.block(), step.block(refresh(step, output)), 1)
                    problem = None
                assert problem is None, f"$ {step.command}\n{problem}\n--- output\n{output}"
        finally:
            self.stop()
        if refreshes:
            path.write_text(page)
        return count

    def write(self, file: PageFile) -> None:
        """Write a file of the page into its folder."""
        target = self.folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.text)

    def run_command(self, command: str) -> str:
        """Run a command of the page; return its output, and set `code`."""
        if command == "echo $?":
            code, self.code = self.code, 0
            return str(code)
        self.code = 0
        # Ids differ from run to run; the page writes ID and RUN_ID for what it has just shown.
        for name, value in self._ids.items():
            command = re.sub(rf"\b{name}\b", value, command)
        for shown, port in self._ports.items():
            command = command.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
        output = self._dispatch(command, _split(command))
        for name, digits in (("ID", "12,16"), ("RUN_ID", "32")):
            if found := re.findall(rf"\b[0-9a-f]{{{digits}}}\b", output):
                self._ids[name] = found[0]
        for shown, port in self._ports.items():
            output = output.replace(f"127.0.0.1:{port}", f"127.0.0.1:{shown}")
        return output

    def stop(self) -> None:
        """End what runs in the background."""
        for job in self._jobs:
            if job.is_running:
                with suppress(ProcessLookupError):  # it ended, or has not begun, just now
                    os.killpg(job.fork.pid, signal.SIGTERM)
            job.fork.wait(60)
        self._jobs.clear()

    def _dispatch(self, command: str, words: list[str]) -> str:
        if words[:1] == ["export"]:
            self.variables |= dict(word.split("=", 1) for word in words[1:])
            return ""
        if words[:1] == ["kill"]:
            self.stop()
            return ""
        if words == ["wait"]:
            job = self._jobs.pop()
            self.code = job.fork.wait(120).code
            return job.new_output()
        if words[-1:] == ["&"]:
            return self._start_job(words[:-1])
        if words[:1] == ["curl"]:
            return self._curl(command)
        given: dict[str, str] = {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            given[name] = value
        extra = {**self._store(), **self.variables, **given}
        first, operator, rest = _read_line(command)
        if words[:1] == ["finagent"] and not _SHELL.search(first):
            done = Place(self.folder).finagent(*_split(first)[1:], **extra)
            self.code = done.returncode
            if operator == ">":
                (self.folder / rest).write_text(done.stdout)
                return done.stderr
            if operator == "|" and self.code == 0:
                return done.stderr + self._filter(rest, done.stdout)
        elif words[:1] == ["python"] and words[1:] and (self.folder / words[1]).is_file():
            script = (self.folder / words[1]).read_text()
            done = Place(self.folder).python(script, *words[2:], **extra)
        else:
            done = self.place.run(
                "bash", "-c", command, cwd=self.folder, **self._store(), **self.variables
            )
        self.code = done.returncode
        return done.stderr + done.stdout

    def _filter(self, command: str, text: str) -> str:
        """Return what a command of the shell makes of `text`."""
        done = subprocess.run(
            ["bash", "-c", command],
            input=text,
            capture_output=True,
            text=True,
            env=self.place.env,
            check=True,
        )
        return done.stdout

    def _store(self) -> dict[str, str]:
        """Return the variables that name the place's store, wherever the command runs."""
        return {name: self.place.env[name] for name in ("FINAGENT_HOME", "MLFLOW_TRACKING_URI")}

    def _start_job(self, words: list[str]) -> str:
        is_server = words[1] in SERVER_PORTS
        if is_server:
            # The page's port may be another program's on this machine.
            self._ports[SERVER_PORTS[words[1]]] = port = str(free_port())
            words = [*words, "--port", port]
        extra = {**self._store(), **self.variables}
        job = _Job(shared_forks().start(Place(self.folder), *words[1:], **extra))
        self._jobs.append(job)
        for _ in range(480):
            assert job.is_running, job.new_output()
            if job.has_output and (not is_server or _answers(port)):
                return job.new_output()
            time.sleep(0.25)
        raise AssertionError(f"{shlex.join(words)} did not start: {job.new_output()}")

    def _curl(self, command: str) -> str:
        """Send the request of a curl command; what follows a `|` gets the answer."""
        import httpx

        words = _split(command.partition(" | ")[0])
        options = dict(itertools.pairwise(words))
        [url] = [word for word in words if word.startswith("http://")]
        headers = [words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H"]
        method = options.get("-X", "POST" if "-d" in options else "GET")
        with httpx.Client(trust_env=False, timeout=120) as client:
            answer = client.request(method, url, content=options.get("-d"), headers=dict(headers))
        return self._filter(command.partition(" | ")[2] or "cat", answer.text)


SERVER_PORTS = {"serve": "5001", "ui": "5002"}
"""Port that each command listens on where none is named."""


@dataclass
class _Job:
    fork: Fork
    _seen: dict[Path, int] = field(default_factory=dict)
    """Characters of its two files that the page has seen."""

    @property
    def is_running(self) -> bool:
        return self.fork.state()["state"] == RUNNING

    @property
    def has_output(self) -> bool:
        return any(file.stat().st_size for file in (self.fork.err, self.fork.out))

    def new_output(self) -> str:
        """Return what it has written since the last call, errors first."""
        new = ""
        for file in (self.fork.err, self.fork.out):
            text = file.read_text()
            new += text[self._seen.get(file, 0) :]
            self._seen[file] = len(text)
        return new


def _read_line(command: str) -> tuple[str, str, str]:
    """Return a command, `|` or `>` or nothing, and the filter or file that it names."""
    found = re.fullmatch(r"(.*?)(?: (\||>) (.*))?", command, re.DOTALL)
    assert found is not None  # the first group matches all
    return found[1], found[2] or "", found[3] or ""


def _answers(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []  # a script of the shell
