"""The clock probe: a planted clock read is detected; timestamps of records are allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from finagent_model.evaluation.probes import find_clock_reads

STAMP = """
from datetime import UTC, datetime

def utc_now():
    return datetime.now(UTC)
"""


def planted(folder: Path, name: str, source: str) -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return find_clock_reads(folder)


def test_clock_probe_finds_no_read_in_this_package() -> None:
    assert find_clock_reads() == []


@pytest.mark.parametrize(
    "name", ["desk/desk.py", "policy/context.py", "agents/agent.py", "market/news.py"]
)
@pytest.mark.parametrize(
    ("source", "expression"),
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
def test_clock_probe_detects_planted_read(
    tmp_path: Path, name: str, source: str, expression: str
) -> None:
    [read] = planted(tmp_path, name, source)
    assert read.startswith(f"{name}:")
    assert expression in read


def test_clock_probe_allows_timestamps_or_monotonic_clocks(tmp_path: Path) -> None:
    assert planted(tmp_path, "desk/desk.py", STAMP) == []
    assert planted(tmp_path, "agents/session.py", "import time\nsince = time.monotonic()") == []
    assert planted(tmp_path, "agents/agent.py", "def late(loop):\n    return loop.time() > 9") == []
    assert planted(tmp_path, "market/bars.py", "from datetime import time\nend = time.max") == []


def test_clock_probe_allows_timestamp_functions_only_in_place(tmp_path: Path) -> None:
    assert len(planted(tmp_path, "policy/context.py", STAMP)) == 1
    assert len(planted(tmp_path, "desk/desk.py", STAMP + "\nSTARTED = datetime.now(UTC)")) == 2


def test_clock_probe_skips_rooms_that_decide_nothing(tmp_path: Path) -> None:
    assert planted(tmp_path, "tracking/registry.py", "import time\nnow = time.time()") == []
