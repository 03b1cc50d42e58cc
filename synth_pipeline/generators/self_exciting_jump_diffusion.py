"""Self-exciting jump diffusion: a Brownian log price with signed jumps whose intensity is a Hawkes process.

Over one step t of the grid, with N_t jumps,

    log S_t - log S_{t-1} = -c_t + σ ε_t + Σ_{i ≤ N_t} J_i,        N_t ~ Poisson(λ_t),
    λ_{t+1} = μ + e^{-β} (λ_t - μ) + α N_t,                         α = n (1 - e^{-β}),  0 < n < 1,

an exponential-kernel Hawkes process (Hawkes 1971, Biometrika 58, eq. 12) seen once a step, kept by Ogata's recursion
(Ogata 1981, IEEE Trans. Inf. Theory 27): jumps of a step excite from the next one on. The branching ratio is n, so the
process is stationary by parametrisation, with mean intensity μ / (1 - n). A jump is N(0, δ²) or, with probability q,
N(0, ρ² δ²): the body and the tail of the moves, both of symmetric sign. The compensator

    c_t = σ²/2 + λ_t (E[e^J] - 1)

makes exp(log S) a martingale exactly (E[e^J] is finite, which rules out Student jumps). Quotes rest for most half
seconds, so a price that moves by diffusion alone cannot show the many zero returns: with σ well below the tick these are the
steps without a jump, and the Hawkes counts carry volatility clustering and tails.

Likelihood. N_t and λ_t are not observed. Given the past, λ_t is taken as Gamma with the exact mean and variance of an
assumed-density filter: N_t is then negative binomial, λ_t given N_t again Gamma, and the moments of λ_{t+1} follow in
closed form. The density of a return is the mixture of normals over the counts, integrated over the cell of the price
grid: two rounded prices differ by the latent move plus a triangular error of one grid step either side.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numba
import numpy as np
from scipy import optimize, stats

from synth_pipeline.errors import InputError, TrainingError
from synth_pipeline.features.transforms import Anchor, checked
from synth_pipeline.features.windows import segments
from synth_pipeline.generators import Generator
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.series import FloatArray, IntArray, Series
