"""A chat model on this machine that speaks OpenAI's protocol, and a desk that asks it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from finagent_model.config.desk_config import DeskConfig, preset_text, read_desk_config

KEY = "sk-test-very-secret"
ANALYST = {"trend": "bullish", "score": 0.5, "summary": "It rises, they say.", "key_factors": []}
TERMS = {
    "direction": "long",
    "stop_loss": 550.0,
    "take_profit": 650.0,
    "position_size_percent": 10.0,
    "summary": "A stop below, a target above.",
}
DECISION: dict[str, Any] = {
    "action": "BUY",
    "confidence_score": 70,
    "reasoning": "Both reports point the same way.",
    "key_factors": ["trend"],
    "trend": "bullish",
    "support_level": 560.0,
    "resistance_level": None,
    "suggested_entry_price": 580.0,
    "suggested_stop_loss": 550.0,
    "suggested_take_profit": 650.0,
    "position_size_percent": 10.0,
}


class Model(ThreadingHTTPServer):
    """Answers by the role in the system prompt; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[str], str]] = {
            "Analyst": lambda system: json.dumps(ANALYST),
            "RiskManager": lambda system: json.dumps(TERMS),
            "Executor": lambda system: json.dumps(DECISION),
        }
        self.delay = 0.0
        self.status = 200
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        model = self.server
        with model.lock:
            model.now += 1
            model.most = max(model.most, model.now)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model.asked.append(request)
        time.sleep(model.delay)
        system = request["messages"][0]["content"].split(" of a trading desk")[0]
        text = next(answer(system) for role, answer in model.answers.items() if role in system)
        body: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
        if model.status != 200:
            body = {"error": {"message": f"no: {self.headers['Authorization']}"}}
        with model.lock:
            model.now -= 1
        with contextlib.suppress(ConnectionError):  # who asked may have given up
            self.send_response(model.status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def config(model: Model, **changes: Any) -> DeskConfig:
    given = {"client": "openai", "model": "stub-1", "base_url": model.address, **changes}
    given["limits"] = {"retries": 0, **changes.get("limits", {})}
    defaults = yaml.safe_load(preset_text("default"))
    return read_desk_config(yaml.safe_dump(given), defaults, "test")
