"""Numbers as people write them, into float64; and which of them float64 cannot hold.

Promise: a decimal text of at most 15 significant digits comes back from the stored float64 as the same decimal number
(IEEE 754 binary64 has DBL_DIG = 15). A longer one is stored as the nearest float64, and counted when the shortest text
of that float64 is another number.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synth_pipeline.errors import InputError

if TYPE_CHECKING:
    import polars as pl

_SAFE_DIGITS = 15
_SUFFIXES = {"K": 3, "M": 6, "B": 9, "T": 12}
_MISSING = ("", "-", "NAN", "NULL", "NONE", "NA", "N/A", "<NA>", "#N/A")
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:E[+-]?\d+)?$"

_MOST_DECIMALS = 12
_MOST_UNITS = 1e15
"""A double tells decimal numbers of fifteen digits apart: finer steps than these would fit any number."""


class Numbers(NamedTuple):
    """Cells as numbers: NaN where a cell is missing or is no number."""

    values: np.ndarray
    missing: np.ndarray
    """Empty cells, NaN, null and the like."""
    invalid: np.ndarray
    """Cells that hold something else than a finite number."""
    rounded: int
    """Numbers that float64 cannot hold exactly."""


def decimal_mark(cells: pl.Series) -> str:
    """Return the decimal mark of some number cells, `.` or `,`, by what the cells show.

    Raises `InputError` where nothing tells: 1,234 may be a thousand or a fraction.
    """
    commas = cells.filter(cells.str.contains(",", literal=True))
    if commas.is_empty():
        return "," if cells.str.contains(r"\.\d{3}\.").any() else "."
    both = commas.filter(commas.str.contains(".", literal=True))
    if not both.is_empty():
        return "," if both.str.contains(r"\..*,").any() else "."
    if commas.str.contains(r",\d{3},").any():
        return "."
    if commas.str.contains(r",(?:\d{0,2}|\d{4,})\D*$").any() or commas.str.contains(r"^[+-]?0?,").any():
        return ","
    if cells.str.contains(".", literal=True).any():
        return "."
    raise InputError(
        f"{commas[0]!r} may be a thousand or a fraction: pass --decimal point (1,234 is 1234) or --decimal comma"
    )


def plain(cells: pl.Series, mark: str) -> pl.Series:
    """Return the cells with a decimal point, without thousands separators, currency signs and spaces, in capitals."""
    cleaned = cells.fill_null("").str.to_uppercase().str.replace_all(r"[\s\u00a0'$€£¥]", "")
    if mark == ",":
        return cleaned.str.replace_all(".", "", literal=True).str.replace_all(",", ".", literal=True)
    return cleaned.str.replace_all(",", "", literal=True)


def numbers(cells: pl.Series, mark: str = ".") -> Numbers:
    """Turn cells of text into numbers; K, M, B and T stand for thousands, millions, … as on some download pages."""
    import polars as pl

    text = plain(cells, mark)
    missing = text.is_in(_MISSING)
    text = text.to_frame("t").select(
        pl.coalesce(
            *(
                pl.when(pl.col("t").str.ends_with(suffix) & ~pl.col("t").is_in(_MISSING))
                .then(pl.col("t").str.strip_chars_end(suffix) + f"E{power}")
                .otherwise(None)
                for suffix, power in _SUFFIXES.items()
            ),
            pl.col("t"),
        )
    )["t"]
    good = text.str.contains(_NUMBER)
    values = (
        text.to_frame("t").select(pl.when(good).then("t")).to_series().cast(pl.Float64).fill_null(np.nan).to_numpy()
    )
    finite = np.isfinite(values)
    return Numbers(values, missing.to_numpy(), ~finite & ~missing.to_numpy(), _rounded(text.filter(pl.Series(finite))))


def _rounded(text: pl.Series) -> int:
    digits = text.str.replace(r"E.*$", "").str.replace_all(r"[^\d]", "").str.strip_chars_start("0")
    long = text.filter(digits.str.strip_chars_end("0").str.len_chars() > _SAFE_DIGITS)
    return sum(Decimal(each) != Decimal(repr(float(each))) for each in long)


def decimal_step(values: np.ndarray) -> float:
    """Return the decimal step that all known values are multiples of: 1, 0.1, …; 0 beyond twelve decimals."""
    known = values[np.isfinite(values)]
    largest = np.abs(known).max(initial=0.0)
    for decimals in range(_MOST_DECIMALS + 1):
        if not known.size or largest * 10.0**decimals > _MOST_UNITS:
            break
        # The quotient is rounded once, so it is the double of the decimal number that a text of it stands for.
        if (np.rint(known * 10.0**decimals) / 10.0**decimals == known).all():
            return 10.0**-decimals
    return 0.0
