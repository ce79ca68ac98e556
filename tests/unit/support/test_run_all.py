"""The command behind `make test`: both parts, one sum."""

from __future__ import annotations

import pytest

import run_all


def test_run_all_sums_both_parts() -> None:
    quick = "=== 2 failed, 2300 passed, 1 error, 7 deselected, 1 warning in 88.25s (0:01:28) ==="
    slow = "\x1b[32m==== \x1b[1m900 passed\x1b[0m, 3 skipped in 250.50s (0:04:10) ====\x1b[0m"
    assert run_all.summed({"quick": quick, "slow": slow}) == (
        "all parts: 2 failed, 1 errors, 3200 passed, 3 skipped in 338.75 s (quick 88 s, slow 250 s)"
    )


def test_run_all_counts_a_crash_as_an_error() -> None:
    lines = {"quick": "Killed", "slow": "===== 1 passed in 2.00s ====="}
    assert run_all.summed(lines) == "all parts: 1 errors, 1 passed in 2.00 s (slow 2 s)"


@pytest.mark.parametrize(("codes", "code"), [((1, 0), 1), ((0, 2), 2), ((5, 1), 5), ((0, 0), 0)])
def test_run_all_runs_each_part_and_returns_the_first_failure(
    codes: tuple[int, int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(codes)
    markers: list[str] = []

    def run_part(marker: str, workers: int, arguments: list[str]) -> tuple[int, str]:
        markers.append(marker)
        return next(left), "= 1 passed in 1.00s ="

    monkeypatch.setattr(run_all, "run_part", run_part)
    assert run_all.main([]) == code
    assert markers == [marker for marker, _ in run_all.PARTS.values()]
