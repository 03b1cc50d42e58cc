"""The Hawkes flow: its likelihood against double loops and our univariate one, its fit, its run on the book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import stages
from synth_pipeline.errors import InputError, SynthError, TooLittleDataError
from synth_pipeline.generators import hawkes as univariate
from synth_pipeline.market.engine import BID, cancel, front
from synth_pipeline.market.flows import DONE, Run
from synth_pipeline.market.flows import hawkes_events as seen
from synth_pipeline.market.flows import multivariate_hawkes as hawkes
from synth_pipeline.market.flows.hawkes import Hawkes, Parameters
from synth_pipeline.market.flows.hawkes_run import advance, start_state
from synth_pipeline.market.flows.observing import orders_of
from synth_pipeline.market.flows.replaying import record_of
from synth_pipeline.market.flows.response import Guide
from synth_pipeline.market.tape import rewind
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray
from synth_pipeline.stages import Workspace
from synth_pipeline.ticks.messages import MARKET, Messages, of_store
from tests import naive_hawkes_flow as naive

DECAYS = np.array([2.0, 20.0])
BOTH = np.ones(2, dtype=np.bool_)
BASE = np.array([0.4, 0.3])
WEIGHTS = np.array([[[0.3, 0.2], [0.0, 0.1]], [[0.1, 0.0], [0.2, 0.2]]])


def plain_design(types: int, decays: FloatArray) -> hawkes.Design:
    columns = np.tile(np.arange(types), (types, 1))
    return hawkes.Design(np.arange(types), columns, decays, np.zeros((types, 1, 0)), np.zeros((types, 1)))


def plain_record(times: FloatArray, types: np.ndarray, kinds: int) -> hawkes.Record:
    fresh = np.arange(len(times)) == 0
    return hawkes.Record(times, types, fresh, ~fresh, np.zeros((len(times), kinds), np.int64), np.ones(len(times)))


def drawn(seed: int, events: int = 40) -> tuple[hawkes.Record, hawkes.Design, FloatArray, FloatArray]:
    """Return a record of two stretches in changing states, mirrored types, and parameters."""
    rng = stream(seed, "drawn")
    types, cells, factors = 4, 3, 2
    times = np.sort(rng.uniform(0.0, 10.0, events))
    fresh = np.isin(np.arange(events), (0, events // 2))
    counted = ~fresh & (rng.random(events) < 0.9)
    own = rng.integers(0, types, events)
    where = rng.integers(-1, cells, (events, types))
    where[np.arange(events), own] = rng.integers(0, cells, events)
    record = hawkes.Record(times, own, fresh, counted, where, rng.uniform(0.5, 1.5, events))
    across = np.arange(types) // 2 * 2 + (np.arange(types) % 2 ^ np.arange(types)[:, None] % 2)
    loadings, offsets = rng.normal(size=(2, cells, factors)), rng.normal(0.0, 0.3, (2, cells))
    design = hawkes.Design(np.arange(types) // 2, across, DECAYS, loadings, offsets)
    return record, design, rng.uniform(0.1, 0.6, (2, design.rates)), rng.normal(0.0, 0.5, (2, factors))


def fast(record: hawkes.Record, design: hawkes.Design, theta: FloatArray, phi: FloatArray) -> float:
    factors = np.exp(np.einsum("scf,sf->sc", design.loadings, phi) + design.offsets)
    blank = np.zeros_like(theta)
    return hawkes.score(record, hawkes.Fit(design, theta, phi, factors, blank, blank, blank, 0.0))


@pytest.mark.parametrize("seed", range(5))
def test_the_likelihood_is_that_of_double_loops(seed: int) -> None:
    given = drawn(seed)
    assert fast(*given) == pytest.approx(naive.log_likelihood(*given), rel=1e-10)


def test_residuals_are_the_compensators_of_double_loops() -> None:
    record, design, theta, phi = drawn(7)
    factors = np.exp(np.einsum("scf,sf->sc", design.loadings, phi) + design.offsets)
    found = hawkes.residuals(record, design, theta, factors)
    for i in np.flatnonzero(record.counted):
        own = record.types[i]
        before = [at for at in naive.past_of(record, int(i)) if record.types[at] == own]
        if not before:
            assert np.isnan(found[i])
            continue
        passed = sum(
            naive.factor(record, design, phi, at, own) * naive.compensator(record, design, theta, at, own)
            for at in range(before[-1] + 1, i + 1)
            if record.cells[at, own] >= 0
        )
        assert found[i] == pytest.approx(passed, rel=1e-10)


def test_slopes_are_those_of_finite_differences() -> None:
    record, design, theta, _ = drawn(3)
    _, gradients, curvatures = hawkes.slopes(record, design, theta, BOTH)
    for own in range(2):
        for p in range(design.rates):
            step = np.zeros_like(theta)
            step[own, p] = 1e-6
            up, down = (hawkes.slopes(record, design, theta + sign * step, BOTH) for sign in (1, -1))
            assert (up[0] - down[0])[own] / 2e-6 == pytest.approx(gradients[own, p], rel=1e-5, abs=1e-5)
            difference = (up[1] - down[1])[own] / -2e-6
            assert difference[p:] == pytest.approx(curvatures[own, p:, p], rel=1e-4, abs=1e-4)


def test_one_type_is_our_univariate_process() -> None:
    times = univariate.simulated(stream(1, "one"), 4000.0, 0.5, 0.6, 2.0)
    known = univariate.fit(times, float(times[-1]))
    found = hawkes.fit(plain_record(times, np.zeros(len(times), np.int64), 1), plain_design(1, np.array([known.decay])))
    assert found.theta[0] == pytest.approx([known.base, known.branching_ratio], rel=2e-3)
    # The univariate likelihood also holds the first event, at the base rate.
    first = np.log(known.base) - known.base * times[0]
    assert found.log_likelihood + first == pytest.approx(known.log_likelihood, abs=0.05)


def test_intensify_finds_the_same_likelihood() -> None:
    oracle = pytest.importorskip("intensify")
    decays = np.array([0.2, 1.0])
    times, types = naive.simulated(stream(8, "oracle"), 400.0, BASE, WEIGHTS, decays)
    record, design = plain_record(times, types, 2), plain_design(2, decays)
    rng = stream(9, "oracle")
    for _ in range(3):
        base, weights = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.3, (2, 2, 2))
        kernels = [[oracle.SumExponentialKernel(each, decays) for each in row] for row in weights]
        theirs = oracle.MultivariateHawkes(2, base, kernels)
        known = theirs.log_likelihood([times[types == e] for e in range(2)], float(times[-1]))
        # Theirs also holds the time up to the first event, and that event.
        first = np.log(base[types[0]]) - base.sum() * times[0]
        ours = fast(record, design, np.column_stack((base, weights.reshape(2, -1))), np.zeros((2, 0)))
        assert ours + first == pytest.approx(known, rel=1e-6)


def test_the_peak_is_where_no_neighbour_is_higher() -> None:
    times, types = naive.simulated(stream(2, "peak"), 1500.0, BASE, WEIGHTS, DECAYS)
    record, design = plain_record(times, types, 2), plain_design(2, DECAYS)
    found, rng = hawkes.fit(record, design), stream(3, "peak")
    for _ in range(50):
        moved = np.maximum(found.theta + 0.02 * rng.normal(size=found.theta.shape), 0.0)
        assert fast(record, design, moved, np.zeros((2, 0))) < found.log_likelihood


def test_mean_rates_are_those_of_theory_and_of_events() -> None:
    times, types = naive.simulated(stream(4, "mean"), 40_000.0, BASE, WEIGHTS, DECAYS)
    found = hawkes.fit(plain_record(times, types, 2), plain_design(2, DECAYS))
    theory = np.linalg.solve(np.eye(2) - WEIGHTS.sum(axis=2), BASE)
    assert np.bincount(types) / times[-1] == pytest.approx(theory, rel=0.05)
    assert found.mean_rates() == pytest.approx(np.bincount(types) / times[-1], rel=0.01)
    assert found.spectral_radius == pytest.approx(np.abs(np.linalg.eigvals(WEIGHTS.sum(axis=2))).max(), abs=0.05)


def test_a_radius_is_lowered_without_a_change_of_rates() -> None:
    times, types = naive.simulated(stream(5, "steady"), 4000.0, BASE, WEIGHTS, DECAYS)
    found = hawkes.fit(plain_record(times, types, 2), plain_design(2, DECAYS))
    steady = found.stationary(0.4)
    assert steady.spectral_radius == pytest.approx(0.4)
    assert steady.mean_rates() == pytest.approx(found.mean_rates(), rel=0.02)
    assert found.stationary(0.99).theta == pytest.approx(found.theta)


@pytest.mark.slow
def test_intervals_hold_the_truth_over_fifty_seeds() -> None:
    held, asked = 0, 0
    truth = np.column_stack((BASE, WEIGHTS.reshape(2, -1)))
    for seed in range(50):
        times, types = naive.simulated(stream(seed, "coverage"), 2500.0, BASE, WEIGHTS, DECAYS)
        found = hawkes.fit(plain_record(times, types, 2), plain_design(2, DECAYS))
        errors = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
        held += int((np.abs(found.theta - truth) <= 1.96 * errors).sum())
        asked += truth.size
    assert held / asked >= 0.9


# The flow on the book.

REACH = 40


def market_flow(*, excitation: float = 0.5) -> Hawkes:
    """Return the example, with another branching ratio."""
    flow = Hawkes.example(Parameters(pool=2**13))
    flow._law = flow.law._replace(jumps=flow.law.jumps * excitation / 0.5)
    return flow


def messages_of(flow: Hawkes, seconds: float, seed: int = 0) -> Messages:
    run = flow.start(0, rng=stream(seed, "run"))
    return orders_of(run, int(seconds * NS_PER_SECOND), flow.opening.scale)


def tape_of(flow: Hawkes, until_s: list[float], seed: int = 0) -> np.ndarray:
    run, pieces = flow.start(0, rng=stream(seed, "run")), []
    for until in until_s:
        done = False
        while not done:
            done = run.advance(int(until * NS_PER_SECOND))
            pieces.append(run.market.tape[: run.market.clock.events[0]][["time_ns", "bid", "ask", "bid_lots"]].copy())
            rewind(run.market)
    return np.concatenate(pieces)


def test_where_the_time_is_cut_makes_no_difference() -> None:
    flow = market_flow()
    once, often = tape_of(flow, [30.0]), tape_of(flow, np.linspace(0.01, 30.0, 97).tolist())
    assert np.array_equal(once, often)
    assert not np.array_equal(once, tape_of(flow, [30.0], seed=1)[: len(once)])


def test_rates_on_the_book_are_those_of_theory() -> None:
    flow = market_flow()
    law = flow.law
    branching = (law.jumps / law.decays).sum(axis=2).T
    theory = np.linalg.solve(np.eye(seen.TYPES) - branching, law.base)
    seconds = 4000.0
    events, _ = seen.events_of(record_of(messages_of(flow, seconds)).rows, REACH, 10.0)
    found = np.bincount(events.types // 2, minlength=len(seen.KINDS))
    expected = theory.reshape(-1, 2).sum(axis=1) * seconds
    # Counts of a process with branching ratio n have the variance mean / (1 - n)². Inside a spread of one tick nothing
    # happens, and cancellations behind follow the number of orders there.
    for kind in (seen.TOUCH, seen.BEHIND, seen.CANCEL_TOUCH, seen.TAKE):
        assert abs(found[kind] - expected[kind]) < 4 * 2 * np.sqrt(expected[kind])
    assert 0 < found[seen.INSIDE] < expected[seen.INSIDE]


def test_what_it_sees_in_its_own_messages_is_what_it_did() -> None:
    flow = market_flow()
    messages = messages_of(flow, 200.0)
    rows = record_of(messages).rows
    events, _ = seen.events_of(rows, REACH, 10.0)
    kind = events.types // 2
    assert (events.offset[kind == seen.INSIDE] < 0).all()
    assert (events.offset[kind == seen.TOUCH] == 0).all()
    assert (events.sweep[kind == seen.TAKE] <= 1).all()
    assert events.size[kind == seen.TAKE].sum() == messages.size[messages.kind == MARKET].sum()
    assert (events.orders - events.behind > 0).all()


def test_a_book_that_somebody_else_changed_is_looked_at_anew() -> None:
    def run(*, meddle: bool) -> tuple[int, int]:
        flow = market_flow().start(0, rng=stream(9, "run"))
        flow.advance(NS_PER_SECOND)
        waiting = flow._step
        if meddle:
            cancel(flow.market.book, flow.market.journal, front(flow.market.book, BID))
        flow.advance(2 * NS_PER_SECOND)
        assert waiting is flow._step
        return int(flow.market.tape[0].time_ns), int(flow.market.clock.events[0])

    assert run(meddle=True) != run(meddle=False)


def test_a_saved_flow_runs_the_same_events(tmp_path: Path) -> None:
    flow = market_flow()
    flow.save(tmp_path)
    loaded = Hawkes.load(tmp_path)
    assert loaded.parameters == flow.parameters
    assert np.array_equal(tape_of(flow, [10.0]), tape_of(loaded, [10.0]))


def test_a_flow_that_excites_itself_without_end_is_stopped_by_name() -> None:
    run = market_flow(excitation=1.5).start(0, rng=stream(1, "run"))
    with pytest.raises(SynthError, match=r"orders excite ever more|the book is full|no bid|no ask"):
        _run_on(run)


def _run_on(run: Run) -> None:
    while not run.advance(run.now_ns + 3600 * NS_PER_SECOND):
        rewind(run.market)


def test_a_fit_of_its_own_messages_finds_the_law_again() -> None:
    truth = market_flow()
    found = Hawkes(truth.parameters).fit_like(messages_of(truth, 1500.0), truth)
    for name, known in truth.estimates.items():
        assert abs(found.estimates[name].value - known.value) < 4 * (found.estimates[name].error or 0.0), name
    assert found.diagnostics["market_ks_p"] > 0.001
    assert found.diagnostics["spectral_radius"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_intervals_of_the_flow_hold_the_truth_over_fifty_seeds() -> None:
    truth = Hawkes.example()
    truth._law = truth.law._replace(features=4)
    held = asked = 0
    for seed in range(50):
        found = Hawkes(truth.parameters).fit_like(messages_of(truth, 400.0, seed), truth)
        for name, known in truth.estimates.items():
            held += abs(found.estimates[name].value - known.value) <= 1.96 * (found.estimates[name].error or 0.0)
            asked += 1
    assert held / asked >= 0.9


def test_a_fit_says_what_it_chose_and_runs() -> None:
    messages = messages_of(market_flow(), 400.0)
    flow = Hawkes().fit(messages, rng=stream(2, "fit"))
    assert any(note.startswith("rates depend on") for note in flow.notes)
    assert any(note.startswith("decay times of 50 s are left out") for note in flow.notes)
    assert 0.0 < flow.diagnostics["spectral_radius"] < 1.0
    assert {"market_ks", "market_ks_p"} <= set(flow.diagnostics)
    tape = tape_of(flow, [60.0])
    assert (tape["bid"] < tape["ask"]).all()


def test_sides_that_differ_are_told_apart() -> None:
    truth = market_flow()
    law = truth.law
    base = law.base.copy()
    base[2 * seen.TAKE] *= 3.0
    truth._law = law._replace(base=base)
    flow = Hawkes(Parameters(mirrored=False, decay_times_s=(0.02, 1.0)))
    fitted = flow.fit(messages_of(truth, 600.0), rng=stream(3, "fit"))
    bid, ask = (fitted.estimates[f"base_market_{side}"] for side in ("bid", "ask"))
    assert bid.value - ask.value > 2 * ((bid.error or 0.0) + (ask.error or 0.0))


def test_tied_changes_are_spread_over_the_resolution_in_their_order() -> None:
    messages = messages_of(market_flow(), 120.0)
    step = 100_000_000
    tied = replace(messages, time_ns=(messages.time_ns // step + 1) * step)
    rows = record_of(tied).rows
    assert seen.resolution_of(rows) == step
    spread = seen.spread_out(rows, tied.ends, 10.0, stream(4, "ties"))
    back = (rows.time_ns - spread.time_ns) / step
    assert back.min() >= 0.0
    assert back.max() <= 1.0
    assert back[rows.kind != MARKET].mean() == pytest.approx(0.5, rel=0.1)
    again = seen.spread_out(rows, tied.ends, 10.0, stream(4, "ties"))
    assert np.array_equal(spread.time_ns, again.time_ns)


@pytest.mark.parametrize("times", [(), (0.0, 1.0), (1.0, 0.1), (1.0, 1.0)])
def test_decay_times_that_are_none_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="decay_times_s"):
        Parameters(decay_times_s=times)


def test_messages_without_executions_are_refused() -> None:
    messages = messages_of(market_flow(), 60.0)
    kept = messages.kind != MARKET
    without = replace(
        messages,
        **{
            name: getattr(messages, name)[kept]
            for name in ("time_ns", "kind", "side", "price", "size", "order_id", "ends")
        },
    )
    with pytest.raises(TooLittleDataError, match="executions"):
        Hawkes().fit(without, rng=stream(5, "fit"))


CAPTURES = {
    "usdm": (("binance_usdm_btcusdt_20240808.gz",), ("2024-08-08",)),
    "lobster": (("LOBSTER_SampleFile_AMZN_2012-06-21_1.zip",), ("2012-06-21",)),
    "bitstamp": (("bitstamp_btcusd_l3_raw_20150501.log.xz",), ("2015-05-01",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURES)
def test_real_captures_are_fitted_and_run(name: str, real: Callable[[str], Path], workspace: Workspace) -> None:
    files, days = CAPTURES[name]
    paths = [real(file) for file in files]
    instrument = stages.identify(paths, None, None)
    for day in days:
        stages.record(workspace, instrument, date.fromisoformat(day), paths)
        stages.ingest(workspace, instrument, date.fromisoformat(day))
    window = f"{days[0]}T00:00", f"{days[-1]}T23:59:59"
    messages, _ = of_store(workspace.settings.home, instrument, *window).split(0.5)
    flow = Hawkes().fit(messages, rng=stream(1, name))
    assert 0.3 < flow.diagnostics["spectral_radius"] < 0.98
    watched = seen.events_of(record_of(messages).rows, flow.opening.reach, 1.0)[0].spread
    tape = tape_of(flow, [messages.seconds])
    assert 0.3 < len(tape) / (messages.kind > 0).sum() < 3.0
    assert 0.4 < np.median(tape["ask"] - tape["bid"]) / np.median(watched[watched > 0]) < 2.5


def test_the_mid_follows_a_fundamental_price() -> None:
    flow = market_flow()
    run = flow.start(0, rng=stream(6, "run"))
    law, state, rng = flow.law, start_state(run.market, flow.law), stream(7, "run")
    steps = np.where(np.arange(60) < 30, 10_030.0, 9_980.0)
    guide = Guide(0, NS_PER_SECOND, steps, 20.0, 2.0)
    mids = []
    for second in (29, 59):
        assert advance(run.market, law, run.pace, state, guide, second * NS_PER_SECOND, rng) == DONE
        mids.append(0.5 * run.market.book.sides.best[:2].sum())
    assert mids == pytest.approx([10_030.0, 9_980.0], abs=4.0)
