"""A desk whose agents call a fake LLM server."""

from __future__ import annotations

from typing import Any

import yaml

from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config
from finagent_model.testing import FakeLLM

KEY = "sk-test-very-secret"


def config(llm: FakeLLM, **changes: Any) -> DeskConfig:
    """Return the default desk on `llm`, without retries."""
    given = {"client": "openai", "model": "stub-1", "base_url": llm.base_url, **changes}
    given["limits"] = {"retries": 0, **changes.get("limits", {})}
    defaults = yaml.safe_load(preset_text("default"))
    return read_desk_config(yaml.safe_dump(given), defaults, "test")
