"""Chunk flow: its mirror, its solver, its memory, and what of a market long paths keep."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from synth_pipeline.errors import InputError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.fidelity.temporal import absolute_return_acf
from synth_pipeline.generators import neural
from synth_pipeline.generators.cascade import Atoms, Cascade, remembered
from synth_pipeline.generators.chunk_flow import ChunkFlow, Memory
from synth_pipeline.generators.rectified_flow import Pair, Velocity, carried, losses
from synth_pipeline.rng import stream
from synth_pipeline.series import FloatArray
from tests import naive_chunk_flow as naive
from tests.naive_generators import market
from tests.test_neural_models import swinging

SMALL: dict[str, Any] = {"steps": 40, "window": 12, "width": 16, "blocks": 1, "solver_steps": 2}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def velocity(directions: list[float], steps: int = 3, seed: int = 0) -> Velocity:
    """A network with random weights everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Velocity(directions, steps, (5, 4), 8, 2, 0.0).requires_grad_(False).eval()
        for weight in network.parameters():
            weight.normal_()
    return network


# The flow.


@pytest.mark.parametrize("directions", [[-1.0, 1.0, -1.0], [1.0, -1.0], [-1.0]])
def test_a_mirrored_velocity_is_the_velocity_of_the_mirror_to_the_last_bit(directions: list[float]) -> None:
    network, mirror = velocity(directions), torch.tensor(directions)
    chunks, time = torch.randn(7, 3, len(directions), generator=source()), torch.rand(7, 1, generator=source(1))
    context = Pair(torch.randn(7, 5, generator=source(2)), torch.randn(7, 4, generator=source(3)))
    seen = network(chunks, time, network.context(context))
    turned = network(chunks * mirror, time, network.context(Pair(context.even, -context.odd)))
    assert torch.equal(turned, seen * mirror)
    assert float(seen.abs().mean()) > 0.1


class Gaussian:
    """The velocity of data that are N(1.5, 0.4²), known in closed form, and so much `beside` it."""

    mean, scale = 1.5, 0.4

    def __init__(self, beside: float = 0.0) -> None:
        self.beside = beside

    def context(self, given: Pair) -> Pair:
        return given

    def __call__(self, chunks: Tensor, time: Tensor, _: Pair) -> Tensor:
        at = time.unsqueeze(2)
        slope = (at * self.scale**2 - (1 - at)) / ((1 - at) ** 2 + (at * self.scale) ** 2)
        return self.mean + slope * (chunks - at * self.mean) + self.beside


def test_noise_is_carried_to_the_law_of_the_data() -> None:
    noise = torch.randn(50, 2, 3, generator=source())
    nothing = Pair(torch.zeros(50, 1), torch.zeros(50, 1))
    errors = []
    for steps in (10, 20, 40):
        made = carried(cast(Velocity, Gaussian()), noise, [(1.0, nothing)], steps)
        errors.append(float((made - (1.5 + 0.4 * noise)).abs().max()))
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] > 3  # Heun's method is of second order
    assert errors[1] / errors[2] > 3


def test_the_loss_is_least_at_the_true_velocity() -> None:
    chunks = Gaussian.mean + Gaussian.scale * torch.randn(20_000, 1, 1, generator=source())
    noise, time = torch.randn(20_000, 1, 1, generator=source(1)), torch.rand(20_000, 1, generator=source(2))
    nothing = Pair(torch.zeros(20_000, 1), torch.zeros(20_000, 1))

    found = [
        float(losses(cast(Velocity, Gaussian(beside)), chunks, nothing, noise, time).mean())
        for beside in (-0.1, 0.0, 0.1)
    ]
    assert found[1] < min(found[0], found[2])


def test_an_untrained_flow_gives_white_noise_back() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Velocity([-1.0, 1.0], 4, (5, 4), 8, 2, 0.0).requires_grad_(False)
    noise = torch.randn(64, 4, 2, generator=source())
    context = Pair(torch.randn(64, 5, generator=source(1)), torch.randn(64, 4, generator=source(2)))
    torch.testing.assert_close(carried(network, noise, [(1.0, context)], 8), noise, rtol=0.02, atol=1e-3)


# The cascade.


def ticked() -> tuple[Atoms, np.ndarray, FloatArray]:
    """Atoms, directions and scores of a return that mostly rests, a spread of few ticks and a smooth size."""
    rng = stream(0, "ticked")
    moves = np.where(rng.random(500) < 0.6, 0.0, rng.standard_normal(500))
    columns = (moves, np.maximum(rng.poisson(1.0, 500), 1).astype(float), rng.lognormal(size=500))
    laws = [Marginal.fit(column, odd=at == 0) for at, column in enumerate(columns)]
    scores = np.stack([law.normal(column, rng) for law, column in zip(laws, columns, strict=True)], axis=1)
    odd = np.array([True, False, False])
    return Atoms.of(laws, odd.tolist()), odd, scores


def test_averages_are_those_of_the_whole_past() -> None:
    atoms, odd, scores = ticked()
    scores = scores[:60].copy()
    scores[[20, 21]] = np.nan
    opens = np.zeros(60, dtype=bool)
    opens[[0, 40]] = True
    decays = np.array([0.0, 0.5, 0.9])
    drivers, found = remembered(scores, opens, odd, decays, atoms.low, atoms.high, atoms.drivers)
    np.testing.assert_allclose(found, naive.cascade_before(scores, opens, odd, decays, atoms), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(drivers[5], naive.row_of(scores[5], odd, atoms), rtol=1e-6)


def mean_within(function: Callable[[float], float], low: float, high: float) -> float:
    """The mean of a function of a standard normal score between two others, by quadrature."""
    low, high = max(low, -9.0), min(high, 9.0)
    corner = [0.0] if low < 0 < high else None
    whole = integrate.quad(lambda z: function(z) * stats.norm.pdf(z), low, high, points=corner)[0]
    return float(whole / (stats.norm.cdf(high) - stats.norm.cdf(low)))


def test_an_atom_tells_what_its_value_tells_and_no_more() -> None:
    atoms, odd, _ = ticked()
    checked = 0
    for at in range(3):
        for low, high, means in zip(atoms.low[at], atoms.high[at], atoms.drivers[at], strict=True):
            if low < np.inf:
                for number, mean in enumerate(means):
                    wanted = mean_within(
                        lambda z, at=at, number=number: naive.smooth(z, bool(odd[at]))[number], low, high
                    )
                    assert mean == pytest.approx(wanted, abs=1e-6)
                    checked += 1
    assert checked >= 12
    assert atoms.low[0, 0] == -atoms.high[0, 0]


def test_scores_go_to_innovations_and_back() -> None:
    atoms, odd, scores = ticked()
    fitted, _, cascade = Cascade.fit(scores, np.zeros(len(scores), dtype=bool), odd, atoms)
    innovations, mean, scale = fitted.innovations(scores, cascade, stream(0, "ties"))
    slow = np.array([naive.law(row, fitted) for row in cascade[:30].astype(float)])
    np.testing.assert_allclose(mean[:30], slow[:, 0], atol=1e-6)
    np.testing.assert_allclose(scale[:30], slow[:, 1], rtol=1e-6)
    state = cascade[:1].astype(np.float64)
    made, drivers = fitted.draw(innovations[np.newaxis], state)
    # An atom is drawn anew within its interval, so it is the drivers that come back, not the scores.
    again = remembered(
        scores, np.zeros(len(scores), dtype=bool), odd, fitted.decays, atoms.low, atoms.high, atoms.drivers
    )
    np.testing.assert_allclose(drivers[0], again[0], atol=1e-4)
    assert np.isfinite(made).all()


def test_innovations_of_clustered_volatility_are_independent_and_normal() -> None:
    returns = naive.garch(6_000).log_returns()[0]
    law = Marginal.fit(returns, odd=True)
    scores = law.normal(returns)[:, np.newaxis]
    odd = np.array([True])
    fitted, _, cascade = Cascade.fit(scores, np.zeros(len(scores), dtype=bool), odd, Atoms.of([law], [True]))
    innovations, _, scale = fitted.innovations(scores, cascade, stream(0, "ties"))
    before, after = (absolute_return_acf(each.T)[0, :20].mean() for each in (scores, innovations))
    assert before > 0.1
    assert abs(after) < 0.02
    assert innovations.std() == pytest.approx(1, abs=0.03)
    assert scale.std() > 0.2


def likelihood(fitted: Cascade, scores: FloatArray, cascade: FloatArray) -> float:
    """The log-likelihood of the first feature: of the density of a score, of the interval of one that rests."""
    mean, scale = (each[:, 0] for each in fitted.law(cascade))
    low, high = fitted.atoms.low[0, 0], fitted.atoms.high[0, 0]
    law, rests = stats.norm(mean, scale), (low <= scores[:, 0]) & (scores[:, 0] <= high)
    return float(np.where(rests, np.log(law.cdf(high) - law.cdf(low)), law.logpdf(scores[:, 0])).sum())


def test_a_scale_with_two_memories_is_found_with_both() -> None:
    rng, features = stream(0, "memories"), 3
    columns = np.where(rng.random((features, 5_000)) < 0.95, 0.0, rng.standard_normal((features, 5_000)))
    odd = np.array([True] * features)
    atoms = Atoms.of([Marginal.fit(column, odd=True) for column in columns], odd.tolist())
    decays = np.array([0.0, *(2 ** (-1 / h) for h in (1, 4, 16, 64, 256))])
    weights = np.zeros((features, 1 + 2 * features * len(decays)))
    weights[:, 0] = 1.0
    weights[0, [0, 1 + 6 * 3, 1 + 6 * 4]] = 0.1, 0.4, 0.5  # squares of its averages of 16 and of 64 steps
    true = Cascade(odd, decays, atoms, np.zeros((features, 3 * features * len(decays))), weights, np.ones(features))
    start = np.tile(np.repeat([0.0, 1.0], [features, 2 * features]), (1, len(decays), 1))
    scores = true.draw(rng.standard_normal((1, 15_000, features)), start)[0][0]
    fitted, _, cascade = Cascade.fit(scores, np.zeros(len(scores), dtype=bool), odd, atoms)
    np.testing.assert_array_equal(fitted.decays, decays)
    # No weights of these memories have a higher likelihood than those found, the true ones neither.
    assert likelihood(fitted, scores, cascade) > likelihood(true, scores, cascade)


def test_no_scale_dies_out_or_runs_away() -> None:
    returns = naive.garch(3_000).log_returns()[0]
    law = Marginal.fit(returns, odd=True)
    odd = np.array([True])
    fitted, _, _ = Cascade.fit(
        law.normal(returns)[:, np.newaxis], np.zeros(len(returns), dtype=bool), odd, Atoms.of([law], [True])
    )
    np.testing.assert_allclose(fitted.weights.sum(axis=1), 1)
    start = np.tile(np.array([0.0, 1.0, 1.0]), (20, len(fitted.decays), 1))
    made, _ = fitted.draw(stream(0, "long").standard_normal((20, 50_000, 1)), start)
    thirds = made[:, :, 0].reshape(20, 5, -1).std(axis=(0, 2))
    assert thirds.min() > 0.6
    assert thirds.max() < 1.6


# Paths.


@cache
def of_market() -> ChunkFlow:
    return ChunkFlow.from_settings(SMALL).fit(market(1_500), rng=stream(0, "fit"))


class Mirrored(np.random.Generator):
    """A stream whose noise has the signs of some features turned."""

    def turned(self, mirror: FloatArray) -> Mirrored:
        self.mirror = mirror
        return self

    def standard_normal(self, *_: Any, out: Any, **more: Any) -> Any:  # type: ignore[override]
        super().standard_normal(out=out, **more)
        out *= self.mirror
        return out


def test_paths_of_mirrored_noise_are_mirrored_paths() -> None:
    generator = of_market()
    mirror = np.where(generator.odd, -1.0, 1.0)

    def rolled(signs: FloatArray) -> FloatArray:
        streams = {at: Mirrored(np.random.PCG64(at)).turned(signs.astype(np.float32)) for at in range(4)}
        made: FloatArray = generator.calibrated(next(iter(generator.roll(streams, (200,)))))
        return made

    np.testing.assert_allclose(rolled(mirror), rolled(np.ones(4)) * mirror, atol=1e-4)


def test_a_path_does_not_know_where_pieces_and_chunks_end() -> None:
    generator = of_market()
    whole = next(iter(generator.roll({2: stream(0, "a")}, (150,))))
    pieces = list(zip((7, 1, 64, 78), generator.roll({2: stream(0, "a")}, (7, 1, 64, 78)), strict=False))
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces], axis=1), whole)


def test_a_path_is_the_same_in_another_batch() -> None:
    generator = of_market()
    few, many = (generator.sample(n, 40, rng=stream(0, "s")).values for n in (2, generator.rows + 3))
    np.testing.assert_array_equal(few, many[:2])
    assert len(np.unique(many[:, -1, 0])) > 10


class Forgetful(ChunkFlow):
    """Each chunk is drawn as if nothing had been before."""

    def _chunk(self, noise: Tensor, memory: Memory, regime: str | None) -> FloatArray:
        made = super()._chunk(noise, memory, regime)
        fresh = self._opening(noise[:, -1].numpy(), regime)
        memory.cascade, memory.recent = fresh.cascade, fresh.recent
        return made


def test_volatility_clusters_over_many_chunks_because_memory_is_kept() -> None:
    series = naive.garch(5_000)
    # Short paths have smaller autocorrelations than long ones: compare equal lengths.
    real = np.mean([absolute_return_acf(naive.garch(2_000, at).log_returns())[0, 8:40] for at in range(1, 17)])
    found = {}
    for kind in (ChunkFlow, Forgetful):
        made = kind.from_settings(SMALL).fit(series, rng=stream(0, "fit"))
        paths = made.sample(16, 2_000, rng=stream(0, "sample"))
        found[kind] = absolute_return_acf(paths.log_returns())[:, 8:40].mean()
    assert real > 0.08
    assert found[ChunkFlow] > 0.6 * real
    assert found[Forgetful] < 0.2 * real


def test_prices_rest_as_often_as_in_the_market() -> None:
    series = market(1_500)
    made = of_market().sample(16, 1_000, rng=stream(0, "sample"))
    shares = [float((each.log_returns() == 0).mean()) for each in (series, made)]
    assert shares[0] > 0.3
    assert shares[1] == pytest.approx(shares[0], abs=0.06)
    volumes = [float((each.column("volume") == 0).mean()) for each in (series, made)]
    assert volumes[1] == pytest.approx(volumes[0], abs=0.03)


def test_regimes_point_where_they_say() -> None:
    generator = ChunkFlow.from_settings({**SMALL, "steps": 300, "rate": 1e-2}).fit(
        swinging(1_500), rng=stream(0, "fit")
    )
    assert {"bull", "bear"} <= set(generator.regime_names)
    ends = {
        regime: generator.sample(24, 150, regime=regime, rng=stream(0, "sample")).log_returns().sum(axis=1)
        for regime in ("bull", "bear", None)
    }
    assert stats.mannwhitneyu(ends["bull"], ends["bear"], alternative="greater").pvalue < 1e-4
    assert ends["bull"].mean() > 0 > ends["bear"].mean()
    assert abs(ends[None].mean()) < 3 * ends[None].std() / np.sqrt(24)


def test_windows_of_any_features_are_fitted() -> None:
    rng = stream(0, "windows")
    windows = np.exp(np.cumsum(rng.standard_normal((150, 12, 2)), axis=1))
    made = ChunkFlow.from_settings(SMALL).fit_windows(windows, rng=rng).sample_windows(5, rng=rng)
    assert made.shape == (5, 12, 2)
    assert (made > 0).all()


@pytest.mark.parametrize(("settings", "told"), [({"chunk": 5}, "no power of 2"), ({"window": 4}, "must be above")])
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ChunkFlow.from_settings(settings)


def test_a_call_asks_for_whole_chunks() -> None:
    assert neural._CHUNK % 64 == 0
