"""Calibrate, simulate and compare: a fundamental price that is followed, days that go on, the whole way to reports."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth_pipeline import cli, plugins, stages
from synth_pipeline.errors import InputError, NoDataError, SynthError, TooLittleDataError
from synth_pipeline.exchange.protocol import protocol_of
from synth_pipeline.exchange.sources import Recorded
from synth_pipeline.fidelity import book_prediction
from synth_pipeline.generators import Generator
from synth_pipeline.market import flows
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.fundamental import Fundamental, Tracking, of_generator
from synth_pipeline.market.rows import TickRows
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND, Flag, Instrument, day_start_ns
from synth_pipeline.series import Series
from synth_pipeline.settings import Settings
from synth_pipeline.stages import Simulation, Workspace
from synth_pipeline.stages.paths import PathRef
from synth_pipeline.ticks import book, store
from synth_pipeline.ticks.messages import of_store
from tests import wire

S = NS_PER_SECOND
DAY, NEXT = date(2024, 8, 9), date(2024, 8, 10)
TOY = Instrument("simulated", "TOY")


def walk(steps: int, *, step_ns: int = S // 2, seed: int = 1, scale: float = 2e-4, level: float = 7.0) -> Series:
    prices = level * np.exp(np.cumsum(np.append(0.0, scale * stream(seed, "walk").standard_normal(steps - 1))))
    return Series(prices[None, :, None], ("mid",), step_ns, np.array([0]), 0.0)


def pieces(series: Series, *cuts: int) -> Iterator[tuple[int, Series]]:
    edges = [0, *cuts, series.steps]
    yield from ((0, series.slice(first, last)) for first, last in pairwise(edges))


def prices_of(path: Fundamental, start_ns: int, end_ns: int) -> np.ndarray:
    found = []
    while start_ns < end_ns:
        first, step, logs = path.piece(start_ns)
        found.append(np.exp(logs))
        start_ns = first + step * len(logs)
    return np.concatenate(found)


# --- the fundamental price


def test_a_path_is_taken_for_its_returns_however_it_is_cut_and_goes_on_where_it_was_left() -> None:
    series = walk(100)
    path = Fundamental(pieces(series, 3, 40), 10 * S, 250.0, name="walk", rng=stream(1, "bridge"))
    whole = prices_of(path, 10 * S, 60 * S)
    assert whole == pytest.approx(250.0 * series.values[0, :, 0] / 7.0)
    later = Fundamental(pieces(series, 50), 0, 250.0, name="walk", passed=37, rng=stream(1, "bridge"))
    assert np.array_equal(prices_of(later, 0, 31 * S), whole[37:])
    with pytest.raises(InputError, match=r"walk ends 31\.5 s after the start: sample a longer one"):
        later.piece(32 * S)


def test_long_steps_are_bridged_to_the_prices_of_the_path() -> None:
    series = walk(9, step_ns=60 * S, scale=1e-3)
    makes = [
        lambda passed, cut=cut: Fundamental(
            pieces(series, cut), 0, 100.0, name="bars", passed=passed, rng=stream(4, "bridge")
        )
        for cut in (2, 7)
    ]
    whole = prices_of(makes[0](0), 0, 480 * S)
    assert whole[::60] == pytest.approx(100 * series.values[0, :8, 0] / 7.0)
    assert np.array_equal(prices_of(makes[1](3), 0, 300 * S), whole[180:])
    moves = np.diff(np.log(whole))
    assert np.std(moves) == pytest.approx(1e-3 / math.sqrt(60), rel=0.5)
    assert (moves != 0).all()


def test_gaps_are_held_and_an_asset_is_named() -> None:
    series = walk(6)
    series.values[0, 2:4] = np.nan
    path = Fundamental(pieces(series, 3), 0, 1.0, name="gaps", rng=stream(1, "b"))
    found = prices_of(path, 0, 3 * S)
    assert found[2] == found[3] == found[1]
    both = Series.joined({"A": walk(6), "B": walk(6, seed=2)})
    path = Fundamental(pieces(both), 0, 1.0, name="two", asset="B", rng=stream(1, "b"))
    assert prices_of(path, 0, 3 * S) == pytest.approx(walk(6, seed=2).values[0, :, 0] / 7.0)
    for asset, complaint in (("", "A, B"), ("C", "A, B")):
        with pytest.raises(InputError, match=complaint):
            Fundamental(pieces(both), 0, 1.0, name="two", asset=asset, rng=stream(1, "b"))
    with pytest.raises(InputError, match="no path 3"):
        Fundamental(pieces(walk(6)), 0, 1.0, name="one", path=3, rng=stream(1, "b"))
    late = walk(6)
    late.values[0, 0] = np.nan
    with pytest.raises(InputError, match="begins with a gap"):
        Fundamental(pieces(late), 0, 1.0, name="late", rng=stream(1, "b"))


def test_a_generator_without_endless_paths_is_refused_by_name() -> None:
    garch: Generator = plugins.load(__import__("synth_pipeline.generators", fromlist=["x"]), "garch")()
    garch.fit(walk(400, scale=1e-3), rng=stream(1, "fit"))
    path = Fundamental(of_generator(garch, rng=stream(1, "path")), 0, 10.0, name="garch", rng=stream(1, "b"))
    far = 70_000 * S // 2
    assert path.piece(far)[0] > 0
    short = type("Short", (type(garch),), {"max_steps": 512, "__module__": "synth_pipeline.generators.short"})
    limited = short()
    with pytest.raises(InputError, match="short samples at most 512 steps"):
        of_generator(limited, rng=stream(1, "path"))
    whole = type("Whole", (type(garch),), {"stream": Generator.stream, "__module__": "synth_pipeline.generators.whole"})
    with pytest.raises(InputError, match="whole holds whole paths in memory"):
        of_generator(whole(), rng=stream(1, "path"))


def naive_residual(path: np.ndarray, step_ns: int, times: np.ndarray, mids: np.ndarray) -> tuple[float, float]:
    off = []
    for number, price in enumerate(path, start=1):
        before = times < number * step_ns
        if before.any() and (times < (number - 1) * step_ns).any():
            off.append(mids[before][-1] - price)
    return float(np.sqrt(np.mean(np.square(off)))), float(np.max(np.abs(off)))


def test_the_residual_is_that_of_a_slow_twin_however_mids_come() -> None:
    series, rng = walk(40, scale=1e-3), stream(2, "mids")
    times = np.sort(rng.integers(0, 20 * S, 500))
    mids = 10_000 + np.cumsum(rng.standard_normal(500))
    found = []
    for cuts in ([500], [3, 7, 100, 101, 400, 500]):
        tracking = Tracking(Fundamental(pieces(series, 9), 0, 100.0, name="w", rng=stream(1, "b")), 0, 0.01, 1.0)
        first = 0
        for cut in cuts:
            until = int(times[cut - 1]) + 1 if cut < 500 else 20 * S
            for now in range(0, until, S // 4):
                tracking.piece(now)
            tracking.feed(times[first:cut], mids[first:cut], until)
            first = cut
        found.append(tracking.facts())
    assert found[0] == pytest.approx(found[1])
    rms, most = naive_residual(10_000 * series.values[0, :, 0] / 7.0, S // 2, times, mids)
    assert (found[0]["rms_ticks"], found[0]["max_ticks"]) == pytest.approx((rms, most))


def test_the_lag_is_that_of_a_mid_that_comes_late() -> None:
    series = walk(400, scale=1e-3)
    tracking = Tracking(Fundamental(pieces(series), 0, 100.0, name="w", rng=stream(1, "b")), 0, 0.01, 1.0)
    tracking.piece(0)
    late = 10_000 * series.values[0, :, 0] / 7.0
    tracking.feed(np.arange(400) * S // 2 + 200_000_000, late, 200 * S)
    facts = tracking.facts()
    assert facts["rms_ticks"] < 1e-6
    assert facts["lag_ms"] == pytest.approx(200, abs=32)
    assert facts["is_small"]


def test_the_mid_of_a_flow_follows_a_path_closely() -> None:
    flow = ZeroIntelligence.example()
    path = Fundamental(pieces(walk(600)), 0, 100.0, name="walk", rng=stream(1, "b"))
    tracking = Tracking(path, 0, 0.01, flow.opening.spread)
    for piece in TickRows(flow.start(0, rng=stream(3, "run"), fundamental=tracking)).pieces(300 * S):
        quotes = piece["quotes"]
        tracking.feed(quotes["event_ns"], (quotes["bid_price"] + quotes["ask_price"]) / 2, int(quotes["event_ns"][-1]))
    facts = tracking.facts()
    assert facts["labels"] > 500
    assert facts["rms_ticks"] <= 1.5 * flow.opening.spread
    assert facts["lag_ms"] < 100


# --- days


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A record of 200 s, and flows calibrated on it."""
    workspace = Workspace.of(Settings(home=tmp_path_factory.mktemp("home"), tracking=False, lookback_days=2))
    stages.simulate(workspace, Instrument("simulated", "REAL"), DAY, Simulation("zero_intelligence", seconds=200))
    stages.calibrate(workspace, Instrument("simulated", "REAL"), DAY, "zero_intelligence")
    return workspace


FLOW = "simulated.REAL/2024-08-09/zero_intelligence"


def test_a_calibration_is_a_checkpoint_with_errors_notes_and_lineage(home: Workspace) -> None:
    real = Instrument("simulated", "REAL")
    made = stages.calibrate(home, real, DAY, "zero_intelligence")
    ticks = home.require("ticks", "simulate", real, DAY)
    assert made.skipped
    assert made.inputs == {ticks.ref: ticks.digest}
    assert made.facts["market_rate"] == pytest.approx(0.5, abs=4 * made.facts["market_rate_se"])
    assert any("time of day" in note for note in made.facts["notes"])
    assert made.facts["watched_s"] == pytest.approx(200)
    assert made.facts["unobserved"] == ["hidden orders"]
    flow = stages.load_flow(home, FLOW)
    assert flow.opening.scale.tick_size == Decimal("0.01")


def test_days_go_on_with_book_and_ids_and_do_not_depend_on_how_they_were_asked_for(
    home: Workspace, tmp_path: Path
) -> None:
    what = Simulation(FLOW, seconds=86_400 - 86_340, start_s=86_340)
    first = stages.simulate(home, TOY, DAY, what)
    on = replace(what, start_s=0.0, seconds=60)
    second = stages.simulate(home, TOY, NEXT, on)
    assert second.inputs[first.ref] == first.digest
    assert second.facts["opened_from_yesterday"]
    assert second.facts["book_ticker_agreement"] == 1.0
    assert (first.facts["crossed"], second.facts["crossed"]) == (0, 0)
    window = store.read(home.settings.data, TOY, "book_levels", "2024-08-09T23:59", "2024-08-10T00:02")
    assert (window.columns["flags"] & Flag.SNAPSHOT > 0).sum() > 0
    assert (np.diff(window.columns["update_id"]) >= 0).all()
    together, alone = book.Book().feed(window.columns), book.Book()
    own = store.Day(None, home.folder("ticks", TOY, NEXT), day_start_ns(NEXT), second).parquet("book_levels")
    names = ["side", "price", "size", "flags", "recv_ns", "update_id", "seq", "event_ns"]
    state = alone.feed(own.read(day_start_ns(NEXT), day_start_ns(NEXT) + 90 * S, names, carry_in=False))
    assert np.array_equal(together.bids, state.bids)
    assert np.array_equal(together.asks, state.asks)
    messages = of_store(home.settings.data, TOY, "2024-08-09", "2024-08-11")
    assert len(messages.spans) == 1
    other = Workspace.of(Settings(home=tmp_path / "other", tracking=False))
    for stage in ("ticks", "checkpoints"):
        source = home.settings.home / stage / "simulated" / "REAL"
        target = other.settings.home / stage / "simulated" / "REAL"
        target.parent.mkdir(parents=True)
        target.symlink_to(source)
    again = [stages.simulate(other, TOY, DAY, what), stages.simulate(other, TOY, NEXT, on)]
    assert [each.digest for each in again] == [first.digest, second.digest]
    assert all(not each.problems for each in stages.verify(home, "ticks/simulated.TOY"))


def test_a_day_begins_anew_at_a_price_and_under_a_scenario(home: Workspace) -> None:
    toy = Instrument("simulated", "ANEW")
    what = Simulation(FLOW, seconds=30)
    plain = stages.simulate_days(home, toy, [DAY, NEXT], what, start_price=Decimal("250"))
    quotes = store.read(home.settings.data, toy, "quotes", "2024-08-09", "2024-08-10").columns
    assert (quotes["bid_price"][0] + quotes["ask_price"][0]) / 2 == pytest.approx(25_000, abs=1)
    assert "moved to the start price" in plain[0].facts["notes"][0]
    assert plain[0].ref in plain[1].inputs
    crash = stages.simulate(home, toy, NEXT, replace(what, scenarios=("one_sided_flow:at=5,for=10",)))
    assert crash.digest != plain[1].digest
    fresh = stages.simulate(home, toy, NEXT, what, fresh=True)
    assert plain[0].ref not in fresh.inputs
    with pytest.raises(InputError, match="below the flow's depth"):
        stages.simulate(home, toy, DAY, what, start_price=Decimal("0.001"))


def test_a_kept_capture_is_replayed_and_gives_the_rows_again(home: Workspace, tmp_path: Path) -> None:
    toy = Instrument("simulated", "KEPT")
    made = stages.simulate(home, toy, DAY, Simulation(FLOW, seconds=40, capture=True))
    log = home.file(made, "capture")
    served = list(Recorded([log], protocol_of("binance_usdm")).items())
    rows = made.facts["rows"]
    # The opening is a depth answer and a quote; each event that changes levels is one update.
    assert sum(not item.stream for item in served) == 1
    assert sum(item.stream == b"kept@trade" for item in served) == rows["trades"]
    assert sum(item.stream == b"kept@bookTicker" for item in served) == rows["quotes"]
    again = Workspace.of(Settings(home=tmp_path / "again", tracking=False))
    stages.record(again, toy, DAY, [log])
    ingested = stages.ingest(again, toy, DAY)
    assert (ingested.facts["gaps"], ingested.facts["quarantined"]) == (0, {})
    assert ingested.facts["rows"]["book_levels"] == rows["book_levels"]
    for table, names in (("trades", ("recv_ns", "trade_id", "price", "size", "side")),
                         ("book_levels", ("recv_ns", "update_id", "side", "price", "size")),
                         ("quotes", ("recv_ns", "bid_price", "bid_size", "ask_price", "ask_size"))):  # fmt: skip
        ours, theirs = (
            store.read(each.settings.data, toy, table, "2024-08-09", "2024-08-10").columns for each in (home, again)
        )
        for name in names:
            assert np.array_equal(np.sort(ours[name]), np.sort(theirs[name])), (table, name)


def test_the_flow_of_the_embedded_market_needs_no_calibration(home: Workspace) -> None:
    made = stages.simulate(home, Instrument("simulated", "EMBEDDED"), DAY, Simulation("queue_reactive", seconds=5))
    assert made.facts["messages"] > 100
    assert made.facts["book_ticker_agreement"] == 1.0


def test_an_unstable_market_is_named_and_leaves_no_day(home: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Instrument("simulated", "BROKEN")
    wild = Fundamental(pieces(walk(400, scale=0.9)), 0, 1.0, name="wild", rng=stream(1, "b"))
    monkeypatch.setattr("synth_pipeline.market.fundamental.Fundamental", lambda *_, **__: wild)
    ref = PathRef.parse("features/simulated.REAL/2024-08-09")
    stages.featurize(home, Instrument("simulated", "REAL"), DAY)
    wild._start_ns = wild._end_ns = day_start_ns(DAY)
    with pytest.raises(SynthError, match=r"the simulation broke down at \d+ ns"):
        stages.simulate(home, toy, DAY, Simulation(FLOW, ref, seconds=100))
    assert home.find("ticks", toy, DAY) is None
    assert not list(home.settings.home.rglob(".staging-*"))


def test_requests_that_cannot_be_met_say_so(home: Workspace) -> None:
    what = Simulation(FLOW, seconds=10)
    with pytest.raises(InputError, match="of venue simulated, as all"):
        stages.simulate(home, Instrument("binance_spot", "BTCUSDT"), DAY, what)
    with pytest.raises(NoDataError, match="calibrate it first"):
        stages.simulate(home, TOY, DAY, replace(what, flow="simulated.REAL/2024-08-09/hawkes"))
    with pytest.raises(InputError, match="neither a name nor"):
        stages.simulate(home, TOY, DAY, replace(what, flow="a/b"))
    with pytest.raises(NoDataError, match="fit it first"):
        stages.simulate(home, TOY, DAY, replace(what, fundamental=PathRef.parse("simulated.REAL/2024-08-09/heston")))
    for text in ("garch", "features/simulated.REAL/2024-08-09/garch", "synthetic/simulated.REAL/garch"):
        with pytest.raises(InputError, match="is not of the form"):
            PathRef.parse(text)
    with pytest.raises(InputError, match="only a dataset has several"):
        PathRef.parse("simulated.REAL/2024-08-09/garch", path=2)
    with pytest.raises(InputError, match="begin before 86400"):
        Simulation(FLOW, start_s=90_000)
    with pytest.raises(InputError, match="end before they begin"):
        list(stages.days_of("2024-08-10:2024-08-09"))
    with pytest.raises(InputError, match="look-back of 0 days"):
        stages.calibrate(home, TOY, DAY, "hawkes", days=0)
    with pytest.raises(InputError, match="compared with itself"):
        stages.compare_books(home, TOY, DAY, TOY, DAY)


# --- bad captures


def calibrated(workspace: Workspace, path: Path, venue: str = "binance_usdm") -> Any:
    instrument, day = stages.identify([path], venue, None), date.fromisoformat(wire.DAY)
    stages.record(workspace, instrument, day, [path])
    stages.ingest(workspace, instrument, day)
    return stages.calibrate(workspace, instrument, day, "zero_intelligence")


def test_captures_that_cannot_tell_the_rates(workspace: Workspace, tmp_path: Path) -> None:
    frames = wire.market(60)
    mute = [frame for frame in frames if b"@trade" not in frame[1]]
    with pytest.raises(TooLittleDataError, match="has no trades on 2023-11-15"):
        calibrated(workspace, wire.write_capture(tmp_path / "mute.gz", mute))
    with pytest.raises(TooLittleDataError, match="too short"):
        calibrated(workspace, wire.write_capture(tmp_path / "short.gz", wire.market(4)))
    sided = [(at, payload.replace(b'"a":[["100.1","5.000"]]', b'"a":[]')) for at, payload in frames]
    sided[1] = (sided[1][0], wire.snapshot(100, [("100.0", "5.000"), ("99.9", "7.000")], []))
    with pytest.raises(TooLittleDataError, match="hold no executions"):
        calibrated(workspace, wire.write_capture(tmp_path / "sided.gz", sided))
    assert (
        workspace.find("checkpoints", Instrument("binance_usdm", "BTCUSDT"), wire.DAY, "flow_zero_intelligence") is None
    )


# --- the whole way, at the command line


@pytest.fixture
def run(
    home: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    monkeypatch.setenv("SYNTH_HOME", str(home.settings.home))
    monkeypatch.setenv("SYNTH_TRACKING", "false")
    monkeypatch.setenv("SYNTH_SAMPLE_PATHS", "4")
    monkeypatch.setenv("SYNTH_LOOKBACK_DAYS", "2")

    def invoke(*words: object) -> tuple[int, Any, str]:
        monkeypatch.setattr("sys.argv", ["synth-pipeline", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return invoke


def test_simulated_days_go_through_features_generators_and_reports(
    run: Callable[..., Any], home: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(*words: object) -> Any:
        code, out, err = run(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    name = "simulated.WAY"
    days = done("simulate", name, "2024-08-11:2024-08-12", FLOW, "--seconds", 150, "--start-price", 120)
    assert [each["ref"][-10:] for each in days] == ["2024-08-11", "2024-08-12"]
    for day in ("2024-08-11", "2024-08-12"):
        done("features", name, day)
    done("fit", name, "2024-08-12", "garch")
    done("sample", name, "2024-08-12", "garch", "--steps", 200)
    report = done("evaluate", name, "2024-08-12", "garch")
    assert 0 <= report["facts"]["fidelity"] <= 100

    followed = done(
        "simulate", "simulated.GUIDED", "2024-08-11:2024-08-12", FLOW, "--seconds", 60, "--fundamental",
        f"{name}/2024-08-12/garch",
    )  # fmt: skip
    paths = [each["facts"]["fundamental"] for each in followed]
    assert (paths[0]["steps"], paths[1]["passed"], paths[1]["steps"]) == (120, 120, 240)
    assert all(each["is_small"] and each["began"] == "2024-08-11" for each in paths)
    sampled = done(
        "simulate", "simulated.SAMPLED", "2024-08-11", FLOW, "--seconds", 60, "--path", 2, "--fundamental",
        f"synthetic/{name}/2024-08-12/garch",
    )  # fmt: skip
    assert sampled["facts"]["fundamental"]["of"] == f"synthetic/{name}/2024-08-12/garch#2"
    code, _, err = run(
        "simulate", "simulated.SAMPLED", "2024-08-12", FLOW, "--seconds", 200, "--fundamental",
        f"synthetic/{name}/2024-08-12/garch",
    )  # fmt: skip
    assert (code, err.count("\n")) == (2, 1)
    assert "sample a longer one" in err

    scores = done("evaluate-book", "simulated.REAL", "2024-08-09", name, "2024-08-12", "--seconds", 100)
    assert scores["means"]["l1"] < 0.35
    page = Path(scores["report"]).read_text(encoding="utf-8")
    assert page.count("data-figure=") >= 2
    assert "http://" not in page.partition("<script>/**")[0]
    books = "simulated.REAL", "2024-08-09", name, "2024-08-12", "--seconds"
    assert "messages" in done("evaluate-book", *books, 99, "--predict")["predictive_score"]["absent"]
    told = book_prediction.BookPrediction(2.0, 3.0, 2.5, 1.2, 1.8)  # what is learned is tested elsewhere
    monkeypatch.setattr(book_prediction, "predictive_score", lambda *_, **__: told)
    assert done("evaluate-book", *books, 100, "--predict")["predictive_score"]["ratio"] == 1.5
    code, out, _ = run("evaluate-book", *books, 100)
    assert code == 0
    assert "spread" in out
    assert "so many messages after one of a kind" in " ".join(page.split())
    for short in (0.2, 1.5, 5, 15):  # little of which there are no statistics, or none of its halves
        code, out, err = run("evaluate-book", "simulated.REAL", "2024-08-09", name, "2024-08-12", "--seconds", short)
        assert (code, err.count("\n"), "mean" in out) in ((0, 0, True), (2, 1, False)), err
    assert all(not each.problems for each in stages.verify(home, "ticks"))
    assert stages.compact(home, f"ticks/{name}", grace_s=0.0, dry_run=True) == []


def test_the_command_line_says_in_one_line_what_is_wrong(run: Callable[..., Any]) -> None:
    for words, part in (
        (("calibrate", "simulated.REAL", "2024-08-09", "hawk"), "Did you mean 'hawkes'"),
        (("calibrate", "simulated.NONE", "2024-08-09", "hawkes"), "ingest it first"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--start", "noon"), "HH:MM"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--start-price", "-3"), "positive"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--start-price", "1e30"), "give less"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--start", "10:75"), "before 24:00"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--scenario", "flash_crsh"), "flash_crash"),
        (("simulate", "simulated.X", "2024-08-09", FLOW, "--seconds", "0"), "no part of it"),
    ):
        code, out, err = run(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert part in err


def test_flows_are_listed_under_their_own_name() -> None:
    assert "flow_hawkes" not in plugins.names(flows)
