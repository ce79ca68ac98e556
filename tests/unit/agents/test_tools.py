"""Tools answer about the one view, by arithmetic that can be done again; whatever a model sends
them comes back as bounded JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from autogen_core.tools import ToolSchema
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from finagent_model.agents.tools import TOOLS, Toolbox, ToolResult, schemas
from finagent_model.config.desk_config import RiskLimits
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import load_bundled_news
from finagent_model.desk._risk import Proposal, settle_levels
from finagent_model.errors import ConfigError
from finagent_model.evaluation.probes import corrupt_after
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import NewsItem
from finagent_model.market.view import MarketView
from finagent_model.policy.context import Context, build_context, round_significant
from finagent_model.policy.policy import Policy
from support.places import ROOT

AS_OF = parse_as_of("2012-09-28")
LONGEST = 16_000
"""Characters of a result at most, whatever is asked and whatever was published."""
ASKED = {
    "indicators": {"name": "sma", "window": 20, "last": 5},
    "bars": {"last": 60},
    "size": {"current_price": 100, "target_price": 120, "stop_loss": 90, "account_equity": 1e4},
    "levels": {"price": 600},
    "news": {"words": ["a"]},
}


def items(count: int, **fields: str) -> tuple[NewsItem, ...]:
    return tuple(
        NewsItem(
            published_at=AS_OF - timedelta(days=count - i),
            **{"headline": f"item {i}", **fields},
        )
        for i in range(count)
    )


def view_of(news: tuple[NewsItem, ...] = (), as_of: Any = AS_OF) -> MarketView:
    """AAPL, whose bars have splits and, in the last weeks, a dividend."""
    return MarketView.at(as_of, BundledBars().bars("AAPL"), news)


def boxed(view: MarketView, policy: Policy | None = None) -> Toolbox:
    return Toolbox(view, build_context(view, policy or Policy()), TOOLS)


VIEW = view_of()
BOX = boxed(VIEW)
QUESTION = json.loads(build_context(VIEW, Policy()).text)


def strictly(text: str) -> Any:
    """JSON without Python's NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def ask(box: Toolbox, tool: str, **arguments: Any) -> Any:
    result = box.call(tool, json.dumps(arguments))
    assert not result.is_error, result.content
    return strictly(result.content)


def refused(box: Toolbox, tool: str, arguments: str) -> str:
    result = box.call(tool, arguments)
    assert result.is_error
    found = strictly(result.content)
    assert set(found) == {"error"}
    return str(found["error"])


def as_last_traded(bars: BarSeries) -> list[dict[str, float]]:
    """Backwards from the last bar, one action at a time: splits and reinvested dividends."""
    rows, price_factor, share_factor = [], 1.0, 1.0
    for i in range(len(bars) - 1, -1, -1):
        row = {n: getattr(bars, n)[i] * price_factor for n in ("open", "high", "low", "close")}
        rows.append({**row, "volume": bars.volume[i] * share_factor})
        if i:
            before = bars.close[i - 1]
            price_factor *= (before - bars.dividend[i] * bars.split[i]) / before / bars.split[i]
            share_factor *= bars.split[i]
    return rows[::-1]


ROWS = as_last_traded(VIEW.bars)


def smoothed(values: Sequence[float], window: int, share: float) -> float:
    average = sum(values[:window]) / window
    for value in values[window:]:
        average += share * (value - average)
    return average


def rsi(n: int) -> float:
    moves = [now["close"] - before["close"] for before, now in pairwise(ROWS)]
    gain = smoothed([max(move, 0.0) for move in moves], n, 1 / n)
    loss = smoothed([max(-move, 0.0) for move in moves], n, 1 / n)
    return 100 * gain / (gain + loss)


def atr(n: int) -> float:
    ranges = [
        max(now["high"], before["close"]) - min(now["low"], before["close"])
        for before, now in pairwise(ROWS)
    ]
    return smoothed(ranges, n, 1 / n)


BY_HAND: dict[str, Callable[[int], float]] = {
    "sma": lambda n: sum(row["close"] for row in ROWS[-n:]) / n,
    "ema": lambda n: smoothed([row["close"] for row in ROWS], n, 2 / (n + 1)),
    "rsi": rsi,
    "atr": atr,
    "highest": lambda n: max(row["high"] for row in ROWS[-n:]),
    "lowest": lambda n: min(row["low"] for row in ROWS[-n:]),
    "rate_of_change": lambda n: ROWS[-1]["close"] / ROWS[-1 - n]["close"] - 1,
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("window", [2, 14, 300])
def test_indicator_tool_equals_reference_in_last_prices(name: str, window: int) -> None:
    found = ask(BOX, "indicators", name=name, window=window, last=1)
    assert found["values"] == [pytest.approx(BY_HAND[name](window), rel=2e-5)]
    assert found["unit"].startswith("price") == (name not in {"rsi", "rate_of_change"})


def test_indicator_tool_equals_number_in_question() -> None:
    policy = QUESTION["policy"]
    for name, window, shown in (
        ("atr", policy["atr"], QUESTION["atr"]),
        ("lowest", policy["channel"], QUESTION["support"]),
        ("highest", policy["channel"], QUESTION["resistance"]),
        ("rsi", policy["rsi"], QUESTION["features"]["rsi"]),
    ):
        assert ask(BOX, "indicators", name=name, window=window)["values"] == [shown]


def test_indicator_tool_gives_oldest_value_first() -> None:
    short = MarketView.at(parse_as_of("2012-12-31"), BundledBars().bars("FB"))
    box = boxed(short)
    closes = [row["close"] for row in as_last_traded(short.bars)]
    found = ask(box, "indicators", name="rate_of_change", window=len(closes) - 2, last=3)["values"]
    expected = [closes[-2] / closes[0] - 1, closes[-1] / closes[1] - 1]
    assert found[0] is None
    assert found[1:] == pytest.approx(expected, rel=2e-5)
    assert ask(box, "indicators", name="sma", window=300)["values"] == [None]


def test_bars_tool_is_in_units_of_last_bar() -> None:
    found = ask(BOX, "bars", last=60)
    assert found["columns"] == ["sessions_before", "open", "high", "low", "close", "volume"]
    assert [row[0] for row in found["rows"]] == list(range(59, -1, -1))
    for row, expected in zip(found["rows"], ROWS[-60:], strict=True):
        assert row[1:] == pytest.approx(list(expected.values()), rel=2e-5)
    assert found["rows"][-1][4] == QUESTION["last_close"] == VIEW.last_close
    assert [row[4] for row in found["rows"][-10:]] == QUESTION["recent_closes"]


def test_bars_tool_adjusts_for_splits() -> None:
    view = view_of(as_of=parse_as_of("2005-03-04"))  # two for one on 2005-02-28
    found = ask(boxed(view), "bars", last=10)["rows"]
    expected = as_last_traded(view.bars)[-10:]
    assert [row[1:] for row in found] == [
        pytest.approx(list(row.values()), rel=2e-5) for row in expected
    ]
    assert found[0][5] == pytest.approx(2 * view.bars.volume[-10], rel=2e-5)
    assert found[0][4] == pytest.approx(view.bars.close[-10] / 2, rel=2e-5)


def test_bars_tool_gives_null_for_unknown_volume() -> None:
    bars = BundledBars().bars("AAPL").to_frame().drop(columns="volume").head(110)
    series = BarSeries.from_frame("AAPL", bars)
    box = boxed(MarketView.at(series.close_time(-1), series), Policy(fast=5, slow=20, channel=20))
    rows = ask(box, "bars", last=60)["rows"]
    assert {row[5] for row in rows} == {None}
    few = MarketView.at(series.close_time(22), series)
    assert len(ask(boxed(few, Policy(fast=5, slow=20, channel=20)), "bars", last=60)["rows"]) == 23


@pytest.mark.parametrize(
    ("price", "target", "stop", "expected"),
    [
        # 2 % of 10,000 is 200, at 10 a share.
        (100, 120, 90, (2, 20, 200, 400)),
        # The same for a short.
        (100, 80, 110, (2, 20, 200, 400)),
        # 200 at 0.5 a share would be 400 shares; all the equity buys 100.
        (100, 101, 99.5, (2, 100, 50, 100)),
    ],
)
def test_size_tool_risks_policys_fraction_of_equity(
    price: float, target: float, stop: float, expected: tuple[float, ...]
) -> None:
    asked = {"current_price": price, "target_price": target, "stop_loss": stop}
    found = ask(BOX, "size", **asked, account_equity=10_000)
    names = ("r_coefficient", "position_size", "risk_amount", "profit_potential")
    assert found == dict(zip(names, expected, strict=True))


@given(
    st.floats(1, 1e5), st.floats(1e-4, 0.5), st.floats(1e-4, 0.9), st.booleans(),
    st.floats(1, 1e12), st.floats(0.001, 0.1), st.floats(0.01, 1),
)  # fmt: skip
def test_size_tool_equals_size_of_settle_levels(
    price: float, risk: float, gain: float, long: bool, equity: float, fraction: float, most: float
) -> None:
    side = 1 if long else -1
    stop, target = price * (1 - side * risk), price * (1 + side * gain)
    policy = Policy(risk_fraction=fraction, max_position=most)
    context = Context("{}", last_close=price, atr=price / 50, low=1, high=1e6, policy=policy)
    asked = {"current_price": price, "target_price": target, "stop_loss": stop}
    found = ask(Toolbox(VIEW, context, ["size"]), "size", **asked, account_equity=equity)
    held = settle_levels(
        Proposal("BUY" if long else "SELL", price, stop, target, None),
        context,
        RiskLimits(max_stop_fraction=0.9, max_target_atr=100),
    )
    percent = 100 * found["position_size"] * price / equity
    assert percent == pytest.approx(held.size_percent, rel=1e-3)
    assert found["r_coefficient"] == pytest.approx(held.r_multiple, rel=1e-3)
    assert found["risk_amount"] <= fraction * equity * (1 + 1e-5)
    assert percent <= 100 * most * (1 + 1e-5)


@pytest.mark.parametrize(("target", "stop"), [(120, 110), (80, 90), (100, 90), (120, 100)])
def test_size_tool_refuses_stop_beside_target(target: float, stop: float) -> None:
    asked = ASKED["size"] | {"target_price": target, "stop_loss": stop}
    said = refused(BOX, "size", json.dumps(asked))
    assert f"opposite sides of current_price; got {stop} and {target} around 100" in said


@pytest.mark.parametrize("price", [567.577, 600, 667.105, 900, 1e-6])
def test_levels_tool_places_price_in_channel(price: float) -> None:
    found = ask(BOX, "levels", price=price)
    q = QUESTION
    assert found == {
        "price": price,
        "support": q["support"],
        "resistance": q["resistance"],
        "channel_position": round_significant(
            (price - q["support"]) / (q["resistance"] - q["support"])
        ),
        "atr_above_support": round_significant((price - q["support"]) / q["atr"]),
        "atr_below_resistance": round_significant((q["resistance"] - price) / q["atr"]),
        "atr_above_last_close": round_significant((price - q["last_close"]) / q["atr"]),
        "year_low": q["year_low"],
        "year_high": q["year_high"],
        "year_position": round_significant(
            (price - q["year_low"]) / (q["year_high"] - q["year_low"])
        ),
    }


def test_news_tool_ignores_case() -> None:
    news = (
        *items(1, headline="Lawsuit filed"),
        *items(1, headline="Results", body="a LAWSUIT is settled"),
        *items(1, headline="Nothing"),
        *items(1, headline="Also nothing", source="Stra\u00dfe News"),
    )
    box = boxed(view_of(news))
    found = ask(box, "news", words=["lawSuit"])
    assert (found["searched"], found["found"]) == (4, 2)
    assert found["items"] == [
        {"days_ago": 1, "untrusted": True, "headline": "Results", "body": "a LAWSUIT is settled"},
        {"days_ago": 1, "untrusted": True, "headline": "Lawsuit filed"},
    ]
    assert ask(box, "news", words=["STRASSE", "filed"])["found"] == 2
    assert ask(box, "news", words=["absent"]) == {"searched": 4, "found": 0, "items": []}


def test_news_tool_uses_questions_envelope() -> None:
    news = items(15, body="words " * 300, source="wire")
    view = view_of(news)
    found = ask(boxed(view), "news", words=["item"])
    told = json.loads(build_context(view, Policy()).text)["news"]
    assert found["found"] == 15
    assert [item | {"body": ""} for item in found["items"]] == [
        item | {"body": ""} for item in told[:-11:-1]
    ]
    assert {len(item["body"]) for item in found["items"]} <= {299, 300}


def test_news_tool_finds_word_as_a_human_sees_it() -> None:
    box = boxed(view_of(items(1, headline="re\u200bcall of \uff50hones")))
    assert ask(box, "news", words=["recall"])["found"] == 1
    assert ask(box, "news", words=["PHONES"])["found"] == 1
    assert "something that can be read" in refused(box, "news", '{"words": ["\\u200b"]}')


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "other",
    ["symbol", "ticker", "as_of", "date", "start", "end", "days_ago", "path", "url", "offset"],
)
def test_toolbox_takes_no_other_symbol_or_day(tool: str, other: str) -> None:
    for value in ("MSFT", "2013-01-31", -1):
        said = refused(BOX, tool, json.dumps(ASKED[tool] | {other: value}))
        assert said.startswith(f"unknown key '{other}'; {tool} takes ")


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("indicators", '{"name": "wma", "window": 9}', "name: must be 'sma', 'ema'"),
        ("indicators", '{"name": "sma", "window": 0}', "window: must be at least 1, not 0"),
        ("indicators", '{"name": "sma", "window": 301}', "window: must be at most 300, not 301"),
        ("indicators", '{"name": "sma"}', "window: is missing; indicators takes name, window"),
        ("bars", '{"last": 61}', "last: must be at most 60, not 61"),
        ("bars", '{"last": -1}', "last: must be at least 1, not -1"),
        ("bars", '{"last": "3"}', "last: must be a whole number"),
        ("bars", '{"last": true}', "last: must be a whole number"),
        ("bars", '{"last": 1.5}', "last: must be a whole number"),
        ("bars", '{"last": %s}' % ("9" * 1900), "last: "),
        ("bars", "", "must be JSON"),
        ("bars", "{'last': 3}", "must be JSON"),
        ("bars", "[" * 1900, "must be JSON"),
        ("bars", "[3]", "must be a mapping of keys to values, .*; bars takes last"),
        ("bars", "null", "must be a mapping of keys to values, .*; bars takes last"),
        ("levels", '{"price": NaN}', "price: .* finite number"),
        ("levels", '{"price": -Infinity}', "price: .* finite number"),
        ("levels", '{"price": 1e400}', "price: .* finite number"),
        ("levels", '{"price": 1e308}', "price: must be at most"),
        ("levels", '{"price": 0}', "price: must be at least"),
        ("size", json.dumps(ASKED["size"] | {"account_equity": -5}), "account_equity: "),
        ("news", '{"words": "apple"}', "words: must be a list"),
        ("news", '{"words": []}', "words: must have 1 or more items"),
        ("news", json.dumps({"words": ["x"] * 9}), "words: .* at most 8 items"),
        ("news", json.dumps({"words": ["x" * 61]}), "words.0: .* at most 60 characters"),
        ("news", '{"words": ["\ud800"]}', "must be text in UTF-8"),
        ("news", '{"words": ["\\ud800"]}', "must be JSON"),
        ("news", json.dumps({"words": ["x" * 10**6]}), "longer than 2000 characters; news takes"),
        ("tools", "{}", "unknown tool 'tools'; allowed: indicators, bars, size, levels, news"),
        ("x" * 10**6, "{}", "unknown tool 'x{40}'; allowed: "),
        ("\ud800\x00", "{}", "unknown tool ''; allowed: "),
    ],
)
def test_toolbox_refused_call_says_what_is_allowed(tool: str, arguments: str, said: str) -> None:
    assert re.search(said, refused(BOX, tool, arguments))


def test_toolbox_answers_for_its_own_tools_only() -> None:
    some = Toolbox(VIEW, build_context(VIEW, Policy()), ["levels", "bars"])
    assert ask(some, "levels", price=600) == ask(BOX, "levels", price=600)
    assert refused(some, "size", "{}") == "unknown tool 'size'; allowed: levels, bars"
    none = Toolbox(VIEW, build_context(VIEW, Policy()), [])
    assert refused(none, "size", "{}") == "unknown tool 'size'; allowed: none"


def test_toolbox_refuses_unknown_tool() -> None:
    for configure in (schemas, lambda names: Toolbox(VIEW, build_context(VIEW, Policy()), names)):
        with pytest.raises(ConfigError, match="unknown tool 'shell'; use any of: indicators, bars"):
            configure(["bars", "shell"])


def checked(result: ToolResult) -> None:
    found = strictly(result.content)
    assert isinstance(found, dict)
    assert ("error" in found) == result.is_error
    assert len(result.content) <= LONGEST
    result.content.encode()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN = ("name", "window", "last", "price", "words", "current_price", "target_price", "stop_loss")
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        **{name: JSON_VALUES | st.floats(0, 1e12) | st.integers(0, 400) for name in KNOWN},
        "name": st.sampled_from(list(BY_HAND)) | JSON_VALUES,
        "words": st.lists(st.text(max_size=61), max_size=9) | JSON_VALUES,
        "account_equity": st.floats(0, 1e16) | JSON_VALUES,
        "symbol": st.text(),
    },
)


@given(st.sampled_from(TOOLS) | st.text(), JSON_VALUES | NEARLY)
@settings(deadline=None, max_examples=300)
def test_toolbox_answers_any_json_in_bounded_json(tool: str, arguments: Any) -> None:
    checked(BOX.call(tool, json.dumps(arguments)))
    checked(BOX.call(tool, json.dumps(arguments, ensure_ascii=False)))


@given(st.sampled_from(TOOLS), st.text(st.characters(exclude_categories=())))
@settings(deadline=None)
def test_toolbox_answers_any_text_in_bounded_json(tool: str, arguments: str) -> None:
    checked(BOX.call(tool, arguments))


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_toolbox_answers_any_arguments_within_bounds(data: st.DataObject) -> None:
    price = st.floats(1e-6, 1e9)
    low, middle, high = sorted(data.draw(st.sets(price, min_size=3, max_size=3)))
    ends = [low, high] if data.draw(st.booleans()) else [high, low]
    asked = {
        "indicators": {
            "name": data.draw(st.sampled_from(list(BY_HAND))),
            "window": data.draw(st.integers(1, 300)),
            "last": data.draw(st.integers(1, 60)),
        },
        "bars": {"last": data.draw(st.integers(1, 60))},
        "size": {
            "current_price": middle,
            **dict(zip(("stop_loss", "target_price"), ends, strict=True)),
            "account_equity": data.draw(st.floats(1e-6, 1e15)),
        },
        "levels": {"price": middle},
        "news": {"words": data.draw(st.lists(st.text("ab\u00df", min_size=1), min_size=1))[:8]},
    }
    for tool, arguments in asked.items():
        result = BOX.call(tool, json.dumps(arguments))
        checked(result)
        assert not result.is_error, result.content


def test_toolbox_bounds_longest_news() -> None:
    quotes = '"\\' * 3000
    box = boxed(view_of(items(20, headline=quotes, body=quotes, source=quotes)))
    result = box.call("news", '{"words": ["\\\\"]}')
    assert strictly(result.content)["found"] == 20
    checked(result)


def everything(view: MarketView) -> list[str]:
    """Every tool's answer, and each indicator's over a short and a long window."""
    box = boxed(view)
    calls = [*ASKED.items()] + [
        ("indicators", {"name": name, "window": window, "last": 60})
        for name in BY_HAND
        for window in (3, 200)
    ]
    results = [box.call(tool, json.dumps(arguments)) for tool, arguments in calls]
    assert not any(result.is_error for result in results)
    return [result.content for result in results]


@pytest.mark.parametrize("cut", [103, 150, 260, 1381, 2500, 3269])
def test_toolbox_has_no_look_ahead(cut: int) -> None:
    bars, (news, _) = BundledBars().bars("AAPL"), load_bundled_news().news("AAPL")
    as_of = parse_as_of(bars.close_time(cut - 1).date())
    known = tuple(item for item in news if item.published_at <= as_of)
    fake = NewsItem(published_at=as_of + timedelta(microseconds=1), headline="All is known: a")
    whole = everything(MarketView.at(as_of, bars, news))
    assert everything(MarketView.at(as_of, bars[:cut], known)) == whole
    assert everything(MarketView.at(as_of, corrupt_after(bars, cut), (*known, fake))) == whole


def test_toolbox_sees_corruption_within_view() -> None:
    bars = BundledBars().bars("AAPL")
    as_of = parse_as_of(bars.close_time(2010).date())
    one, other = (everything(MarketView.at(as_of, b)) for b in (bars, corrupt_after(bars, 2000)))
    assert all(a != b for a, b in zip(one[:2], other[:2], strict=True))


def test_toolbox_answers_hold_no_date() -> None:
    told = "".join(everything(view_of(load_bundled_news().news("AAPL")[0])))
    told = re.sub(r'"headline": "[^"]*"', "", told)
    assert not re.search(r"(19|20)\d\d-\d\d|-\d\d-\d\dT", told)


def test_toolbox_is_deterministic() -> None:
    assert everything(VIEW) == everything(view_of())


WATCHED = f"""
import json, sys
from finagent_model.policy.context import build_context
from finagent_model.data.bundled import BundledBars
from finagent_model.data.files import load_bundled_news
from finagent_model.market.bars import parse_as_of
from finagent_model.market.view import MarketView
from finagent_model.policy.policy import Policy
from finagent_model.agents.tools import TOOLS, Toolbox

news = load_bundled_news().news("AAPL")
view = MarketView.at(parse_as_of("2012-09-28"), BundledBars().bars("AAPL"), *news)
box = Toolbox(view, build_context(view, Policy()), TOOLS)
calls = [(tool, json.dumps(asked)) for tool, asked in {ASKED!r}.items()]
calls += [("indicators", json.dumps(dict(name=name, window=14))) for name in {list(BY_HAND)!r}]
bad = ("", "{{", "null", "[1]", json.dumps(dict(symbol="MSFT", path="/etc/passwd")), "x" * 10**6)
calls += [(tool, arguments) for tool in (*TOOLS, "shell") for arguments in bad]
seen, watching = [], True
def watch(event, args):
    if watching and event.partition(".")[0] not in ("object", "sys", "code", "marshal", "builtins"):
        seen.append((event, str(args)[:100]))
sys.addaudithook(watch)
answered = [box.call(*call).is_error for call in calls]
watching = False
print(json.dumps([answered.count(False), answered.count(True), seen]))
"""


@pytest.mark.slow
def test_toolbox_opens_no_file_socket_or_process(tmp_path: Path) -> None:
    """Nothing is even imported: the code of every tool is there before the first call."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WATCHED}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [len(TOOLS) + len(BY_HAND), 6 * (len(TOOLS) + 1), []]


@pytest.mark.parametrize("schema", schemas(TOOLS), ids=TOOLS)
def test_tool_schema_is_autogens_strict_shape(schema: dict[str, Any]) -> None:
    assert TypeAdapter(ToolSchema).validate_python(schema) == schema
    assert schema["strict"] is True
    parameters = schema["parameters"]
    assert parameters["additionalProperties"] is False
    assert parameters["required"] == list(parameters["properties"])
    known = {"type", "enum", "minimum", "maximum", "items", "minItems", "maxItems"}
    for told in parameters["properties"].values():
        assert {"type"} <= set(told) <= known
        assert set(told.get("items", {})) <= known
    assert set(ASKED[schema["name"]]) == set(parameters["required"])


def test_tool_schemas_keep_order_of_names() -> None:
    assert [schema["name"] for schema in schemas(["news", "bars"])] == ["news", "bars"]
    assert TOOLS == ("indicators", "bars", "size", "levels", "news")
