"""Bars of a vendor: asked once, kept by content, repeated offline, and revisions are named."""

from __future__ import annotations

import logging
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from finagent_model.data.bar_cache import BarStore, CachedBars, StoredBars
from finagent_model.data.bundled import BundledBars
from finagent_model.data.market import Market
from finagent_model.data.protocols import describe_error
from finagent_model.data.snapshots import BarsSnapshot, compare_bars
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    LocalStateError,
    UnknownSymbolError,
)
from finagent_model.market.bars import PRICES, BarSeries, parse_as_of
from finagent_model.policy.context import build_context
from finagent_model.policy.policy import Policy

WHOLE = BundledBars().bars("FB")
NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)


class Vendor:
    """Whose answer a test sets."""

    name = "vendor"

    def __init__(self, answer: BarSeries | Exception = WHOLE) -> None:
        self.answer: object = answer
        self.asked = 0

    def symbols(self) -> tuple[str, ...]:
        return ("FB",)

    def bars(self, symbol: str) -> BarSeries:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


def process(vendor: Vendor, home: Path, now: datetime = NOW) -> CachedBars:
    """What a new process has of it."""
    return CachedBars(vendor, BarStore(home), lambda: now)


def with_close(series: BarSeries, at: int, close: float) -> BarSeries:
    frame = series.to_frame()
    frame.loc[at, ["close", "high"]] = close, max(close, float(series.high[at]))
    return BarSeries.from_frame(series.symbol, frame)


def test_cached_bars_keep_notes_of_their_source(tmp_path: Path) -> None:
    noted = replace(WHOLE, notes=("sorted",))
    first, day = process(Vendor(noted), tmp_path), parse_as_of("2013-03-01")
    assert first.bars_as_of("FB", day).notes == ("sorted",)
    second = process(Vendor(DataSourceError("down")), tmp_path)
    assert second.bars_as_of("FB", day).notes == ("sorted",)
    assert StoredBars(BarStore(tmp_path)).bars("FB").notes == ("sorted",)
    pinned = Market(second, None, pinned={"FB": first.snapshot("FB")})
    assert pinned.bars("FB").notes == ("sorted",)


def test_cached_bars_ask_once_per_process(tmp_path: Path) -> None:
    vendor = Vendor()
    source = process(vendor, tmp_path)
    for day in (None, "2013-03-01", "2013-03-15", "2013-03-31", "2012-06-29"):
        assert source.bars_as_of("FB", parse_as_of(day) if day else None) is source.bars("FB")
    assert vendor.asked == 1


@pytest.mark.parametrize(
    ("as_of", "asked"),
    [
        ("2012-06-29", 0),
        ("2013-03-01", 0),
        ("2013-03-03", 0),  # a Sunday: the bar of Friday is all there can be
        ("2013-03-04T20:00:00+00:00", 0),  # Monday's is not closed yet
        ("2013-03-04", 1),
        ("2013-03-31", 1),
        ("2013-04-02", 1),
    ],
)
def test_cached_bars_are_used_where_they_cover_as_of(
    tmp_path: Path, as_of: str, asked: int
) -> None:
    process(Vendor(), tmp_path).bars("FB")
    vendor = Vendor()
    source = process(vendor, tmp_path)
    for _ in range(3):
        assert source.bars_as_of("FB", parse_as_of(as_of)).digest() == WHOLE.digest()
    assert vendor.asked == asked


def test_cached_bars_refetch_late_bar_once(tmp_path: Path) -> None:
    day = parse_as_of(WHOLE.close_time(100).date())
    process(Vendor(WHOLE[:100]), tmp_path, day + timedelta(minutes=5)).bars("FB")
    vendor = Vendor(WHOLE[:101])
    morning = process(vendor, tmp_path, day + timedelta(hours=9))
    assert morning.bars_as_of("FB", day).close_time(-1) == WHOLE.close_time(100)
    assert process(vendor, tmp_path).bars_as_of("FB", day).close_time(-1) == WHOLE.close_time(100)
    assert vendor.asked == 1
    StoredBars(BarStore(tmp_path)).bars("FB")
    assert vendor.asked == 1


def test_cached_bars_refetch_for_later_close(
    tmp_path: Path,
) -> None:
    vendor = Vendor()
    now = WHOLE.close_time(100) - timedelta(hours=3)
    source = CachedBars(vendor, BarStore(tmp_path), lambda: now)
    today = parse_as_of(WHOLE.close_time(100).date())
    for as_of in (now, None, now + timedelta(minutes=1)):
        assert source.bars_as_of("FB", as_of).close_time(-1) == WHOLE.close_time(99)
    assert vendor.asked == 1
    assert source.bars_as_of("FB", today).close_time(-1) == WHOLE.close_time(99)  # not over
    assert source.bars_as_of("FB", today).close_time(-1) == WHOLE.close_time(99)
    assert vendor.asked == 2
    now = WHOLE.close_time(101) + timedelta(hours=1)
    later = source.bars_as_of("FB", parse_as_of(WHOLE.close_time(101).date()))
    assert later.close_time(-1) == WHOLE.close_time(101)
    assert source.snapshot("FB").content_hash == later.digest()
    assert source.bars_as_of("FB", today) is later
    assert vendor.asked == 3


def test_cached_bars_refetch_unfinished_day(tmp_path: Path) -> None:
    process(Vendor(WHOLE[:100]), tmp_path, WHOLE.close_time(100) - timedelta(hours=3)).bars("FB")
    vendor = Vendor(WHOLE[:101])
    later = process(vendor, tmp_path, WHOLE.close_time(100) + timedelta(hours=1))
    as_of = parse_as_of(WHOLE.close_time(100).date())
    assert later.bars_as_of("FB", as_of).close_time(-1) == WHOLE.close_time(100)
    assert vendor.asked == 1


def test_cached_bars_refetch_for_later_as_of(tmp_path: Path) -> None:
    process(Vendor(WHOLE[:100]), tmp_path, WHOLE.close_time(99)).bars("FB")
    vendor = Vendor()
    source = process(vendor, tmp_path)
    assert len(source.bars_as_of("FB", WHOLE.close_time(50))) == 100
    assert len(source.bars_as_of("FB", WHOLE.close_time(150))) == len(WHOLE)
    assert vendor.asked == 1


def test_cached_bars_drop_bars_not_closed(tmp_path: Path) -> None:
    source = process(Vendor(), tmp_path, WHOLE.close_time(42) + timedelta(hours=1))
    assert source.bars("FB").close_time(-1) == WHOLE.close_time(42)


def test_cached_bars_concurrent_requests_ask_once(tmp_path: Path) -> None:
    together, vendor = threading.Barrier(8), Vendor()
    shared = process(vendor, tmp_path)
    alone = [process(vendor, tmp_path) for _ in range(4)]

    def ask(source: CachedBars) -> str:
        together.wait()
        return source.bars_as_of("FB", parse_as_of("2013-03-01")).digest()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, [shared] * 4 + alone)) == {WHOLE.digest()}
    assert vendor.asked == 1
    assert len(BarStore(tmp_path).snapshots("FB")) == 1


class Counting(Vendor):
    """Leaves a file for each time that it was asked, in any process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def bars(self, symbol: str) -> BarSeries:
        tempfile.mkstemp(dir=self.folder)
        return super().bars(symbol)


def one_process(folder: Path) -> str:
    source = process(Counting(folder / "asked"), folder / "home")
    return source.bars_as_of("FB", parse_as_of("2013-03-01")).digest()


@pytest.mark.slow
def test_cached_bars_mapped_tasks_ask_once(tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    with ProcessPoolExecutor(4, mp_context=get_context("forkserver")) as pool:
        digests = set(pool.map(one_process, [tmp_path] * 8))
    assert digests == {WHOLE.digest()}
    assert len(list((tmp_path / "asked").iterdir())) == 1


@pytest.mark.parametrize(
    "trouble", [RuntimeError("quota"), OSError("down"), KeyError("x"), DataSourceError("down")]
)
def test_cached_bars_never_fall_back_to_stale_bars(tmp_path: Path, trouble: Exception) -> None:
    process(Vendor(), tmp_path).bars("FB")
    with pytest.raises(DataSourceError, match=r"quota|down|x"):
        process(Vendor(trouble), tmp_path).bars_as_of("FB", parse_as_of("2014-01-01"))


def test_vendor_error_hides_key_in_address(tmp_path: Path) -> None:
    trouble = OSError("GET https://me:sesame@api.example/eod/FB?token=open-sesame failed")
    with pytest.raises(DataSourceError) as error:
        process(Vendor(trouble), tmp_path).bars("FB")
    assert "sesame" not in str(error.value)
    assert "OSError: GET https://api.example/eod/FB failed" in str(error.value)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("https://bob:pa@sesame@host/eod", "https://host/eod"),
        ("https://bob:pa/sesame@host/eod", "https://host/eod"),
        ("'https://bob:sesame@host' and <https://other/x@y>", "'https://host' and <https://y>"),
        ("https://host/eod?token=sesame", "https://host/eod"),
        ("https://host/eod?user=me@corp&token=sesame", "https://***"),
        ("https://bob:pa?sesame@host/eod", "https://***"),
        ("url: /eod?token=sesame (refused)", "url: /eod (refused)"),
        ("x" * 270 + " https://bob:sesame-opens@host", "x" * 270 + " https://host"),
    ],
)
def test_vendor_error_is_redacted_before_truncation(told: str, shown: str) -> None:
    assert describe_error(OSError(told)) == f"OSError: {shown}"


@pytest.mark.parametrize(
    "given", [WHOLE[:0], BundledBars().bars("GOOG"), None, [1.0]], ids=["none", "other", "", "list"]
)
def test_cached_bars_refuse_invalid_answer(tmp_path: Path, given: object) -> None:
    vendor = Vendor()
    vendor.answer = given
    with pytest.raises(DataSourceError, match="vendor"):
        process(vendor, tmp_path).bars("FB")
    assert BarStore(tmp_path).symbols() == ()


def test_cached_bars_unknown_symbol(tmp_path: Path) -> None:
    vendor = Vendor(UnknownSymbolError("FB", None, "vendor"))
    with pytest.raises(UnknownSymbolError):
        process(vendor, tmp_path).bars("FB")


def test_stored_bars_repeat_without_vendor(tmp_path: Path) -> None:
    source = process(Vendor(), tmp_path)
    source.bars("FB")
    kept = StoredBars(BarStore(tmp_path))
    assert kept.bars("FB").digest() == WHOLE.digest()
    assert kept.snapshot("FB") == source.snapshot("FB")
    assert (kept.snapshot("FB").source, kept.snapshot("FB").fetched_at) == ("vendor", NOW)
    with pytest.raises(
        UnknownSymbolError, match=r"unknown symbol 'GOOG' in the bars kept; it has: FB"
    ):
        kept.bars("GOOG")


def test_stored_bars_hash_selects_older_history(tmp_path: Path) -> None:
    hashes = []
    for days in (100, 120, len(WHOLE)):
        source = process(Vendor(WHOLE[:days]), tmp_path)
        source.bars("FB")
        hashes.append(source.snapshot("FB").content_hash)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1  # what only grew is kept once
    for days, content_hash in zip((100, 120, len(WHOLE)), hashes, strict=True):
        assert len(StoredBars(BarStore(tmp_path), [content_hash[:12]]).bars("FB")) == days
    with pytest.raises(UnknownSymbolError, match="kept as 00000000"):
        StoredBars(BarStore(tmp_path), ["00000000"]).bars("FB")


@pytest.mark.parametrize("given", ["abc", "xyz12345", "../../etc"])
def test_stored_bars_refuse_malformed_hash(tmp_path: Path, given: str) -> None:
    with pytest.raises(BadInputError, match="is not a hash of cached bars"):
        StoredBars(BarStore(tmp_path), [given])


def test_cached_bars_revision_names_days_with_fields(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process(Vendor(WHOLE[:150]), tmp_path).bars("FB")
    source = process(Vendor(with_close(WHOLE, 42, 99.5)), tmp_path)
    with caplog.at_level(logging.WARNING):
        source.bars("FB")
    day = f"{WHOLE.close_time(42):%Y-%m-%d}"
    assert f"vendor has revised its history: {day} high" in caplog.text
    told = source.snapshot("FB")
    assert (told.revised, {c.field for c in told.changes}) == (2, {"close", "high"})
    assert {c.after for c in told.changes} == {99.5}
    # Said again, it stays said; both histories can be had.
    again = process(Vendor(with_close(WHOLE, 42, 99.5)), tmp_path)
    again.bars("FB")
    assert again.snapshot("FB").revised == 2
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_compare_bars_names_removed_or_new_bars() -> None:
    frame = WHOLE.to_frame()
    without = BarSeries.from_frame("FB", frame.drop(index=[10]))
    [gone] = compare_bars(WHOLE, without)
    [came] = compare_bars(without, WHOLE)
    assert (gone.field, gone.before, gone.after) == ("bar", WHOLE.close[10], None)
    assert (came.field, came.before, came.after) == ("bar", None, WHOLE.close[10])
    assert gone.closed_at == came.closed_at == WHOLE.close_time(10)


def test_compare_bars_ignores_new_days_or_noise() -> None:
    assert compare_bars(WHOLE[:100], WHOLE) == ()
    assert compare_bars(WHOLE, WHOLE) == ()
    noisy = WHOLE.to_frame()
    noisy["volume"] *= 1 + 1e-7
    assert compare_bars(WHOLE, BarSeries.from_frame("FB", noisy)) == ()


def test_compare_bars_ignores_unknown_volume() -> None:
    unknown = BarSeries.from_frame("FB", WHOLE.to_frame().assign(volume=np.nan))
    assert compare_bars(unknown, unknown) == ()
    assert {c.before for c in compare_bars(unknown, WHOLE)} == {None}


@pytest.mark.parametrize("damage", ["content", "garbage", "missing", "index"])
def test_stored_bars_refuse_damaged_file(tmp_path: Path, damage: str) -> None:
    process(Vendor(), tmp_path).bars("FB")
    [file] = tmp_path.rglob("*.parquet")
    if damage == "content":
        with_close(WHOLE, 3, 1e3).to_frame().to_parquet(file)
    elif damage == "garbage":
        file.write_bytes(b"no parquet")
    elif damage == "missing":
        file.unlink()
    else:
        next(tmp_path.rglob("index.json")).write_text("[{}]")
    with pytest.raises(DataSourceError, match=r"put back a copy, or move .*FB away") as error:
        StoredBars(BarStore(tmp_path)).bars("FB")
    assert "remove" not in str(error.value)


def test_market_snapshot_is_of_bars_that_were_read(tmp_path: Path) -> None:
    process(Vendor(WHOLE[:150]), tmp_path).bars("FB")
    market = Market(StoredBars(BarStore(tmp_path)), None)
    used = market.bars("FB")
    process(Vendor(), tmp_path).bars("FB")
    seen = market.snapshot("FB")
    assert seen and seen.content_hash == used.digest() == WHOLE[:150].digest()


class Overtaken(BarStore):
    """Another process keeps more just after the index was read."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.meanwhile: CachedBars | None = process(Vendor(), home)

    def snapshots(self, symbol: str, source: str | None = None) -> tuple[BarsSnapshot, ...]:
        rows = super().snapshots(symbol, source)
        if self.meanwhile:
            other, self.meanwhile = self.meanwhile, None
            other.bars(symbol)
        return rows


def test_bar_store_concurrent_read_write(
    tmp_path: Path,
) -> None:
    process(Vendor(WHOLE[:150]), tmp_path).bars("FB")
    [there] = tmp_path.rglob("*.parquet")
    read = Overtaken(tmp_path).load("FB", WHOLE[:150].digest())
    assert not there.exists()
    assert read.digest() == WHOLE[:150].digest()


@pytest.mark.parametrize("symbol", ["..", ".", "A/B", "../X", "BRK.B", "^GSPC"])
def test_bar_store_symbol_stays_in_folder(tmp_path: Path, symbol: str) -> None:
    home = tmp_path / "home"
    vendor = Vendor(BarSeries.from_frame(symbol, WHOLE.to_frame()))
    process(vendor, home).bars(symbol)
    assert StoredBars(BarStore(home)).symbols() == (symbol,)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert {path.parent.parent.name for path in home.rglob("index.json")} == {"bars"}


def test_bar_store_names_unwritable_home(tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("in the way")
    with pytest.raises(LocalStateError, match=r"bars can't be kept in .* set FINAGENT_HOME"):
        process(Vendor(), tmp_path).bars("FB")


def test_market_pins_bars_of_earlier_process(tmp_path: Path) -> None:
    first = Market(process(Vendor(WHOLE[:150]), tmp_path), None)
    first.bars("FB")
    seen = first.snapshot("FB")
    assert seen
    there = Market(process(Vendor(), tmp_path), None, None, {"FB": seen})
    elsewhere = Market(process(Vendor(), tmp_path / "elsewhere"), None, None, {"FB": seen})
    for market in (there, elsewhere):
        assert market.bars("FB").digest() == seen.content_hash
        assert market.snapshot("FB") == seen


def test_market_refuses_changed_pinned_bars(tmp_path: Path) -> None:
    market = Market(BundledBars(), None)
    market.bars("FB")
    seen = market.snapshot("FB")
    assert seen
    changed = process(Vendor(with_close(WHOLE, 3, 1e3)), tmp_path)
    with pytest.raises(DataSourceError, match="not those that the training began with"):
        Market(changed, None, None, {"FB": seen}).bars("FB")


def test_market_snapshot_fetches_nothing(tmp_path: Path) -> None:
    vendor = Vendor()
    assert Market(process(vendor, tmp_path), None).snapshot("FB") is None
    assert vendor.asked == 0


def test_market_view_of_vendor_bars_ends_at_as_of(tmp_path: Path) -> None:
    market = Market(process(Vendor(), tmp_path), None)
    as_of = parse_as_of(WHOLE.close_time(80).date())
    assert market.view("FB", as_of).bars.close_time(-1) == WHOLE.close_time(80)


def test_market_view_ignores_later_vendor_bars(tmp_path: Path) -> None:
    as_of = parse_as_of(WHOLE.close_time(120).date())
    changed = WHOLE.to_frame()
    changed.loc[121:, [*PRICES]] *= 3.0
    changed.loc[150, "split"] = 2.0
    asked = []
    for i, series in enumerate([WHOLE[:121], WHOLE, BarSeries.from_frame("FB", changed)]):
        # In a home of its own, and in one that has kept what was said before.
        for home in (tmp_path / str(i), tmp_path / "shared"):
            source = process(Vendor(series), home)
            source.bars("FB")
            view = Market(source, None).view("FB", as_of)
            asked.append(build_context(view, Policy()).text)
    assert len(asked) == 6
    assert len(set(asked)) == 1


def test_market_gives_bars_of_asked_moment_beside_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(dict[str, BarSeries]):
        """Where another thread is always the last to write."""

        def __setitem__(self, symbol: str, series: BarSeries) -> None:
            super().__setitem__(symbol, WHOLE[:50])

    market = Market(process(Vendor(), tmp_path), None)
    monkeypatch.setattr(market, "_bars", Overtaken())
    assert len(market.bars("FB", parse_as_of("2013-03-01"))) == len(WHOLE)
