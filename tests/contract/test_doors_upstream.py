"""`upstream_error` through each door: library, shell and REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finagent_model.config.desk_config import load_preset
from finagent_model.contrib.upstream.source import NOTICE, PinnedSource
from finagent_model.market.bars import parse_as_of
from finagent_model.model.package import write_package
from finagent_model.model.predictor import Predictor
from finagent_model.model.questions import Question
from finagent_model.model.wheel import code_hash
from finagent_model.settings import Settings
from support.packages import book, trained_state
from support.places import Place, free_port, post
from support.serving import SAVE, serve
from support.upstream_repository import bars_of, make_repository

pytestmark = pytest.mark.slow
DAY = "2012-06-29"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where a model lies that hears the stand-in, beside bars of symbols that it fails on."""
    place = Place(tmp_path_factory.mktemp("doors"))
    stub = make_repository(place.folder / "clone")
    (stub.folder / NOTICE).write_text("A stand-in.\n")
    write_package(
        place.folder / "package",
        config=load_preset("upstream"),
        trained_state=trained_state(book()),
        replies={},
        backtest={"evidence": {"grade": "none"}},
        code_hash=code_hash(),
        external=PinnedSource(stub.folder, stub.pin),
    )
    saved = place.python(SAVE)
    assert saved.returncode == 0, saved.stderr
    (place.folder / "bars").mkdir()
    for symbol in ("FINE", "RAISE", "EXIT"):
        bars_of(symbol).to_frame().to_csv(place.folder / "bars" / f"{symbol}.csv", index=False)
    return place


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    port = free_port()
    bars = str(place.folder / "bars")
    with place.serving(*serve(port), port=port, FINAGENT_BARS=bars) as found:
        yield found


@pytest.mark.parametrize(
    ("symbol", "status", "said"),
    [
        ("FINE", "ok", ""),
        ("RAISE", "upstream_error", "IndexError"),
        ("EXIT", "upstream_error", "7"),
    ],
)
def test_upstream_error_is_the_same_through_each_door(
    symbol: str, status: str, said: str, place: Place, address: str
) -> None:
    bars = str(place.folder / "bars")
    rows = [{"symbol": symbol, "as_of": DAY}, {"symbol": "FINE", "as_of": DAY}]
    code, body = post(address, {"dataframe_records": rows})
    assert code == 200, body
    served, beside = body["predictions"]
    assert beside["status"] == "ok"  # the other row of the batch

    home = str(place.folder / "library")
    desk = Predictor.open(
        Path(place.folder / "package"),
        Settings.load({"FINAGENT_HOME": home, "FINAGENT_BARS": bars}),
    )
    [decision] = desk.decide_all([Question(symbol, parse_as_of(DAY))])
    desk.desk.close()
    shell = place.signal(symbol, "--as-of", DAY, "--model", "model", FINAGENT_BARS=bars)
    library = decision.signal.model_dump(mode="json")
    for signal in (served, library, shell):
        assert signal["status"] == status
        assert said in signal["reasoning"]
        assert signal["reasoning"] == library["reasoning"]
        assert status == "ok" or (signal["action"], signal["confidence_score"]) == ("HOLD", 0)
