"""No clock decides: a planted one is found wherever it is, and what only stamps is let be."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.evaluation.probes import clocks_read

STAMP = """
from datetime import UTC, datetime

def utc_now():
    return datetime.now(UTC)
"""


def planted(folder: Path, name: str, source: str) -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return clocks_read(folder)


def test_no_code_of_this_package_that_decides_reads_a_clock() -> None:
    assert clocks_read() == []


@pytest.mark.parametrize(
    "name", ["desk/desk.py", "policy/context.py", "agents/agent.py", "market/news.py"]
)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from datetime import UTC, datetime\nage = datetime.now(UTC)", "datetime.now"),
        ("from datetime import datetime as d\nage = d.utcnow()", "d.utcnow"),
        ("import datetime\nage = datetime.date.today()", "datetime.date.today"),
        ("import time\nif time.time() > 2e9:\n    pass", "time.time"),
        ("import time as t\nage = t.time_ns()", "t.time_ns"),
        ("import time\nearly = time.perf_counter() < 1", "time.perf_counter"),
        ("from time import localtime\n", "time.localtime"),
        ("import numpy as np\nage = np.datetime64('now')", "np.datetime64('now')"),
        ("import pandas as pd\nage = pd.Timestamp('today')", "pd.Timestamp('today')"),
        ("from datetime import datetime\nage = getattr(datetime, 'now')()", "getattr"),
        ("def decide():\n    from time import time\n    return time()", "time.time"),
    ],
)
def test_a_planted_clock_is_found(tmp_path: Path, name: str, source: str, said: str) -> None:
    [found] = planted(tmp_path, name, source)
    assert found.startswith(f"{name}:")
    assert said in found


def test_the_stamp_of_a_record_and_how_long_it_took_are_no_clock(tmp_path: Path) -> None:
    assert planted(tmp_path, "desk/desk.py", STAMP) == []
    assert planted(tmp_path, "agents/session.py", "import time\nsince = time.monotonic()") == []
    assert planted(tmp_path, "agents/agent.py", "def late(loop):\n    return loop.time() > 9") == []
    assert planted(tmp_path, "market/bars.py", "from datetime import time\nend = time.max") == []


def test_only_the_stamp_may_ask_and_only_there(tmp_path: Path) -> None:
    assert len(planted(tmp_path, "policy/context.py", STAMP)) == 1
    assert len(planted(tmp_path, "desk/desk.py", STAMP + "\nSTARTED = datetime.now(UTC)")) == 2


def test_what_decides_nothing_may_know_the_time(tmp_path: Path) -> None:
    assert planted(tmp_path, "tracking/registry.py", "import time\nnow = time.time()") == []
