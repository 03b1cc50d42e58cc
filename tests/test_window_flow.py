"""Our model of short windows: its diffusion against what is known exactly, its coordinates, its regimes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.generators.edm import (
    Field,
    Preconditioning,
    evened,
    guided,
    heun,
    least_change,
    moments,
    noise_levels,
)
from synth_pipeline.generators.recipe import Watch, held_then_falling, warmed_cosine
from synth_pipeline.generators.window_flow import Parameters, WindowDenoiser, WindowFlow
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive
from tests.test_generators import QUICK


def tiny(**more: Any) -> WindowFlow:
    """A generator with quick settings."""
    made: WindowFlow = plugins.load(generators, "window_flow").from_settings({**QUICK["window_flow"], **more})
    return made


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The diffusion.


def ideal(true: Tensor, supposed: Tensor) -> Field:
    """F of the best denoiser of a normal law of variances `true`, where others are supposed."""

    def field(rows: Tensor, sigma: Tensor) -> Tensor:
        at = Preconditioning.at(sigma, supposed)
        noised = rows / at.inward
        return at.target(true / (true + sigma**2) * noised, noised)

    return field


@pytest.mark.parametrize("steps", [1, 4, 18])
def test_heun_is_exact_for_the_normal_law_with_the_variances_of_the_data(steps: int) -> None:
    variances = torch.tensor([9.0, 1.0, 0.04])
    start = torch.randn(50, 3, generator=source())
    found = heun(ideal(variances, variances), start, noise_levels(steps, 0.005, 20.0), variances)
    torch.testing.assert_close(found, start * variances.sqrt(), rtol=1e-4, atol=1e-5)


def test_heun_follows_the_flow_of_another_normal_law_with_the_second_order() -> None:
    # dx/dσ = σ x / (v + σ²), so x(0) = x(σ) √(v / (v + σ²)).
    true, supposed = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
    start = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    exact = start * (supposed + 400).sqrt() * (true / (true + 400)).sqrt()
    errors, calls = [], []

    def counted(rows: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma))
        return ideal(true, supposed)(rows, sigma)

    for steps in (16, 32, 64):
        calls.clear()
        found = heun(counted, start, noise_levels(steps, 1e-4, 20.0).double(), supposed)
        assert len(calls) == 2 * steps - 1
        errors.append(float((found - exact).abs().max()))
    assert errors[0] < 0.02
    assert 3.3 < errors[0] / errors[1] < 5
    assert 3.3 < errors[1] / errors[2] < 5


def test_levels_fall_from_the_most_to_the_least_and_then_to_zero() -> None:
    levels = noise_levels(18, 0.005, 20.0)
    np.testing.assert_allclose(levels[[0, -2, -1]], [20.0, 0.005, 0.0], rtol=1e-5)
    assert (levels.diff() < 0).all()


@given(st.floats(0.003, 50.0), st.floats(0.05, 5.0))
@settings(max_examples=30, deadline=None)
def test_inputs_and_targets_have_variance_one_and_are_uncorrelated(sigma: float, deviation: float) -> None:
    noise = source(3)
    clean = deviation * torch.randn(40_000, 1, generator=noise, dtype=torch.float64)
    noised = clean + sigma * torch.randn(40_000, 1, generator=noise, dtype=torch.float64)
    at = Preconditioning.at(torch.tensor(sigma, dtype=torch.float64), torch.tensor(deviation**2, dtype=torch.float64))
    inputs, target = at.inward * noised, at.target(clean, noised)
    assert float(inputs.var()) == pytest.approx(1, abs=0.05)
    assert float(target.var()) == pytest.approx(1, abs=0.05)
    assert abs(float((inputs * target).mean())) < 0.03
    torch.testing.assert_close(at.skip * noised + at.out * target, clean)


def test_guidance_of_one_is_the_condition_and_of_two_goes_as_far_again() -> None:
    under, without = (lambda x, s: 3 * x + s), (lambda x, _: x)
    x, s = torch.randn(4, 2, generator=source()), torch.tensor(2.0)
    assert guided(under, without, 1.0) is under
    torch.testing.assert_close(guided(under, without, 2.0)(x, s), 2 * under(x, s) - without(x, s))
    torch.testing.assert_close(guided(under, without, 1 + 1e-9)(x, s), under(x, s))


# Coordinates.


def walks(count: int = 600, features: int = 3) -> FloatArray:
    """Windows that depend on one another in every direction."""
    values = stream(0, "walks").standard_normal((count, 24, features)).cumsum(axis=1)
    values[:, :, 1] = values[:, :, 0] + 0.05 * values[:, :, 1]
    return values


def denoiser(whitening: float, windows: FloatArray) -> WindowDenoiser:
    with torch.random.fork_rng():  # initial weights of their own, whatever tests ran before
        torch.manual_seed(0)
        network = WindowDenoiser(Parameters(whitening=whitening, hidden=16, layers=1), windows.shape[2], 0, 0.0)
    network.measure(torch.from_numpy(windows).float())
    return network.requires_grad_(False).eval()


@pytest.mark.parametrize("whitening", [1e-9, 0.5, 1.0])
def test_whitening_is_undone_and_leaves_uncorrelated_coordinates(whitening: float) -> None:
    windows = walks()
    network = denoiser(whitening, windows)
    known = torch.from_numpy(windows).float()
    coordinates = network.whitened(known)
    torch.testing.assert_close(network.unwhitened(coordinates), known, atol=2e-4, rtol=1e-4)
    found = np.cov(coordinates.double().numpy().T, bias=True)
    np.testing.assert_allclose(np.diag(found), network.variances, rtol=1e-3)
    spread = np.sqrt(np.diag(found))
    np.testing.assert_allclose(found / np.outer(spread, spread), np.eye(len(found)), atol=2e-3)
    assert float(network.variances.mean()) == pytest.approx(1, rel=1e-3)
    # Λ^(1-a), up to a factor
    full = np.linalg.eigvalsh(np.cov(windows.reshape(len(windows), -1).T, bias=True))
    np.testing.assert_allclose(
        np.diff(np.log(network.variances.numpy())), (1 - whitening) * np.diff(np.log(full)), atol=2e-2
    )


def test_an_untrained_network_has_the_covariance_of_the_data() -> None:
    windows = walks()
    network = denoiser(0.5, windows)
    network.least.fill_(-torch.inf)
    network.most.fill_(torch.inf)
    made = network.drawn(torch.randn(20_000, 72, generator=source()), None, 1.0).flatten(1).double().numpy()
    real = windows.reshape(len(windows), -1)
    np.testing.assert_allclose(made.mean(axis=0), real.mean(axis=0), atol=0.15)
    scale = np.sqrt(np.outer(real.var(axis=0), real.var(axis=0)))
    np.testing.assert_allclose(np.cov(made.T) / scale, np.cov(real.T) / scale, atol=0.05)


def test_samples_stay_within_the_range_of_the_data() -> None:
    windows = walks()
    network = denoiser(0.5, windows)
    made = network.whitened(network.drawn(torch.randn(500, 72, generator=source()), None, 1.0))
    assert bool((made >= network.least - 1e-3).all() and (made <= network.most + 1e-3).all())


def test_fewer_windows_than_coordinates_are_enough() -> None:
    windows = walks(30)
    network = denoiser(0.5, windows)
    network.mend(torch.from_numpy(windows).float(), torch.randn(400, 72, generator=source()))
    made = network.drawn(torch.randn(50, 72, generator=source()), None, 1.0).numpy()
    assert np.isfinite(made).all()
    assert abs(made).max() <= 1.5 * abs(windows).max()


# What mends the samples.


def covariances(columns: int) -> Tensor:
    """Two of them, nothing alike."""
    shapes = torch.randn(2, columns, 3 * columns, generator=source(columns), dtype=torch.float64)
    return shapes @ shapes.mT / (3 * columns)


@pytest.mark.parametrize("columns", [1, 2, 9])
def test_the_least_change_gives_the_covariance_and_no_other_map_changes_less(columns: int) -> None:
    have, wanted = covariances(columns)
    change = least_change(have, wanted)
    torch.testing.assert_close(change, change.mT)
    torch.testing.assert_close(change @ have @ change, wanted, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(least_change(have, have), torch.eye(columns, dtype=torch.float64))

    def moved(by: Tensor) -> float:
        apart = by - torch.eye(columns, dtype=torch.float64)
        return float((apart @ have @ apart.mT).trace())

    # All maps that give it are this one and a rotation of what it gives, where that is made white.
    low = torch.linalg.cholesky(wanted)
    for at in range(20):
        turn, _ = torch.linalg.qr(torch.randn(columns, columns, generator=source(at), dtype=torch.float64))
        other = low @ turn @ torch.linalg.inv(low) @ change
        torch.testing.assert_close(other @ have @ other.mT, wanted, atol=2e-3, rtol=2e-3)
        assert moved(other) > moved(change) - 2e-3


def test_coordinates_without_variance_are_left_alone() -> None:
    change = least_change(torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([4.0, 0.0])))
    torch.testing.assert_close(change, torch.diag(torch.tensor([2.0, 1.0])), atol=1e-3, rtol=1e-3)


def test_evened_noise_has_mean_0_and_covariance_1_and_is_nearly_as_it_was() -> None:
    noise = torch.randn(3_000, 20, generator=source(), dtype=torch.float64)
    even = evened(noise)
    mean, covariance = moments(even)
    torch.testing.assert_close(mean, torch.zeros(20, dtype=torch.float64))
    torch.testing.assert_close(covariance, torch.eye(20, dtype=torch.float64))
    assert float((even - noise).square().mean()) < 0.01


def off(made: Tensor, wanted: Tensor, network: WindowDenoiser) -> float:
    """Return the root mean square difference of means and covariances of coordinates, by their deviations."""
    deviations = network.variances.double().sqrt()
    ours, theirs = (
        torch.cat([part.ravel() for part in moments(each.double() / deviations)]) for each in (made, wanted)
    )
    return float((ours - theirs).square().mean().sqrt())


def spoilt(windows: FloatArray) -> WindowDenoiser:
    """A network whose last layer says something, and so has another covariance than the windows."""
    network = denoiser(0.5, windows)
    for parameter in network.outward[-1].parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=source(7)))
    network.least.fill_(-torch.inf)
    network.most.fill_(torch.inf)
    return network


def test_mended_samples_have_mean_and_covariance_of_the_windows() -> None:
    network, others = spoilt(walks()), torch.from_numpy(1.3 * walks(500) + 0.5).float()
    fresh = evened(torch.randn(8_192, 72, generator=source(1)).double()).float()
    for windows in (torch.from_numpy(walks()).float(), others):  # the coordinates may be those of an earlier fit
        wanted = network.whitened(windows)
        before = off(network.walked(fresh, None, 1.0), wanted, network)
        network.mend(windows, torch.randn(8_192, 72, generator=source(2)))
        after = off(network.whitened(network.drawn(fresh, None, 1.0)), wanted, network)
        assert after < 0.02 < 0.2 < before


def test_an_untrained_network_needs_no_mending() -> None:
    network = denoiser(0.5, walks())
    network.mend(torch.from_numpy(walks()).float(), torch.randn(500, 72, generator=source()))
    torch.testing.assert_close(network.mending, torch.eye(72), atol=2e-3, rtol=0)
    torch.testing.assert_close(network.offset, torch.zeros(72), atol=2e-3, rtol=0)


def test_what_a_fit_samples_has_the_covariance_of_its_windows() -> None:
    values = sized(1_200)
    made = tiny(steps=60, rate=1e-2, hidden=32, sampling_steps=8, window=12).fit_windows(values, rng=stream(0, "fit"))
    network = made.network
    assert isinstance(network, WindowDenoiser)
    scores = [made.marginals[at].normal(values[:, :, at]) for at in range(2)]
    wanted = network.whitened(torch.from_numpy(np.stack(scores, axis=2)).float())
    noise = evened(torch.randn(16_384, 24, generator=source(3)).double()).float()
    with torch.inference_mode():
        before = off(network.walked(noise, None, 1.0), wanted, network)
        after = off(network.whitened(network.drawn(noise, None, 1.0)), wanted, network)
    assert after < before / 3
    # Its calibration comes from the samples that were mended, and holds for others.
    calibrated = made.calibrated(network.drawn(noise, None, 1.0).double().numpy())
    np.testing.assert_allclose(calibrated.mean(axis=(0, 1)), 0, atol=0.03)
    np.testing.assert_allclose(calibrated.std(axis=(0, 1)), 1, atol=0.03)


def test_weights_from_before_the_mending_are_refused(tmp_path: Path) -> None:
    regimes().save(tmp_path)
    with np.load(tmp_path / "weights.npz") as kept:
        older = {name: kept[name] for name in kept if name not in {"mending", "offset"}}
    np.savez(tmp_path / "weights.npz", **older)
    with pytest.raises(RuntimeError, match="Missing key"):  # what `load_generator` says in words
        WindowFlow.load(tmp_path)


# What is learnt.


def test_what_is_learnt_is_what_is_not_normal() -> None:
    signs = stream(1, "signs").choice([-1.0, 1.0], (800, 1, 1))
    values = np.repeat(signs, 4, axis=1) + 0.2 * stream(1, "rest").standard_normal((800, 4, 1))
    made = tiny(steps=600, rate=5e-3, hidden=32, sampling_steps=8, window=4).fit_windows(values, rng=stream(0, "fit"))
    means = made.sample_windows(400, rng=stream(0, "sample")).mean(axis=(1, 2))
    assert (abs(abs(means) - 1) < 0.35).mean() > 0.75  # the normal law has about a half
    assert 0.35 < (means > 0).mean() < 0.65


def sized(count: int = 1_500) -> FloatArray:
    """Windows of independent numbers, each window of a size of its own: only sizes tell of each other."""
    rng = stream(4, "sizes")
    return np.exp(0.8 * rng.standard_normal((count, 1, 1))) * rng.standard_normal((count, 12, 2))


def togetherness(windows: FloatArray) -> float:
    """Return the mean correlation of the ranks of sizes of different numbers of a window."""
    ranks = stats.rankdata(np.abs(windows.reshape(len(windows), -1)), axis=0)
    found = np.corrcoef(ranks.T)
    return float((found.sum() - len(found)) / (len(found) * (len(found) - 1)))


def test_sizes_that_come_together_are_learnt_in_a_few_steps() -> None:
    values = sized()
    settings_ = {"rate": 3e-3, "hidden": 32, "sampling_steps": 18, "window": 12}
    untrained, trained = (
        tiny(**settings_ | {"steps": steps}).fit_windows(values, rng=stream(0, "fit")) for steps in (1, 300)
    )
    before, after = (togetherness(made.sample_windows(800, rng=stream(0, "s"))) for made in (untrained, trained))
    assert togetherness(values) > 0.3
    assert abs(before) < 0.05  # the normal law of uncorrelated numbers
    assert after > 0.3 * togetherness(values)  # without gains it stays below a tenth


def resting(count: int = 1_200) -> FloatArray:
    """Windows on a grid of five values, some of which rest throughout."""
    rng = stream(5, "resting")
    moving = rng.integers(0, 5, (count, 6, 1))
    return np.where(rng.random((count, 1, 1)) < 0.3, moving[:, :1], moving).astype(np.float64)


def test_what_rests_in_the_data_rests_for_the_network_though_ties_are_broken() -> None:
    values = resting()
    made = tiny(steps=1, window=6).fit_windows(values, rng=stream(0, "fit"))
    which = np.unique(np.linspace(0, len(values) - 1, len(made.seen)).astype(np.int64))
    rests, moves = np.diff(values[which], axis=1) == 0, np.diff(made.seen.double().numpy(), axis=1)
    np.testing.assert_array_equal(moves == 0, rests)
    scores = made.seen[:, 0].double().numpy().ravel()
    assert stats.kstest(scores, "norm").pvalue > 0.01


# Regimes.


def crashing(steps: int = 2_400) -> Series:
    """A market that rises calmly and falls in a few steps now and then."""
    series = naive.market(steps)
    moves = 2e-5 + 5e-5 * stream(2, "moves").standard_normal(steps)
    for start in range(150, steps - 10, 100):
        moves[start : start + 4] -= 8e-4
    price = 60_000 * np.exp(np.cumsum(moves))
    series.values[0, :, 0] = (np.rint(price / 0.1) + 0.5 * (np.rint(series.column("spread")[0] / 0.1) % 2)) * 0.1
    return series


@cache
def regimes() -> WindowFlow:
    return tiny(steps=150, rate=5e-3, hidden=48, sampling_steps=8).fit(crashing(), rng=stream(0, "fit"))


def drawdowns(series: Series) -> FloatArray:
    path = np.cumsum(series.log_returns(), axis=1)
    return np.asarray((np.maximum.accumulate(path, axis=1) - path).max(axis=1))


def test_a_flash_crash_falls_further_than_a_bull_market() -> None:
    made = regimes()
    assert {"flash_crash", "bull"} <= set(made.regime_names)
    fall, rise, free = (
        drawdowns(made.sample(120, 24, regime=regime, rng=stream(0, "sample")))
        for regime in ("flash_crash", "bull", None)
    )
    assert stats.mannwhitneyu(fall, rise, alternative="greater").pvalue < 1e-4
    assert np.median(rise) <= np.median(free) * 1.5 <= np.median(fall) * 1.5


def test_labels_are_drawn_as_often_as_history_has_them() -> None:
    network = regimes().network
    assert isinstance(network, WindowDenoiser)
    labels = network.drawn_labels(torch.rand(20_000, generator=source()))
    np.testing.assert_allclose(labels.mean(dim=0), network.shares[:-1], atol=0.015)
    known = regimes().regimes_of(crashing()).shares()
    np.testing.assert_allclose(network.shares[:-1], [known[name] for name in regimes().regime_names], atol=0.03)


def test_paths_under_a_regime_are_saved_streamed_and_refused_by_name(tmp_path: Path) -> None:
    made = regimes()
    plain, under = (made.sample(3, 20, regime=regime, rng=stream(0, "s")).values for regime in (None, "flash_crash"))
    assert not np.array_equal(plain, under)
    streamed = [piece.values[0] for _, piece in made.stream(3, 20, regime="flash_crash", rng=stream(0, "s"))]
    np.testing.assert_array_equal(streamed, under)
    mending = made.network.get_buffer("mending")
    assert float((mending - torch.eye(len(mending))).abs().max()) > 0.01
    made.save(tmp_path)
    again = type(made).load(tmp_path)
    np.testing.assert_array_equal(again.sample(2, 20, regime="flash_crash", rng=stream(0, "s")).values, under[:2])
    with pytest.raises(InputError, match="history has no regime 'boom' in 10 steps or more: it has "):
        made.sample(1, 10, regime="boom", rng=stream(0, "s"))


# Training.


class KilledError(Exception):
    """The process is gone."""


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    def killed(step: int, losses: Mapping[str, float]) -> None:
        if step == 3:
            raise KilledError

    def weights(watch: Watch | None) -> bytes:
        made = tiny(steps=6, preset="release")
        made.watch = watch
        network = made.fit(naive.market(500), rng=stream(0, "fit")).network
        return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())

    state = tmp_path / "run.state"
    with pytest.raises(KilledError):
        weights(Watch(state, every_seconds=0.0, on_losses=killed))
    assert weights(Watch(state)) == weights(None)


def test_windows_do_not_depend_on_how_many_there_are() -> None:
    made = tiny().fit_windows(walks(200), rng=stream(0, "fit"))
    many = made.sample_windows(300, rng=stream(0, "sample"))
    np.testing.assert_array_equal(made.sample_windows(5, rng=stream(0, "sample")), many[:5])
    assert len(np.unique(many[:, 0, 0])) == 300


def test_schedules_begin_whole_or_warm_and_end_near_zero() -> None:
    assert [held_then_falling(share) for share in (0.0, 0.5, 1.0)] == [1.0, 1.0, 0.02]
    assert warmed_cosine(0.0) < 0.05
    assert warmed_cosine(0.01) > 0.99
    assert warmed_cosine(0.505) == pytest.approx(0.49, abs=0.01)
    assert warmed_cosine(1.0) == pytest.approx(0, abs=1e-9)
