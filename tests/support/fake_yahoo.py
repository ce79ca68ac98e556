"""A stand-in for Yahoo: `yfinance` itself, with its own transport, talks TLS to a socket file of
this process, so that nothing can leave the machine.
"""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finagent_model.market.bars import PRICES, BarSeries

NOT_FOUND = {
    "chart": {
        "result": None,
        "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"},
    }
}
OPENS_UTC = timedelta(hours=14, minutes=30)
SESSION_S = 23_400
LATER = datetime(2013, 6, 1, tzinfo=UTC)
"""When no session of the bundled bars goes on."""


@dataclass
class Yahoo:
    """Answers to questions about charts, by symbol; whatever else is asked is not found."""

    socket: Path
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Paths of the charts, in order."""
    delay_s: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)
    now: datetime = LATER
    """When it is asked."""

    def says(self, symbol: str, body: object, status: int = 200) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[symbol] = status, text

    def transport(self) -> dict[str, Any]:
        """For curl_cffi's session."""
        from curl_cffi import CurlOpt

        path = str(self.socket)
        return {"verify": False, "curl_options": {CurlOpt.UNIX_SOCKET_PATH: path}}


def chart(series: BarSeries, *, later_split: float = 1.0, **meta: object) -> dict[str, Any]:
    """What Yahoo says of a series as traded: prices, volumes and dividends in units of the last
    day's share, in single precision. `later_split` comes on the day after the last bar, in whose
    session it was asked.
    """
    if later_split != 1.0:
        body = chart(_with_a_day(series, later_split), **meta)
        body["chart"]["result"][0]["meta"]["regularMarketTime"] -= 3600
        return body
    shares = np.cumprod(series.split[::-1])[::-1] / series.split
    days = [series.close_time(i).date() for i in range(len(series))]
    opened = [
        int((datetime(d.year, d.month, d.day, tzinfo=UTC) + OPENS_UTC).timestamp()) for d in days
    ]

    def listed(values: Any) -> list[float]:
        return [float(v) for v in np.asarray(values, dtype=np.float32)]

    quote: dict[str, list[Any]] = {n: listed(getattr(series, n) / shares) for n in PRICES}
    quote["volume"] = [round(v) for v in series.volume * shares]
    splits = {i: float(series.split[i]) for i in np.flatnonzero(series.split != 1.0)}
    dates = {i: opened[i] for i in splits}
    paid = np.flatnonzero(series.dividend > 0)
    amounts = series.dividend / shares
    last = {"start": opened[-1], "end": opened[-1] + SESSION_S, "gmtoffset": -18000}
    return {
        "chart": {
            "error": None,
            "result": [
                {
                    "meta": {
                        "currency": "USD",
                        "symbol": series.symbol,
                        "instrumentType": "EQUITY",
                        "exchangeTimezoneName": "America/New_York",
                        "validRanges": ["1d", "max"],
                        "regularMarketTime": opened[-1] + SESSION_S + 1,
                        "currentTradingPeriod": {
                            part: {**last, "timezone": "EST"} for part in ("pre", "regular", "post")
                        },
                        **meta,
                    },
                    "timestamp": opened,
                    "events": {
                        "splits": {
                            str(dates[i]): {"date": dates[i], "numerator": n, "denominator": 1}
                            for i, n in splits.items()
                        },
                        "dividends": {
                            str(opened[i]): {
                                "date": opened[i],
                                "amount": round(float(amounts[i]), 6),
                            }
                            for i in paid
                        },
                    },
                    "indicators": {"quote": [quote], "adjclose": [{"adjclose": quote["close"]}]},
                }
            ],
        }
    }


def _with_a_day(series: BarSeries, split: float) -> BarSeries:
    """One more, on which a split changes the price and nothing else does."""
    frame = series.to_frame()
    day = frame.iloc[[-1]].assign(split=split, dividend=0.0)
    day[[*PRICES]] = series.close[-1] / split
    day["closed_at"] += timedelta(days=1)
    return BarSeries.from_frame(series.symbol, pd.concat([frame, day]))


@contextmanager
def serving(folder: Path) -> Iterator[Yahoo]:
    """The stand-in for the time of the block."""
    yahoo = Yahoo(folder / "yahoo.sock")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = 404, json.dumps(NOT_FOUND).encode()
            if "/v8/finance/chart/" in self.path:
                yahoo.asked.append(self.path)
                symbol = self.path.partition("?")[0].rpartition("/")[2]
                status, body = yahoo.answers.get(symbol, (status, body))
                yahoo.stopped.wait(yahoo.delay_s)
            elif self.path.endswith("/getcrumb"):
                status, body = 200, b"crumb"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *said: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

        def handle_error(self, *of: object) -> None:
            pass  # a client that waited no longer

    server = Server(str(yahoo.socket), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield yahoo
    finally:
        yahoo.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "stand-in.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
