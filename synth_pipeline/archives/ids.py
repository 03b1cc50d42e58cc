"""Trade ids that count up by one: what is missing, what came twice, what came late."""

from __future__ import annotations

import numpy as np

from synth_pipeline.archives import Gap
from synth_pipeline.archives.drafts import Fault

_IMPLAUSIBLE = 10**9
"""No venue's ids advance by this much between two trades: such an id is corrupt, unless the next goes on from it."""
_REMEMBERED = 100_000
"""How many missing ids are remembered, so that a late row can fill its hole."""


class CountingIds:
    """Follows the ids of one day."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._last_ns = 0
        self._refused: int | None = None
        self._missing: dict[int, int] = {}
        self._gaps: list[Gap] = []

    def check(self, ids: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the `Fault` of each row, and where ids are missing before it."""
        faults, after_gap = np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.bool_)
        if not len(ids):
            return faults, after_gap
        before = ids[0] - 1 if self._last is None else self._last
        if (np.diff(ids, prepend=before) == 1).all():
            self._last, self._last_ns = int(ids[-1]), int(times[-1])
            return faults, after_gap
        for row, (each, time) in enumerate(zip(ids.tolist(), times.tolist(), strict=True)):
            faults[row], after_gap[row] = self._take(each, time)
        return faults, after_gap

    def _take(self, each: int, time: int) -> tuple[Fault, bool]:
        expected = each if self._last is None else self._last + 1
        if each < expected:
            hole = self._missing.pop(each, None)
            if hole is None:
                return Fault.DUPLICATE_TRADE, False
            start, end, stream, reason, missing = self._gaps[hole]
            self._gaps[hole] = (start, end, stream, reason, missing - 1)
            return Fault.NONE, False
        if each - expected > _IMPLAUSIBLE and self._refused != each - 1:
            self._refused = each
            return Fault.MALFORMED_ID, False
        if each > expected:
            self._gaps.append((self._last_ns, time, "trades", "sequence_gap", each - expected))
            for number in range(expected, min(each, expected + _REMEMBERED - len(self._missing))):
                self._missing[number] = len(self._gaps) - 1
        self._last, self._last_ns = each, time
        return Fault.NONE, each > expected

    def gaps(self) -> list[Gap]:
        """Return the holes that no late row filled."""
        return [gap for gap in self._gaps if gap[4]]
