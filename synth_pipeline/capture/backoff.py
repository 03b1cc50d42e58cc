"""How long to wait before the next try: full jitter, so that many recorders do not come back at once.

https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import numpy as np


class Backoff:
    """Waits that are uniform below a bound that doubles with every failure, up to a cap."""

    def __init__(self, rng: np.random.Generator, base_seconds: float, cap_seconds: float) -> None:
        self._rng, self._base, self._cap = rng, base_seconds, cap_seconds
        self._failures = 0

    def next_seconds(self) -> float:
        """Return the next wait."""
        bound = min(self._cap, self._base * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return float(self._rng.uniform(0.0, bound))

    def reset(self) -> None:
        """Forget the failures: something worked."""
        self._failures = 0
