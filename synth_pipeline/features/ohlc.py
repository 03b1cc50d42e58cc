"""Bars as numbers without a constraint, and back: the map that keeps opens, highs, lows and closes in order.

With C the close before, a bar is three log distances from what is known already:

    open = C e^g,      high = max(open, close) e^u,      low = min(open, close) e^-d,      u, d ≥ 0.

Whatever g and close are and whatever u, d ≥ 0, low ≤ open, close ≤ high; every bar in order has its g, u, d.
What belongs here: this map, on arrays along their last axis. What does not: where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from synth_pipeline.series import FloatArray, Series

BARS = ("open", "high", "low")


def shape_of(rows: Mapping[str, FloatArray], before: FloatArray) -> dict[str, FloatArray]:
    """Return g, u, d as far as `rows` has open, high, low; `before` are the closes before.

    Without opens, a bar opens at the close before. A high or low on the wrong side of open or close counts as no wick.
    """
    close, opened = rows["close"], rows.get("open", before)
    top, bottom = np.fmax(opened, close), np.fmin(opened, close)
    shape = {}
    if "open" in rows:
        shape["open"] = np.log(opened / before)
    if "high" in rows:
        shape["high"] = np.log(np.maximum(rows["high"] / top, 1.0))
    if "low" in rows:
        shape["low"] = np.log(np.maximum(bottom / rows["low"], 1.0))
    return shape


def bars_of(
    shape: Mapping[str, FloatArray],
    close: FloatArray,
    before: FloatArray,
    rounded: Callable[[FloatArray], FloatArray],
) -> dict[str, FloatArray]:
    """Return open, high and low, as far as `shape` has them, of closes; `rounded` must keep the order of prices."""
    opened = rounded(before * np.exp(shape["open"])) if "open" in shape else before
    made = {"open": opened}
    if "high" in shape:
        made["high"] = rounded(np.maximum(opened, close) * np.exp(shape["high"]))
    if "low" in shape:
        made["low"] = rounded(np.minimum(opened, close) * np.exp(-shape["low"]))
    return {name: prices for name, prices in made.items() if name in shape}


def out_of_order(series: Series) -> int:
    """Return how many bars have a high below, or a low above, their open or close."""
    body = [series.column(name) for name in ("open", "close") if name in series.names]
    wrong = np.zeros(series.values.shape[:2], dtype=np.bool_)
    for each in body:
        if "high" in series.names:
            wrong |= series.column("high") < each
        if "low" in series.names:
            wrong |= series.column("low") > each
    return int(wrong.sum())
