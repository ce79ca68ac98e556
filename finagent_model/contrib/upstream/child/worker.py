"""The worker: `python -I -B worker.py FOLDER PARENT`, with FOLDER the verified upstream code.

It says once that it is ready, then answers one JSON line by one JSON line until its input ends.
Whatever upstream prints goes to stderr, whatever it reads is empty; what it raises is an answer.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sandbox import forbid, sandbox  # type: ignore[import-not-found]

NETWORK = sandbox(int(sys.argv[2]))  # before numpy starts threads

import asyncio  # noqa: E402
import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any, TextIO  # noqa: E402

import shims  # type: ignore[import-not-found]  # noqa: E402
import ta  # type: ignore[import-untyped]  # noqa: E402, F401 - before files are watched

LIBRARIES = ("numpy", "pandas", "ta")
LONGEST = 300
"""Characters of an error's message."""


def take_over() -> tuple[TextIO, TextIO]:
    """Our input and output, out of upstream's reach: it is left an empty stdin, and stderr."""
    requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def failure(error: BaseException) -> dict[str, str]:
    where = traceback.extract_tb(error.__traceback__)
    last = f"{os.path.basename(where[-1].filename)}:{where[-1].lineno}" if where else ""
    said = " ".join(str(error).split())[:LONGEST]
    return {"type": type(error).__name__, "message": said, "where": last}


def load(folder: str, market: shims.MarketShim) -> Callable[[str], Any]:
    """Upstream's one function that decides."""
    sys.path.insert(0, folder)
    shims.install_shims(market)
    module = importlib.import_module("agents.technical_analysis")
    shims.freeze(market, folder)
    analyse: Callable[[str], Any] = module.run_enhanced_technical_analysis
    return analyse


def main() -> None:
    requests, replies = take_over()

    def say(**line: Any) -> None:
        replies.write(json.dumps(line) + "\n")
        replies.flush()

    market, runner = shims.MarketShim(), asyncio.Runner()
    runner.get_loop()  # which opens a socket pair of its own
    try:
        forbid()
        analyse = load(sys.argv[1], market)
    except BaseException as error:
        say(failed=failure(error))
        return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    say(ready={"python": sys.version.split()[0], **versions}, network=NETWORK)
    for line in requests:
        asked = json.loads(line)
        try:
            market.show(asked["symbol"], asked["clock_day"], asked["bars"])
            say(reply=runner.run(analyse(asked["symbol"])))
        except BaseException as error:
            say(error=failure(error))


main()
