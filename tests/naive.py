"""Slow, obvious twins of our kernels: what they compute, said plainly. The tests compare each with its kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from synth_pipeline.schema import Flag


def replay_book(rows: Mapping[str, np.ndarray]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (bid price, bid size, ask price, ask size) and the lots of the ten best levels after every event."""
    sides: dict[int, dict[int, int]] = {1: {}, -1: {}}
    inside_snapshot = False
    for side, price, size, flags in zip(rows["side"], rows["price"], rows["size"], rows["flags"], strict=True):
        if flags & Flag.SNAPSHOT and not inside_snapshot:
            sides = {1: {}, -1: {}}
        inside_snapshot = bool(flags & Flag.SNAPSHOT) and not flags & Flag.LAST
        sides[int(side)].pop(int(price), None)
        if size:
            sides[int(side)][int(price)] = int(size)
        if flags & Flag.LAST:
            bids, asks = sorted(sides[1].items(), reverse=True), sorted(sides[-1].items())
            top = [*(bids[0] if bids else (0, 0)), *(asks[0] if asks else (0, 0))]
            yield top, [sum(size for _, size in bids[:10]), sum(size for _, size in asks[:10])]
