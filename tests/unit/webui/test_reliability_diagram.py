"""Calibration by period: what was predicted beside what came true, and where it is drawn."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest
from starlette.testclient import TestClient

from finagent_model.evaluation.calibrate import ConfidenceRecord
from finagent_model.statistics.reliability import wilson_interval
from finagent_model.tracking.runs import STAGE, open_run
from finagent_model.webui._reliability_diagram import (
    Reliability,
    calibration_periods,
    draw_periods,
)
from support.places import Place

STARTS = [datetime(2012, month, 1, tzinfo=UTC) for month in (1, 4, 7)]


def record(*calls: tuple[datetime, float, float, float]) -> ConfidenceRecord:
    """Of calls: moment, calibrated confidence, outcome, weight."""
    said, outcome, weight = (np.array([call[i] for call in calls]) for i in (1, 2, 3))
    day = np.array([call[0].toordinal() for call in calls], dtype=np.int64)
    return ConfidenceRecord(said, said, said, said, outcome, weight, day)


def test_calibration_periods_follow_the_fits() -> None:
    first, last = datetime(2012, 1, 5, tzinfo=UTC), datetime(2012, 7, 2, tzinfo=UTC)
    made = record((first, 0.6, 1.0, 1.0), (first, 0.6, 0.0, 3.0), (last, 0.5, 1.0, 0.5))
    one, other = calibration_periods(made, STARTS)
    assert (one.since, one.until, one.calls, one.independent) == ("2012-01-05", "2012-01-05", 2, 4)
    assert (one.stated, one.observed) == (pytest.approx(0.6), pytest.approx(0.25))
    assert (other.since, other.observed, other.independent) == ("2012-07-02", 1.0, 0.5)
    assert not one.is_off, "four independent calls tell little"


def test_calibration_period_is_off_where_many_calls_say_so() -> None:
    day = datetime(2012, 2, 1, tzinfo=UTC)
    calls = [(day, 0.75, float(i % 4 == 0), 1.0) for i in range(100)]
    [period] = calibration_periods(record(*calls), STARTS)
    assert period.is_off
    assert calibration_periods(record(*calls[:0]), STARTS) == ()


@pytest.mark.filterwarnings("ignore")  # MLflow's store has warnings of its own
@pytest.mark.parametrize("count", [1, 3])
def test_calibration_page_shows_periods_with_counts(
    count: int, place: Place, pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [start.replace(day=5) for start in STARTS[:count]]
    made = record(*((day, 0.75, float(i % 4 == 0), 1.0) for day in days for i in range(100)))
    known = Reliability((), (), len(made.day), "why", calibration_periods(made, STARTS), None)
    monkeypatch.setattr(Reliability, "from_run", lambda run: known)
    run = open_run("train GOOG", {STAGE: "train"})
    page = pages.get(f"/runs/{run.run_id}/calibration")
    assert page.status_code == 200
    text = " ".join(re.sub(r"<[^>]+>", " ", page.text).split())
    assert f"In {count} of {count} periods the predicted share lies outside" in text
    assert "2012-01-05 to 2012-01-05 ! off 75.0 % 25.0 % 18 to 34 % 100 100.0" in text
    assert page.text.count('<circle class="raw"') == count


def test_draw_periods_puts_shares_between_foot_and_top() -> None:
    day = datetime(2012, 2, 1, tzinfo=UTC)
    [drawn] = draw_periods(calibration_periods(record((day, 0.5, 1.0, 1.0)), STARTS))
    assert (drawn.stated_y, drawn.observed_y, drawn.high_y) == (85.0, 10.0, 10.0)
    assert drawn.low_y > drawn.observed_y


def test_wilson_interval_equals_textbook() -> None:
    # Wilson's interval of 5 of 10, as in Brown, Cai and DasGupta (2001).
    half = wilson_interval(0.5, 10)
    assert (half.low, half.high) == (
        pytest.approx(0.2366, abs=1e-4),
        pytest.approx(0.7634, abs=1e-4),
    )
    assert wilson_interval(1.0, 10).high == 1.0
    assert np.isnan(wilson_interval(0.5, 0).low)
