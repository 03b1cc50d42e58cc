"""Every generator is held to every law of its contract; then the laws that each has of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
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
from synth_pipeline.generators import Generator
from synth_pipeline.generators.wgan_gp import Critic, MirroredLSTM, Parameters, WassersteinGAN, gradient_penalty
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive

NAMES = plugins.names(generators)
QUICK: dict[str, dict[str, Any]] = {"wgan_gp": {"steps": 4}}
"""Settings that make a fit a matter of a second: the laws hold however little was learnt."""

every_generator = pytest.mark.parametrize("name", NAMES)


def make(name: str) -> Generator:
    """An unfitted generator with quick settings."""
    made: Generator = plugins.load(generators, name).from_settings(QUICK.get(name, {}))
    return made


@cache
def fitted(name: str) -> Generator:
    """A generator fitted on a small market with a gap."""
    series = naive.market(700)
    series.values[0, 300:310] = np.nan
    return make(name).fit(series, rng=stream(0, "fit"))


def as_bars(series: Series) -> Series:
    """The prices of a market as bar closes."""
    closes = replace(series.select(("mid",)), names=("close",))
    return replace(closes, values=np.rint(closes.values / series.tick_size) * series.tick_size)


def assert_lawful(sample: Series) -> None:
    """Finite, prices positive and on their grid, volume no less than nothing."""
    assert np.isfinite(sample.values).all()
    prices = sample.column(sample.price_name)
    assert (prices > 0).all()
    if sample.tick_size:
        halves = prices / (sample.tick_size / 2)
        np.testing.assert_allclose(halves, np.rint(halves), rtol=1e-12)
    if "volume" in sample.names:
        assert (sample.column("volume") >= 0).all()


@every_generator
def test_fitting_leaves_its_input_and_the_process_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    series = naive.market(400)
    before, torch_state, threads = series.values.copy(), torch.random.get_rng_state(), torch.get_num_threads()
    make(name).fit(series, rng=stream(0, "fit")).sample(2, 10, rng=stream(0, "sample"))
    np.testing.assert_array_equal(series.values, before)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []


@every_generator
def test_the_same_seed_gives_the_same_bytes_and_another_others(name: str) -> None:
    generator = fitted(name)
    first, again, other = (generator.sample(3, 100, rng=stream(seed, "sample")).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


@every_generator
def test_fitting_twice_gives_the_same_generator(name: str) -> None:
    series = naive.market(400)
    first, again = (make(name).fit(series, rng=stream(3, "fit")) for _ in range(2))
    assert first.summary() == again.summary()
    samples = [generator.sample(2, 50, rng=stream(0, "sample")).values for generator in (first, again)]
    np.testing.assert_array_equal(samples[0], samples[1])


@every_generator
def test_a_path_does_not_depend_on_how_many_are_asked_for(name: str) -> None:
    generator = fitted(name)
    few, many = (generator.sample(n, 90, rng=stream(0, "sample")).values for n in (3, 20))
    np.testing.assert_array_equal(few, many[:3])


@every_generator
def test_a_longer_path_begins_like_a_shorter_one(name: str) -> None:
    generator = fitted(name)
    short, long = (generator.sample(2, steps, rng=stream(0, "sample")).values for steps in (70, 200))
    np.testing.assert_array_equal(short, long[:, :70])


@every_generator
def test_saved_and_loaded_generators_sample_the_same(name: str, tmp_path: Path) -> None:
    generator = fitted(name)
    generator.save(tmp_path)
    loaded = type(generator).load(tmp_path)
    first, again = (g.sample(3, 100, rng=stream(0, "sample")) for g in (generator, loaded))
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
    series = naive.market(700)
    sample = generator.sample(4, 300, rng=stream(0, "sample"))
    assert sample.values.shape[:2] == (4, 300)
    assert set(sample.names) == set(generator.columns) & set(series.names)
    assert sample.start_ns.tolist() == [int(series.start_ns[0]) + 700 * series.step_ns] * 4
    assert (sample.step_ns, sample.tick_size, sample.lot_size) == (series.step_ns, 0.1, 0.001)
    np.testing.assert_array_equal(sample.column("mid")[:, 0], series.column("mid")[0, -1])
    assert_lawful(sample)


@every_generator
def test_a_sample_has_the_scale_of_the_market(name: str) -> None:
    real = naive.market(700).log_returns()
    made = fitted(name).sample(20, 300, rng=stream(0, "sample")).log_returns()
    assert 0.5 < made.std() / real.std() < 2.0


@every_generator
def test_bars_are_sampled_on_the_tick_grid(name: str) -> None:
    bars = as_bars(naive.market(400, tick=0.5))
    sample = make(name).fit(bars, rng=stream(0, "fit")).sample(2, 60, rng=stream(0, "sample"))
    assert sample.names == ("close",)
    assert_lawful(replace(sample, tick_size=2 * sample.tick_size))


@every_generator
def test_progress_counts_up_to_its_total(name: str) -> None:
    calls: list[tuple[int, int]] = []

    def record(done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    make(name).fit(naive.market(400), rng=stream(0, "fit"), progress=record)
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
        with pytest.raises(InputError, match="does not condition on regimes: leave out regime 'bull'"):
            generator.sample(1, 10, regime="bull", rng=stream(0, "sample"))
    if generator.max_steps is not None:
        with pytest.raises(InputError, match="connected steps"):
            generator.sample(1, generator.max_steps + 1, rng=stream(0, "sample"))
    with pytest.raises(InputError, match="0 paths of 10 steps are nothing to sample"):
        generator.sample(0, 10, rng=stream(0, "sample"))
    with pytest.raises(InputError, match="has no parameter 'stpes'"):
        type(generator).from_settings({"stpes": 3})


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
    series = naive.market(400)
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
        series = replace(series, names=("price", "spread", "volume", "imbalance_1"))
    else:
        values[77, 0] = 0.0 if damage == "a zero" else -5.0
    with pytest.raises(error) as raised:
        make(name).fit(series, rng=stream(0, "fit"))
    assert "\n" not in str(raised.value)


@every_generator
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    tick=st.sampled_from([0.0, 1e-5, 0.01, 0.1, 0.5, 2.5, 25.0]),
    price=st.floats(0.01, 1e6),
    seed=st.integers(0, 20),
)
def test_any_tick_size_gives_lawful_samples(name: str, tick: float, price: float, seed: int) -> None:
    series = naive.market(260, seed=seed, price=max(price, 400 * tick), tick=tick or 1e-6 * price, lot=0.01)
    # Coarse ticks may swallow the small moves of this market: give it some that show.
    series.values[0, ::9, 0] += 2 * tick
    generator = make(name).fit(replace(series, tick_size=tick), rng=stream(seed, "fit"))
    assert_lawful(generator.sample(2, 80, rng=stream(seed, "sample")))


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
