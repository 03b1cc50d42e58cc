"""The block bootstrap: rows of history as they were, blocks of the lengths that were asked for, nothing bridged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.bars import files
from synth_pipeline.errors import InputError
from synth_pipeline.features.transforms import on_grid
from synth_pipeline.fidelity import weighted
from synth_pipeline.fidelity.metric import StatisticMetric
from synth_pipeline.fidelity.registry import metrics
from synth_pipeline.fidelity.sample import Sample
from synth_pipeline.generators import PIECE
from synth_pipeline.generators.block_bootstrap import BlockBootstrap
from synth_pipeline.generators.blocks import SCHEMES
from synth_pipeline.rng import stream
from synth_pipeline.series import Asset, FloatArray, IntArray, Series
from tests import naive_bootstrap as naive
from tests import naive_generators

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


def fitted(series: Series, **chosen: Any) -> BlockBootstrap:
    """A bootstrap of a history."""
    return BlockBootstrap.from_settings(chosen).fit(series, rng=stream(0, "fit"))


def with_gaps(series: Series, *gaps: tuple[int, int]) -> Series:
    """The history without some of its rows."""
    values = series.values.copy()
    for start, stop in gaps:
        values[:, start:stop] = np.nan
    return replace(series, values=values)


def rows_of(sample: Series, generator: BlockBootstrap, asset: int = 0) -> IntArray:
    """Which row of history each sampled return is, by its size: histories here have no two alike."""
    moves = generator.assets[asset].moves
    order = np.argsort(moves)
    made = np.log(sample.values[:, 1:, 3] / sample.values[:, :-1, 3]).ravel()
    after = np.clip(np.searchsorted(moves[order], made), 1, len(moves) - 1)
    nearest = np.where(made - moves[order][after - 1] < moves[order][after] - made, after - 1, after)
    np.testing.assert_allclose(moves[order][nearest], made, atol=1e-12)
    return order[nearest]


# What a sampled row is.


@every_scheme
def test_every_sampled_row_is_one_of_history(scheme: str) -> None:
    history = with_gaps(naive.bars(1_200), (400, 420))
    generator = fitted(history, scheme=scheme)
    sample = generator.sample(3, 500, rng=stream(0, "sample"))
    rows = rows_of(sample, generator)
    known = history.values[0][np.isfinite(history.values[0]).all(axis=1)]
    levels = naive.volume_levels(known[:, 4].tolist(), 250)
    opened, high, low, close, volume = history.values[0].T
    position = np.flatnonzero(np.isfinite(close[1:]) & np.isfinite(close[:-1]))[rows] + 1
    before = np.concatenate([path[:-1, 3] for path in sample.values])
    made = np.concatenate([path[1:] for path in sample.values])
    np.testing.assert_allclose(made[:, 0] / before, opened[position] / close[position - 1], rtol=1e-9)
    body = np.maximum(made[:, 0], made[:, 3]), np.minimum(made[:, 0], made[:, 3])
    real = np.maximum(opened, close)[position], np.minimum(opened, close)[position]
    np.testing.assert_allclose(made[:, 1] / body[0], high[position] / real[0], rtol=1e-9)
    np.testing.assert_allclose(made[:, 2] / body[1], low[position] / real[1], rtol=1e-9)
    level = np.array(levels)[np.searchsorted(np.flatnonzero(np.isfinite(close)), position)]
    np.testing.assert_allclose(made[:, 4] / levels[-1], volume[position] / level, rtol=1e-9)


@pytest.mark.parametrize("gap", [(390, 395), (390, 399)], ids=["before a stretch", "before a lone row"])
def test_a_path_begins_with_the_last_fitted_row(gap: tuple[int, int]) -> None:
    history = with_gaps(naive.bars(400, tick=0.01, lot=1.0), gap)
    sample = fitted(history).sample(2, 5, rng=stream(0, "sample"))
    np.testing.assert_array_equal(sample.values[:, 0], np.repeat(history.values[:, -1], 2, axis=0))
    assert sample.start_ns.tolist() == [int(history.start_ns[0]) + 400 * naive.HOUR_NS] * 2


@settings(max_examples=25)
@given(
    tick=st.sampled_from([0.0, 0.01, 0.5, 2.5]),
    lot=st.sampled_from([0.0, 1.0, 0.001]),
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 50),
)
def test_bars_are_lawful_on_any_grid(tick: float, lot: float, scheme: str, seed: int) -> None:
    history = naive.bars(220, tick=tick, lot=lot, seed=seed, price=5_000.0)
    history.values[0, ::7, 1] -= 20 * tick  # highs inside the body: taken as without a wick
    generator = fitted(history, scheme=scheme)
    opened, high, low, close, volume = generator.sample(2, 300, rng=stream(seed, "sample")).values.transpose(2, 0, 1)
    assert (low <= np.minimum(opened, close)).all()
    assert (np.maximum(opened, close) <= high).all()
    assert (low > 0).all()
    assert (volume >= 0).all()
    for column, step in ((opened, tick), (high, tick), (low, tick), (close, tick), (volume, lot)):
        if step:
            np.testing.assert_array_equal(column, on_grid(np.rint(column / step), step))


def test_mids_and_spreads_fit_each_other() -> None:
    history = naive_generators.market(900)
    sample = fitted(history).sample(3, 700, rng=stream(0, "sample"))
    halves = np.rint(2 * sample.column("mid") / 0.1)
    ticks = np.rint(sample.column("spread") / 0.1)
    assert ((halves - ticks) % 2 == 0).all()
    assert (ticks >= 1).all()
    assert set(np.unique(sample.column("imbalance_1"))) <= set(np.unique(history.column("imbalance_1")))


def test_volume_trades_at_its_last_level() -> None:
    history = naive.bars(4_000)
    sample = fitted(history).sample(10, 2_000, rng=stream(0, "sample"))
    last = float(history.column("volume")[0, -1_000:].mean())
    first = float(history.column("volume")[0, :1_000].mean())
    assert sample.column("volume").mean() == pytest.approx(last, rel=0.15)
    assert last > 2 * first


# Blocks.


@every_scheme
def test_nothing_bridges_a_gap_or_the_end_of_a_path(scheme: str) -> None:
    history = naive.bars(500, paths=2)
    history.values[0, 200:, :4] *= 50.0
    history = with_gaps(history, (195, 200))
    generator = fitted(history, scheme=scheme)
    moves = np.abs(generator.sample(4, 2_000, rng=stream(0, "sample")).log_returns())
    assert moves.max() < 1.0
    starts = {0, *np.cumsum([194, 299, 194])}
    rows = rows_of(generator.sample(1, 3_000, rng=stream(1, "sample")), generator)
    crossed = [after for before, after in pairwise(rows.tolist()) if after in starts and before == after - 1]
    assert len(crossed) < 5  # by chance alone, where one block ends and another begins


# The hybrid.


def test_the_hybrid_keeps_what_independent_blocks_lose() -> None:
    history = naive.bars(2_500)
    real = Sample.of(history).returns
    spread = {}
    for scheme in ("hybrid", "stationary"):
        made = fitted(history, scheme=scheme, block_length=25).sample(40, 2_500, rng=stream(0, "s")).log_returns()
        clustering = weighted.volatility_clustering
        lost = clustering.statistic(real)[0] - clustering.statistic(made).mean()
        spread[scheme] = (lost, np.log(made.std(axis=1)).std())
    assert spread["hybrid"][0] < 0.5 * spread["stationary"][0]
    assert spread["hybrid"][1] < 0.5 * spread["stationary"][1]


# Block lengths.


def test_a_summary_names_every_length_and_the_chosen_one() -> None:
    history = naive.bars(1_500)
    for scheme in SCHEMES:
        summary = fitted(history, scheme=scheme).summary()
        kind = "block_length_" if scheme == "stationary" else "fixed_block_length_"
        lengths = [summary[kind + name] for name in ("returns", "sizes", "squares")]
        wanted = np.mean(lengths) if scheme == "hybrid" else max(lengths)
        assert summary["block_length"] == pytest.approx(min(wanted, 1_499 / 3))
    assert fitted(history, block_length=40).length == 40
    long = fitted(history, block_length=4_000)
    assert long.length == pytest.approx(1_499 / 3)
    assert "block_length 4000 is cut to 499.667" in long.notes


# Regimes.


def test_a_regime_is_sampled_from_its_own_rows() -> None:
    history = naive.bars(3_000, seed=2)
    for scheme in SCHEMES:
        generator = fitted(history, scheme=scheme, block_length=20)
        for regime in ("bull", "high_volatility"):
            wanted = generator.regime_names.index(regime)
            rows = rows_of(generator.sample(2, 400, regime=regime, rng=stream(0, "sample")), generator)
            assert (generator.labels[rows] == wanted).all()


def test_a_regime_that_history_lacks_or_hardly_has_is_refused_in_one_line() -> None:
    generator = fitted(naive.bars(2_000))
    with pytest.raises(InputError, match=r"history has no regime 'flashcrash': it has .*sideways \d+ steps") as raised:
        generator.sample(1, 10, regime="flashcrash", rng=stream(0, "sample"))
    assert "\n" not in str(raised.value)
    generator.labels[:] = generator.regime_names.index("bull")
    generator.labels[100:110] = generator.regime_names.index("crash")
    with pytest.raises(InputError, match=r"'crash' has 10 steps, 1 blocks of history, and 3 are needed.*bull 1989"):
        generator.stream(1, 10, regime="crash", rng=stream(0, "sample"))


def test_regimes_by_a_hidden_chain_sample_calm_and_wild_markets() -> None:
    generator = fitted(naive.bars(3_000), regimes="hmm")
    calm, wild = (
        generator.sample(5, 500, regime=f"{name}_volatility", rng=stream(0, "s")).log_returns().std()
        for name in ("low", "high")
    )
    assert wild > 1.8 * calm
    with pytest.raises(InputError, match="has no regime 'bull': it has"):
        generator.sample(1, 10, regime="bull", rng=stream(0, "sample"))


def test_counts_and_shares_of_regimes_are_told() -> None:
    generator = fitted(naive.bars(2_000))
    summary, counts = generator.summary(), generator.regimes.counts()
    assert sum(counts.values()) == 1_999
    assert {name: summary[f"steps_{name}"] for name in counts} == counts
    assert sum(summary[f"share_{name}"] for name in counts) == pytest.approx(1.0)
    assert any(note.startswith("regimes of history: ") and "sideways" in note for note in generator.notes)


# Streams.


@every_scheme
def test_a_stream_is_the_sample_in_pieces(scheme: str) -> None:
    generator = fitted(with_gaps(naive.bars(900, tick=0.01), (300, 310)), scheme=scheme)
    steps = 2 * PIECE + 500
    whole = generator.sample(2, steps, rng=stream(0, "sample"))
    rng, same = stream(0, "sample"), stream(0, "sample")
    pieces = list(generator.stream(2, steps, rng=rng))
    assert [number for number, _ in pieces] == [0, 0, 0, 1, 1, 1]
    for path in range(2):
        own = [piece for number, piece in pieces if number == path]
        np.testing.assert_array_equal(np.concatenate([piece.values for piece in own], axis=1)[0], whole.values[path])
        starts = [int(whole.start_ns[0]) + at * PIECE * naive.HOUR_NS for at in range(3)]
        assert [int(piece.start_ns[0]) for piece in own] == starts
    later = list(generator.stream(2, steps, rng=same, first=1))
    np.testing.assert_array_equal(later[0][1].values, pieces[3][1].values)
    assert rng.random() == same.random()


@every_scheme
def test_one_step_is_the_last_fitted_row(scheme: str) -> None:
    history = naive.bars(300)
    np.testing.assert_array_equal(
        fitted(history, scheme=scheme).sample(1, 1, rng=stream(0, "s")).values[0], history.values[0, -1:]
    )


# Baskets.


def basket() -> Series:
    """Two assets on different grids; the second does half of what the first did a step before."""
    first = naive.bars(1_500, tick=0.01, lot=1.0, seed=4)
    second = naive.bars(1_500, seed=5, price=2_000.0)
    lead = np.diff(np.log(first.column("close")[0]), prepend=np.log(100.0))
    noise = 0.2 * np.diff(np.log(second.column("close")[0]), prepend=np.log(2_000.0))
    close = np.rint(2_000.0 * np.exp(np.cumsum(0.5 * np.roll(lead, 1) + noise)) / 0.5) * 0.5
    second = replace(second, values=close[np.newaxis, :, np.newaxis], names=("close",), tick_size=0.5)
    return Series.joined({"ONE": first, "TWO": second})


def test_assets_stay_aligned_on_grids_of_their_own() -> None:
    history = basket()
    history.values[0, 700:705, 0] = np.nan
    generator = fitted(history)
    sample = generator.sample(20, 1_000, rng=stream(0, "sample"))
    assert sample.names == history.names
    assert sample.assets == (Asset("ONE", 0.01, 1.0), Asset("TWO", 0.5, 0.0))
    one, two = (sample.parts()[name] for name in ("ONE", "TWO"))
    np.testing.assert_array_equal(two.column("close"), np.rint(two.column("close") / 0.5) * 0.5)
    np.testing.assert_array_equal(one.column("close"), on_grid(np.rint(one.column("close") / 0.01), 0.01))
    np.testing.assert_array_equal(sample.values[:, 0], np.repeat(history.values[:, -1], 20, axis=0))

    def lead(series: Series) -> tuple[float, float]:
        first, second = (part.log_returns() for part in series.parts().values())
        pairs = first[:, :-1].ravel(), second[:, 1:].ravel(), first[:, 1:].ravel()
        known = np.isfinite(pairs).all(axis=0)
        late, now = np.corrcoef(pairs[0][known], pairs[1][known]), np.corrcoef(pairs[2][known], pairs[1][known])
        return float(late[0, 1]), float(now[0, 1])

    assert lead(sample) == pytest.approx(lead(history), abs=0.06)
    assert lead(history)[0] > 0.8


def test_a_basket_is_saved_and_streamed_as_one_asset_is(tmp_path: Path) -> None:
    generator = fitted(basket())
    generator.save(tmp_path)
    loaded = BlockBootstrap.load(tmp_path)
    whole = generator.sample(2, 300, regime="sideways", rng=stream(0, "s"))
    pieces = list(loaded.stream(2, 300, regime="sideways", rng=stream(0, "s")))
    np.testing.assert_array_equal(np.concatenate([piece.values for _, piece in pieces]), whole.values)
    assert pieces[0][1].assets == whole.assets
    assert json.loads((tmp_path / "block_bootstrap.json").read_text())["asset_names"] == ["ONE", "TWO"]


def test_an_asset_that_cannot_be_fitted_is_named() -> None:
    history = basket()
    history.values[0, :, history.names.index("TWO:close")] = 7.0
    with pytest.raises(InputError, match="TWO: close rests at 7"):
        fitted(history)


# Odd input.


def test_a_volume_that_is_missing_is_left_out_with_a_note() -> None:
    history = naive.bars(500)
    history.values[0, :, 4] = np.nan
    generator = fitted(history)
    assert generator.sample(1, 10, rng=stream(0, "s")).names == ("open", "high", "low", "close")
    assert "volume is missing in 100% of the rows: fitted and sampled without it" in generator.notes


def test_gaps_and_wicks_are_noted() -> None:
    history = with_gaps(naive.bars(500), (100, 101), (200, 201))
    history.values[0, 50, 1] = history.values[0, 50, 2]
    notes = fitted(history).notes
    assert "history has 2 gaps: no block spans one" in notes
    assert "1 bars have a high or low inside open and close: taken as without that wick" in notes


@every_scheme
@pytest.mark.parametrize(
    "oddity", ["no volume at all", "a single jump", "volume in one bar", "rests mostly", "short stretches"]
)
def test_odd_histories_give_lawful_samples(scheme: str, oddity: str) -> None:
    history = naive.bars(600, tick=0.01, lot=1.0)
    if oddity == "no volume at all":
        history.values[0, :, 4] = 0.0
    elif oddity == "a single jump":
        history.values[0, 300:, :4] = np.rint(history.values[0, 300:, :4] * 5 / 0.01) * 0.01
    elif oddity == "volume in one bar":
        history.values[0, :, 4] = np.where(np.arange(600) == 7, 1e6, 0.0)
    elif oddity == "rests mostly":
        history.values[0, 20:580, :4] = history.values[0, 20, 3]
    else:
        history.values[0, 200::3] = np.nan
    sample = fitted(history, scheme=scheme).sample(2, 1_500, rng=stream(0, "sample"))
    assert np.isfinite(sample.values).all()
    assert (sample.values[..., :4] > 0).all()
    assert (sample.column("volume") >= 0).all()


def test_a_price_of_bars_that_is_not_positive_is_refused() -> None:
    history = naive.bars(300)
    history.values[0, 40, 2] = 0.0
    with pytest.raises(InputError, match="low holds 0: log-returns need positive prices"):
        fitted(history)
    with pytest.raises(InputError, match="parameter scheme='tapered' does not fit"):
        BlockBootstrap.from_settings({"scheme": "tapered"})


# Real data.


def _weighted(real: FloatArray, made: FloatArray) -> FloatArray:
    """The 0-100 fidelity of every path."""
    similar = {}
    for metric in metrics(["weighted"]).values():
        assert isinstance(metric, StatisticMetric)
        levels = metric.statistic(made)
        similar[metric] = metric.compare(np.full(len(levels), metric.statistic(real)[0]), levels)
    return weighted.fidelity(similar)


def test_most_candidates_of_a_daily_index_are_near_it(real: Callable[[str], Path]) -> None:
    path = real("sp500_daily_1999_2018.csv.gz")
    import gzip

    found, _ = files.read(gzip.decompress(path.read_bytes()), path.name, files.Options())
    values = np.stack([found.columns[name] for name in naive.BARS], axis=1)[np.newaxis]
    history = Series(values, naive.BARS, 24 * naive.HOUR_NS, np.array([0]), 1e-6, 1.0)
    made = fitted(history).sample(60, history.steps, rng=stream(0, "sample")).log_returns()
    assert np.mean(_weighted(history.log_returns(), made) >= 95) >= 0.75
