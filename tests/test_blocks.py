"""Blocks of the bootstrap: the kernels and their twins, lengths that were asked for, joins that match."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline.generators.block_length import BlockLengths
from synth_pipeline.generators.blocks import SCHEMES, Blocks, Scheme, circuit, cut, drawn, epoch, replaced
from synth_pipeline.rng import stream
from tests import naive_bootstrap as naive

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
INDEPENDENT: tuple[Scheme, ...] = ("stationary", "circular", "moving")


def blocks(lengths: list[int], scheme: Scheme, length: float, *, seed: int = 0) -> Blocks:
    """Stretches of these lengths, one after the other, their volatility in spells."""
    stops = np.cumsum(lengths)
    spells = 1 + 9 * (np.arange(stops[-1]) // 37 % 3 == 0)
    sizes = np.abs(stream(seed, "sizes").standard_normal(int(stops[-1]))) * spells
    return Blocks(stops - np.array(lengths), stops, sizes, scheme, length)


@pytest.mark.parametrize("scheme", INDEPENDENT)
def test_the_kernel_draws_what_its_twin_draws(scheme: Scheme) -> None:
    for lengths, length in (([200], 12.0), ([40, 7, 90], 9.0), ([5, 30], 1.5)):
        (rows,) = blocks(lengths, scheme, length).rows(stream(3, "rows"), [700])
        stops = np.cumsum(lengths).tolist()
        stretches = [range(stop - count, stop) for stop, count in zip(stops, lengths, strict=True)]
        assert rows.tolist() == naive.independent_rows(stream(3, "rows"), 700, stretches, length, scheme)


def test_stationary_blocks_are_geometric() -> None:
    (rows,) = blocks([4_000], "stationary", 20.0).rows(stream(0, "rows"), [400_000])
    following = {row: (row + 1) % 4_000 for row in range(4_000)}
    lengths = np.array(naive.blocks_of(rows, following))
    # Two blocks that follow each other by chance look like one: every 4,000th join.
    assert lengths.mean() == pytest.approx(20.0, rel=0.02)
    levels = stats.geom.cdf(np.arange(1, 61), 1 / 20)
    found = np.array([(lengths <= size).mean() for size in range(1, 61)])
    assert np.abs(found - levels).max() < 0.012


@pytest.mark.parametrize(("scheme", "length"), [("circular", 25.0), ("moving", 25.0)])
def test_blocks_of_one_length_have_it(scheme: Scheme, length: float) -> None:
    (rows,) = blocks([3_000, 500], scheme, length).rows(stream(0, "rows"), [50_000])
    for block in rows.reshape(-1, 25):
        step = np.diff(block)
        assert ((step == 1) | ((step < 0) & (scheme == "circular"))).all()


@pytest.mark.parametrize("scheme", ["stationary", "circular"])
def test_wrapped_blocks_cover_history_uniformly(scheme: Scheme) -> None:
    (rows,) = blocks([60, 20, 20], scheme, 8.0).rows(stream(0, "rows"), [400_000])
    assert naive.frequencies(rows, 100) == pytest.approx(np.full(100, 0.01), rel=0.08)


def test_moving_blocks_cover_the_ends_less() -> None:
    (rows,) = blocks([100], "moving", 10.0).rows(stream(0, "rows"), [4_000_000])
    found = naive.frequencies(rows, 100)
    expected = np.minimum(np.minimum(np.arange(100) + 1, 100 - np.arange(100)), 10) / 910
    assert found == pytest.approx(expected, rel=0.08)


def test_the_variance_of_the_mean_is_the_one_known_in_closed_form() -> None:
    # Politis and Romano 1994, lemma 1: circular autocovariances, faded by (1 - p)^lag.
    moves = np.convolve(stream(0, "moves").standard_normal(230), np.ones(31), "valid")
    count, fades = len(moves), 1 - 1 / 15
    centred = moves - moves.mean()
    cov = np.array([centred @ np.roll(centred, lag) / count for lag in range(count)])
    lags = np.arange(1, count)
    factors = (1 - lags / count) * fades**lags
    expected = (cov[0] + 2 * np.sum(factors * cov[1:])) / count
    source = Blocks(np.array([0]), np.array([count]), np.abs(moves), "stationary", 15.0)
    means = [moves[next(source.rows(stream(seed, "rows"), [count]))].mean() for seed in range(4_000)]
    oracle = StationaryBootstrap(15, moves, seed=stream(0, "arch")).apply(np.mean, 4_000)
    assert np.mean(means) == pytest.approx(moves.mean(), abs=4 * np.sqrt(expected / 4_000))
    assert np.var(means) == pytest.approx(expected, rel=0.1)
    assert np.var(means) == pytest.approx(float(oracle.var()), rel=0.15)


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6), length=st.integers(1, 40), seed=st.integers(0, 99))
def test_cuts_tile_every_stretch(lengths: list[int], length: int, seed: int) -> None:
    stops = np.cumsum(lengths)
    opens = stops - np.array(lengths)
    firsts, ends = cut(stream(seed, "cut"), opens, stops, length)
    assert firsts.tolist() == sorted({*opens.tolist(), *ends.tolist()[:-1]})
    assert (ends[:-1] == firsts[1:]).all()
    assert ends[-1] == stops[-1]
    assert (ends - firsts).max() <= max(length + length // 2, 1)
    inner = (ends - firsts)[~np.isin(firsts, opens) & ~np.isin(ends, stops)]
    assert (inner >= max(length // 2, 1)).all()


@pytest.mark.parametrize(("lengths", "length"), [([400], 12), ([150, 9, 60], 20), ([30, 30, 30], 1), ([25, 7], 90)])
def test_an_epoch_is_that_of_its_twin(lengths: list[int], length: int) -> None:
    source = blocks(lengths, "hybrid", length)
    before, after, classes = source.classes
    fourth = source.sizes**4
    stretches = [range(first, stop) for first, stop in zip(source.opens.tolist(), source.stops.tolist(), strict=True)]
    rng, same = stream(5, "epoch"), stream(5, "epoch")
    for _ in range(4):
        rows = epoch(rng, source.opens, source.stops, before, after, fourth, length, classes)
        twin = naive.epoch(same, stretches, before.tolist(), after.tolist(), fourth.tolist(), length, classes)
        assert rows.tolist() == twin


def test_cuts_have_the_mean_length_and_fall_anywhere() -> None:
    opens, stops = np.array([0]), np.array([3_000])
    inner, starts = [], Counter[int]()
    for seed in range(300):
        firsts, ends = cut(stream(seed, "cut"), opens, stops, 30)
        inner += (ends - firsts)[1:-1].tolist()
        starts.update((firsts[1:] // 100).tolist())
    assert np.mean(inner) == pytest.approx(30.0, rel=0.01)
    assert (min(inner), max(inner)) == (15, 45)
    assert np.array([starts[at] for at in range(30)]) == pytest.approx(np.full(30, 1_000), rel=0.1)


def test_blocks_are_replaced_by_their_own_kind_each_equally_often() -> None:
    kinds = np.array([7, 2, 7, 7, 2, 9])
    rng = stream(0, "replaced")
    found = np.array([replaced(rng, kinds) for _ in range(6_000)])
    assert (kinds[found] == kinds).all()
    used = np.array([(found == block).sum() for block in range(6)]) / 6_000
    assert used == pytest.approx(np.ones(6), rel=0.05)


@pytest.mark.parametrize(
    ("edges", "root"),
    [
        ([(0, 1), (1, 0), (0, 1), (1, 0), (1, 1)], 0),
        ([(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)], 2),
        ([(2, 2), (2, 0), (0, 2), (0, 0), (2, 0), (0, 2)], 2),
    ],
)
def test_every_euler_circuit_is_equally_likely(edges: list[tuple[int, int]], root: int) -> None:
    sources, targets = (np.array(ends) for ends in zip(*edges, strict=True))
    wanted = naive.circuits(edges, root)
    rng = stream(0, "circuit")
    found = Counter(tuple(circuit(rng, sources, targets, 3, root).tolist()) for _ in range(400 * len(wanted)))
    assert set(found) == wanted
    assert stats.chisquare(list(found.values())).pvalue > 0.001


def test_joins_are_matched_in_recent_volatility() -> None:
    source = blocks([3_000, 40, 1_000], "hybrid", 25.0)
    before, after, classes = source.classes
    assert classes > 5
    (rows,) = source.rows(stream(0, "rows"), [20_000])
    joins = np.flatnonzero(np.diff(rows) != 1)
    assert len(joins) > 500
    np.testing.assert_array_equal(before[rows[joins + 1]], after[rows[joins]])
    assert before[rows[0]] == after[-1]


def test_every_row_comes_once_an_epoch_on_average_and_great_ones_nearly_always() -> None:
    source = blocks([900, 300], "hybrid", 30.0)
    source.sizes[500] = 400.0
    counts = np.zeros(1_200)
    used = []
    for seed in range(400):
        (rows,) = source.rows(stream(seed, "rows"), [1_200])
        counts += np.bincount(rows, minlength=1_200)
        used.append(int((rows == 500).sum()))
    assert counts.mean() == pytest.approx(400.0)
    assert np.abs(counts / 400 - 1).max() < 0.4
    # A path ends a little before or after its epoch, which is all that varies.
    assert np.mean(np.array(used) == 1) > 0.85


@pytest.mark.parametrize("seed", range(3))
def test_lengths_are_those_of_the_rule(seed: int) -> None:
    moves = np.diff(np.log(naive.bars(1_500, seed=seed).column("close")[0]))
    found = BlockLengths.of(moves)
    for name, values in {"returns": moves, "sizes": np.abs(moves), "squares": moves**2}.items():
        oracle = np.maximum(optimal_block_length(values).to_numpy()[0], 1.0)
        assert (found.geometric[name], found.fixed[name]) == pytest.approx(tuple(oracle))
        assert (found.geometric[name], found.fixed[name]) == pytest.approx(
            tuple(np.maximum(naive.optimal_length(values), 1.0)), rel=0.02
        )


def test_lengths_follow_dependence_and_not_the_amount_of_data() -> None:
    rng = stream(0, "lengths")
    independent = BlockLengths.of(rng.standard_normal(20_000))
    clustered = BlockLengths.of(np.diff(np.log(naive.bars(3_000).column("close")[0])))
    assert independent.longest(geometric=False) < 0.1 * clustered.longest(geometric=False)
    assert clustered.fixed["returns"] < clustered.middle < clustered.longest(geometric=False)
    assert BlockLengths.of(np.tile([0.01, -0.01], 500)).fixed["sizes"] == 1.0


@every_scheme
@given(counts=st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_rows_do_not_depend_on_the_cut(scheme: Scheme, counts: list[int]) -> None:
    source = blocks([150, 90], scheme, 11.0)
    pieces = np.concatenate(list(source.rows(stream(0, "rows"), counts)))
    (whole,) = source.rows(stream(0, "rows"), [sum(counts)])
    np.testing.assert_array_equal(pieces, whole)


def test_a_block_that_ends_early_is_followed_by_another() -> None:
    rows = np.empty(5, dtype=np.int64)
    state = drawn(stream(0, "rows"), rows, 0, 0, np.array([3]), np.array([1, 2, 3, -1]), 4.0, False)
    assert rows.tolist() == [3] * 5
    assert state == (-1, 3)


def test_importing_the_bootstrap_loads_no_library_that_only_a_fit_needs() -> None:
    heavy = "import sys, synth_pipeline.generators.block_bootstrap; print({'arch', 'scipy.signal'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
