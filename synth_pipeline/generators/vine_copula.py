"""Vine copula: shocks of several assets that have the tails of history, each by itself and together.

Over one step of the grid, for asset i, with σ_it of a GJR-GARCH (`conditional_variance`),

    log S_it - log S_i,t-1 = -k_i(s_i σ_it) + s_i σ_it z_it,      z_it = F_i^{-1}(u_it),      k_i(x) = log E e^{x z_i},

u_t drawn from an R-vine copula: a cascade of bivariate copulas, each of two assets given those of the trees before
(Bedford and Cooke 2002, Ann. Stat. 30; Aas, Czado, Frigessi and Bakken 2009, Insur. Math. Econ. 44). Assets may so
crash together more often than their correlation says, which no Gaussian copula can. F_i is the empirical law of the
residuals with generalised-Pareto tails (`features.marginals`), so a shock may exceed every one of history. k makes
exp(log S_i) a martingale each, exactly but for the interpolation of k(x) / x² between a hundred values of x.

Calibration is in steps, each consistent whatever the next: quasi maximum likelihood of the GJR-GARCH; trees by the
largest sum of |Kendall's τ| (Dißmann, Brechmann, Czado and Kurowicka 2013, Comput. Stat. Data Anal. 59), families by
BIC (or AIC), parameters by maximum likelihood on ranks of the residuals, all by `pyvinecopulib`. Standard errors are
those of the stepwise estimator (Stöber and Schepsmeier 2013, Comput. Stat. 28) with the correction for ranks of Genest,
Ghoudi and Rivest (1995), Biometrika 82; the GARCH before is of no first-order consequence (Chen and Fan 2006,
J. Econometrics 135). Simulation is exact; residuals of history burn in the volatility.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from scipy import special

from synth_pipeline.errors import TrainingError
from synth_pipeline.features.marginals import Marginal
from synth_pipeline.generators import garch_margins, price_process
from synth_pipeline.generators.basket import Basket, Histories
from synth_pipeline.generators.garch_margins import Margins
from synth_pipeline.generators.inference import Estimate, criteria, mean_error
from synth_pipeline.generators.price_process import Report
from synth_pipeline.series import FloatArray

if TYPE_CHECKING:
    import pyvinecopulib as pv

Family = Literal["gaussian", "student", "clayton", "gumbel", "frank", "joe", "bb1", "bb7"]

PARAMETERS: dict[str, tuple[tuple[str, str], ...]] = {
    "indep": (),
    "gaussian": (("rho", "correlation"),),
    "student": (("rho", "correlation"), ("nu", "reciprocal")),
    "clayton": (("theta", "positive"),),
    "gumbel": (("theta", "real"),),
    "frank": (("theta", "real"),),
    "joe": (("theta", "real"),),
    "bb1": (("theta", "positive"), ("delta", "real")),
    "bb7": (("theta", "real"), ("delta", "positive")),
}
"""Families that are tried; of each parameter, its name and the scale of its interval."""
_ROWS_OF_SLOPES = 5_000
_STEP = 1e-3
_AT_BOUND = 1e-3
_FARTHEST, _POINTS = 9.0, 20_001


class Law(NamedTuple):
    """The parameters."""

    scale: FloatArray
    """[s], shape (assets,)."""
    coefficients: FloatArray
    """ω, α, γ, β of every asset, shape (assets, 4)."""
    downside: FloatArray
    """Share of the variance of shocks that lies below zero, shape (assets,)."""
    residuals: FloatArray
    """z of history, shape (steps, assets)."""
    copula: str
    """The vine, as `pyvinecopulib` writes it."""


@dataclass(frozen=True)
class Parameters(price_process.Parameters):
    """What a user may set."""

    most_returns: int = 20_000
    """A fit sees at most this many, the latest."""
    criterion: Literal["bic", "aic"] = "bic"
    """Which chooses among the families."""
    family: Family | None = None
    """One family for all pairs; by the criterion without it."""


class VineCopula(Basket):
    """Residuals of GJR-GARCH joined by an R-vine. See the module's docstring."""

    Parameters: ClassVar[type[Any]] = Parameters
    Law = Law
    twin = "filtered_historical_simulation"

    def estimate(self, histories: Histories, *, rng: np.random.Generator, report: Report) -> None:
        """Fit every volatility, then the copula of what is left."""
        import pyvinecopulib as pv

        filtered = garch_margins.filtered(self, histories, rng=rng, report=report)
        report(0.5, "copula")
        levels = pv.to_pseudo_obs(np.stack([fit.normal_scores for fit in filtered.fits], axis=1))
        vine = fit(levels, self.parameters.criterion, self.parameters.family)
        report(0.8, "standard errors")
        self.law = Law(*filtered.margins, filtered.scores, vine.to_json())
        self.estimates = {**self.estimates} | estimates_of(vine, levels, histories.names)
        self.diagnostics = criteria(filtered.log_likelihood + vine.loglik(levels), len(self.estimates), len(levels)) | {
            "returns": float(len(levels)),
            "copula_log_likelihood": vine.loglik(levels),
        }
        self.diagnostics |= tail_dependence(vine, histories.names)

    @cached_property
    def _vine(self) -> pv.Vinecop:
        import pyvinecopulib as pv

        return pv.Vinecop.from_json(self.law.copula)

    @cached_property
    def _shocks(self) -> list[Shock]:
        return [Shock.of(residuals) for residuals in self.law.residuals.T]

    def run(self, rng: np.random.Generator, counts: Iterable[int]) -> Iterator[FloatArray]:
        """Draw from the copula, turn ranks into residuals, and run the volatilities along them."""
        margins = Margins(*self.law[:3])
        burning, drawing = rng.spawn(2)
        rows = (burning.random(garch_margins.burn_in_of(margins)) * len(self.law.residuals)).astype(np.int64)
        shocks = chain((self.law.residuals[rows],), (self._draw(drawing, count) for count in counts))
        for sigma, scores in garch_margins.paths(margins, shocks):
            growth = [shock.growth(wide) for shock, wide in zip(self._shocks, sigma.T, strict=True)]
            yield sigma * scores - np.stack(growth, axis=1)

    def _draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        uniforms = rng.random((count, len(self._shocks)))
        levels = self._vine.inverse_rosenblatt(uniforms) if count else uniforms
        drawn = [shock.value(own) for shock, own in zip(self._shocks, levels.T, strict=True)]
        return np.stack(drawn, axis=1)


@dataclass(frozen=True, eq=False)
class Shock:
    """The law F of one asset's residuals: mean 0 and variance 1, tails beyond those of history."""

    law: Marginal
    mean: float
    deviation: float
    log_sizes: FloatArray
    """log x …"""
    ratios: FloatArray
    """… and k(x) / x² there, from far below to far above what returns can be."""

    @classmethod
    def of(cls, residuals: FloatArray) -> Shock:
        """Estimate from residuals of mean 0 and variance 1."""
        law = Marginal.fit(residuals)
        normal = np.linspace(-_FARTHEST, _FARTHEST, _POINTS)
        weights = np.exp(-(normal**2) / 2)
        weights /= weights.sum()
        values = law.value(normal)
        mean = float(weights @ values)
        deviation = float(np.sqrt(weights @ (values - mean) ** 2))
        values = (values - mean) / deviation
        sizes = np.logspace(-9, 0.5, 100)
        ratios = [np.log1p(weights @ (np.expm1(size * values) - size * values)) / size**2 for size in sizes]
        return cls(law, mean, deviation, np.log(sizes), np.array(ratios))

    def value(self, levels: FloatArray) -> FloatArray:
        """Return the residuals at these probabilities."""
        return np.asarray((self.law.value(special.ndtri(levels)) - self.mean) / self.deviation)

    def growth(self, sizes: FloatArray) -> FloatArray:
        """Return k at these sizes of returns."""
        return np.asarray(sizes**2 * np.interp(np.log(sizes), self.log_sizes, self.ratios))


def fit(levels: FloatArray, criterion: str, family: Family | None) -> pv.Vinecop:
    """Choose trees and families and fit them to ranks, shape (steps, assets).

    Raises `TrainingError` where the likelihood is no number.
    """
    import pyvinecopulib as pv

    tried = [getattr(pv.families, name) for name in ((family,) if family else PARAMETERS)]
    vine = pv.Vinecop.from_data(
        levels,
        controls=pv.FitControlsVinecop(family_set=tried, selection_criterion=criterion, num_threads=1),
    )
    if not np.isfinite(vine.loglik(levels)):
        raise TrainingError("vine_copula: the likelihood is no number: leave out an asset that moves with another")
    return vine


def _edges(vine: pv.Vinecop, names: tuple[str, ...]) -> Iterator[tuple[str, pv.Bicop]]:
    """Yield each pair copula with the assets that it joins, in the order in which `scores` has their parameters."""
    for tree in vine.get_trees():
        for edge in tree:
            pair = ".".join(names[asset - 1] for asset in sorted(edge["conditioned"]))
            given = ".".join(names[asset - 1] for asset in sorted(edge["conditioning"]))
            yield f"{pair}.given.{given}" if given else pair, edge["pair_copula"]


def estimates_of(vine: pv.Vinecop, levels: FloatArray, names: tuple[str, ...]) -> dict[str, Estimate]:
    """Return the parameters, as `ASSET.ASSET.family.name`; those at a bound have no standard error."""
    errors = iter(standard_errors(vine, levels))
    made = {}
    for pair, copula in _edges(vine, names):
        family = copula.family.name
        turned = f"{family}_{copula.rotation}" if copula.rotation else family
        bounds = zip(copula.parameters_lower_bounds.flat, copula.parameters_upper_bounds.flat, strict=True)
        for (name, link), value, (low, high) in zip(PARAMETERS[family], copula.parameters.flat, bounds, strict=True):
            error, near = float(next(errors)), _AT_BOUND * (high - low)
            inner = np.isfinite(error) and low + near < value < high - near
            made[f"{pair}.{turned}.{name}"] = Estimate(float(value), error if inner else None, link)
    return made


def tail_dependence(vine: pv.Vinecop, names: tuple[str, ...]) -> dict[str, float]:
    """Return the limits of P(u_j beyond q | u_i beyond q) of the pairs of the first tree."""
    made = {}
    for pair, copula in list(_edges(vine, names))[: len(names) - 1]:
        made[f"{pair}.lower_tail"] = float(copula.taildep[0, 0])
        made[f"{pair}.upper_tail"] = float(copula.taildep[1, 1])
    return made


def standard_errors(vine: pv.Vinecop, levels: FloatArray) -> FloatArray:
    """Return the standard error of every parameter, in the order of `scores`; NaN where they are not determined.

    With s the stepwise scores, G their mean slope in the parameters and W_j(u) = E 1[u ≤ U_j] ∂s/∂u_j, the estimate is
    off by -G^{-1} times the mean of s + Σ_j W_j - E W_j. Slopes are means over at most 5,000 rows.
    """
    values = np.concatenate([copula.parameters.ravel() for tree in vine.pair_copulas for copula in tree] or [[]])
    if not len(values):
        return values
    fewer = levels[np.linspace(0, len(levels) - 1, min(len(levels), _ROWS_OF_SLOPES)).astype(np.int64)]
    influence = vine.scores(levels)
    for asset in range(levels.shape[1]):
        influence += _of_ranks(vine, fewer, levels, asset)
    slopes = np.empty((len(values), len(values)))
    for at, value in enumerate(values):
        step = np.zeros(len(values))
        step[at] = _STEP * max(abs(value), 0.1)
        up, down = (vine.scores(fewer, parameters=np.tile(values + way * step, (len(fewer), 1))) for way in (1, -1))
        slopes[:, at] = (up - down).mean(axis=0) / (2 * step[at])
    if not np.isfinite(slopes).all() or np.linalg.matrix_rank(slopes) < len(slopes):
        return np.full(len(values), np.nan)
    return np.array([mean_error(each) for each in np.linalg.solve(slopes, influence.T)])


def _of_ranks(vine: pv.Vinecop, fewer: FloatArray, levels: FloatArray, asset: int) -> FloatArray:
    """Return W - E W of one asset at every row of `levels`, its mean taken over the rows of `fewer`."""
    own = fewer[:, asset]
    step = _STEP * own * (1 - own)
    up, down = fewer.copy(), fewer.copy()
    up[:, asset] += step
    down[:, asset] -= step
    slopes = (vine.scores(up) - vine.scores(down)) / (2 * step)[:, np.newaxis]
    order = np.argsort(own)
    beyond = np.cumsum(slopes[order][::-1], axis=0)[::-1] / len(fewer)
    padded = np.concatenate((beyond, np.zeros((1, beyond.shape[1]))))
    found = padded[np.searchsorted(own[order], levels[:, asset], side="left")]
    return np.asarray(found - found.mean(axis=0))
