"""The schedule of decisions, policies by symbol, and parallel fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.errors import UnknownSymbolError
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries
from finagent_model.policy.policy import PolicyBook
from finagent_model.training.request import TrainRequest
from finagent_model.training.search import PolicyScorer
from finagent_model.training.walk_forward import (
    FittedPolicies,
    bars_to_decide,
    fit_policies,
    out_of_sample_part,
    policy_periods,
)
from support.places import Place

REQUEST = TrainRequest(symbols=("GOOG",), train_bars=250, test_bars=60, candidates=6)


def request_of(schedule: object) -> TrainRequest:
    return TrainRequest.parse(**REQUEST.model_dump() | {"schedule": schedule})


@pytest.fixture(scope="module")
def goog() -> BarSeries:
    return BundledBars().bars("GOOG")[:600]


@pytest.fixture(scope="module")
def policies(goog: BarSeries) -> PolicyBook:
    return fit_policies({"GOOG": goog}, REQUEST).policies


def test_schedule_of_k_bars_takes_every_kth_bar(goog: BarSeries, policies: PolicyBook) -> None:
    part = out_of_sample_part(goog, policies)
    assert part == slice(255, 600)
    assert bars_to_decide(goog, policies, request_of(1)) == list(range(255, 600))
    assert bars_to_decide(goog, policies, request_of(7)) == list(range(255, 600, 7))


def test_schedule_change_takes_bars_where_vote_changes(
    goog: BarSeries, policies: PolicyBook
) -> None:
    positions = bars_to_decide(goog, policies, request_of("change"))
    history, expected = PolicyScorer(goog), []
    for fit, part in policy_periods(goog, policies):
        votes = history.orders(fit.policy, part).action.tolist()
        expected.append(part.start)  # a new fit is always asked
        expected += [part.start + i for i in range(1, len(votes)) if votes[i] != votes[i - 1]]
    assert positions == expected
    assert 6 < len(positions) < 150


@pytest.mark.parametrize("schedule", [1, 7, "change"])
def test_schedule_has_no_look_ahead(
    goog: BarSeries, policies: PolicyBook, schedule: object
) -> None:
    whole = bars_to_decide(goog, policies, request_of(schedule))
    for cut in (256, 300, 333, 375, 376, 450, 599):
        assert bars_to_decide(goog[:cut], policies, request_of(schedule)) == [
            at for at in whole if at < cut
        ]


@pytest.fixture(scope="module")
def two() -> dict[str, BarSeries]:
    source = BundledBars()
    return {symbol: source.bars(symbol)[:420] for symbol in ("GOOG", "AAPL")}


@pytest.fixture(scope="module")
def own(two: dict[str, BarSeries]) -> FittedPolicies:
    return fit_policies(two, TrainRequest.parse(**REQUEST.model_dump() | {"pooled": False}))


def test_unpooled_policies_are_for_one_symbol_each(
    two: dict[str, BarSeries], own: FittedPolicies
) -> None:
    for symbol in two:
        fits = own.policies.fits_for(symbol)
        assert {fit.symbols for fit in fits} == {(symbol,)}
        for one, other in pairwise(fits):
            assert one.valid_from < other.valid_from
        moment = fits[1].valid_from
        assert own.policies.at(moment, symbol) is fits[1]
    with pytest.raises(UnknownSymbolError, match="AAPL, GOOG"):
        own.policies.fits_for("IBM")


def test_unpooled_fit_ignores_other_symbols(own: FittedPolicies) -> None:
    source = BundledBars()
    other = {"GOOG": source.bars("GOOG")[:420], "AAPL": corrupt_after(source.bars("AAPL"), 0)}
    request = TrainRequest.parse(**REQUEST.model_dump() | {"pooled": False})
    again = fit_policies({name: bars[:420] for name, bars in other.items()}, request).policies
    assert again.fits_for("GOOG") == own.policies.fits_for("GOOG")
    assert again.fits_for("AAPL") != own.policies.fits_for("AAPL")


def test_trials_count_each_unpooled_symbol(two: dict[str, BarSeries], own: FittedPolicies) -> None:
    pooled = fit_policies(two, REQUEST)
    assert pooled.trials.configurations == REQUEST.candidates
    assert own.trials.configurations == 2 * REQUEST.candidates
    assert own.trials.scorings == REQUEST.candidates * len(own.policies.fits)


def test_trials_of_equal_symbols_are_those_of_one(goog: BarSeries) -> None:
    """The portfolio is judged on one calendar, not symbol after symbol."""
    one = fit_policies({"GOOG": goog}, REQUEST).trials
    four = fit_policies({name: replace(goog, symbol=name) for name in "ABCD"}, REQUEST).trials
    assert one.sharpe_variance is not None
    assert four.sharpe_variance == pytest.approx(one.sharpe_variance)
    assert four.overfitting == one.overfitting


def trained(place: Place, bars: Path, jobs: int) -> str:
    options = {
        "symbols": "ONE,TWO",
        "train-bars": "120",
        "test-bars": "30",
        "candidates": "24",
        "pooled": "false",
        "schedule": "change",
        "jobs": str(jobs),
    }
    words = [text for k, v in options.items() for text in (f"--{k}", v)]
    done = place.finagent("train", *words, "--json", FINAGENT_BARS=str(bars))
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["content_hash"])


@pytest.mark.slow
def test_train_jobs_do_not_change_content_hash(
    two: dict[str, BarSeries], tmp_path: Path, place: Callable[[str], Place]
) -> None:
    bars = tmp_path / "bars"
    bars.mkdir()
    for name, series in zip(("ONE", "TWO"), two.values(), strict=True):
        series[:200].to_frame().to_csv(bars / f"{name}.csv", index=False)
    assert trained(place("one"), bars, 1) == trained(place("two"), bars, 2)


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Place]:
    def build(name: str) -> Place:
        folder = tmp_path / name
        folder.mkdir()
        return Place(folder)

    return build
