"""Every number of the fidelity laboratory that other libraries know as well, on shared arrays.

A comparison is a name, our number, theirs and a tolerance, relative to the larger of theirs and 0.001. Libraries that
are not installed are named in the note, and their comparisons left out.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import Claim

from synth_pipeline.fidelity import (
    book_scores,
    cross,
    distributions,
    marginal,
    neighbours,
    signature,
    temporal,
    weighted,
)
from synth_pipeline.fidelity.distributions import grouped
from synth_pipeline.rng import stream

EXACT, CLOSE = 1e-9, 1e-6
DATA = Path(os.environ.get("SYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
Comparison = tuple[str, float, float, float]
Rows = tuple[np.ndarray, np.ndarray]


def markets() -> Iterator[Rows]:
    """Yield pairs of returns: heavy tails, clusters, a coarse grid, unequal lengths."""
    rng = stream(7, "benchmark", "oracles")
    yield 1e-3 * rng.standard_t(3, 1_500), 1e-3 * rng.standard_normal(1_100)
    level = np.exp(0.5 * np.cumsum(0.1 * rng.standard_normal((2, 2_000)), axis=1).clip(-4, 4))
    yield tuple(1e-3 * level * rng.standard_normal((2, 2_000)))
    yield tuple(1e-4 * rng.choice([-2, -1, 0, 1, 2], p=[0.05, 0.15, 0.6, 0.15, 0.05], size=(2, 1_200)))
    yield rng.standard_exponential(900) - 1, rng.laplace(size=1_300)


def with_scipy(one: np.ndarray, two: np.ndarray) -> Iterator[Comparison]:
    """Moments, distances, divergence of histograms, tails."""
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    first, second = np.sort(one), np.sort(two)
    row = one[np.newaxis]
    yield "skewness", weighted.skewness.statistic(row)[0], float(stats.skew(one)), EXACT
    yield "kurtosis", weighted.kurtosis.statistic(row)[0], float(stats.kurtosis(one)) + 3, EXACT
    yield (
        "Wasserstein",
        distributions.wasserstein(grouped(first), grouped(second)),
        stats.wasserstein_distance(one, two),
        EXACT,
    )
    yield "energy", distributions.energy(grouped(first), grouped(second)), stats.energy_distance(one, two), CLOSE
    ks = stats.ks_2samp(one, two, method="asymp").statistic
    yield "Kolmogorov-Smirnov", distributions.kolmogorov_smirnov(first, second), float(ks), EXACT
    edges = np.unique(np.quantile(one, np.arange(1, 50) / 50, method="inverted_cdf"))
    shares = [np.diff([0.0, *((side[:, np.newaxis] <= edges).mean(axis=0)), 1.0]) for side in (one, two)]
    yield (
        "Jensen-Shannon",
        distributions.jensen_shannon(first, second, edges),
        float(jensenshannon(*shares, base=2)),
        CLOSE,
    )
    index, _ = marginal.hill(one)
    if np.isfinite(index):
        highest = first[-int(0.05 * one.size) - 1 :]
        yield "tail index", index, float(stats.pareto.fit(highest[1:], floc=0, fscale=highest[0])[0]), CLOSE
    for steps in temporal.HORIZONS:
        sums = one[: one.size // steps * steps].reshape(-1, steps).sum(axis=1)
        found = temporal.log_kurtosis_by_horizon(row)[0, temporal.HORIZONS.index(steps)]
        yield f"kurtosis over {steps}", found, float(np.log(stats.kurtosis(sums) + 3)), EXACT


def with_statsmodels(one: np.ndarray, _: np.ndarray) -> Iterator[Comparison]:
    """Autocorrelations, their tests, the leverage effect."""
    from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
    from statsmodels.tsa.stattools import acf, ccf

    row, size = one[np.newaxis], one.size
    for name, ours, values, lags in (
        ("ACF", temporal.return_acf, one, 20),
        ("ACF of |r|", temporal.absolute_return_acf, np.abs(one), 50),
        ("ACF of r²", temporal.squared_return_acf, one**2, 50),
    ):
        gap = np.abs(ours(row)[0] - acf(values, nlags=lags)[1:]).max()
        yield name, float(gap), 0.0, EXACT
    gap = np.abs(temporal.leverage(row)[0] - ccf(one**2, one, adjusted=False, nlags=11)[1:]).max()
    yield "leverage", float(gap), 0.0, EXACT
    theirs = float(acorr_ljungbox(one, lags=[10])["lb_stat"].iloc[0]) / size
    yield "Ljung-Box", temporal.ljung_box_per_observation.statistic(row)[0], theirs, EXACT
    theirs = float(het_arch(one - one.mean(), nlags=5, result_object=False)[0]) / size
    yield "ARCH-LM", temporal.arch_lm_per_observation.statistic(row)[0], theirs, CLOSE


def with_arch(one: np.ndarray, _: np.ndarray) -> Iterator[Comparison]:
    """The ARCH-LM test of a constant mean's residuals; arch takes R² times all returns, not those with five before."""
    from arch.univariate import ConstantMean

    scaled = one / one.std()
    statistic = ConstantMean(scaled, rescale=False).fit(disp="off").arch_lm_test(lags=5).stat
    theirs = float(statistic) * (one.size - 5) / one.size**2
    yield "ARCH-LM", temporal.arch_lm_per_observation.statistic(scaled[np.newaxis])[0], theirs, CLOSE


def with_antropy(one: np.ndarray, _: np.ndarray) -> Iterator[Comparison]:
    """Detrended fluctuation analysis."""
    from antropy import detrended_fluctuation

    row = one[np.newaxis]
    yield "Hurst", weighted.hurst_exponent.statistic(row)[0], float(detrended_fluctuation(one)), CLOSE
    yield "Hurst of |r|", temporal.volatility_hurst.statistic(row)[0], float(detrended_fluctuation(np.abs(one))), CLOSE


def with_ot(one: np.ndarray, two: np.ndarray) -> Iterator[Comparison]:
    """Optimal transport in one dimension."""
    import ot

    theirs = float(ot.wasserstein_1d(np.sort(one), np.sort(two)))
    yield "Wasserstein", distributions.wasserstein(grouped(np.sort(one)), grouped(np.sort(two))), theirs, EXACT


def with_sklearn(one: np.ndarray, two: np.ndarray) -> Iterator[Comparison]:
    """Nearest neighbours where nothing is tied, Gaussian kernels."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.neighbors import NearestNeighbors

    first, second = one[:, np.newaxis], two[:, np.newaxis]
    own = NearestNeighbors(n_neighbors=6).fit(first).kneighbors(first)[0][:, 5]
    other = NearestNeighbors(n_neighbors=5).fit(second).kneighbors(first)[0][:, 4]
    if (own > 0).all() and (other > 0).all():
        theirs = float(np.log(other / own).mean() + np.log(two.size / (one.size - 1)))
        yield "nearest-neighbour divergence", neighbours.divergence(one, two), theirs, CLOSE
    rows = [signature.features(side[: 40 * 20].reshape(40, 20, 1) / one.std()) for side in (one, two)]
    law = signature.Law.of(rows[0])
    kept = [side[:, law.scales > 0] / law.scales[law.scales > 0] for side in rows]
    within = [rbf_kernel(side, gamma=1 / law.width) for side in kept]
    means = [(kernel.sum() - 40) / 40 / 39 for kernel in within]
    theirs = float(sum(means) - 2 * rbf_kernel(*kept, gamma=1 / law.width).mean())
    yield "signature discrepancy", law.discrepancy(rows[1])[0], theirs, CLOSE


def with_pysiglib(one: np.ndarray, _: np.ndarray) -> Iterator[Comparison]:
    """Signatures and their logarithms."""
    import pysiglib

    moves = signature.lead_lag(one[: 30 * 20].reshape(30, 20) / one.std() / np.sqrt(20))
    points = np.concatenate([np.zeros((30, 1, 3)), np.cumsum(moves, axis=1)], axis=1)
    for name, ours, theirs in (
        ("signature", signature.signatures(moves), pysiglib.sig(points, 4)),
        ("log-signature", signature.log_signatures(moves), pysiglib.log_sig(points, 4, method=0)),
    ):
        yield name, float(np.abs(ours - theirs).max()), 0.0, EXACT


def with_a_slow_twin(one: np.ndarray, two: np.ndarray) -> Iterator[Comparison]:
    """The distances of the order book's scores, value by value."""
    first, second = np.round(one / one.std()), np.round(two / one.std())
    values = sorted({*first.tolist(), *second.tolist()})
    shares = [[sum(side == value) / side.size for value in values] for side in (first, second)]
    theirs = sum(abs(a - b) for a, b in zip(*shares, strict=True)) / 2
    yield "book: total variation", book_scores.total_variation(first, second, discrete=True), theirs, EXACT
    everything = np.concatenate([one, two])
    spread = everything.std(ddof=1)
    quantiles = np.linspace(0, 1, one.size * two.size, endpoint=False) + 0.5 / (one.size * two.size)
    one_by_one = [np.sort(side)[(quantiles * side.size).astype(np.int64)] for side in (one, two)]
    theirs = float(np.abs(one_by_one[0] - one_by_one[1]).mean() / spread)
    yield "book: Wasserstein", book_scores.wasserstein(one, two), theirs, CLOSE


ORACLES: dict[str, Callable[[np.ndarray, np.ndarray], Iterator[Comparison]]] = {
    "scipy": with_scipy,
    "statsmodels": with_statsmodels,
    "arch": with_arch,
    "antropy": with_antropy,
    "ot": with_ot,
    "sklearn": with_sklearn,
    "pysiglib": with_pysiglib,
}


def copy_correlation() -> Claim:
    """Score windows of Stocks against themselves, as the published protocol has it: only drawing differs."""
    what, file = "correlational score of a copy of Stocks", DATA / "stock_data.csv"
    if not file.exists():
        return Claim("copy_corr", what, None, 0.008, "low", note=f"{file.name} not under SYNTH_REAL_DATA")
    rows = np.loadtxt(file, delimiter=",", skiprows=1)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 24, axis=0).transpose(0, 2, 1)
    scores = [cross.correlational(windows, windows, rng=stream(seed, "benchmark", "copy")) for seed in range(5)]
    return Claim("copy_corr", what, float(np.mean(scores)), 0.008, "low", {"largest of five": max(scores)})


def measured(*, quick: bool) -> list[Claim]:
    """Make every comparison on every pair of samples, the other way round as well."""
    del quick  # a few seconds either way
    there = {name: oracle for name, oracle in ORACLES.items() if importlib.util.find_spec(name)}
    made, wrong = dict.fromkeys([*there, "slow twin"], 0), []
    for one, two in markets():
        for name, oracle in (there | {"slow twin": with_a_slow_twin}).items():
            for what, ours, theirs, tolerance in (*oracle(one, two), *oracle(two, one)):
                made[name] += 1
                if not abs(ours - theirs) <= tolerance * max(abs(theirs), 1e-3):
                    wrong.append(f"{name}: {what} {ours:.10g} and {theirs:.10g}")
    missing = [name for name in ORACLES if name not in there]
    notes = [f"not installed: {', '.join(missing)}"] if missing else []
    return [
        copy_correlation(),
        Claim(
            "oracle_mismatches",
            "numbers that other libraries, or a slow twin of the book's scores, do not confirm",
            len(wrong),
            0,
            "equal",
            {f"comparisons with {name}": count for name, count in made.items()},
            "; ".join(wrong[:5] + notes) or f"tolerances {EXACT:g} and {CLOSE:g}, relative",
        ),
    ]
