"""Probe stub models that are honest, or remember, over many seeds: how often is each one marked?

`python benchmarks/memory.py --seeds 20`: one row a kind of model, as `docs/memory.md` has them.
Another seed means other days, other errors of a memoriser and other noise. The stub is asked the
desk's own questions without the agents around it, which would take ten times as long; the tests ask
whole desks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from finagent_model.evaluation.memory_probes import SIGNS
from support.memory_models import KINDS, probe_stub


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--retest", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    head = ["model", "marked", *SIGNS, "questions a run", "seconds a run"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for kind in options.kinds:
        marked, signs, questions, start = 0, Counter[str](), 0, time.process_time()
        for seed in range(options.seeds):
            report = probe_stub(kind, seed, options.days, options.retest, bare=True)
            marked += bool(report.signs)
            signs.update(report.signs)
            questions += report.questions
        seconds = (time.process_time() - start) / options.seeds
        counts = [f"{signs[name]}" for name in SIGNS]
        cells = [kind, f"{marked} of {options.seeds}", *counts]
        cells += [f"{questions / options.seeds:.0f}", f"{seconds:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
