"""Calibrated order flows: laws of every flow, zero intelligence and queue-reactive against theory and slow twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from synth_pipeline import plugins, stages
from synth_pipeline.errors import InputError, SynthError, TooLittleDataError, TrainingError, UnknownNameError
from synth_pipeline.market import flows
from synth_pipeline.market.engine import ASK, BID, cancel, front, limit
from synth_pipeline.market.flows import queues
from synth_pipeline.market.flows.calibrated import Calibrated, Opening, Parameters
from synth_pipeline.market.flows.day_shape import FLAT, next_candidate, shape_of
from synth_pipeline.market.flows.observing import CONTINUOUS, levels_of, orders_of, publication_gaps
from synth_pipeline.market.flows.placement import distances_up_to, power_law, reach_of
from synth_pipeline.market.flows.positions import positions_of
from synth_pipeline.market.flows.queue_law import growth_of
from synth_pipeline.market.flows.queue_reactive import QueueReactive
from synth_pipeline.market.flows.recovery import recovery, truth_of
from synth_pipeline.market.flows.replaying import record_of
from synth_pipeline.market.flows.sizes import POINTS, draw_size, sizes_of
from synth_pipeline.market.flows.tallying import tally
from synth_pipeline.market.flows.zero_intelligence import ZeroIntelligence
from synth_pipeline.market.tape import rewind
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks.messages import CANCEL, LIMIT, MARKET, Messages, books, of_store
from tests import naive_flows as naive

NAMES = ("zero_intelligence", "queue_reactive")
S = NS_PER_SECOND


@pytest.fixture(scope="module", params=NAMES)
def flow(request: pytest.FixtureRequest) -> Calibrated:
    """A flow of known parameters, made by `fit` where it is not zero intelligence's example."""
    return truth_of(request.param, seconds=120.0)


@pytest.fixture(scope="module")
def record() -> Messages:
    """Two minutes of zero intelligence, order by order."""
    example = ZeroIntelligence.example()
    return orders_of(example.start(0, rng=stream(3, "record")), 120 * S, example.opening.scale)


@pytest.fixture(scope="module")
def blind(record: Messages) -> Messages:
    """The same minutes without the ids of orders."""
    example = ZeroIntelligence.example()
    run = example.start(0, rng=stream(3, "record"))
    return levels_of(run, 120 * S, example.opening.scale, CONTINUOUS, rng=stream(4, "record"))


def trace(run: flows.Run, untils: list[int]) -> np.ndarray:
    """Return the order events of a run that is advanced time by time."""
    found = []
    for until in untils:
        done = False
        while not done:
            done = run.advance(until)
            events = run.market.tape[: run.market.clock.events[0]]
            times = np.repeat(events.time_ns, np.diff(events.event_rows, prepend=0))
            rows = run.market.journal.events[: times.size]
            found.append(np.column_stack((times, rows.kind, rows.order_id, rows.side, rows.price, rows.lots)))
            rewind(run.market)
    return np.concatenate(found)


# --- the contract


def test_flows_are_listed_and_loaded_by_file_name() -> None:
    assert set(NAMES) <= set(plugins.names(flows))
    for name in plugins.names(flows):
        assert issubclass(plugins.load(flows, name), flows.OrderFlow)
        assert plugins.headline(flows, name)
    with pytest.raises(UnknownNameError, match="zero_intelligence"):
        plugins.load(flows, "zero_inteligence")


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_checked(name: str) -> None:
    made = plugins.load(flows, name)
    assert made.from_settings({"reach_ticks": 30}).parameters.reach_ticks == 30
    for settings_ in ({"reach": 30}, {"reach_ticks": "far"}, {"reach_ticks": -1}, {"response_rate": 0.0}):
        with pytest.raises(InputError, match=r"reach|response"):
            made.from_settings(settings_)
    with pytest.raises(InputError, match=f"{name} is not fitted"):
        made().start(0, rng=stream(0, "x"))


def test_the_same_seed_runs_the_same_events_and_another_seed_others(flow: Calibrated) -> None:
    first, again, other = (trace(flow.start(0, rng=stream(seed, "run")), [20 * S]) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:100], other[:100])


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 20 * S - 1), max_size=40))
def test_events_do_not_depend_on_how_time_is_cut(cuts: list[int]) -> None:
    for name in NAMES:
        known = _KNOWN.setdefault(name, truth_of(name, seconds=60.0))
        whole = trace(known.start(0, rng=stream(1, "run")), [20 * S])
        assert np.array_equal(trace(known.start(0, rng=stream(1, "run")), [*sorted(cuts), 20 * S]), whole)


_KNOWN: dict[str, Calibrated] = {}


def test_a_full_tape_is_told_and_loses_nothing(flow: Calibrated) -> None:
    run = flow.start(0, rng=stream(1, "run"))
    assert not run.advance(10**5 * S)
    reached = run.now_ns // S
    often = trace(flow.start(0, rng=stream(1, "run")), [second * S for second in range(1, reached + 100, 7)])
    seldom = trace(flow.start(0, rng=stream(1, "run")), [(reached + 100) * S])
    assert np.array_equal(often, seldom[: len(often)])
    assert len(often) > len(run.market.journal.events[: run.market.journal.rows.events[0]])


def test_saved_and_loaded_it_runs_on_the_same(flow: Calibrated, tmp_path: Path) -> None:
    flow.save(tmp_path)
    loaded = type(flow).load(tmp_path)
    before, after = (trace(each.start(5, rng=stream(1, "run")), [10 * S]) for each in (flow, loaded))
    assert np.array_equal(before, after)
    assert loaded.summary().keys() == flow.summary().keys()
    assert tuple(loaded.notes) == tuple(flow.notes)
    other = QueueReactive if isinstance(flow, ZeroIntelligence) else ZeroIntelligence
    with pytest.raises(InputError, match="load it by its own name"):
        other.load(tmp_path)
    with pytest.raises(InputError, match="holds no fitted flow"):
        type(flow).load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_fit_leaves_its_input_and_is_repeatable(name: str, blind: Messages) -> None:
    columns = {key: getattr(blind, key).copy() for key in ("time_ns", "kind", "side", "price", "size", "order_id")}
    made = [plugins.load(flows, name)().fit(blind, rng=stream(1, "fit")) for _ in range(2)]
    assert all(np.array_equal(getattr(blind, key), column) for key, column in columns.items())
    np.testing.assert_equal(made[0].summary(), made[1].summary())
    assert {key for key in made[0].summary() if key.endswith("_se")}
    assert any("inferred" in note for note in made[0].notes)


def test_books_are_never_crossed_and_messages_rebuild_them(flow: Calibrated) -> None:
    run = flow.start(0, rng=stream(8, "run"))
    messages = orders_of(run, 30 * S, flow.opening.scale)
    for rows, ladder in books(messages, 1):
        bid, bid_lots, ask, ask_lots = ladder[:, :, 0]
        assert ((bid < ask) & (bid_lots > 0) & (ask_lots > 0)).all(), rows
    last = messages.slice(30 * S - 1, 30 * S).initial[0]
    engine_book = run.market.book
    for side, levels in ((BID, last.bids), (ASK, last.asks)):
        assert levels[:, 1].sum() == engine_book.sides[side].lots
        assert levels[-1, 0] == engine_book.sides[side].best


# --- parameters are found again


@pytest.mark.parametrize("name", NAMES)
def test_parameters_lie_inside_their_intervals(name: str) -> None:
    found = recovery(name, range(6), seconds=300.0)
    assert found.coverage >= 0.90
    assert len(found.by_parameter) > 20


def test_waits_are_exponential_under_the_true_law(flow: Calibrated) -> None:
    run = flow.start(0, rng=stream(5, "waits"))
    messages = orders_of(run, 300 * S, flow.opening.scale)
    fitted = type(flow)(flow.parameters).fit_like(messages, flow)
    tests = {name: value for name, value in fitted.diagnostics.items() if name.endswith("_ks_p")}
    assert set(tests) == {"limit_ks_p", "cancel_ks_p", "market_ks_p"}
    assert min(tests.values()) > 1e-3, tests


def test_orders_that_never_trade_number_as_a_birth_death_process_says() -> None:
    # One price a side: births at λ, deaths at θ each, so the number is Poisson(λ / θ) in the long run.
    example = ZeroIntelligence.example(Parameters(reach_ticks=2))
    law = example.law
    rates = np.full(law.distances.edges.size - 1, 40.0)
    example._law = law._replace(limit_rates=rates * [1, 1e-9], cancel_rates=rates / 40.0, market_rate=0.0)
    run, counts = example.start(0, rng=stream(2, "births")), []
    for second in range(10, 2000, 4):
        while not run.advance(second * S):
            rewind(run.market)
        counts += [run.market.book.sides[side].orders for side in (BID, ASK)]
    assert np.mean(counts) == pytest.approx(40.0, rel=0.03)
    assert np.var(counts) == pytest.approx(40.0, rel=0.2)


# --- slow twins


def test_the_tally_is_that_of_a_dictionary_book(blind: Messages) -> None:
    short = blind.slice(0, 8 * S)
    found, distances = record_of(short), distances_up_to(12)
    counted = tally(found.rows, distances, FLAT, found.unit)
    expected = naive.tally(short, found.unit, distances.edges.tolist())
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(counted, name), values, rtol=1e-9, err_msg=name)


def test_queue_seconds_are_those_of_a_dictionary_book(blind: Messages) -> None:
    short = blind.slice(0, 8 * S)
    nothing = np.array([6, 20, 45])
    grid = queues.Grid(nothing, np.array([10, 30]), nothing, distances_up_to(12))
    counted = queues.count(record_of(short).rows, grid, FLAT)
    expected = np.zeros_like(counted.best_seconds)
    for (own, other, spread), seconds in naive.best_seconds(short).items():
        width = sum(spread > bound for bound in (1, 4, 32, 256))
        expected[width, np.searchsorted([10, 30], other), np.searchsorted(nothing, own)] += seconds
    np.testing.assert_allclose(counted.best_seconds, expected, rtol=1e-9, atol=1e-12)
    # A price of either side is always in one state.
    widths = np.diff(grid.distances.edges)
    np.testing.assert_allclose(counted.behind_seconds.sum(axis=1), 2 * widths * short.seconds, rtol=1e-9)


def test_rates_are_where_the_poisson_likelihood_peaks(blind: Messages) -> None:
    found, distances = record_of(blind), distances_up_to(30)
    counted = tally(found.rows, distances, FLAT, found.unit)
    fitted = ZeroIntelligence(Parameters(reach_ticks=30)).fit(blind, rng=stream(1, "fit"))
    for count, exposure, name in zip(counted.limits, counted.tick_seconds, distances.names, strict=True):
        peak = optimize.minimize_scalar(lambda x, n=count, t=exposure: x * t - n * np.log(x), bounds=(1e-3, 5.0))
        assert fitted.summary()[f"limit_rate_{name}"] == pytest.approx(peak.x, rel=1e-3)


def test_positions_are_those_of_lists(record: Messages) -> None:
    fresh = replace(record, initial=(record.initial[0],))
    np.testing.assert_allclose(np.sort(positions_of(fresh)), np.sort(naive.positions(fresh)))
    # Any order is as likely as any other, so the middle of the cancelled one is in the middle on average.
    assert positions_of(record).mean() == pytest.approx(0.5, abs=0.03)


# --- sizes, distances, time of day


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=400))
def test_sizes_drawn_are_sizes_seen(values: list[int]) -> None:
    sizes = np.array(values)
    made = sizes_of(sizes, np.zeros(sizes.size, dtype=np.int64), [np.array([0])])
    table = made.tables[made.table_of[0]]
    assert set(table[:-1].tolist()) <= set(values)
    assert table.min() >= 1
    assert draw_size(made, 0, stream(1, "size")) in table


def test_a_heavy_tail_keeps_its_mean_and_round_lots_stay_round() -> None:
    sizes = np.ceil(stream(1, "tail").pareto(1.6, 50_000) * 10).astype(np.int64) * 100
    made = sizes_of(sizes, np.zeros(sizes.size, dtype=np.int64), [np.array([0])])
    assert made.tables[0].mean() == pytest.approx(sizes.mean(), rel=0.02)
    assert (made.tables[0][: POINTS - 1] % 100 == 0).all()


@given(st.integers(2, 20_000))
def test_classes_cut_all_distances_without_overlap(reach: int) -> None:
    distances = distances_up_to(reach)
    assert distances.edges[0] == 1
    assert distances.edges[-1] == reach + 1
    assert (np.diff(distances.edges) > 0).all()
    for which in range(distances.edges.size - 1):
        assert (distances.class_of[distances.edges[which] : distances.edges[which + 1]] == which).all()


def test_the_power_law_is_the_most_likely_one() -> None:
    distances = distances_up_to(2000)
    exposure = 500.0 * np.diff(distances.edges)
    counts = stream(1, "law").poisson(exposure * 3.0 * distances.middles**-1.3).astype(float)
    found = power_law(distances, counts, exposure)

    def loss(free: np.ndarray) -> float:
        expected = exposure * np.exp(free[0]) * distances.middles ** -free[1]
        return float(expected.sum() - counts @ np.log(expected))

    best = optimize.minimize(loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert (np.log(found.scale), found.exponent) == pytest.approx(tuple(best.x), abs=1e-4)
    assert abs(found.exponent - 1.3) < 4 * found.error


def test_a_source_of_few_levels_gets_a_book_behind_them() -> None:
    assert reach_of(np.arange(1, 101), 0) * 8 == pytest.approx(reach_of(np.arange(1, 101), 1), abs=8)


def test_the_shape_of_the_day_is_found_and_followed() -> None:
    true = 1.0 + 0.5 * np.cos(2 * np.pi * np.arange(48) / 48)
    since, following, times = np.array([0]), np.array([0]), []
    rng = stream(1, "day")
    while (now := next_candidate(true, since, following, 0.5, NS_PER_DAY, rng)) >= 0:
        times.append(now)
    found, flat = shape_of(np.array(times), np.array([[0, NS_PER_DAY]]))
    assert flat is None
    assert np.abs(found - true).max() < 0.15
    assert found.mean() == pytest.approx(1.0)


def test_a_short_record_has_no_time_of_day() -> None:
    found, flat = shape_of(np.arange(0, 600 * S, S), np.array([[0, 600 * S]]))
    assert (found == 1).all()
    assert flat is not None
    assert "half hours" in flat


# --- what a record may lack


def test_too_little_is_said(blind: Messages) -> None:
    quiet = blind.kind != MARKET
    columns = ("time_ns", "kind", "side", "price", "size", "order_id", "ends")
    silent = replace(blind, **{name: getattr(blind, name)[quiet] for name in columns})
    bids = (blind.side > 0) | (blind.kind == MARKET)
    one_sided = replace(blind, **{name: getattr(blind, name)[bids] for name in columns})
    for messages, reason in (
        (silent, "no executions: record trades"),
        (blind.slice(0, 2 * S), "too short: take at least 5"),
        (one_sided, "no limit order joins the asks"),
    ):
        for name in NAMES:
            with pytest.raises(TooLittleDataError, match=reason):
                plugins.load(flows, name)().fit(messages, rng=stream(1, "fit"))


@pytest.mark.parametrize("name", NAMES)
def test_one_level_is_enough_and_said(name: str, record: Messages) -> None:
    seen = naive.top_only(record)
    fitted = plugins.load(flows, name)().fit(seen, rng=stream(1, "fit"))
    assert any(note.startswith("levels seen on a side: 1;") for note in fitted.notes)
    assert fitted.opening.levels.shape[0] > 20
    run = fitted.start(0, rng=stream(2, "run"))
    messages = orders_of(run, 60 * S, fitted.opening.scale)
    spreads = np.concatenate([ladder[2, :, 0] - ladder[0, :, 0] for _, ladder in books(messages, 1)])
    assert 1 <= np.median(spreads) <= 4


def test_a_change_of_pace_is_noted(blind: Messages) -> None:
    slow = blind.slice(60 * S, 120 * S)
    times = np.concatenate((blind.time_ns[: blind.time_ns.searchsorted(60 * S)], 60 * S + 3 * (slow.time_ns - 60 * S)))
    stretched = replace(blind, time_ns=times, spans=np.array([[0, 240 * S]]))
    fitted = ZeroIntelligence().fit(stretched, rng=stream(1, "fit"))
    assert any("not stationary" in note for note in fitted.notes)


def test_level_changes_published_together_share_their_times(flow: Calibrated) -> None:
    gaps = np.full(POINTS, 0.1 * S)
    run = flow.start(0, rng=stream(1, "run"))
    messages = levels_of(run, 20 * S, flow.opening.scale, gaps, rng=stream(2, "clock"))
    shown = np.unique(messages.time_ns[messages.kind != MARKET])
    off = shown[(shown % (S // 10) != 0) & (shown != 20 * S - 1)]
    assert np.isin(off, messages.time_ns[messages.kind == MARKET]).all()
    assert (np.diff(messages.time_ns) >= 0).all()
    assert publication_gaps(messages).any()
    assert not publication_gaps(orders_of(flow.start(0, rng=stream(1, "run")), 5 * S, flow.opening.scale)).any()


# --- what others do to the book


def test_orders_of_others_leave_by_trades_alone(flow: Calibrated) -> None:
    run = flow.start(0, rng=stream(4, "run"))
    book, journal = run.market.book, run.market.journal
    ours = {limit(book, journal, BID, int(book.sides[BID].best) - away, 7, 9) for away in range(0, 30, 3)}
    traded: set[int] = set()
    for second in range(1, 60):
        done = False
        while not done:
            done = run.advance(second * S)
            traded |= set(journal.trades.maker_id[: journal.rows.trades[0]].tolist())
            rewind(run.market)
        cancel(book, journal, front(book, ASK))  # somebody takes the best ask away
        rewind(run.market)
    resting = set(book.orders.order_id.tolist())
    assert ours <= resting | traded
    assert ours & resting


class Steps:
    """A price that jumps every ten seconds."""

    def __init__(self, ticks: list[float], tick: float) -> None:
        self.log_price = np.log(np.array(ticks) * tick)

    def piece(self, now_ns: int) -> tuple[int, int, np.ndarray]:
        first = min(now_ns // (20 * S) * 2, len(self.log_price) - 2)  # two steps a piece
        return first * 10 * S, 10 * S, self.log_price[first : first + 2]


def test_the_mid_follows_a_fundamental_price(flow: Calibrated) -> None:
    tick = float(flow.opening.scale.tick_size)
    ticks = [10_000.0, 10_012.0, 9_990.0, 9_990.0, 10_030.0, 10_020.0]
    run, residuals = flow.start(0, rng=stream(6, "run"), fundamental=Steps(ticks, tick)), []
    for tenth in range(1, 600):
        while not run.advance(tenth * S // 10):
            rewind(run.market)
        sides = run.market.book.sides
        if tenth % 100 > 10:
            residuals.append(0.5 * (sides[BID].best + sides[ASK].best) - ticks[tenth // 100])
    assert np.abs(residuals).mean() < 2.0 * flow.opening.spread
    assert abs(np.mean(residuals)) < 1.0


def test_following_does_not_depend_on_how_time_is_cut(flow: Calibrated) -> None:
    steps = Steps([10_000.0, 10_012.0, 9_990.0, 9_990.0], float(flow.opening.scale.tick_size))
    whole, cut = (
        trace(flow.start(0, rng=stream(6, "run"), fundamental=steps), untils)
        for untils in ([40 * S], [3 * S, 20 * S, 20 * S + 1, 31 * S, 40 * S])
    )
    assert np.array_equal(whole, cut)


# --- when a market breaks


def with_law(**changes: object) -> ZeroIntelligence:
    example = ZeroIntelligence.example(Parameters(pool=2**10))
    law, opening = example.law, example.opening
    example._law = law._replace(**{name: np.asarray(value) * getattr(law, name) for name, value in changes.items()})
    example._law = example.law._replace(market_rate=float(example.law.market_rate))
    example._opening = Opening(opening.levels, opening.scale, opening.reach, opening.spread, opening.unit)
    return example


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"limit_rates": 0.01}, "no (bid|ask) is left"), ({"cancel_rates": 1e-3, "limit_rates": 10}, "the book is full")],
)
def test_a_breakdown_is_named_and_stops_the_run(changes: dict[str, float], reason: str) -> None:
    run = with_law(**changes).start(0, rng=stream(1, "run"))
    with pytest.raises(SynthError, match=f"broke down at [0-9]+ ns: {reason}"):
        trace(run, [10_000 * S])


def test_queues_that_grow_without_bound_are_no_stationary_fit(record: Messages) -> None:
    # Nobody cancels at the best any more, so the longest queues only grow.
    found = record_of(record)
    grid = queues.Grid(np.array([6, 20, 45]), np.array([10, 30]), np.array([6, 20]), distances_up_to(12))
    counts = queues.count(found.rows, grid, FLAT)
    assert growth_of(found, counts, grid) == ()
    kept = ~((counts.region == queues.BEST) & (found.rows.kind == CANCEL))
    rows = found.rows._replace(size=np.where(kept, found.rows.size, 0), takes=np.zeros_like(found.rows.takes))
    with pytest.raises(TrainingError, match=r"best queues of more than 45 lots grow by .* lots a second"):
        growth_of(replace(found, rows=rows), counts, grid)
    notes = growth_of(replace(found, rows=rows, positions=np.zeros(0)), counts, grid)
    assert notes[0].startswith("not stationary: best queues of more than 45 lots grow")


def test_a_runaway_price_is_named() -> None:
    example = ZeroIntelligence.example()
    far = Steps([40_000.0, 40_000.0], 0.01)
    run = example.start(0, rng=stream(1, "run"), fundamental=far)
    with pytest.raises(SynthError, match="the mid has left the price"):
        run.advance(10 * S)


# --- real captures


@pytest.mark.slow
def test_a_real_capture_gives_a_market_like_it(real: Callable[[str], Path], workspace: Workspace) -> None:
    files, day = [real("binance_usdm_btcusdt_20240808.gz")], date(2024, 8, 8)
    instrument = stages.identify(files, None, None)
    stages.record(workspace, instrument, day, files)
    stages.ingest(workspace, instrument, day)
    messages = of_store(workspace.settings.home, instrument, "2024-08-08", "2024-08-09")
    early, late = messages.split(0.5)
    fitted = QueueReactive().fit(early, rng=stream(1, "fit"))
    run = fitted.start(int(late.spans[0, 0]), rng=stream(1, "run"))
    made = levels_of(run, int(late.spans[0, 1]), late.scale, publication_gaps(early), rng=stream(2, "run"))
    for kind in (LIMIT, CANCEL, MARKET):
        rates = [(each.kind == kind).sum() / each.seconds for each in (made, early)]
        assert 0.5 < rates[0] / rates[1] < 2.0
    tops = [np.concatenate([ladder[:, :, 0] for _, ladder in books(each, 1)], axis=1) for each in (made, early)]
    assert np.median(tops[0][2] - tops[0][0]) == np.median(tops[1][2] - tops[1][0]) == 1
    assert 0.5 < np.median(tops[0][1]) / np.median(tops[1][1]) < 2.0
