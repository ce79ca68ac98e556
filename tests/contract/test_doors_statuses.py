"""Every status that a chat desk may come to, through each door: library, shell and REST.

`approval_*` have doors of their own in `test_approvals_doors.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from finagent_model.config.desk_config import preset_text, read_desk_config
from finagent_model.config.parsing import CallLimits
from finagent_model.decision.signal import Status
from finagent_model.market.bars import parse_as_of
from finagent_model.model.package import write_package
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.model.wheel import code_hash
from finagent_model.settings import Settings
from finagent_model.testing import DECISION
from support.fake_llm import FakeProvider, Fault, Protocol
from support.packages import book, trained_state
from support.places import Place, free_port, post
from support.serving import SAVE, serve

pytestmark = pytest.mark.slow
KEYS = {"OPENAI_API_KEY": "sk-of-a-local-server"}


@dataclass(frozen=True)
class Case:
    """How a status is brought about."""

    provoke: Callable[[FakeProvider], object] = lambda llm: None
    as_of: str = "2012-06-29"
    params: dict[str, Any] | None = None


def says(agent: str, said: Any) -> Callable[[FakeProvider], object]:
    return lambda llm: llm.replies.update({agent: lambda asked: said})


CASES = {
    Status.OK: Case(),
    Status.ABSTAINED: Case(params={"max_rounds": 1}),
    Status.PARSE_FAILED: Case(says("Executor", "BUY BUY BUY")),
    Status.DATA_MISSING: Case(as_of="2013-06-28"),
    Status.MODEL_ERROR: Case(lambda llm: llm.fail(Fault.BAD_REQUEST)),
    Status.BUDGET_EXCEEDED: Case(params={"budget_usd": 1e-9}),
    Status.LEVELS_REJECTED: Case(says("Executor", DECISION | {"suggested_stop_loss": 600.0})),
}


@pytest.fixture(scope="module")
def llm() -> Iterator[FakeProvider]:
    with FakeProvider() as double:
        yield double


@pytest.fixture(autouse=True)
def _healthy(llm: FakeProvider) -> None:
    llm.recover()
    llm.replies.clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, llm: FakeProvider) -> Place:
    """Where a model lies whose desk asks the double."""
    place = Place(tmp_path_factory.mktemp("statuses"))
    given = {
        "client": "openai",
        "model": "stub-1",
        "base_url": llm.address(Protocol.OPENAI),
        "limits": {"retries": 0},
        "traffic": {"break_after": 0},
        "prices": {"stub-1": {"prompt": 1.0, "completion": 1.0, "as_of": "2026-01-01"}},
    }
    defaults = yaml.safe_load(preset_text("default"))
    write_package(
        place.folder / "package",
        config=read_desk_config(yaml.safe_dump(given), defaults, "test"),
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
    )
    saved = place.python(SAVE)
    assert saved.returncode == 0, saved.stderr
    return place


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    port = free_port()
    with place.serving(*serve(port), port=port, **KEYS) as found:
        yield found


@pytest.mark.parametrize("status", CASES)
def test_a_status_is_the_same_through_each_door(
    status: Status, llm: FakeProvider, place: Place, address: str
) -> None:
    case = CASES[status]
    case.provoke(llm)
    question = {"symbol": "GOOG", "as_of": case.as_of}
    params = {"mode": "live", **(case.params or {})}

    code, body = post(address, {"dataframe_records": [question], "params": params})
    assert code == 200, body
    [served] = body["predictions"]

    settings = Settings.load({**KEYS, "FINAGENT_HOME": str(place.folder / "library")})
    desk = Predictor.open(place.folder / "package", settings)
    asked = Question("GOOG", parse_as_of(case.as_of))
    [decision] = desk.decide_all([asked], "live", CallLimits(**(case.params or {})))
    desk.desk.close()

    options = [f"--{k.replace('_', '-')}={v}" for k, v in params.items()]
    shell = place.signal("GOOG", "--as-of", case.as_of, "--model", "model", *options, **KEYS)

    library = decision.signal.model_dump(mode="json")
    assert served["status"] == library["status"] == shell["status"] == status
    assert served["reasoning"] == library["reasoning"] == shell["reasoning"]
    if status is not Status.OK:
        assert (served["action"], served["confidence_score"]) == ("HOLD", 0)
    for signal in (served, library, shell):
        assert KEYS["OPENAI_API_KEY"] not in json.dumps(signal)
    assert os.environ.get("OPENAI_API_KEY") is None
