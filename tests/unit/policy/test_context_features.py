"""Features of the last bar alone are those of the whole history."""

from __future__ import annotations

import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.policy.context import FeatureBook
from finagent_model.policy.policy import Policy


@pytest.mark.parametrize("length", [101, 102, 150, 777, 2148])
@pytest.mark.parametrize("policy", [Policy(), Policy(fast=5, slow=60, channel=90, rsi=7, atr=21)])
def test_features_first_bar_leaves_last_row_unchanged(length: int, policy: Policy) -> None:
    bars = BundledBars().bars("GOOG")[:length]
    last = FeatureBook(bars, first_bar=length - 1).compute(policy).at(-1)
    assert repr(last) == repr(FeatureBook(bars).compute(policy).at(-1))  # nan where nan
