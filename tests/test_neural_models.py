"""What each neural model has of its own: its formulas, its conditions, its cure."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from synth_pipeline import generators, plugins
from synth_pipeline.errors import InputError
from synth_pipeline.features.regimes import label
from synth_pipeline.generators.ar_mlp import MixturePerceptron
from synth_pipeline.generators.conditional_gan import ConditionalGAN
from synth_pipeline.generators.findiff import Denoiser
from synth_pipeline.generators.findiff import Parameters as FinDiffParameters
from synth_pipeline.generators.quant_gan import TemporalNetwork, lambert_gaussian, tail_parameter
from synth_pipeline.generators.recipe import Watch
from synth_pipeline.generators.sig_wgan import path_signature, signature
from synth_pipeline.generators.time_vae import Autoencoder
from synth_pipeline.generators.time_vae import Parameters as TimeVAEParameters
from synth_pipeline.generators.timegan import moment_distance
from synth_pipeline.rng import per_path, stream
from synth_pipeline.series import FloatArray, Series
from tests import naive_generators as naive
from tests.test_generators import QUICK


def tiny(name: str, **more: Any) -> Any:
    """A generator with quick settings."""
    return plugins.load(generators, name).from_settings({**QUICK[name], **more})


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The autoregressive perceptron.


def trending(steps: int) -> Series:
    """A market that only ever rose."""
    series = naive.market(steps)
    rise = np.exp(np.linspace(0, 0.02, steps))
    series.values[0, :, 0] = np.rint(series.values[0, :, 0] * rise / 0.05) * 0.05
    return series


def drift_z(series: Series) -> float:
    returns = series.log_returns().sum(axis=1)
    return float(returns.mean() / (returns.std() / np.sqrt(len(returns))))


def test_the_drift_of_a_perceptron_is_shown_and_cured() -> None:
    series = trending(600)
    found = {}
    for cured in (False, True):
        made = tiny("ar_mlp", steps=80, cure_drift=cured).fit(series, rng=stream(0, "fit"))
        found[cured] = drift_z(made.sample(16, 300, rng=stream(0, "sample")))
    assert found[False] > 5
    assert abs(found[True]) < 3


def test_the_cured_law_of_a_mirrored_history_is_the_mirrored_law() -> None:
    directions = np.array([-1.0, 1.0, -1.0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MixturePerceptron(tiny("ar_mlp").parameters, directions).eval().requires_grad_(False)
    windows, mirror = torch.randn(6, 8, 3, generator=source()), torch.tensor(directions, dtype=torch.float32)
    each = [network.likelihood(windows[[at]]) for at in range(6)]
    flipped = [network.likelihood(windows[[at]] * mirror) for at in range(6)]
    torch.testing.assert_close(torch.stack(each), torch.stack(flipped))


def test_steps_are_drawn_from_the_law_that_is_trained() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = MixturePerceptron(tiny("ar_mlp").parameters, np.array([-1.0, 1.0])).requires_grad_(False)
        network(torch.randn(64, 3, 2))  # batch statistics that are not those of the start
    network.eval()
    history = torch.randn(1, 3, 2, generator=source()).expand(20_000, -1, -1)
    drawn, _ = network.advance(torch.randn(20_000, 1, 4, generator=source(1)), history)
    logits, means, scales = (part[0] for part in network(history[:1]))
    shares = logits.exp()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5)
    mean = (shares[:, None] * means).sum(dim=0)
    square = (shares[:, None] * (means**2 + (2 * scales).exp())).sum(dim=0)
    torch.testing.assert_close(drawn[:, 0].mean(dim=0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(drawn[:, 0].square().mean(dim=0), square, atol=0.1, rtol=0.05)


# Regimes.


def swinging(steps: int) -> Series:
    """A market of rises and falls, calm and wild."""
    series = naive.market(steps)
    slope = np.where(np.arange(steps) // 150 % 2 == 0, 1.0, -1.0)
    price = 60_000 * np.exp(np.cumsum(2e-4 * slope + 1e-4 * stream(1, "swing").standard_normal(steps)))
    series.values[0, :, 0] = (np.rint(price / 0.1) + 0.5 * (np.rint(series.column("spread")[0] / 0.1) % 2)) * 0.1
    return series


@cache
def conditional() -> ConditionalGAN:
    made: ConditionalGAN = tiny("conditional_gan", steps=60, hidden=12)
    return made.fit(swinging(1_200), rng=stream(0, "fit"))


def test_a_regime_is_what_history_calls_it() -> None:
    made = conditional()
    assert {"bull", "bear"} <= set(made.regime_names)
    ends = {
        regime: made.sample(24, 150, regime=regime, rng=stream(0, "sample")).log_returns().sum(axis=1)
        for regime in ("bull", "bear")
    }
    assert ends["bull"].mean() > 0 > ends["bear"].mean()
    assert stats.mannwhitneyu(ends["bull"], ends["bear"], alternative="greater").pvalue < 1e-4


@pytest.mark.parametrize("name", ["conditional_gan", "rcgan"])
def test_paths_under_a_regime_are_lawful_streamed_and_saved(name: str, tmp_path: Path) -> None:
    made = conditional() if name == "conditional_gan" else tiny(name).fit(swinging(900), rng=stream(0, "fit"))
    plain, under = (made.sample(3, 40, regime=regime, rng=stream(0, "s")).values for regime in (None, "bull"))
    assert not np.array_equal(plain, under)
    streamed = [piece.values[0] for _, piece in made.stream(3, 40, regime="bull", rng=stream(0, "s"))]
    np.testing.assert_array_equal(streamed, under)
    made.save(tmp_path)
    again = type(made).load(tmp_path)
    np.testing.assert_array_equal(again.sample(2, 40, regime="bull", rng=stream(0, "s")).values, under[:2])
    assert again.regimes_of(swinging(900)).told() == label(swinging(900)).told()
    with pytest.raises(InputError, match="history has no regime 'boom' in 10 steps or more: it has "):
        made.sample(1, 10, regime="boom", rng=stream(0, "s"))


def test_regimes_follow_one_another_as_in_history() -> None:
    made, known = conditional(), label(swinging(1_200))
    shares = [known.shares().get(name, 0.0) for name in made.regime_names]
    np.testing.assert_allclose(made.chain.sum(axis=1), 1)
    law = np.full(len(made.chain), 1 / len(made.chain)) @ np.linalg.matrix_power(made.chain, 20_000)
    np.testing.assert_allclose(law[:-1], shares, atol=0.01)


# Formulas.


def test_signatures_are_iterated_sums() -> None:
    moves = torch.randn(2, 5, 3, generator=source(), dtype=torch.float64)
    found = signature(moves, 3).numpy()

    def iterated(steps: FloatArray, word: tuple[int, ...]) -> float:
        """The signature of a polygon, word by word: every way to deal the letters to the steps in order."""
        total = 0.0
        for where in product(range(len(steps)), repeat=len(word)):
            if list(where) == sorted(where):
                term = np.prod([steps[at, letter] for at, letter in zip(where, word, strict=True)])
                for at in set(where):
                    term /= float(np.prod(np.arange(1, where.count(at) + 1)))
                total += term
        return total

    words = [word for depth in (1, 2, 3) for word in product(range(3), repeat=depth)]
    for path in range(2):
        slow = [iterated(moves[path].numpy(), word) for word in words]
        np.testing.assert_allclose(found[path], slow, rtol=1e-9, atol=1e-12)


def test_lead_and_lag_enclose_the_squares_of_moves() -> None:
    moves = torch.randn(3, 6, 1, generator=source(), dtype=torch.float64)
    found = path_signature(moves, 2, lead_lag=True)
    second = found[:, 3:].reshape(3, 3, 3)
    area = second[:, 0, 1] - second[:, 1, 0]
    torch.testing.assert_close(area, moves.square().sum(dim=(1, 2)) / 6)


def test_the_regression_of_signatures_has_the_same_bytes_on_any_number_of_threads() -> None:
    windows = stream(0, "windows").standard_normal((6_000, 24, 6))
    found, before = set(), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made = tiny("sig_wgan", window=24)
            made.fit_windows(windows, rng=stream(0, "fit"))
            found.add(made.regression.numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_the_loss_of_signatures_does_not_grow_with_how_long_scores_stay() -> None:
    """Windows that stay at their level go √24 times as far as white noise; fourth powers of that were an alarm."""
    rng = stream(0, "levels")
    white = rng.standard_normal((200, 24, 3))
    staying = rng.standard_normal((200, 1, 3)) + 0.1 * white
    first = {}
    for name, windows in {"white": white, "staying": staying}.items():
        losses: list[float] = []
        made = tiny("sig_wgan", window=24)
        made.watch = Watch(on_losses=lambda _, found, kept=losses: kept.append(found["generator"]))
        made.fit_windows(windows, rng=stream(0, "fit"))
        first[name] = losses[0]
    assert first["staying"] < 5 * first["white"]


@pytest.mark.parametrize("delta", [0.0, 0.05, 0.2, 0.4])
def test_heavy_tails_are_taken_back(delta: float) -> None:
    normal = stream(0, "normal").standard_normal(50_000)
    heavy = normal * np.exp(delta * normal**2 / 2)
    np.testing.assert_allclose(lambert_gaussian(heavy, delta), normal, rtol=1e-9)
    assert tail_parameter(heavy) == pytest.approx(delta, abs=0.02)


def test_a_temporal_network_sees_what_it_says_and_no_later_step() -> None:
    network = TemporalNetwork(2, 4, 1, 3, 0.0).requires_grad_(False)
    assert network.before == 14
    noise = torch.randn(1, 40, 2, generator=source())
    made = network(noise)
    assert made.shape == (1, 26, 1)
    for at in (0, 10, 20):
        other = noise.clone()
        other[0, at] += 1.0
        changed = torch.nonzero((network(other) != made)[0, :, 0]).flatten() + network.before
        assert changed.min() >= at
        assert changed.max() <= at + network.before


def test_diffusion_with_the_right_noise_gives_the_data_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FinDiffParameters(window=3, diffusion_steps=200, hidden=8)
    network = Denoiser(settings, 2, 0.0).requires_grad_(False)
    assert float(network.kept[-1]) < 0.01
    clean = torch.randn(6, generator=source())

    def knows(noised: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        kept = network.kept[times, None].float()
        return (noised - kept.sqrt() * clean) / (1 - kept).sqrt()

    monkeypatch.setattr(network, "forward", knows)
    made = network.drawn(torch.randn(5, 200, 6, generator=source(1))).flatten(1)
    torch.testing.assert_close(made, clean.expand(5, -1), atol=0.02, rtol=0)


def test_a_perceptron_learns_a_sine() -> None:
    phases = stream(0, "phases").random((400, 1, 1)) * 2 * np.pi
    values = np.sin(0.5 * np.arange(24)[None, :, None] + phases) * np.ones((1, 1, 2))
    made = tiny("findiff", steps=300, hidden=64, layers=2, diffusion_steps=20, batch=64)
    sample = made.fit_windows(values, rng=stream(0, "fit")).sample_windows(100, rng=stream(0, "sample"))

    def turns(windows: FloatArray) -> float:
        """A sine is minus its own second difference."""
        bend = np.diff(windows, 2, axis=1)
        return float(np.corrcoef(bend.ravel(), windows[:, 1:-1].ravel())[0, 1])

    assert turns(values) < -0.99
    assert turns(sample) < -0.6


def test_the_distance_of_moments_is_none_for_equal_batches() -> None:
    real = torch.randn(50, 4, 2, generator=source())
    assert float(moment_distance(real, real)) == 0
    assert float(moment_distance(real, real + 1)) == pytest.approx(1, abs=1e-5)
    assert float(moment_distance(real, 2 * real)) > 0.9


def test_timegan_has_three_phases_and_five_networks() -> None:
    made = tiny("timegan", steps=9, attention=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = made.build(np.ones(3))
        recipe = made.recipe(network)
    assert [[player.name for player in phase.players] for phase in recipe.phases] == [
        ["autoencoder"],
        ["supervisor"],
        ["generator", "embedder", "discriminator"],
    ]
    assert [phase.steps for phase in recipe.phases] == [3, 3, 3]
    assert recipe.phases[2].players[2].rests_below == 0.15
    early, late = torch.randn(1, 24, 3, generator=source()), torch.randn(1, 24, 3, generator=source(1))
    late[:, :10] = early[:, :10]  # attention looks back only
    torch.testing.assert_close(network(early)[:, :10], network(late)[:, :10])
    with pytest.raises(InputError, match="hidden must be even"):
        tiny("timegan", hidden=7)


def test_the_trend_of_a_decoder_is_a_polynomial() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Autoencoder(TimeVAEParameters(channels=4), 2, 0.0).requires_grad_(False)
        nn.init.zeros_(network.weigh.weight)
    made = network.decode(torch.randn(3, network.latent, generator=source())).numpy()
    np.testing.assert_allclose(np.diff(made, 3, axis=1), 0, atol=1e-5)


def test_windows_of_one_stream_are_the_same_in_any_batch() -> None:
    made = tiny("time_vae").fit(naive.market(400), rng=stream(0, "fit"))
    streams = per_path(stream(0, "paths"), 300)
    (whole,) = made.roll({at: streams[at] for at in range(256)}, (24,))
    (two,) = made.roll({7: streams[7], 200: streams[200]}, (24,))
    np.testing.assert_array_equal(two, whole[[7, 200]])
