"""A canary in every variable that may hold a secret: it is in nothing that is printed or kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.echo_server import echo_server
from support.places import AS_OF, Place

pytestmark = pytest.mark.slow
CANARY = "canary"
DEAD = "127.0.0.1:9"
"""Where nobody listens."""


def canary(name: str) -> str:
    return f"{CANARY}-of-{name.lower().replace('_', '-')}-0123456789"


TOKENS = (
    *("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_API_KEY"),
    "FINAGENT_COMPONENT_API_KEY",
    *("FINAGENT_APPROVAL_TOKEN", "FINAGENT_API_TOKEN", "FINAGENT_PLATFORM_TOKEN"),
    *("FINAGENT_SERVE_TOKEN", "FINAGENT_SIGNING_KEY"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AIRFLOW__CORE__FERNET_KEY"),
)
SECRETS = {name: canary(name) for name in TOKENS} | {
    "FINAGENT_UPSTREAM_SOURCE": f"https://me:{canary('upstream')}@{DEAD}/x.git",
    "HTTP_PROXY_OF_ANOTHER": f"http://me:{canary('proxy')}@{DEAD}",
    "AIRFLOW_CONN_ANY": f"postgresql://me:{canary('conn')}@{DEAD}/x?sslpassword={canary('ssl')}",
}
DESK = """
preset: lean
client: openai
model: stub
base_url: {address}/v1
limits: {{retries: 0}}
"""


def found_in(folder: Path) -> list[str]:
    """Files below `folder` with a canary in them, in plain or as a header has it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if CANARY.encode() in path.read_bytes().lower()]


def test_no_canary_is_printed_or_kept(trained: Place, tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "mlflow.db").write_bytes((trained.folder / "mlflow.db").read_bytes())
    told: list[str] = []

    def run(*words: str, **more: str) -> str:
        done = place.finagent(*words, **{**SECRETS, **more})
        told.append(done.stdout + done.stderr)
        return told[-1]

    with echo_server() as address, echo_server(401) as platform:
        (tmp_path / "desk.yaml").write_text(DESK.format(address=address))
        sent = {"FINAGENT_PLATFORM_URL": platform, "FINAGENT_TRACING": "true"}
        desk = ("predict", "FB", "--as-of", AS_OF, "--config", "desk.yaml", "--log", "--json")
        # The provider quotes the key in its error, the platform its token.
        said = run(*desk, "--audit", "audit.jsonl", **sent)
        assert "model_error" in said
        assert "unfit" in said
        assert "HTTP 401: " in run("predict", "FB", "--as-of", AS_OF, "--log", **sent)
        assert "unfit" in run("outbox", "status", **sent)
    store = f"http://me:{canary('store')}@{DEAD}"
    down = {"MLFLOW_TRACKING_URI": store, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    assert "can't be loaded" in run("serve", **down)
    database = f"postgresql://me:{canary('database')}@{DEAD}/x"
    assert "can't be used" in run("db", "upgrade", FINAGENT_DATABASE=database)
    bars = f"postgresql://me:{canary('bars')}@{DEAD}/x?table=bars"
    assert "failed" in run(*desk[:-2], FINAGENT_BARS=bars)
    assert "s3://" in run("predict", "FB", "--as-of", AS_OF, "--model", "s3://x/y", **s3_at(DEAD))
    assert [text for text in told if CANARY in text.lower()] == []
    assert found_in(tmp_path) == []


def s3_at(place: str) -> dict[str, str]:
    return {
        "MLFLOW_S3_ENDPOINT_URL": f"http://me:{canary('s3')}@{place}",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
