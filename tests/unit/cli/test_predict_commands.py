"""The command line: JSON alone on stdout, words on stderr, documented exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.places import AS_OF, Place

pytestmark = pytest.mark.slow


def test_predict_prints_only_signal_on_stdout(trained: Place) -> None:
    signal = trained.signal("FB", "--as-of", AS_OF)
    assert signal["symbol"] == "FB"
    assert signal["status"] == "ok"
    assert signal["model_used"] == "rules"
    assert signal["model_uri"] == "models:/finagent/1"
    assert signal["evidence"] == "none"


def test_predict_log_keeps_every_message_of_conversation(trained: Place) -> None:
    done = trained.finagent("predict", "FB", "--as-of", AS_OF, "--log")
    assert done.returncode == 0, done.stderr
    files = list((trained.folder / "mlruns").rglob("autogen_conversation.jsonl"))
    latest = max(files, key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in latest.read_text().splitlines()]
    assert [line["agent_name"] for line in lines if line["message_type"] == "response"] == [
        "TechnicalAnalyst",
        "RiskManager",
        "Executor",
    ]
    assert [line["agent_name"] for line in lines if line["message_type"] == "skipped"] == [
        "NewsAnalyst"
    ]
    fields = {"agent_name", "message_type", "message_content", "timestamp", "tokens"}
    assert all(fields <= line.keys() for line in lines)


def test_predict_config_says_how_it_is_kept_and_seen(trained: Place) -> None:
    asked = ("predict", "FB", "--as-of", AS_OF, "--config", "lean")
    assert "not kept: --log keeps it in a run" in trained.finagent(*asked).stderr
    kept = trained.finagent(*asked, "--log")
    [page] = re.findall(r"/signals/key/[0-9a-f]+", kept.stderr)
    # Asked of the pages themselves: the decision is there.
    code = (
        "from fastapi.testclient import TestClient\n"
        "from finagent_model.settings import Settings\n"
        "from finagent_model.webui.pages_app import ui_app\n"
        "client = ('127.0.0.1', 50000)\n"
        "pages = TestClient(ui_app(Settings.load()), base_url='http://127.0.0.1', client=client)\n"
        f"print(pages.get('{page}').status_code)\n"
    )
    assert trained.python(code).stdout.split()[-1:] == ["200"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "NOPE", "--as-of", AS_OF], 3, "unknown symbol 'NOPE'"),
        (["predict", "FB", "--as-of", "2001-01-02"], 3, "lies before the model's first fit"),
        (["predict", "FB", "--as-of", "soon"], 2, "as_of 'soon' is not a date"),
        (["predict", "FB", "--as-of", "2013-01-31T12:00:00"], 2, "has no time zone"),
        (["predict", "fb", "--as-of", AS_OF], 3, "did you mean 'FB'?"),
        (["predict", "FB", "--as-of", AS_OF, "--mode", "dry"], 2, "mode 'dry' is unknown"),
        (["predict", "FB", "--as-of", AS_OF, "--model", "models:/no@champion"], 4, "models:/no"),
        (["predict", "FB", "--as-of", AS_OF, "--config", "none.yaml"], 2, "can't be read"),
        (["train", "--symbols", "NOPE"], 3, "unknown symbol 'NOPE'"),
        (["train", "--train-bars", "3"], 2, "allowed: at least 120, at most 10000"),
        (["train", "--config", "nonesuch"], 2, "unknown preset 'nonesuch'"),
        (["promote", "7"], 2, "has no version '7'"),
    ],
)
def test_command_with_bad_input_is_one_line_with_exit_code(
    trained: Place, arguments: list[str], code: int, message: str
) -> None:
    done = trained.finagent(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_predict_strict_exits_4_on_stale_market(trained: Place) -> None:
    signal = trained.signal("FB", "--as-of", "2026-01-05")
    assert (signal["status"], signal["action"]) == ("data_missing", "HOLD")
    assert "2013-03-01" in signal["reasoning"]
    strict = trained.finagent("predict", "FB", "--as-of", "2026-01-05", "--strict")
    assert strict.returncode == 4


def test_predict_config_with_unreachable_model_is_status(trained: Place, tmp_path: Path) -> None:
    config = tmp_path / "desk.yaml"
    config.write_text("client: openai\nmodel: some-model\nlimits: {call_timeout_s: 5}\n")
    address = {"OPENAI_BASE_URL": "http://127.0.0.1:9", "OPENAI_API_KEY": "sk-secret-value"}
    options = ["FB", "--as-of", AS_OF, "--config", str(config)]
    signal = trained.signal(*options, **address)
    assert (signal["status"], signal["model_used"]) == ("model_error", "some-model")
    keyless = trained.finagent("predict", *options)
    assert keyless.returncode == 2
    assert "OPENAI_API_KEY" in keyless.stderr


def test_train_unwritable_store_is_one_line(trained: Place) -> None:
    done = trained.finagent("train", MLFLOW_TRACKING_URI="sqlite:////proc/no/mlflow.db")
    assert done.returncode == 2, done.stderr
    assert "MLFLOW_TRACKING_URI" in done.stderr


def test_graph_prints_mermaid(trained: Place) -> None:
    text = trained.finagent("graph").stdout
    assert text.startswith("flowchart LR")
    assert "TechnicalAnalyst --> RiskManager" in text
