"""Half an hour out of a sorted CSV file of a gigabyte with nothing prepared: seeking against Polars' lazy scan.

The file is the generated market of `window.py` as the article has it: microseconds, best bid and ask, 50 bytes a row.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from common import Claim, arguments, interleaved, report
from window import Span, random_spans, write_csv

from synth_pipeline.ticks.csv import Slice, SortedCsv
from synth_pipeline.ticks.csv_rows import Kind

COLUMNS = ("bid_price", "ask_price", "bid_volume", "ask_volume")


def seek(path: Path, span: Span) -> Slice:
    """Open the file, recognize its form, find the window, read it."""
    return SortedCsv(path).read(*span, dict.fromkeys(COLUMNS, Kind.FLOAT))


def scan(path: Path, span: Span) -> pl.DataFrame:
    """Let Polars filter the whole file."""
    first, end = span[0] // 1000, span[1] // 1000
    return pl.scan_csv(path).filter((pl.col("timestamp") >= first) & (pl.col("timestamp") < end)).collect()


def require_equal(found: Slice, frame: pl.DataFrame) -> None:
    """Stop when an output differs in any bit."""
    np.testing.assert_array_equal(found.time_ns, frame["timestamp"].to_numpy() * 1000)
    for name in COLUMNS:
        np.testing.assert_array_equal(found.columns[name], frame[name].to_numpy(), err_msg=name)


def main() -> None:
    options = arguments(__doc__).parse_args()
    days, quotes_a_day = (7, 1_176_000) if options.quick else (17, 1_176_000)
    folder = Path(tempfile.mkdtemp(prefix="synth-csv-"))
    try:
        path, _ = write_csv(folder, days, quotes_a_day)
        megabytes = path.stat().st_size / 1e6
        spans = random_spans(days, 3 if options.quick else 9)
        slices = [seek(path, span) for span in spans]
        for found, span in zip(slices, spans, strict=True):
            require_equal(found, scan(path, span))
        rounds = [
            interleaved({"seek": lambda span=span: seek(path, span), "scan": lambda span=span: scan(path, span)}, 3)
            for span in spans
        ]
    finally:
        shutil.rmtree(folder)
    ours, polars = (statistics.median(each[name] for each in rounds) for name in ("seek", "scan"))
    amplification = max(found.bytes_read / found.slice_bytes for found in slices)
    slice_mb = statistics.median(found.slice_bytes for found in slices) / 1e6
    claims = [
        Claim(
            "csv_slice_vs_scan",
            f"open a sorted CSV of {megabytes:,.0f} MB, nothing prepared, take 30 minutes: speed over Polars scan_csv",
            polars / ours,
            100,
            "high",
            {"seek (ms)": ours * 1000, "polars (ms)": polars * 1000},
            note="--quick: a smaller file, so a smaller ratio" if options.quick else "",
        ),
        Claim(
            "csv_read_amplification",
            "bytes read of the file, probes and all, over the bytes of the slice; the worst window",
            amplification,
            2,
            "low",
            {"slice (MB, median)": slice_mb},
        ),
    ]
    report("csv_slice", claims, as_json=options.json)


if __name__ == "__main__":
    main()
