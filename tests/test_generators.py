"""Every generator is held to every law of its contract; then the laws that each has of its own."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError, TooLittleDataError
from synth_pipeline.generators import Generator, neural
from synth_pipeline.generators.adversarial import gradient_penalty
from synth_pipeline.generators.basket import Basket
from synth_pipeline.generators.wgan_gp import Critic, MirroredLSTM, Parameters, WassersteinGAN
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

NAMES = plugins.names(generators)
QUICK: dict[str, dict[str, Any]] = {
    "ar_mlp": {"steps": 3, "lags": 3, "window": 8, "width": 16, "laws": 2},
    "book_dcgan": {"steps": 3, "channels": 4, "noise": 8},
    "chunk_flow": {"steps": 3, "window": 8, "width": 8, "blocks": 1, "solver_steps": 1},
    "conditional_gan": {"steps": 3, "hidden": 8, "window": 8},
    "dcgan": {"steps": 3, "channels": 4, "noise": 8},
    "findiff": {"steps": 3, "hidden": 16, "layers": 1, "diffusion_steps": 4},
    "quant_gan": {"steps": 3, "hidden": 8, "window": 16, "dilations": 2},
    "rcgan": {"steps": 3, "hidden": 8, "window": 8},
    "sig_wgan": {"steps": 3, "hidden": 8, "futures": 2},
    "time_vae": {"steps": 3, "channels": 4, "latent": 4},
    "timegan": {"steps": 3, "hidden": 8, "layers": 1},
    "vanilla_gan": {"steps": 3, "hidden": 8, "noise": 8},
    "wgan_gp": {"steps": 4},
    "window_flow": {"steps": 3, "hidden": 16, "layers": 1, "sampling_steps": 4},
}
"""Settings that make a fit a matter of a second: the laws hold however little was learnt."""
every_generator = pytest.mark.parametrize("name", NAMES)


def make(name: str) -> Generator:
    """An unfitted generator with quick settings."""
    made: Generator = plugins.load(generators, name).from_settings(QUICK.get(name, {}))
    return made


def markets_of(name: str, one: Callable[[int], Series]) -> Series:
    """What a generator is fitted on: the market of seed 0, or of a generator of several assets those of two seeds."""
    kind = plugins.load(generators, name)
    return Series.joined({"A": one(0), "B": one(1)}) if issubclass(kind, Basket) else one(0)


def market(name: str, steps: int, **more: Any) -> Series:
    """Grid features to fit a generator on."""
    return markets_of(name, lambda seed: naive.market(steps, seed=seed, **more))


def bars(name: str, steps: int, **more: Any) -> Series:
    """Bars to fit a generator on."""
    return markets_of(name, lambda seed: naive.bars(steps, seed=seed, **more))


def most(generator: Generator, steps: int) -> int:
    """So many steps, or as many as a window of a generator has."""
    return min(steps, generator.max_steps or steps)


def parts(series: Series) -> list[Series]:
    """Each asset's series."""
    return list(series.parts().values()) if series.assets else [series]


@cache
def fitted(name: str) -> Generator:
    """A generator fitted on a small market with a gap."""
    series = market(name, 700)
    series.values[0, 300:310] = np.nan
    return make(name).fit(series, rng=stream(0, "fit"))


@cache
def fitted_on_bars(name: str) -> Generator:
    """A generator fitted on a few bars."""
    return make(name).fit(bars(name, 400), rng=stream(0, "fit"))


def assert_lawful(series: Series) -> None:
    """Finite, prices positive and on their grid, bars in order, volume no less than nothing."""
    assert np.isfinite(series.values).all()
    for sample in parts(series):
        prices = sample.column(sample.price_name)
        assert (prices > 0).all()
        if sample.tick_size:
            units = prices / (sample.tick_size / (1 + (sample.price_name == "mid")))
            np.testing.assert_allclose(units, np.rint(units), rtol=1e-12)
        if "volume" in sample.names:
            assert (sample.column("volume") >= 0).all()
        if "high" in sample.names:
            assert_in_order(sample)


def assert_in_order(sample: Series) -> None:
    """0 < low ≤ open, close ≤ high, all on the grid."""
    opened, high, low, close = (sample.column(each) for each in ("open", "high", "low", "close"))
    assert (low > 0).all()
    assert (low <= np.minimum(opened, close)).all()
    assert (high >= np.maximum(opened, close)).all()
    if sample.tick_size:
        ticks = np.stack((opened, high, low)) / sample.tick_size
        np.testing.assert_allclose(ticks, np.rint(ticks), rtol=1e-12)


@every_generator
def test_fitting_leaves_its_input_and_the_process_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    series = market(name, 400)
    before, torch_state, threads = series.values.copy(), torch.random.get_rng_state(), torch.get_num_threads()
    make(name).fit(series, rng=stream(0, "fit")).sample(2, 10, rng=stream(0, "sample"))
    np.testing.assert_array_equal(series.values, before)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []


@every_generator
def test_the_same_seed_gives_the_same_bytes_and_another_others(name: str) -> None:
    generator = fitted(name)
    first, again, other = (
        generator.sample(3, most(generator, 100), rng=stream(seed, "sample")).values for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


@every_generator
def test_fitting_twice_gives_the_same_generator(name: str) -> None:
    series = market(name, 400)
    first, again = (make(name).fit(series, rng=stream(3, "fit")) for _ in range(2))
    assert first.summary() == again.summary()
    samples = [made.sample(2, most(made, 50), rng=stream(0, "sample")).values for made in (first, again)]
    np.testing.assert_array_equal(samples[0], samples[1])


@every_generator
def test_a_path_does_not_depend_on_how_many_are_asked_for(name: str) -> None:
    generator = fitted(name)
    few, many = (generator.sample(n, most(generator, 90), rng=stream(0, "sample")).values for n in (3, 20))
    np.testing.assert_array_equal(few, many[:3])


@every_generator
def test_a_longer_path_begins_like_a_shorter_one(name: str) -> None:
    generator = fitted(name)
    whole = most(generator, 200)
    part = 7 * whole // 20
    short, long = (generator.sample(2, steps, rng=stream(0, "sample")).values for steps in (part, whole))
    np.testing.assert_array_equal(short, long[:, :part])


@every_generator
def test_saved_and_loaded_generators_sample_the_same(name: str, tmp_path: Path) -> None:
    generator = fitted(name)
    generator.save(tmp_path)
    loaded = type(generator).load(tmp_path)
    first, again = (g.sample(3, most(g, 100), rng=stream(0, "sample")) for g in (generator, loaded))
    np.testing.assert_array_equal(first.values, again.values)
    assert (first.names, first.tick_size, first.lot_size) == (again.names, again.tick_size, again.lot_size)
    assert loaded.summary() == generator.summary()
    assert loaded.parameters == generator.parameters
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name.rpartition(".")[2] for name in files} <= {"json", "npz"}
    loaded.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


@every_generator
def test_samples_are_a_market_that_follows_the_fitted_one(name: str) -> None:
    generator = fitted(name)
    series = market(name, 700)
    steps = most(generator, 300)
    whole = generator.sample(4, steps, rng=stream(0, "sample"))
    assert whole.values.shape[:2] == (4, steps)
    assert [asset.name for asset in whole.assets] == [asset.name for asset in series.assets]
    assert whole.start_ns.tolist() == [int(series.start_ns[0]) + 700 * series.step_ns] * 4
    for sample, real in zip(parts(whole), parts(series), strict=True):
        assert set(sample.names) == set(generator.columns) & set(real.names)
        assert (sample.step_ns, sample.tick_size, sample.lot_size) == (real.step_ns, 0.1, 0.001)
        np.testing.assert_array_equal(sample.column("mid")[:, 0], real.column("mid")[0, -1])
    assert_lawful(whole)


@every_generator
def test_a_sample_has_the_scale_of_the_market(name: str) -> None:
    steps = most(fitted(name), 300)
    made = fitted(name).sample(20 * 300 // steps, steps, rng=stream(0, "sample"))
    for sample, real in zip(parts(made), parts(market(name, 700)), strict=True):
        assert 0.5 < sample.log_returns().std() / real.log_returns().std() < 2.0


@every_generator
def test_bars_are_sampled_in_order_and_go_on_from_the_last(name: str) -> None:
    generator, series = fitted_on_bars(name), bars(name, 400)
    steps = most(generator, 500)
    whole = generator.sample(4 * 500 // steps, steps, rng=stream(0, "sample"))
    assert_lawful(whole)
    for sample, real in zip(parts(whole), parts(series), strict=True):
        assert set(sample.names) == {"open", "high", "low", "close", "volume"}
        np.testing.assert_allclose(sample.column("close")[:, 0], real.column("close")[0, -1], rtol=1e-12)
        assert 0.5 < sample.log_returns().std() / real.log_returns().std() < 2.0
        ranges = [np.median(np.log(each.column("high") / each.column("low"))) for each in (sample, real)]
        assert 0.5 < ranges[0] / ranges[1] < 2.0
        assert 0.5 < np.median(sample.column("volume")) / np.median(real.column("volume")) < 2.0


@every_generator
def test_closes_alone_are_bars_too(name: str) -> None:
    closes = markets_of(name, lambda seed: naive.bars(400, seed=seed).select(("close",)))
    generator = make(name)
    sample = generator.fit(closes, rng=stream(0, "fit")).sample(2, most(generator, 60), rng=stream(0, "sample"))
    assert sample.names == closes.names
    assert_lawful(sample)


def cut_at(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pieces so short that a short path has several."""
    for name, module in list(sys.modules.items()):
        if name.startswith("synth_pipeline.generators") and hasattr(module, "PIECE"):
            monkeypatch.setattr(module, "PIECE", steps)


@every_generator
@pytest.mark.parametrize("of_bars", [False, True])
def test_a_streamed_path_is_the_sampled_one(name: str, of_bars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = fitted_on_bars(name) if of_bars else fitted(name)
    steps = most(generator, 200)
    cut_at(7 * steps // 20, monkeypatch)
    ours, theirs = stream(1, "sample"), stream(1, "sample")
    whole = generator.sample(19, steps, rng=ours)
    numbers = []
    for number, group in groupby(generator.stream(19, steps, rng=theirs, first=3), key=lambda pair: pair[0]):
        own = [piece for _, piece in group]
        numbers.append(number)
        assert all(piece.steps <= 7 * steps // 20 for piece in own)
        assert np.concatenate([piece.values[0] for piece in own]).tobytes() == whole.values[number].tobytes()
        passed = np.cumsum([0, *(piece.steps for piece in own[:-1])])
        labels = whole.start_ns[number] + passed * whole.step_ns
        assert [int(piece.start_ns[0]) for piece in own] == labels.tolist()
        assert {piece.names for piece in own} == {whole.names}
    assert numbers == list(range(3, 19))
    assert ours.random() == theirs.random()


@every_generator
def test_a_stream_holds_no_more_than_a_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = fitted(name)
    fewer = 10 if name in QUICK and generator.max_steps is None else 1  # a network that rolls on is slow
    cut_at(1_000 // fewer, monkeypatch)

    def peak_of(steps: int) -> int:
        tracemalloc.start()
        length = most(generator, steps)
        for _ in generator.stream(steps // length, length, rng=stream(0, "long")):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_of(2_000 // fewer)
    # Fifty pieces more would be two megabytes.
    assert peak_of(54_000 // fewer) < peak_of(4_000 // fewer) + 1_000_000 // fewer


@every_generator
def test_a_stream_refuses_what_a_sample_refuses_before_it_yields(name: str) -> None:
    with pytest.raises(InputError, match="0 paths of 10 steps are nothing to sample"):
        fitted(name).stream(0, 10, rng=stream(0, "sample"))


@every_generator
def test_one_asset_is_asked_of_those_that_take_one(name: str) -> None:
    kind = plugins.load(generators, name)
    several = Series.joined({"A": naive.market(300), "B": naive.market(300, seed=1)})
    if issubclass(kind, Basket):
        with pytest.raises(InputError, match="several assets, not on one"):
            make(name).fit(naive.market(300), rng=stream(0, "fit"))
    if not kind.multi_asset:
        with pytest.raises(InputError, match=r"takes one asset, not 2 \(A, B\): choose one of them"):
            make(name).fit(several, rng=stream(0, "fit"))


@every_generator
def test_progress_counts_up_to_its_total(name: str) -> None:
    calls: list[tuple[int, int]] = []

    def record(done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    make(name).fit(market(name, 400), rng=stream(0, "fit"), progress=record)
    done, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]


@every_generator
def test_summaries_are_finite_numbers(name: str) -> None:
    summary = fitted(name).summary()
    assert summary
    assert all(isinstance(value, float) and np.isfinite(value) for value in summary.values())


@every_generator
def test_requests_that_cannot_be_honoured_are_refused(name: str) -> None:
    generator = fitted(name)
    if not generator.conditions:
        with pytest.raises(
            InputError, match=f"^{name} does not condition on regimes: leave out regime 'bull', or take "
        ):
            generator.sample(1, 10, regime="bull", rng=stream(0, "sample"))
    assert generator.conditions == (name in generators.CONDITIONING)
    ages = 2**63 // generator.anchors[0].step_ns
    if generator.max_steps is None:
        with pytest.raises(InputError, match=rf"{ages} steps of .* end after 2262, .*: ask for \d+ at most"):
            generator.stream(1, ages, rng=stream(0, "sample"))
    if generator.max_steps is not None:
        with pytest.raises(InputError, match=f"{name} samples at most {generator.max_steps} connected steps"):
            generator.sample(1, generator.max_steps + 1, rng=stream(0, "sample"))
    with pytest.raises(InputError, match="0 paths of 10 steps are nothing to sample"):
        generator.sample(0, 10, rng=stream(0, "sample"))
    with pytest.raises(InputError, match="has no parameter 'stpes'"):
        type(generator).from_settings({"stpes": 3})
    numbers = [field.name for field in fields(type(generator).Parameters) if "float" in str(field.type)]
    for number in numbers:
        with pytest.raises(InputError, match=f"{number}=inf does not fit"):
            type(generator).from_settings({number: float("inf")})


@every_generator
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("ten rows", TooLittleDataError),
        ("all gaps", TooLittleDataError),
        ("short stretches", TooLittleDataError),
        ("one move", TooLittleDataError),
        ("no move", InputError),
        ("a zero", InputError),
        ("a negative", InputError),
        ("no price", InputError),
    ],
)
def test_input_that_cannot_be_fitted_is_refused(name: str, damage: str, error: type[Exception]) -> None:
    series = market(name, 400)
    values = series.values[0]
    if damage == "ten rows":
        series = series.slice(0, 10)
    elif damage == "all gaps":
        values[:] = np.nan
    elif damage == "short stretches":
        values[::50] = np.nan
    elif damage == "one move":
        values[:, 0] = np.where(np.arange(400) < 200, 100.0, 101.0)
    elif damage == "no move":
        values[:, 0] = 100.0
    elif damage == "no price":
        series = replace(series, names=tuple(each.replace("mid", "price") for each in series.names))
    else:
        values[77, 0] = 0.0 if damage == "a zero" else -5.0
    with pytest.raises(error) as raised:
        make(name).fit(series, rng=stream(0, "fit"))
    assert "\n" not in str(raised.value)


@every_generator
@pytest.mark.parametrize("damage", ["no volume", "some volumes", "a jump", "gaps", "bars out of order"])
def test_input_that_lacks_something_is_fitted_with_a_note(name: str, damage: str) -> None:
    def damaged(seed: int) -> Series:
        series = naive.bars(320, seed=seed)
        values, at = series.values[0], series.names.index
        if damage == "no volume":
            values[:, at("volume")] = np.nan
        elif damage == "some volumes":
            values[260::7, at("volume")] = np.nan
        elif damage == "a jump":
            values[200:, :4] *= 2.0
            values[200, [at("open"), at("low")]] /= 2.0
        elif damage == "gaps":
            values[[40, 41, 90]] = np.nan
        else:
            values[50, at("high")] *= 0.9
        return series

    generator = make(name).fit(markets_of(name, damaged), rng=stream(0, "fit"))
    sample = generator.sample(3, most(generator, 200), rng=stream(0, "sample"))
    assert_lawful(sample)
    assert ("volume" in parts(sample)[0].names) == (damage != "no volume")
    told = {
        "no volume": "volume is missing in 100% of the rows",
        "bars out of order": "1 bars have a high or low inside",
    }
    assert told.get(damage, "") in " ".join(generator.notes)


@every_generator
@pytest.mark.parametrize("column", ["open", "low"])
@pytest.mark.parametrize("price", [0.0, -5.0])
def test_bars_with_a_price_that_is_not_positive_are_refused(name: str, column: str, price: float) -> None:
    series = bars(name, 300)
    series.values[0, 77, [each.endswith(column) for each in series.names].index(True)] = price
    with pytest.raises(InputError, match=f"{column} holds {price:g}: log-returns need positive prices"):
        make(name).fit(series, rng=stream(0, "fit"))


@every_generator
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    tick=st.sampled_from([0.0, 1e-5, 0.01, 0.1, 0.5, 2.5, 25.0]),
    price=st.floats(0.01, 1e6),
    seed=st.integers(0, 20),
)
def test_any_tick_size_gives_lawful_samples(name: str, tick: float, price: float, seed: int) -> None:
    def one(at: int) -> Series:
        high = max(price, 400 * tick)
        made = naive.market(260, seed=seed + at, price=high, tick=tick or 1e-6 * price, lot=0.01)
        # Coarse ticks may swallow the small moves of this market: give it some that show.
        made.values[0, at::9, 0] += 2 * tick
        return replace(made, tick_size=tick)

    with pytest.MonkeyPatch.context() as patch:  # networks are calibrated on shorter paths: the laws hold on any
        patch.setattr(neural, "_CALIBRATION_STEPS", 200)
        patch.setattr(neural, "_CALIBRATION_ROWS", 3_000)
        generator = make(name).fit(markets_of(name, one), rng=stream(seed, "fit"))
    assert_lawful(generator.sample(2, most(generator, 80), rng=stream(seed, "sample")))


def autocorrelation(values: FloatArray, lag: int) -> float:
    """Mean over paths of the autocorrelation along the last axis."""
    return float(np.mean([np.corrcoef(row[lag:], row[:-lag])[0, 1] for row in np.atleast_2d(values)]))


# The Wasserstein GAN.


def test_mirrored_noise_makes_the_mirrored_path() -> None:
    directions = np.array([-1.0, 1.0, 1.0, -1.0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MirroredLSTM(directions, 8, 16).requires_grad_(False)
        noise = torch.randn(5, 30, 8)
    made, _ = network(noise)
    mirrored, _ = network(noise * network.noise_mirror)
    torch.testing.assert_close(mirrored, made * torch.tensor(directions, dtype=torch.float32))
    assert float(made.std(dim=(0, 1)).min()) > 0.5


def test_the_penalty_of_a_linear_critic_is_known() -> None:
    weights = torch.tensor([[3.0, 4.0]])
    source = torch.Generator().manual_seed(0)
    real, made = torch.randn(6, 1, 2, generator=source), torch.randn(6, 1, 2, generator=source)
    penalty = gradient_penalty(lambda x: (x * weights).sum(dim=(1, 2)), real, made, source)
    assert float(penalty) == pytest.approx((5 - 1) ** 2)


def test_the_penalty_trains_the_critic() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(3, 8)
    source = torch.Generator().manual_seed(0)
    real, made = (torch.randn(4, 24, 3, generator=source) for _ in range(2))
    gradient_penalty(critic, real, made, source).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in critic.lstm.parameters() if p.ndim == 2)


def test_long_paths_have_no_drift() -> None:
    sample = fitted("wgan_gp").sample(40, 2_000, rng=stream(0, "drift"))
    returns = sample.log_returns()
    z = returns.mean() / (returns.std() / np.sqrt(returns.size))
    # Neighbouring returns may correlate, so the plain standard error is a little too small.
    assert abs(z) < 5


def test_marginals_are_those_of_the_market() -> None:
    real, made = naive.market(700), fitted("wgan_gp").sample(20, 700, rng=stream(0, "marginals"))
    for name in ("spread", "volume", "imbalance_1"):
        assert stats.ks_2samp(real.column(name).ravel(), made.column(name).ravel()).statistic < 0.06, name
    assert stats.ks_2samp(real.log_returns().ravel(), made.log_returns().ravel()).statistic < 0.06


@pytest.mark.slow
def test_the_dependence_of_a_market_is_learnt() -> None:
    real = naive.market(1_500)
    made = (
        WassersteinGAN(Parameters(steps=300)).fit(real, rng=stream(0, "fit")).sample(10, 1_500, rng=stream(0, "sample"))
    )

    def facts(series: Series) -> FloatArray:
        flow, volume = series.column("imbalance_1"), np.log1p(series.column("volume"))
        moves = series.log_returns()
        leads = [np.corrcoef(flow[path, :-1], np.sign(moves[path]))[0, 1] for path in range(series.paths)]
        goes_with = [np.corrcoef(volume[path, 1:], np.abs(moves[path]) > 0)[0, 1] for path in range(series.paths)]
        return np.array([autocorrelation(flow, 1), autocorrelation(flow, 2), np.mean(leads), np.mean(goes_with)])

    target = facts(real)
    assert target.min() > 0.1
    assert np.abs(facts(made) - target).mean() < 0.4 * np.abs(target).mean()
