"""Bars from venues over real sockets: pages, closed bars only, resume, rate limits, faults; the optional libraries."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import synth_pipeline.bars as sources
from synth_pipeline import plugins, rng, schema, stages, venues
from synth_pipeline.bars import BarSource, Row, paging, rest
from synth_pipeline.bars.timeframe import Timeframe
from synth_pipeline.errors import InputError, NoDataError, SynthError, UnknownNameError
from synth_pipeline.exchange.bars import Bars as Held
from synth_pipeline.exchange.server import serve
from synth_pipeline.exchange.sources import Nothing
from synth_pipeline.lineage import manifests
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.schema import BarFlag, Instrument
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Workspace
from synth_pipeline.stages.bars import read_bars, split_source
from tests.kline_server import START_MS, STEP_MS, Exchange, kline, serving

MINUTE, WEEK = Timeframe.parse("1m"), Timeframe.parse("1w")
NS = 10**6
VENUES = ("binance_spot", "binance_usdm", "binance_coinm", "bybit_spot", "bybit_linear", "bybit_inverse")


def minutes(*spans: tuple[int, int]) -> list[int]:
    return [START_MS + k * STEP_MS for first, last in spans for k in range(first, last)]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """4,000 minutes of bars; the last is still forming."""
    opens = minutes((0, 4000))
    with serving(Exchange(opens, opens[-1] + STEP_MS // 2)) as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting times that were asked for, not waited."""
    made: list[float] = []
    monkeypatch.setattr(rest.RestSource, "_wait", lambda _, seconds: made.append(seconds))
    return made


def workspace_at(tmp_path: Path, exchange: Exchange) -> Workspace:
    urls = {name: {"rest": exchange.url} for name in VENUES}
    return Workspace.of(Settings(home=tmp_path / "home", tracking=False, venue_urls=urls))


def fetch(workspace: Workspace, venue: str = "binance_usdm", start: int | None = 0, end: int | None = None) -> Manifest:
    at = [None if k is None else (START_MS + k * STEP_MS) * NS for k in (start, end)]
    return stages.bars_from_source(workspace, f"{venue}.BTCUSDT", MINUTE, *at)


def opens_of(workspace: Workspace, made: Manifest) -> list[int]:
    return [int(ns) // NS for ns in read_bars(workspace, made)["open_ns"]]


@pytest.mark.parametrize("venue", VENUES)
def test_all_pages_come_and_the_forming_bar_does_not(tmp_path: Path, exchange: Exchange, venue: str) -> None:
    workspace = workspace_at(tmp_path, exchange)
    made = fetch(workspace, venue)
    assert opens_of(workspace, made) == exchange.opens[:-1]
    columns = read_bars(workspace, made)
    names = ("open", "high", "low", "close", "volume", "turnover")
    for at, name in enumerate(names):
        assert columns[name].tolist() == [float(kline(ms)[at]) for ms in exchange.opens[:-1]]
    trades = [float(kline(ms)[6]) for ms in exchange.opens[:-1]]
    assert np.array_equal(columns["trade_count"], trades) or venue.startswith("bybit")
    assert made.facts["gaps"] == 0
    assert not made.facts["quarantined"]
    pages = [query for path, query in exchange.asked if "kline" in path]
    assert len(pages) == 4
    segments = {"binance_spot": "/api/v3", "binance_usdm": "/fapi/v1", "binance_coinm": "/dapi/v1"}
    assert exchange.asked[-1][0] == (f"{segments[venue]}/klines" if venue in segments else "/v5/market/kline")


def test_bars_from_anywhere_obey_the_schema(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    made = fetch(workspace)
    columns = read_bars(workspace, made)
    assert tuple(columns) == schema.BARS.names
    assert (np.diff(columns["open_ns"]) > 0).all()
    assert (columns["close_ns"] == columns["open_ns"] + MINUTE.ns).all()


@pytest.mark.parametrize("venue", ["binance_usdm", "bybit_linear"])
def test_a_second_call_asks_for_what_is_new(tmp_path: Path, exchange: Exchange, venue: str) -> None:
    workspace = workspace_at(tmp_path, exchange)
    first = fetch(workspace, venue, 0, 1500)
    assert fetch(workspace, venue, None, 1500).skipped
    exchange.asked.clear()
    second = fetch(workspace, venue, None)
    assert opens_of(workspace, second) == exchange.opens[:-1]
    assert second.facts["added"] == 2499
    assert len([path for path, _ in exchange.asked if "kline" in path]) == 3
    assert first.outputs["bars"].sha256 in second.inputs.values()
    again = fetch(workspace, venue, None)
    assert again.skipped
    assert again.digest == second.digest


def test_bars_before_the_first_stored_one_are_added(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    fetch(workspace, start=3000)
    assert opens_of(workspace, fetch(workspace, start=100)) == exchange.opens[100:-1]


def test_in_pieces_is_in_one(tmp_path: Path, exchange: Exchange) -> None:
    whole = fetch(workspace_at(tmp_path / "whole", exchange))
    pieces = workspace_at(tmp_path / "pieces", exchange)
    for span in ((2000, 2500), (None, 3000), (500, 3100), (0, None)):
        made = fetch(pieces, "binance_usdm", *span)
    assert made.outputs["bars"].sha256 == whole.outputs["bars"].sha256


def test_a_bar_that_the_venue_changed_is_reported(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    fetch(workspace, start=0, end=100)
    last = exchange.opens[99]
    exchange.changed[last] = [*kline(last)[:4], "12345.5", *kline(last)[5:]]
    made = fetch(workspace, start=None, end=100)
    assert [(change["column"], change["now"]) for change in made.facts["revised"]] == [("volume", 12345.5)]
    assert read_bars(workspace, made)["volume"][-1] == 12345.5
    assert fetch(workspace, start=None, end=100).skipped


@pytest.mark.parametrize("venue", ["binance_spot", "bybit_spot"])
def test_missing_bars_are_listed_and_never_made_up(tmp_path: Path, venue: str) -> None:
    opens = minutes((5000, 5100), (5103, 5200), (30_000, 30_010))
    with serving(Exchange(opens, opens[-1] + STEP_MS)) as exchange:
        workspace = workspace_at(tmp_path, exchange)
        made = fetch(workspace, venue)
        asked = len(exchange.asked)
    assert opens_of(workspace, made) == opens
    assert [gap[2] for gap in made.facts["first_gaps"]] == [3, 24_800]
    flags = read_bars(workspace, made)["flags"]
    assert np.flatnonzero(flags & BarFlag.GAP_BEFORE).tolist() == [100, 197]
    assert asked < 25, "an empty span is skipped by bisection"


def test_rows_in_disorder_and_twice_are_put_right(tmp_path: Path) -> None:
    opens = minutes((0, 50), (20, 30))
    with serving(Exchange(opens, opens[49] + STEP_MS)) as exchange:
        workspace = workspace_at(tmp_path, exchange)
        made = fetch(workspace)
    assert opens_of(workspace, made) == minutes((0, 50))
    assert made.facts["quarantined"] == {"duplicate": 10}
    assert made.facts["unordered"] == 1


def test_bars_that_are_none_are_set_aside(tmp_path: Path, exchange: Exchange) -> None:
    exchange.changed[exchange.opens[7]] = ["100", "90", "80", "95", "1", "1", "1"]
    exchange.changed[exchange.opens[9]] = ["0", "0", "0", "0", "0", "0", "0"]
    workspace = workspace_at(tmp_path, exchange)
    made = fetch(workspace)
    assert made.facts["quarantined"] == {"ohlc_order": 1, "not_positive": 1}
    assert made.facts["missing"] == 2
    again = fetch(workspace)
    assert again.skipped
    assert again.facts["quarantined"] == made.facts["quarantined"]


FAULTS: dict[str, list[tuple[int, dict[str, str], bytes]]] = {
    "429": [(429, {"Retry-After": "7"}, b"{}")],
    "418": [(418, {"Retry-After": "120"}, b"")],
    "403": [(403, {}, b"<html>")],
    "500": [(502, {}, b"bad gateway"), (503, {}, b"")],
    "garbage": [(200, {}, b"<html>maintenance</html>")],
    "other form": [(200, {}, b'[["x"]]'), (200, {}, b'{"nothing":1}')],
    "cut": [(0, {}, b"")],
    "busy": [(400, {}, b'{"code":-1003,"msg":"Too many requests"}')],
}


@pytest.mark.parametrize("name", FAULTS)
def test_passing_faults_are_waited_out(tmp_path: Path, exchange: Exchange, pauses: list[float], name: str) -> None:
    exchange.faults = list(FAULTS[name])
    made = fetch(workspace_at(tmp_path, exchange))
    assert made.facts["rows"] == 3999
    assert len(pauses) == len(FAULTS[name])
    asked = [float(headers["Retry-After"]) for _, headers, _ in FAULTS[name] if headers]
    for least, pause in zip(asked, pauses, strict=False):
        assert least <= pause <= least + 1


def test_lasting_faults_end_in_one_line_and_keep_what_came(
    tmp_path: Path, exchange: Exchange, pauses: list[float]
) -> None:
    workspace = workspace_at(tmp_path, exchange)

    def spoil(exchange: Exchange, requests: int) -> None:
        true = exchange.answer

        def answer(path: str, query: dict[str, str]) -> Any:
            nonlocal requests
            requests -= 1
            if requests < 0:
                exchange.faults.extend([(503, {}, b"")] * 20)
            return true(path, query)

        exchange.answer = answer  # type: ignore[method-assign]

    spoil(exchange, 2)
    with pytest.raises(SynthError, match=r"gave no answer in 6 attempt\(s\).*what came before is kept"):
        fetch(workspace)
    assert sorted(pauses) == pauses, "each wait is longer than the one before"
    exchange.faults.clear()
    del exchange.answer
    kept = manifests.load(workspace.settings.home / "bars/binance_usdm/BTCUSDT/1m")
    assert kept is not None
    assert kept.facts["rows"] == 2000, "the server's time and two pages were answered"
    assert fetch(workspace, start=None).facts["rows"] == 3999


def test_a_fault_before_the_stored_bars_leaves_no_hole(tmp_path: Path, exchange: Exchange, pauses: list[float]) -> None:
    workspace = workspace_at(tmp_path, exchange)
    fetch(workspace, start=3900)
    true = exchange.answer

    def answer(path: str, query: dict[str, str]) -> Any:
        if int(query.get("startTime", 0)) == START_MS:
            exchange.faults.extend([(503, {}, b"")] * 20)
        return true(path, query)

    exchange.answer = answer  # type: ignore[method-assign]
    with pytest.raises(SynthError):
        fetch(workspace, start=0)
    exchange.faults.clear()
    del exchange.answer
    made = fetch(workspace, start=0)
    assert made.facts["rows"] == 3999
    assert made.facts["gaps"] == 0


def test_a_long_ban_is_left_to_the_person(tmp_path: Path, exchange: Exchange, pauses: list[float]) -> None:
    exchange.faults = [(418, {"Retry-After": "7200"}, b"")]
    with pytest.raises(SynthError, match="status 418"):
        fetch(workspace_at(tmp_path, exchange))
    assert not pauses


def test_the_weight_header_slows_it_down(tmp_path: Path, exchange: Exchange, pauses: list[float]) -> None:
    exchange.headers = {"X-MBX-USED-WEIGHT-1M": "2399", "Date": "Wed, 15 Nov 2023 00:00:48 GMT"}
    fetch(workspace_at(tmp_path, exchange), start=3500)
    assert pauses
    assert all(0 < pause <= 60 for pause in pauses)


@pytest.mark.parametrize(
    ("venue", "fault", "message"),
    [
        ("binance_usdm", (400, {}, b'{"code":-1121,"msg":"Invalid symbol."}'), r"Invalid symbol\. \(code -1121\)"),
        ("bybit_linear", (200, {}, b'{"retCode":10001,"retMsg":"Not supported symbols"}'), "Not supported symbols"),
        ("binance_usdm", (451, {}, b'{"msg":"restricted location"}'), "status 451"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, exchange: Exchange, venue: str, fault: Any, message: str) -> None:
    exchange.faults = [fault]
    with pytest.raises(InputError, match=message):
        fetch(workspace_at(tmp_path, exchange), venue)


def test_what_is_not_offered_is_refused(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    with pytest.raises(InputError, match="binance_usdm has no bars of 7m, only 1m, 3m"):
        stages.bars_from_source(workspace, "binance_usdm.BTCUSDT", Timeframe.parse("7m"))
    with pytest.raises(UnknownNameError, match="unknown source of bars 'binance'"):
        stages.bars_from_source(workspace, "binance.BTCUSDT", MINUTE)
    with pytest.raises(NoDataError, match="no closed bars of 1m in this span"):
        fetch(workspace, start=5000, end=6000)


def test_without_a_start_the_last_thousand_come(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    made = fetch(workspace, start=None)
    assert 999 <= made.facts["rows"] <= 1000
    assert opens_of(workspace, made)[-1] == exchange.opens[-2]


def test_coin_m_asks_for_two_hundred_days_at_most() -> None:
    source = plugins.load(sources, "binance_coinm")("http://127.0.0.1:1", rng=rng.stream(0, "test"))
    assert source.page_bars(Timeframe.parse("1d")) == 200
    assert source.page_bars(MINUTE) == 1000
    source.close()


def test_sources_of_venues_bear_the_venues_names() -> None:
    named = {name for name in plugins.names(sources) if name not in {"ccxt", "yahoo"}}
    assert named <= set(plugins.names(venues))
    for name in plugins.names(sources):
        assert issubclass(plugins.load(sources, name), BarSource)


class _Memory(BarSource):
    """A source in memory, with pages of any size."""

    timeframes = {"1m": "1m"}  # noqa: RUF012 - a fixed name

    def __init__(self, opens: list[int], page: int, now: int) -> None:
        self.opens, self.size, self.now, self.asked = opens, page, now, 0

    @classmethod
    def connect(cls, venue: str, base_url: str, *, rng: np.random.Generator) -> _Memory:
        raise NotImplementedError

    def now_ns(self) -> int:
        return self.now

    def page_bars(self, timeframe: Timeframe) -> int:  # noqa: ARG002
        return self.size

    def page(self, symbol: str, timeframe: Timeframe, start_ns: int, end_ns: int) -> list[Row]:  # noqa: ARG002
        self.asked += 1
        return [Row(at, "1", "1", "1", "1") for at in self.opens if start_ns <= at < end_ns][: self.size]

    def newest(self, symbol: str, timeframe: Timeframe, before_ns: int) -> int | None:  # noqa: ARG002
        self.asked += 1
        return max((at for at in self.opens if at < before_ns), default=None)


@given(
    positions=st.lists(st.integers(0, 3000), max_size=60),
    size=st.integers(1, 50),
    start=st.integers(0, 3000),
    length=st.integers(1, 3000),
    now=st.integers(0, 4000),
)
def test_pages_of_any_size_hold_every_closed_bar_once(
    positions: list[int], size: int, start: int, length: int, now: int
) -> None:
    step = MINUTE.ns
    source = _Memory([at * step for at in sorted(set(positions))], size, now * step)
    span = start * step, min(start + length, now) * step - now % 2
    rows = [row.open_ns for page in paging.pages(source, "X", MINUTE, *span) for row in page]
    assert rows == [at for at in source.opens if span[0] <= at and at + step <= span[1]]


def test_the_command_line_tells_what_came(tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth_pipeline.cli import app

    monkeypatch.setenv("SYNTH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    monkeypatch.setenv("SYNTH_VENUE_URLS", json.dumps({"bybit_linear": {"rest": exchange.url}}))
    words = [
        "bars",
        "bybit_linear.BTCUSDT",
        "--timeframe",
        "1m",
        "--start",
        "2023-11-15",
        "--out",
        str(tmp_path / "b.csv"),
    ]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    assert document["facts"]["rows"] == 3999
    assert document["ref"] == "bars/bybit_linear/BTCUSDT/1m"
    written = pd.read_csv(tmp_path / "b.csv")
    assert written["time"][0] == "2023-11-15T00:00:00Z"
    assert list(written) == ["time", "open", "high", "low", "close", "volume", "turnover", "flags"]
    shown = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "unchanged" in shown
    assert "3,999" in shown
    coarser = ["bars", "bybit_linear.BTCUSDT", "--timeframe", "45m", "--from", "1m", "--json"]
    document = json.loads(CliRunner().invoke(app, coarser, catch_exceptions=False).stdout)
    assert document["facts"]["rows"] == 89
    assert document["facts"]["partial"] == 1


def test_bars_of_a_file_land_in_the_store_once(workspace: Workspace, tmp_path: Path) -> None:
    from synth_pipeline.bars.files import Options

    path = tmp_path / "SP 500 (daily).csv"
    rows = "".join(f"2024-01-{day:02d},2,3,1,2.5,7\n" for day in range(1, 21))
    path.write_text("Date,Open,High,Low,Close,Volume\n" + rows)
    made = stages.bars_from_file(workspace, path, None, Options())
    assert made.ref == "bars/file/SP-500-DAILY/1d"
    assert stages.bars_from_file(workspace, path, None, Options()).skipped
    assert not stages.bars_from_file(workspace, path, None, Options(closing=True)).skipped
    named = stages.bars_from_file(workspace, path, Instrument("binance_usdm", "BTCUSDT"), Options())
    assert named.ref == "bars/binance_usdm/BTCUSDT/1d"
    latest = stages.bars_from_file(workspace, path, None, Options())
    weeks = stages.resample_bars(workspace, Instrument("file", "SP-500-DAILY"), Timeframe.parse("1d"), WEEK)
    assert weeks.inputs == {made.ref: latest.digest}
    assert weeks.facts["rows"] == 3


def test_tickers_are_filed_under_names_that_folders_carry() -> None:
    assert split_source("yahoo.^GSPC")[0] == Instrument("yahoo", "GSPC")
    assert split_source("yahoo.^GSPC")[1] == "^GSPC"
    assert split_source("ccxt_kraken.BTC/USD") == (Instrument("ccxt_kraken", "BTC-USD"), "BTC/USD")
    assert split_source("bybit_linear.btcusdt")[1] == "BTCUSDT"


def _yahoo(monkeypatch: pytest.MonkeyPatch, frame: Callable[..., pd.DataFrame]) -> None:
    """Stand in for yfinance: the form of its answers is that of yfinance 1.7."""
    library = types.ModuleType("yfinance")
    errors = types.ModuleType("yfinance.exceptions")
    errors.YFRateLimitError = type("YFRateLimitError", (Exception,), {})  # type: ignore[attr-defined]
    library.exceptions = errors  # type: ignore[attr-defined]
    library.Ticker = lambda symbol: types.SimpleNamespace(history=lambda **asked: frame(symbol, **asked))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yfinance", library)


def test_yahoo_days_bear_their_sessions_date(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def history(symbol: str, *, interval: str, start: Any, end: Any, auto_adjust: bool, actions: bool) -> pd.DataFrame:
        assert (symbol, interval, auto_adjust, actions) == ("^GSPC", "1d", False, False)
        days = pd.bdate_range(start, end, inclusive="left", tz="America/New_York")
        values = np.arange(len(days)) + 100.0
        return pd.DataFrame(
            {"Open": values, "High": values + 1, "Low": values - 1, "Close": values, "Adj Close": values, "Volume": 5},
            index=days,
        )

    _yahoo(monkeypatch, history)
    start, end = (int(datetime(2024, month, 1, tzinfo=UTC).timestamp()) * 10**9 for month in (2, 6))
    made = stages.bars_from_source(workspace, "yahoo.^GSPC", Timeframe.parse("1d"), start, end)
    opens = read_bars(workspace, made)["open_ns"]
    assert (opens % schema.NS_PER_DAY == 0).all()
    assert opens[0] == start
    assert made.facts["gaps"] == 0
    assert made.ref == "bars/yahoo/GSPC/1d"
    with pytest.raises(InputError, match=r"holds '\^GSPC', not 'GSPC'"):
        stages.bars_from_source(workspace, "yahoo.GSPC", Timeframe.parse("1d"), start, end)
    _yahoo(monkeypatch, lambda symbol, **asked: pd.DataFrame())  # noqa: ARG005
    with pytest.raises(NoDataError):
        stages.bars_from_source(workspace, "yahoo.NOTHING", Timeframe.parse("1d"), start, end)


@pytest.mark.parametrize(("name", "ticker"), [("yahoo", "SPY"), ("ccxt_kraken", "BTC/USD")])
def test_an_absent_library_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str, ticker: str
) -> None:
    for library in ("yfinance", "ccxt"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=r"pip install 'synth-pipeline\[(yahoo|ccxt)\]'"):
        stages.bars_from_source(workspace, f"{name}.{ticker}", MINUTE)


def _ccxt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for ccxt with an exchange of a hundred minutes, whose pages may hold more than was asked for."""
    library = types.ModuleType("ccxt")
    library.exchanges = ["kraken"]  # type: ignore[attr-defined]
    base = type("BaseError", (Exception,), {})
    for error in ("BadSymbol", "NotSupported", "BadRequest", "NetworkError"):
        setattr(library, error, type(error, (base,), {}))
    library.BaseError = base  # type: ignore[attr-defined]
    rows = [[START_MS + k * STEP_MS, 1.5, 2.0, 1.0, 1.25, None if k == 5 else 7.0] for k in range(100)]

    class Kraken:
        id, timeframes = "kraken", {"1m": 1, "15d": 5}

        def __init__(self, config: dict[str, Any]) -> None:
            assert config["enableRateLimit"]

        def milliseconds(self) -> int:
            return START_MS + 100 * STEP_MS - 1

        def fetch_ohlcv(self, symbol: str, timeframe: str, since: int, limit: int) -> list[list[Any]]:  # noqa: ARG002
            if symbol == "NO/NO":
                raise library.BadSymbol("no such market")
            if symbol == "DOWN/USD":
                raise library.NetworkError("unreachable")
            return [row for row in rows if row[0] >= since][::-1]

    library.kraken = Kraken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ccxt", library)


def test_ccxt_exchanges_by_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _ccxt(monkeypatch)
    made = stages.bars_from_source(workspace, "ccxt_kraken.BTC/USD", MINUTE, START_MS * NS)
    columns = read_bars(workspace, made)
    assert made.ref == "bars/ccxt_kraken/BTC-USD/1m"
    assert len(columns["open_ns"]) == 99
    assert np.flatnonzero(np.isnan(columns["volume"])).tolist() == [5]
    with pytest.raises(InputError, match=r"kraken refuses 'NO/NO'"):
        stages.bars_from_source(workspace, "ccxt_kraken.NO/NO", MINUTE)
    with pytest.raises(SynthError, match="kraken does not answer"):
        stages.bars_from_source(workspace, "ccxt_kraken.DOWN/USD", MINUTE)
    with pytest.raises(UnknownNameError, match=r"unknown ccxt exchange 'krakn'.*Did you mean 'kraken'"):
        stages.bars_from_source(workspace, "ccxt_krakn.BTC/USD", MINUTE)


def test_a_stop_by_hand_keeps_what_came(tmp_path: Path, exchange: Exchange) -> None:
    workspace = workspace_at(tmp_path, exchange)
    pages = iter(range(100))

    def progress(done: int, total: int, note: str = "") -> None:
        if next(pages) == 2:
            raise KeyboardInterrupt

    interrupted = Workspace(workspace.settings, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        fetch(interrupted)
    assert fetch(workspace, start=None).facts["rows"] == 3999


class Quiet(Nothing):
    """A market without messages, half a minute into a bar."""

    def __init__(self, last_open_ms: int) -> None:
        self.start_ns = (last_open_ms + STEP_MS // 2) * NS


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("timeframe", ["1m", "1h"])
def test_the_embedded_exchange_is_asked_like_the_venue(
    tmp_path: Path, pauses: list[float], venue: str, timeframe: str
) -> None:
    opens = minutes((0, 1500), (1530, 2640))
    held = {"BTCUSDT": Held.of(opens, *zip(*(kline(ms)[:5] for ms in opens), strict=True))}

    async def run() -> tuple[Workspace, Manifest]:
        async with serve(Quiet(opens[-1]), venue, bars=held, faults=["tls_refusal"]) as exchange:
            workspace = Workspace.of(Settings(home=tmp_path, tracking=False, venue_urls=exchange.urls))
            frame = Timeframe.parse(timeframe)
            name = f"{venue}.BTCUSDT"
            return workspace, await asyncio.to_thread(stages.bars_from_source, workspace, name, frame, START_MS * NS)

    workspace, made = asyncio.run(run())
    columns_made = read_bars(workspace, made)
    if timeframe == "1m":
        assert opens_of(workspace, made) == opens[:-1]
        assert columns_made["close"].tolist() == [float(kline(ms)[3]) for ms in opens[:-1]]
        assert made.facts["missing"] == 30
    else:
        assert made.facts["rows"] == 43
        whole = [ms for ms in opens if ms < START_MS + 43 * 60 * STEP_MS]
        assert columns_made["volume"].sum() == sum(float(kline(ms)[4]) for ms in whole)
    assert pauses, "the first connection was refused"


def test_the_embedded_exchanges_rate_limit_is_waited_out(tmp_path: Path) -> None:
    opens = minutes((0, 10))
    held = {"BTCUSDT": Held.of(opens, *zip(*(kline(ms)[:5] for ms in opens), strict=True))}

    async def run() -> Manifest:
        async with serve(Quiet(opens[-1]), "binance_usdm", bars=held, faults=["rate_limit:seconds=1"]) as exchange:
            return await asyncio.to_thread(fetch, workspace_at(tmp_path, Exchange([], 0, url=exchange.rest_url)))

    assert asyncio.run(run()).facts["rows"] == 9
