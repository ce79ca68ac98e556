"""Modes and limits as every door parses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from finagent_model.config.parsing import CallLimits, parse_limits, parse_mode
from finagent_model.errors import BadInputError


def test_parse_mode_names_the_modes() -> None:
    assert parse_mode("replay") == "replay"
    with pytest.raises(BadInputError, match="mode 'dry' is unknown; use one of: cached, live"):
        parse_mode("dry")
    for value in (np.array(["live", "replay"]), ["live"], True, "live\n", None):
        with pytest.raises(BadInputError, match="is unknown; use one of: cached, live, replay"):
            parse_mode(value)


def test_parse_limits_leaves_the_desk_its_own() -> None:
    assert parse_limits() == CallLimits(None, None)
    assert parse_limits(3.0, 0) == CallLimits(3, 0.0)


@pytest.mark.parametrize(
    "limits",
    [
        {"budget_usd": -1},
        {"budget_usd": float("nan")},
        {"budget_usd": float("inf")},
        {"budget_usd": "1"},
        {"budget_usd": True},
        {"max_rounds": 0},
        {"max_rounds": 101},
        {"max_rounds": 2.5},
        {"max_rounds": True},
        {"max_rounds": 10**400},
    ],
)
def test_parse_limits_names_the_value_that_it_refuses(limits: dict[str, Any]) -> None:
    [name] = limits
    with pytest.raises(BadInputError, match=name):
        parse_limits(**limits)
