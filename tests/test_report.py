"""The report in plain words: whatever was earned, the sentence about it is true."""

from __future__ import annotations

import math

import pytest

from finagent_model.artifacts.report import verdict


@pytest.mark.parametrize(
    ("earned", "held", "said"),
    [
        (0.1, 0.05, "made money out of sample after costs (+10.0%), ahead of"),
        (0.1, 0.3, "made money out of sample after costs (+10.0%), behind"),
        (0.1, -0.3, "made money out of sample after costs (+10.0%), ahead of"),
        (-0.06, -0.217, "LOST money out of sample after costs (-6.0%), ahead of"),
        (-0.3, -0.217, "LOST money out of sample after costs (-30.0%), behind"),
        (-0.06, 0.1, "LOST money out of sample after costs (-6.0%), behind"),
        (0.0, 0.1, "made nothing out of sample after costs (+0.0%), behind"),
        (0.0, -0.1, "made nothing out of sample after costs (+0.0%), ahead of"),
        (0.2, 0.2, "made money out of sample after costs (+20.0%), level with"),
    ],
)
def test_the_verdict_is_true_for_every_combination_of_signs(
    earned: float, held: float, said: str
) -> None:
    found = verdict("FB", {"total_return": earned, "benchmark_total_return": held})
    assert found == f"FB: the desk {said} buying and holding ({held:+.1%})."


def test_what_is_undefined_has_no_verdict() -> None:
    found = verdict("FB", {"total_return": math.nan, "benchmark_total_return": 0.1})
    assert "undefined" in found
    assert "nan" not in found
