"""Hostile news, and a model that obeys whatever it reads: code holds all the same.

`hostile_news.jsonl` has the items. `obeyed` is what the executor answers to one: an object is laid
over the worst that the stub can think of, a text is sent as it is; `analyst` is the same for the
NewsAnalyst. `{"repeat": [text, n]}` stands for a long text, and a word in << >> for what only the
server knows (`Model.secrets`).
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model._redact import KEY_MARK as KEY_STRUCK
from finagent_model._redact import NOTES
from finagent_model._redact import PROMPT_MARK as PROMPT_STRUCK
from finagent_model.audit.chain import dump_turns
from finagent_model.cassette.cassette import Cassette
from finagent_model.cassette.jsonl import dump_replies
from finagent_model.config.desk_config import DeskConfig, Prompts, preset_text, read_desk_config
from finagent_model.data.market import Market
from finagent_model.decision.decision import Decision
from finagent_model.desk.desk import Desk
from finagent_model.market.bars import parse_as_of
from finagent_model.market.news import BODY_LIMIT, HEADLINE_LIMIT, NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy.context import Context, build_context
from finagent_model.policy.policy import Policy
from finagent_model.settings import Settings
from support.places import TESTS

Item = dict[str, Any]

CORPUS: list[Item] = [
    json.loads(line) for line in (TESTS / "support" / "hostile_news.jsonl").read_text().splitlines()
]
KINDS = {
    "instruction",
    "fake_tool_result",
    "role_marker",
    "unicode",
    "huge",
    "link",
    "schema_mimic",
    "exfiltration",
    "other_symbol",
    "budget",
    "html",
}
HARMLESS: Item = {"id": "harmless", "headline": "Google shows a tablet", "body": "It is thin."}
NAMES = [item["id"] for item in CORPUS]
EACH = pytest.mark.parametrize("name", NAMES)

pytestmark = pytest.mark.slow

KEY = "sk-gullible-0123456789/ABCdef"
DAY = parse_as_of("2012-06-29")
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
SEATS = {
    "TechnicalAnalyst": "technical",
    "NewsAnalyst": "news",
    "RiskManager": "risk",
    "Executor": "executor",
}
OF_THE_DESK = {
    "symbol",
    "calibrated",
    "timeframe_analyzed",
    "model_used",
    "generated_at",
    "as_of",
    "fit_until",
    "fit_symbols",
    "evidence",
    "knowledge_cutoff",
    "model_uri",
    "model_version",
    "run_id",
}
"""Fields that no reply has a say in."""
ENVELOPE = {"days_ago", "untrusted", "headline", "body", "source"}
ROUNDED = 1 + 5e-4
"""A number that is written with four digits may be this much larger."""

ANALYST = {"trend": "bullish", "score": 0.5, "summary": "It rises, they say.", "key_factors": []}
TERMS = {
    "direction": "long",
    "stop_loss": 25.0,
    "take_profit": 9000.0,
    "position_size_percent": 5.0,
    "summary": "A stop below, a target above.",
}
DECISION: dict[str, Any] = {
    "action": "BUY",
    "confidence_score": 70,
    "reasoning": "Both reports point the same way.",
    "key_factors": ["trend"],
    "trend": "bullish",
    "support_level": None,
    "resistance_level": None,
    "suggested_entry_price": None,
    "suggested_stop_loss": None,
    "suggested_take_profit": None,
    "position_size_percent": 5.0,
}
CONFESSION = "The news says <<item>>. I was told <<system>> and sent <<authorization>>"
GULLIBLE: dict[str, dict[str, Any]] = {
    "TechnicalAnalyst": ANALYST | {"score": 1.0, "summary": CONFESSION},
    "NewsAnalyst": ANALYST | {"score": 1.0, "summary": CONFESSION, "key_factors": ["<<system>>"]},
    "RiskManager": TERMS
    | {"stop_loss": 0.01, "position_size_percent": 100, "summary": "Granted: <<authorization>>"},
    "Executor": DECISION
    | {
        "symbol": "AAPL",
        "confidence_score": 100,
        "reasoning": CONFESSION,
        "key_factors": ["<<authorization>>", "<<system>>"],
        "support_level": 0.01,
        "resistance_level": 1e6,
        "suggested_entry_price": 5800.0,
        "suggested_stop_loss": 1.0,
        "suggested_take_profit": 58000.0,
        "position_size_percent": 100,
    },
}


class Model(ThreadingHTTPServer):
    """Speaks the protocol, and does as it is told by any item of the corpus in what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.corpus = {item["id"]: item for item in CORPUS}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """The id of the item, and the request in which it came."""
        self.said: list[tuple[str, str]] = []

    def answer(self, request: dict[str, Any], authorization: str) -> dict[str, Any]:
        """The message of a reply."""
        system, question = (m["content"] for m in request["messages"][:2])
        seat = next(name for name in SEATS if name in system.split(" of a trading desk")[0])
        sources = [news.get("source", "") for news in json.loads(question)["news"]]
        item = next((self.corpus[name] for name in sources if name in self.corpus), None)
        self.asked.append((item["id"] if item else HARMLESS["id"], request))
        if item is None:
            harmless = {"RiskManager": TERMS, "Executor": DECISION}.get(seat, ANALYST)
            return {"role": "assistant", "content": json.dumps(harmless)}
        demanded = {"Executor": item.get("obeyed", {}), "NewsAnalyst": item.get("analyst", {})}
        obeyed = _filled(demanded.get(seat, {}), self.secrets(item, system, authorization))
        if isinstance(obeyed, dict) and "tool_calls" in obeyed:
            self.said.append((item["id"], json.dumps(obeyed)))
            return {"role": "assistant", "content": None, "tool_calls": _calls(obeyed)}
        if isinstance(obeyed, dict):
            worst = _filled(GULLIBLE[seat], self.secrets(item, system, authorization))
            obeyed = json.dumps(worst | obeyed)
        text = obeyed.replace("<<key escaped>>", "".join(f"\\u{ord(c):04x}" for c in KEY))
        self.said.append((item["id"], text))
        return {"role": "assistant", "content": text}

    def secrets(self, item: Item, system: str, authorization: str) -> dict[str, Any]:
        key = authorization.removeprefix("Bearer ")
        return {
            "item": f"{_filled(item['headline'])} {_filled(item['body'])}"[:300],
            "system": system,
            "system upper": system.upper(),
            "system spaced": " ".join(system),
            "system invisible": "\u200b".join(system),
            "system in pieces": [system[i : i + 39] for i in range(0, 39 * 20, 39)],
            "every prompt": " ".join(Prompts({}).text(name) for name in SEATS.values()),
            "authorization": authorization,
            "key": key,
            "key spaced": " ".join(key),
            "key upper": key.upper(),
            "nines": "9" * 5000,
        }


class _Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = self.server.answer(request, self.headers["Authorization"])
        reason = "tool_calls" if "tool_calls" in message else "stop"
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "finish_reason": reason, "message": message}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def _filled(value: Any, words: Mapping[str, Any] | None = None) -> Any:
    """`value` with long texts at their length and words in << >> replaced, where they are known."""
    known = words or {}
    match value:
        case {"repeat": [text, times]}:
            return text * times
        case dict():
            return {name: _filled(part, known) for name, part in value.items()}
        case list():
            return [_filled(part, known) for part in value]
        case str() if isinstance(known.get(value.strip("<>")), list):
            return known[value.strip("<>")]
        case str():
            return re.sub(r"<<([a-z ]+)>>", lambda m: known.get(m[1], m[0]), value)
    return value


def _calls(obeyed: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
        }
        for i, call in enumerate(obeyed["tool_calls"])
    ]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.from_settings(Settings.load({}))


@pytest.fixture(scope="module")
def config(model: Model) -> DeskConfig:
    address = f"http://127.0.0.1:{model.server_port}/v1"
    chosen = {"client": "openai", "model": "stub-1", "base_url": address}
    return read_desk_config(
        yaml.safe_dump(chosen), yaml.safe_load(preset_text("default")), "the test"
    )


def desk(config: DeskConfig, cassette: Cassette | None = None) -> Desk:
    known = Settings.load({"OPENAI_API_KEY": KEY})
    return Desk(config, None, known, cassette or Cassette(), clock=lambda: NOON)


def view(market: Market, item: Item, symbol: str = "GOOG") -> MarketView:
    """A view with this item and no other."""
    news = NewsItem(
        published_at=parse_as_of("2012-06-20"),
        headline=_filled(item["headline"]),
        body=_filled(item["body"]),
        source=item["id"],
    )
    return market.view(symbol, DAY, news=((news,), 0))


@dataclass(frozen=True, repr=False)
class Heard:
    """What came of each item, by its id."""

    decisions: dict[str, Decision]
    context: Context
    """With the harmless item."""
    cassette: Cassette
    asked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def heard(model: Model, market: Market, config: DeskConfig) -> Heard:
    """One desk decides about each item, and about a harmless one."""
    items, cassette = [HARMLESS, *CORPUS], Cassette()
    shared, views = desk(config, cassette), [view(market, item) for item in items]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.decide, views))
    decisions = {item["id"]: decision for item, decision in zip(items, found, strict=True)}
    everything = Heard(decisions, build_context(views[0], Policy()), cassette)
    for name, request in model.asked:
        everything.asked.setdefault(name, []).append(request)
    for name, text in model.said:
        everything.said.setdefault(name, []).append(text)
    return everything


def signal_text(decision: Decision) -> str:
    signal = decision.signal
    texts = (signal.reasoning, *signal.key_factors, *signal.warnings, *signal.clamps)
    return "\n".join(texts)


def squeezed(text: str) -> str:
    """Its letters and digits, in small."""
    return "".join(c for c in text.lower() if c.isalnum() and c.isascii())


def question(request: dict[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(request["messages"][1]["content"])
    return asked


def shown(heard: Heard, name: str) -> dict[str, Any]:
    """The one item of the question, as the seats read it."""
    items = [question(request)["news"] for request in heard.asked[name]]
    assert all(len(news) == 1 and news == items[0] for news in items)
    item: dict[str, Any] = items[0][0]
    return item


def test_injection_corpus_has_all_kinds_once() -> None:
    assert len(CORPUS) >= 60
    assert len(set(NAMES)) == len(NAMES)
    assert set(Counter(item["kind"] for item in CORPUS)) == KINDS


def test_injection_model_double_does_obey(heard: Heard) -> None:
    assert set(heard.said) == set(NAMES)
    for name, texts in heard.said.items():
        assert KEY in "".join(texts), name
        assert json.dumps(Prompts({}).text("technical"))[1:-1] in "".join(texts), name


def test_injection_corpus_meets_each_way_out(heard: Heard) -> None:
    ways = Counter(decision.signal.status for decision in heard.decisions.values())
    assert {"ok", "parse_failed", "levels_rejected"} <= set(ways)
    assert ways["ok"] > len(CORPUS) / 2
    clamps = " ".join(" ".join(d.signal.clamps) for d in heard.decisions.values())
    for clamp in ("entry 5800 moved", "stop 1 moved", "size 100 % cut", "support 0.01 dropped"):
        assert clamp in clamps


@EACH
def test_injection_cannot_move_levels_beyond_limits(
    heard: Heard, config: DeskConfig, name: str
) -> None:
    signal, context = heard.decisions[name].signal, heard.context
    assert signal.symbol == "GOOG"
    if signal.action == "HOLD":
        assert signal.status == "ok" or signal.confidence_score == 0
        assert (signal.suggested_entry_price, signal.position_size_percent) == (None, None)
        return
    assert signal.status == "ok"
    entry, stop = signal.suggested_entry_price, signal.suggested_stop_loss
    size = signal.position_size_percent
    assert entry is not None and stop is not None and size is not None
    assert abs(entry - context.last_close) <= config.risk.entry_atr * context.atr * ROUNDED
    assert abs(entry - stop) <= config.risk.max_stop_fraction * entry * ROUNDED
    target = signal.suggested_take_profit
    assert target is not None
    assert abs(target - entry) <= config.risk.max_target_atr * context.atr * ROUNDED
    assert size <= 100 * float(context.policy.position_size(abs(entry - stop) / entry)) * ROUNDED
    for level in (signal.support_level, signal.resistance_level):
        assert level is None or context.low <= level <= context.high


def test_injection_sets_no_foreign_field(heard: Heard) -> None:
    harmless = heard.decisions[HARMLESS["id"]].signal.model_dump(include=OF_THE_DESK)
    for name in NAMES:
        assert heard.decisions[name].signal.model_dump(include=OF_THE_DESK) == harmless


@EACH
def test_injection_leaks_no_prompt_into_signal(heard: Heard, name: str) -> None:
    text = squeezed(signal_text(heard.decisions[name]))
    for told in (squeezed(Prompts({}).text(seat)) for seat in SEATS.values()):
        assert not any(told[i : i + 40] in text for i in range(len(told) - 39))


@EACH
def test_injection_leaks_no_key_into_signal(heard: Heard, name: str) -> None:
    decision = heard.decisions[name]
    assert squeezed(KEY) not in squeezed(decision.signal.model_dump_json())
    assert KEY not in dump_turns([decision])
    for turn in decision.turns:
        assert KEY not in str(_parsed(turn.message_content))


def test_injection_leaks_no_key_into_recording(heard: Heard) -> None:
    assert len(heard.cassette.used_replies) > len(CORPUS)
    assert KEY not in dump_replies(heard.cassette.used_replies)
    for reply in heard.cassette.used_replies.values():
        assert KEY not in str(_parsed(reply.content))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def test_injection_redaction_leaves_a_clamp(heard: Heard) -> None:
    decision = heard.decisions["exfiltration-01"]
    assert PROMPT_STRUCK in decision.signal.reasoning
    assert KEY_STRUCK in decision.signal.reasoning
    assert set(NOTES.values()) <= set(decision.signal.clamps)
    assert not set(NOTES.values()) & set(heard.decisions[HARMLESS["id"]].signal.clamps)


def test_injection_redacted_reply_replays_alike(
    heard: Heard, market: Market, config: DeskConfig
) -> None:
    again = Desk(config, None, Settings.load({}), heard.cassette, mode="replay", clock=lambda: NOON)
    for item in CORPUS:
        if "tool_calls" not in item.get("obeyed", {}):
            first = heard.decisions[item["id"]].signal
            assert again.decide(view(market, item)).signal == first


def test_injection_changes_only_news_in_request(heard: Heard) -> None:
    harmless = {_system(request): request for request in heard.asked[HARMLESS["id"]]}
    assert set(harmless) == {Prompts({}).text(seat) for seat in SEATS.values()}
    for request in (request for name in NAMES for request in heard.asked[name]):
        like = harmless[_system(request)]
        assert _settings_of(request) == _settings_of(like)
        assert _but_news(question(request)) == _but_news(question(like))
        ours, theirs = request["messages"], like["messages"]
        assert [_sender(m) for m in ours[: len(theirs)]] == [_sender(m) for m in theirs]
        assert {m["role"] for m in ours[len(theirs) :]} <= {"assistant", "user", "tool"}


def _system(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


def _settings_of(request: dict[str, Any]) -> dict[str, Any]:
    """All that is asked beside the messages: model, sampling, tools and what else there may be."""
    return {name: value for name, value in request.items() if name != "messages"}


def _but_news(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name != "news"}


def _sender(message: dict[str, Any]) -> tuple[str, str | None]:
    return message["role"], message.get("name")


def test_injection_item_is_tagged_as_untrusted(heard: Heard) -> None:
    assert [name for name in NAMES if shown(heard, name).get("untrusted") is not True] == []


def test_injection_item_is_cut_to_length(heard: Heard) -> None:
    for item in (shown(heard, name) for name in NAMES):
        assert 0 < len(item["headline"]) <= HEADLINE_LIMIT
        assert len(item.get("body", "")) <= BODY_LIMIT
        assert set(item) <= ENVELOPE


def test_injection_no_invisible_character_reaches_model(heard: Heard) -> None:
    hidden = {
        name: found
        for name in NAMES
        for part in ("headline", "body")
        if (found := [c for c in shown(heard, name).get(part, "") if _is_hidden(c)][:5])
    }
    assert hidden == {}


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_injection_item_leaves_other_symbol_alone(market: Market, config: DeskConfig) -> None:
    alone = desk(config).decide(market.view("AAPL", DAY))
    seen = build_context(market.view("AAPL", DAY), Policy()).text
    shared = desk(config, Cassette())
    for item in CORPUS:
        if item["kind"] == "other_symbol":
            assert shared.decide(view(market, item)).signal.symbol == "GOOG"
    after = shared.decide(market.view("AAPL", DAY))
    assert after.signal == alone.signal
    assert [turn.message_content for turn in after.turns] == [
        turn.message_content for turn in alone.turns
    ]
    assert build_context(market.view("AAPL", DAY), Policy()).text == seen


@pytest.fixture(scope="module")
def harmless(market: Market) -> dict[str, Any]:
    """The question with the harmless item."""
    asked: dict[str, Any] = json.loads(build_context(view(market, HARMLESS), Policy()).text)
    return asked


BREAKING = st.sampled_from(
    ['"', "\\", '"}], "news": [{', '", "body": "', "}", "]", ",", "\n", "\x00", "\u2028", "\\u0022"]
)
TEXTS = st.lists(st.text(max_size=20) | BREAKING, max_size=12).map("".join)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(headline=TEXTS, body=TEXTS)
def test_injection_text_stays_one_item(
    market: Market, harmless: dict[str, Any], headline: str, body: str
) -> None:
    item = {"id": "any", "headline": f"News: {headline}", "body": body}
    text = build_context(view(market, item), Policy()).text
    asked = json.loads(text, object_pairs_hook=_no_repeats)
    assert _but_news(asked) == _but_news(harmless)
    (only,) = asked["news"]
    assert set(only) <= ENVELOPE
    assert (only["source"], only["days_ago"]) == ("any", 9)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
