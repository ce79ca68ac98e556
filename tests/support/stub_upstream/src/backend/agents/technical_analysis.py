"""A stand-in for upstream's analysis: the same call, the same shape, a simpler rule; and for some
symbols a fault.
"""

import ctypes
import faulthandler
import os
import socket
import sys
import time
from datetime import date, datetime, timedelta

from autogen_core import default_subscription
from dotenv import load_dotenv
from helpers.yfutils import yfUtils

load_dotenv()


@default_subscription
class TechnicalAnalysisAgent:
    pass


def analysis(symbol, bars):
    close = bars["Close"]
    last, mean = float(close.iloc[-1]), float(close.tail(10).mean())
    way = 1 if last > 1.005 * mean else -1 if last < 0.995 * mean else 0
    word = {1: "bullish", -1: "bearish", 0: "neutral"}[way]
    score = 2 * way
    return {
        "ticker_symbol": symbol,
        "candlestick_patterns": {},
        "indicators": {
            "close_price": last,
            "ema": {"short_ema": mean, "long_ema": mean, "signal": "neutral"},
            "rsi": {"value": 50.0, "signal": "neutral"},
            "macd": {"value": 0.1, "signal_line": 0.2, "hist": -0.1, "trend": word},
            "bollinger": {
                "upper": float(bars["High"].max()),
                "lower": float(bars["Low"].min()),
                "mid": mean,
                "signal": "within_band",
            },
            "stochastics": {"%K": 50.0, "%D": 50.0, "signal": "neutral"},
            "atr": float((bars["High"] - bars["Low"]).mean()),
            "adx": {
                "adx_value": 30.0,
                "+DI": 20.0,
                "-DI": 10.0,
                "trend_strength": "strong_trend",
                "trend_direction": f"{word}_trend",
            },
        },
        "fundamentals": {},
        "news_sentiment": 0.0,
        "final_decision": {
            "score": score,
            "max_score_possible": 5,
            "probability": round(0.5 + 0.1 * score, 3),
            "rating": {1: "buy", -1: "sell", 0: "hold"}[way],
        },
    }


def fault(symbol, bars, reply):
    """What goes wrong, by the symbol that is asked about."""
    decision, indicators = reply["final_decision"], reply["indicators"]
    match symbol:
        case "HANG":
            time.sleep(3600)
        case "EXIT":
            os._exit(7)
        case "QUIT":
            sys.exit("done for today")
        case "SEGV":
            faulthandler._sigsegv()
        case "RAISE":
            raise IndexError("index 27 is out of bounds")
        case "NOISE":
            print("a line that is no JSON")
            os.write(1, b"nor is this one\n")
        case "ASK":
            input("Your key, please: ")
        case "NETWORK":
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        case "KERNEL":
            ctypes.CDLL(None).socket(2, 1, 0)
        case "WRITE":
            open("left-behind.txt", "w")
        case "PLANT":
            os.open("left-behind.txt", os.O_CREAT | os.O_WRONLY)
        case "FLOOD":
            print("x" * (20 << 20))
        case "MEMORY":
            bytearray(8 << 30)
        case "SECRETS":
            raise LookupError(" ".join(sorted(os.environ)))
        case "FOLDER":
            raise LookupError(str(os.listdir()))
        case "CLOCK":
            raise LookupError(f"{date.today()} {datetime.now().date()}")
        case "SEEN":
            raise LookupError(f"{len(bars)} bars from {bars.index[0]:%F} to {bars.index[-1]:%F}")
        case "FUTURE":
            yfUtils.get_stock_data(symbol, "2012-01-01", str(date.today() + timedelta(days=1)))
        case "OTHER":
            yfUtils.get_stock_data("GOOG", "2012-01-01", "2012-02-01")
        case "TABLE":
            reply["indicators"] = bars
        case "NAN":
            indicators["macd"]["signal_line"] = float("nan")
        case "STRONGLY":
            decision["rating"] = "strong buy"
        case "SURE":
            decision["probability"] = 1.2
        case "NOTHING":
            return {"ticker_symbol": symbol, "error": "No data found", "analysis": {}}
        case "WRONG":
            reply["ticker_symbol"] = "GOOG"
        case "SHORT":
            del reply["final_decision"]
    return reply


async def run_enhanced_technical_analysis(ticker_symbol):
    end_date = date.today().strftime("%Y-%m-%d")
    start_date = (date.today() - timedelta(days=365)).strftime("%Y-%m-%d")
    bars = yfUtils.get_stock_data(ticker_symbol, start_date, end_date)
    return fault(ticker_symbol, bars, analysis(ticker_symbol, bars))
