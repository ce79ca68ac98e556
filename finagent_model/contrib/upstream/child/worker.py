"""The worker: `python -I -B worker.py FOLDER PARENT_PID`, with FOLDER the verified upstream code.

It reports once that it is ready, then answers one JSON line by one JSON line until its input ends.
Whatever upstream prints goes to stderr, whatever it reads is empty, what it raises is an answer.
"""

from __future__ import annotations

import os
import sys

# Isolated Python (-I) leaves the script's own folder out of the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sandbox import confine_process, forbid_side_effects  # type: ignore[import-not-found]

NETWORK = confine_process(int(sys.argv[2]))  # before numpy starts threads

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
MAX_MESSAGE_CHARS = 300
"""Characters of an error's message."""


def claim_pipes() -> tuple[TextIO, TextIO]:
    """Return the pipes of requests and replies, out of upstream's reach: it gets an empty stdin,
    and stderr as its stdout.
    """
    requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def describe_error(error: BaseException) -> dict[str, str]:
    """Return type, message and the last file and line of an error, for a reply."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    message = " ".join(str(error).split())[:MAX_MESSAGE_CHARS]
    return {"type": type(error).__name__, "message": message, "where": where}


def load_analysis(folder: str, market: shims.MarketShim) -> Callable[[str], Any]:
    """Import upstream from `folder` and return its one function that decides."""
    sys.path.insert(0, folder)
    shims.install_shims(market)
    module = importlib.import_module("agents.technical_analysis")
    shims.freeze_clocks(market, folder)
    analyse: Callable[[str], Any] = module.run_enhanced_technical_analysis
    return analyse


def main() -> None:
    requests, replies = claim_pipes()

    def send(**line: Any) -> None:
        replies.write(json.dumps(line) + "\n")
        replies.flush()

    market, runner = shims.MarketShim(), asyncio.Runner()
    runner.get_loop()  # which opens a socket pair of its own, forbidden from the next line on
    try:
        forbid_side_effects()
        analyse = load_analysis(sys.argv[1], market)
    except BaseException as error:  # SystemExit too: the parent has to be told
        send(failed=describe_error(error))
        return
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    send(ready={"python": sys.version.split()[0], **versions}, network=NETWORK)
    for line in requests:
        request = json.loads(line)
        try:
            market.set_bars(request["symbol"], request["clock_day"], request["bars"])
            send(reply=runner.run(analyse(request["symbol"])))
        except BaseException as error:
            send(error=describe_error(error))


main()
