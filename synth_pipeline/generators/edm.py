"""Denoising diffusion in continuous time, as Karras, Aittala, Aila and Laine 2022 (NeurIPS, "EDM") have it.

Data x of mean 0 are noised to x + σ n. A network F makes a denoiser of them (eq. 7 and table 1), here with a variance
s² of its own for every coordinate where the paper has one for all,

    D(x; σ) = c_skip x + c_out F(c_in x; ln σ),
    c_skip = s² / (s² + σ²),    c_out = σ s / √(s² + σ²),    c_in = 1 / √(s² + σ²),

so that F sees inputs of variance 1 and learns targets of variance 1 at every σ. In coordinates that are uncorrelated,
F = 0 is then the best denoiser of the normal law with the covariance of the data: F learns what is not normal in them.

Samples follow the probability flow dx/dσ = (x - D(x; σ)) / σ from σ_max to 0. In y = c_in x and the angle
θ = arctan(σ / s), of every coordinate its own, it is

    dy/dθ = -F(y; ln σ),

which is walked by Heun's method (algorithm 1, nothing stochastic): whatever the steps, the normal law is exact, and
they err in what F adds to it alone. Under a condition, F may be carried further from that of none (classifier-free
guidance, Ho and Salimans 2022).

A trained F has the covariance of the data only nearly. Of all linear maps that take a normal law of covariance C to
one of covariance S the least, in mean square, is the symmetric T = C^-½ (C^½ S C^½)^½ C^-½ (Olkin and Pukelsheim 1982,
Linear Algebra Appl. 48, 257-263). C is measured on samples of noise whose own mean and covariance are exact, so that it
errs in what F adds alone, as the walk does.

What belongs here: these formulas. What does not: networks and windows (`window_flow`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

_RIDGE = 1e-4
"""Is added to variances near 1, so that coordinates without any are left alone."""
_CURVATURE = 7.0
"""[ρ] How the noise levels of a sampler crowd towards 0; the paper's."""

Field = Callable[[Tensor, Tensor], Tensor]
"""F of rows of variance 1, shape (rows, size), and of one noise level, a scalar."""


@dataclass(frozen=True)
class Preconditioning:
    """The coefficients at noise levels σ, for coordinates of the given variances; they broadcast together."""

    skip: Tensor
    out: Tensor
    inward: Tensor

    @classmethod
    def at(cls, sigma: Tensor, variances: Tensor) -> Preconditioning:
        """Compute them."""
        both = variances + sigma**2
        return cls(variances / both, sigma * (variances / both).sqrt(), both.rsqrt())

    def target(self, clean: Tensor, noised: Tensor) -> Tensor:
        """Return what F should say."""
        return (clean - self.skip * noised) / self.out


def noise_levels(steps: int, least: float, most: float) -> Tensor:
    """Return the levels that a sampler walks down, 0 after the last; shape (steps + 1,)."""
    ends = (most ** (1 / _CURVATURE), least ** (1 / _CURVATURE))
    return torch.cat((torch.linspace(*ends, steps, dtype=torch.float64) ** _CURVATURE, torch.zeros(1))).float()


def heun(field: Field, start: Tensor, levels: Tensor, variances: Tensor) -> Tensor:
    """Walk rows of N(0, 1) at the first level down to data at the last, which is 0; the last step asks F once."""
    now, deviations = start, variances.sqrt()
    for here, there in pairwise(levels):
        turn = (here / deviations).atan() - (there / deviations).atan()
        slope = field(now, here)
        if there > 0:
            slope = (slope + field(now + turn * slope, there)) / 2
        now = now + turn * slope
    return now * deviations


def guided(under: Field, without: Field, weight: float) -> Field:
    """Return the field that goes `weight` of the way from that of no condition to that under one; 1 is the latter.

    More than 1 goes beyond it.
    """
    if weight == 1:
        return under

    def field(rows: Tensor, sigma: Tensor) -> Tensor:
        free = without(rows, sigma)
        return free + weight * (under(rows, sigma) - free)

    return field


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of rows, shapes (columns,) and (columns, columns)."""
    mean = rows.mean(dim=0)
    return mean, (rows - mean).T @ (rows - mean) / len(rows)


def evened(noise: Tensor) -> Tensor:
    """Return rows of noise, more of them than columns, changed as little as gives them mean 0 and covariance 1."""
    mean, covariance = moments(noise)
    return (noise - mean) @ _power(covariance, -0.5)


def least_change(covariance: Tensor, wanted: Tensor) -> Tensor:
    """Return T, symmetric, of two covariances of columns with variances near 1."""
    ridge = _RIDGE * torch.eye(len(wanted), dtype=wanted.dtype, device=wanted.device)
    root, inverse = (_power(covariance + ridge, exponent) for exponent in (0.5, -0.5))
    return inverse @ _power(root @ (wanted + ridge) @ root, 0.5) @ inverse


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, directions = torch.linalg.eigh(matrix)
    found: Tensor = (directions * values**exponent) @ directions.T
    return found
