"""Bars as a file for other programs: CSV with ISO times, or Parquet with time columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from synth_pipeline.errors import InputError

_OPTIONAL = ("volume", "turnover", "trade_count")


def export(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write bars to `.csv` or `.parquet`: `time` is the bar's open, UTC; sizes that nobody knows are left out.

    Raises `InputError` for another ending or a place that cannot be written to.
    """
    times = {"time": pl.Series(columns["open_ns"]).cast(pl.Datetime("ns", "UTC"))}
    kept = ["open", "high", "low", "close", *(n for n in _OPTIONAL if not np.isnan(columns[n]).all()), "flags"]
    frame = pl.DataFrame(times | {name: columns[name] for name in kept})
    if path.suffix not in {".csv", ".parquet"}:
        raise InputError(f"{path} ends neither in .csv nor in .parquet: name the file so")
    try:
        if path.suffix == ".csv":
            frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
        else:
            frame.write_parquet(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): check the folder") from error
