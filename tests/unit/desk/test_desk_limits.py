"""The limits of a desk, which a caller can narrow and never widen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow.pyfunc.model import PythonModelContext

from finagent_model.cassette.cassette import Cassette
from finagent_model.config.desk_config import DeskConfig, load_preset
from finagent_model.config.parsing import CallLimits
from finagent_model.config.rules import DecisionLimits, narrow_limits
from finagent_model.data.market import Market
from finagent_model.desk.desk import Desk
from finagent_model.evaluation.calibrate import calibrate
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.model.anchor import build_metadata
from finagent_model.model.model_folder import PACKAGE_FOLDER
from finagent_model.model.package import write_package
from finagent_model.model.pyfunc import PACKAGE_ARTIFACT, FinagentModel
from finagent_model.model.wheel import code_hash
from finagent_model.policy.policy import Policy, PolicyBook, PolicyFit
from finagent_model.policy.trained_state import TrainedState
from finagent_model.settings import Settings

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
OWN = DecisionLimits(max_rounds=4, budget_usd=0.01)


def config(**limits: float) -> DeskConfig:
    preset = load_preset("lean")
    own = preset.limits.model_copy(update={"max_rounds": 4, "budget_usd": 0.01, **limits})
    return preset.model_copy(update={"limits": own})


def desk(chosen: DeskConfig | None = None) -> Desk:
    settings = Settings.load({})
    return Desk(chosen or config(), None, settings, Cassette(), clock=lambda: NOON)


@pytest.fixture(scope="module")
def view() -> MarketView:
    return Market.from_settings(Settings.load({})).view("GOOG", parse_as_of("2012-06-29"))


@pytest.mark.parametrize(
    ("call_limits", "expected"),
    [
        (CallLimits(max_rounds=3), DecisionLimits(max_rounds=3, budget_usd=0.01)),
        (CallLimits(budget_usd=0.005), DecisionLimits(max_rounds=4, budget_usd=0.005)),
        (CallLimits(3, 0.005), DecisionLimits(max_rounds=3, budget_usd=0.005)),
    ],
)
def test_narrow_limits_honours_narrower_values(
    call_limits: CallLimits, expected: DecisionLimits
) -> None:
    assert narrow_limits(OWN, call_limits) == (expected, ())


@pytest.mark.parametrize("call_limits", [CallLimits(), CallLimits(4), CallLimits(4, 0.01)])
def test_narrow_limits_keeps_equal_values_without_warning(call_limits: CallLimits) -> None:
    assert narrow_limits(OWN, call_limits) == (OWN, ())


@pytest.mark.parametrize(
    ("call_limits", "warning"),
    [
        (CallLimits(max_rounds=10), "max_rounds 10 was asked for; this version allows 4"),
        (CallLimits(budget_usd=5.0), "budget_usd 5 was asked for; this version allows 0.01"),
        (
            CallLimits(budget_usd=0.0),
            "budget_usd 0 (no limit) was asked for; this version allows 0.01",
        ),
    ],
)
def test_narrow_limits_refuses_wider_values_with_warning(
    call_limits: CallLimits, warning: str
) -> None:
    assert narrow_limits(OWN, call_limits) == (OWN, (warning,))


def test_narrow_limits_narrows_budget_without_limit() -> None:
    unlimited = DecisionLimits(max_rounds=4, budget_usd=0)
    narrowed, warnings = narrow_limits(unlimited, CallLimits(budget_usd=0.5))
    assert (narrowed.budget_usd, warnings) == (0.5, ())


def test_narrow_limits_decides_each_value_by_itself() -> None:
    narrowed, warnings = narrow_limits(OWN, CallLimits(max_rounds=2, budget_usd=0.0))
    assert (narrowed.max_rounds, narrowed.budget_usd) == (2, 0.01)
    assert len(warnings) == 1


def test_desk_wider_limits_change_nothing_but_warnings(view: MarketView) -> None:
    own = desk().decide(view)
    wider = desk().with_options(limits=CallLimits(max_rounds=100, budget_usd=0.0)).decide(view)
    refusals = (
        "max_rounds 100 was asked for; this version allows 4",
        "budget_usd 0 (no limit) was asked for; this version allows 0.01",
    )
    assert wider.signal.warnings == (*refusals, *own.signal.warnings)
    assert wider.signal.model_copy(update={"warnings": own.signal.warnings}) == own.signal
    assert wider.turns == own.turns


def test_desk_cannot_widen_rounds_that_abstain(view: MarketView) -> None:
    short = desk(config(max_rounds=1))
    signal = short.with_options(limits=CallLimits(max_rounds=10)).decide(view).signal
    assert signal.status == "abstained"
    assert "max_rounds 10 was asked for; this version allows 1" in signal.warnings


def test_desk_narrower_limits_have_conversation_id_of_their_own(view: MarketView) -> None:
    narrower = desk().with_options(limits=CallLimits(max_rounds=3)).decide(view).signal
    configured = desk(config(max_rounds=3)).decide(view).signal
    assert narrower == configured
    assert narrower.conversation_id != desk().decide(view).signal.conversation_id


def test_desk_equal_limits_keep_conversation_id(view: MarketView) -> None:
    equal = desk().with_options(limits=CallLimits(max_rounds=4, budget_usd=0.01)).decide(view)
    assert equal.signal == desk().decide(view).signal


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinagentModel:
    """A packaged desk that allows one round, loaded as MLflow loads it."""
    fit = PolicyFit(
        policy=Policy(),
        symbols=("GOOG",),
        fit_from=parse_as_of("2008-01-02"),
        fit_until=parse_as_of("2010-01-04"),
        valid_from=parse_as_of("2010-01-12"),
        configurations=1,
    )
    policies = PolicyBook(fits=(fit,))
    package = tmp_path / PACKAGE_FOLDER
    manifest = write_package(
        package,
        config=config(max_rounds=1),
        trained_state=TrainedState(policies, calibrate([], policies.start_times)),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    monkeypatch.setenv("FINAGENT_HOME", str(tmp_path / "home"))
    loaded = FinagentModel()
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": build_metadata(manifest)}))
    loaded.load_context(PythonModelContext({PACKAGE_ARTIFACT: str(package)}, {}))
    return loaded


def test_pyfunc_params_cannot_widen_package_limits(model: FinagentModel) -> None:
    rows = pd.DataFrame([{"symbol": "GOOG", "as_of": "2012-06-29"}])
    context = PythonModelContext({}, {})
    own = model.predict(context, rows).iloc[0].to_dict()
    wider = model.predict(context, rows, {"max_rounds": 10, "budget_usd": 0.0}).iloc[0].to_dict()
    assert wider["status"] == own["status"] == "abstained"
    assert wider["warnings"] == [
        "max_rounds 10 was asked for; this version allows 1",
        "budget_usd 0 (no limit) was asked for; this version allows 0.01",
        *own["warnings"],
    ]
    same = {"generated_at": None, "warnings": None}
    assert wider | same == own | same
