"""A stand-in of llama.cpp's library, found by a server process whose PYTHONPATH has this folder.

The word after `GGUF` in a model file says how it behaves: `refuse`, `die` and `hang` while it
loads, `mortal` dies of its second request.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPLIES = {
    "analyst": {"trend": "bullish", "score": 0.4, "summary": "It is rising.", "key_factors": []},
    "executor": {
        "action": "BUY",
        "confidence_score": 65,
        "trend": "bullish",
        **dict.fromkeys(("support_level", "resistance_level", "suggested_entry_price")),
        **dict.fromkeys(("suggested_stop_loss", "suggested_take_profit", "position_size_percent")),
        "key_factors": ["rsi"],
        "reasoning": "The report is bullish.",
    },
}


class CommonParams:
    def __init__(self) -> None:
        self.model = SimpleNamespace(path="")
        self.cpuparams, self.cpuparams_batch = SimpleNamespace(), SimpleNamespace()
        self.api_keys: list[str] = []


class Server:
    def __init__(self, params: Any) -> None:
        path = Path(params.model.path)
        word = path.read_bytes()[4:].decode()
        # What a test wants to know of this process.
        seen = {"environ": dict(os.environ), "threads": params.cpuparams.n_threads}
        path.with_suffix(".seen").write_text(json.dumps(seen))
        if word == "refuse":
            print("0.00.004 E gguf_init: bad GGUF version: 0", file=sys.stderr)
            print("0.00.005 E srv init: exiting due to model loading error", file=sys.stderr)
            raise RuntimeError("Failed to init server, please check the input params.")
        if word == "die":
            os._exit(7)
        if word == "hang":
            time.sleep(600)
        print("a line of llama.cpp's own among the protocol's")
        handler = make_handler(params.api_keys[0], 1 if word == "mortal" else 1_000_000)
        server = ThreadingHTTPServer((params.hostnames[0], params.port), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.listening_address = f"http://127.0.0.1:{server.server_port}"


def make_handler(key: str, lives: int) -> type[BaseHTTPRequestHandler]:
    answered = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if answered[0] >= lives:
                os._exit(9)
            answered[0] += 1
            if self.headers["authorization"] != f"Bearer {key}":
                return self.send(401, {"error": {"message": "Invalid API Key"}})
            role = body["response_format"]["json_schema"]["name"]
            text, usage = json.dumps(REPLIES[role]), {"prompt_tokens": 500, "completion_tokens": 90}
            base = {"id": "1", "created": 1, "model": body["model"]}
            if not body.get("stream"):
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                self.send(200, {**base, "choices": [choice], "usage": {**usage, "total_tokens": 1}})
                return
            delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            last = {"index": 0, "delta": {}, "finish_reason": "stop"}
            counted = {**base, "choices": [], "usage": {**usage, "total_tokens": 1}}
            frames = [{**base, "choices": [delta]}, {**base, "choices": [last]}, counted]
            lines = [f"data: {json.dumps(frame)}\n\n" for frame in frames] + ["data: [DONE]\n\n"]
            self.send(200, "".join(lines).encode(), "text/event-stream")

        def send(self, status: int, body: Any, kind: str = "application/json") -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
