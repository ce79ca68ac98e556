"""The bars that the trading platform draws are those of the chart, and end with the decision's."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from finagent_model.market.bars import BarSeries
from finagent_model.market.view import MarketView
from finagent_model.reports.charts import CHART_BARS, market_data_snapshot

AS_OF = datetime(2012, 6, 29, 21, tzinfo=UTC)


def view(bars: int = 3, **columns: object) -> MarketView:
    closed_at = pd.date_range(end=AS_OF, periods=bars, freq="D")
    prices = {name: 100.0 for name in ("open", "high", "low", "close")}
    frame = pd.DataFrame({"closed_at": closed_at, "volume": 7.0, **prices, **columns})
    return MarketView.at(AS_OF, BarSeries.from_frame("GOOG", frame))


def test_market_data_snapshot_has_fields_of_platform() -> None:
    snapshot = market_data_snapshot(view())
    last = {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0, "volume": 7}
    assert snapshot | {"bars": []} == {
        "symbol": "GOOG",
        "timeframe": "daily",
        "latest_price": 100.0,
        "bar_count": 3,
        "bars": [],
    }
    assert snapshot["bars"][-1] == {"date": "2012-06-29", **last}


def test_market_data_snapshot_is_in_units_of_last_bar() -> None:
    bars = market_data_snapshot(view(split=[1.0, 1.0, 4.0]))["bars"]
    assert [bar["close"] for bar in bars] == [25.0, 25.0, 100.0]
    assert [bar["volume"] for bar in bars] == [28, 28, 7]


def test_market_data_snapshot_has_half_a_year() -> None:
    snapshot = market_data_snapshot(view(CHART_BARS + 9))
    assert snapshot["bar_count"] == len(snapshot["bars"]) == CHART_BARS


@pytest.mark.parametrize("price", [1e-7, 0.1 + 0.2])
def test_market_data_snapshot_is_json(price: float) -> None:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    snapshot = market_data_snapshot(view(volume=np.nan, **prices))
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert snapshot["bars"][0]["close"] == pytest.approx(price, rel=1e-9)
    assert snapshot["bars"][0]["volume"] is None
