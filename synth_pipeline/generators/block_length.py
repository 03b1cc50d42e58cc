"""How long the blocks of a bootstrap should be: what the dependence of returns, of their sizes and squares asks for.

Politis and White (2004), Econometric Reviews 23, as corrected by Patton, Politis and White (2009), Econometric Reviews
28: b = (2 G² / D)^(1/3) n^(1/3), where G and D are sums of autocovariances under a flat-top window whose width is
where these become negligible; D is smaller for blocks of random (geometric) lengths than for those of one length. The
rule is asked of r, |r| and r², because returns that hardly depend on each other have sizes that do for months.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth_pipeline.series import FloatArray

MOST_RETURNS = 100_000
"""The latest so many are asked: the rule computes √n autocovariances, one after the other."""


@dataclass(frozen=True)
class BlockLengths:
    """Mean block lengths in steps, by what was asked: `returns`, `sizes`, `squares`."""

    geometric: dict[str, float]
    """For lengths that are geometrically distributed."""
    fixed: dict[str, float]
    """For blocks of one length."""

    @classmethod
    def of(cls, returns: FloatArray) -> BlockLengths:
        """Ask the rule of `arch`; what does not vary (all sizes equal) asks for single steps.

        Returns of several stretches stand one after the other: pairs across the few joins weigh nothing.
        """
        from arch.bootstrap import optimal_block_length

        latest = returns[-MOST_RETURNS:]
        asked = {"returns": latest, "sizes": np.abs(latest), "squares": latest**2}
        geometric, fixed = {}, {}
        for name, values in asked.items():
            varies = bool(np.std(values) > 1e-9 * np.abs(values).max())
            found = optimal_block_length(values / values.std())[["stationary", "circular"]] if varies else None
            geometric[name], fixed[name] = (1.0, 1.0) if found is None else np.maximum(found.to_numpy()[0], 1.0)
        return cls({name: float(value) for name, value in geometric.items()}, {k: float(v) for k, v in fixed.items()})

    def longest(self, *, geometric: bool) -> float:
        """Return the longest of the three: a block then holds all dependence that there is."""
        return max((self.geometric if geometric else self.fixed).values())

    @property
    def middle(self) -> float:
        """The mean of the three lengths of fixed blocks: enough where joins are matched and volatility passes them."""
        return float(np.mean(list(self.fixed.values())))
