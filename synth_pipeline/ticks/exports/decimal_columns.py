"""Integers on a grid as exact decimal columns, and frames as CSV without a header. Floats take no part."""

from __future__ import annotations

import io
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa

from synth_pipeline.errors import InputError

_DIGITS = 38


def parts(step: Decimal) -> tuple[int, int]:
    """Return a step as m × 10^-places with whole m."""
    places = max(-int(step.as_tuple().exponent), 0)
    return int(step.scaleb(places)), places


def exact(counts: np.ndarray, step: Decimal, shown: np.ndarray | None = None) -> pl.Series:
    """Return counts of a step as a decimal column, empty where not `shown`.

    Raises `InputError` for values of more than 64 bits.
    """
    times, places = parts(step)
    if counts.size and int(np.abs(counts).max()) > (2**63 - 1) // times:
        raise InputError(f"{int(np.abs(counts).max())} steps of {step} do not fit into 64 bits: the ticks are corrupt")
    low = counts.astype(np.int64) * times
    words = np.ascontiguousarray(np.stack((low, low >> 63), axis=1))  # 128 bits, little end first
    mask = None if shown is None else pa.py_buffer(np.packbits(shown, bitorder="little"))
    found = pa.Decimal128Array.from_buffers(pa.decimal128(_DIGITS, places), low.size, [mask, pa.py_buffer(words)])
    return pl.Series(pl.from_arrow(found))


def csv(frame: pl.DataFrame) -> bytes:
    """Return rows as CSV; what is missing is empty."""
    text = io.BytesIO()
    frame.write_csv(text, include_header=False)
    return text.getvalue()
