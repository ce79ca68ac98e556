"""Run the quick tests, then the slow ones whatever came of the quick ones, and add up the results.

The last line is the sum of both; the exit code is that of the first part that failed. Further
arguments are passed to pytest.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

ELSEWHERE = " and ".join(
    f"not {marker}" for marker in ("browser", "servers", "upstream", "platform", "chaos", "local")
)
# Slow tests mostly wait for processes that they start, so there is room for one worker more.
PARTS = {"quick": (f"not slow and {ELSEWHERE}", 2), "slow": (f"slow and {ELSEWHERE}", 3)}
SUMMARY = re.compile(r"=+ (.*\d+ \w+.*) in ([\d.]+)s.*=+")
COUNTED = ("failed", "errors", "passed", "skipped", "xfailed", "xpassed")


def run_part(marker: str, workers: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Run pytest on the tests that `marker` selects; return its exit code and its last line."""
    options = ["-m", marker, "-n", str(workers), "--dist", "loadfile", *arguments]
    last = ""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pytest", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def summed(lines: Mapping[str, str]) -> str:
    """Return the counts and seconds of the parts' last lines, added up; zeros are left out."""
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for part, line in lines.items():
        match = SUMMARY.search(re.sub(r"\x1b\[\d*m", "", line))
        if match is None:  # pytest itself came to an end
            counts["errors"] += 1
            continue
        seconds[part] = float(match[2])
        for number, word in re.findall(r"(\d+) (\w+)", match[1]):
            name = "errors" if word == "error" else word
            counts[name] += int(number) if name in COUNTED else 0
    numbers = [f"{counts[name]} {name}" for name in COUNTED if counts[name]] or ["no tests"]
    each = ", ".join(f"{part} {taken:.0f} s" for part, taken in seconds.items())
    return f"all parts: {', '.join(numbers)} in {sum(seconds.values()):.2f} s ({each})"


def main(arguments: Sequence[str]) -> int:
    """Run every part and print the sum; return the exit code of the first that failed."""
    results = {
        part: run_part(marker, workers, arguments) for part, (marker, workers) in PARTS.items()
    }
    print(summed({part: line for part, (_, line) in results.items()}))
    return next((code for code, _ in results.values() if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
