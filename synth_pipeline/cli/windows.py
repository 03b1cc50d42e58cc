"""Features of a window of time, from CSV files or from the store: what the command `features` does with --start."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from synth_pipeline.cli.face import opened_workspace, out, print_json, progress_bar
from synth_pipeline.errors import InputError, UnknownNameError
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Instrument

if TYPE_CHECKING:
    from synth_pipeline.stages.csv_features import CsvFile

Words = tuple[str, str, float]
"""Start, end and seconds of a bucket, as they were given."""
_LONGEST_STEP_NS = 366 * NS_PER_DAY
_SHOWN = ("label_ns", "mid", "spread", "vwap", "volume", "trade_count")


def is_csv(source: str) -> bool:
    """Return whether an argument means a file, not an instrument."""
    path = Path(source)
    return path.is_file() or len(path.parts) > 1 or path.suffix.lower() in {".csv", ".tsv", ".txt"}


def csv_files(
    quotes: Path, trades: Path | None, columns: tuple[str, str], time: str | None, unit: str | None
) -> tuple[CsvFile, CsvFile | None]:
    """Return the files with what was said of them. Raises `UnknownNameError` for a unit that there is not."""
    from synth_pipeline.stages.csv_features import CsvFile
    from synth_pipeline.ticks.csv_rows import UNITS

    known = next((each for each in UNITS if each == unit), None)
    if unit is not None and known is None:
        raise UnknownNameError("unit", unit, UNITS)
    own, others = (tuple(name.strip() for name in each.split(",") if name.strip()) for each in columns)
    return CsvFile(quotes, own, time, known), None if trades is None else CsvFile(trades, others, time, known)


def print_csv_features(
    quotes: CsvFile, trades: CsvFile | None, window: Words, numbers: tuple[int, bool], to: Path | None, as_json: bool
) -> None:
    """Compute features of a window of CSV files and print or write them.

    `numbers` says how many decimals they have, and whether finer ones are rounded.
    """
    from synth_pipeline.stages.csv_features import csv_features

    start_ns, end_ns, step_ns = _window(window)
    with progress_bar() as progress:
        found = csv_features(
            quotes,
            trades,
            start_ns,
            end_ns,
            step_ns=step_ns,
            decimals=numbers[0],
            nearest=numbers[1],
            progress=progress,
        )
    facts = _facts(str(quotes.path), window)
    facts |= {"quotes": found.quotes.facts(), "trades": found.trades and found.trades.facts()}
    _print(facts, found.columns, step_ns, to, as_json)
    if not as_json:
        _print_remarks(facts)


def print_store_features(instrument: Instrument, window: Words, to: Path | None, as_json: bool) -> None:
    """Compute features of a window of the store and print or write them."""
    from synth_pipeline.stages.window_features import window_features

    start_ns, end_ns, step_ns = _window(window)
    with opened_workspace() as workspace:
        columns = window_features(workspace.settings.data, instrument, start_ns, end_ns, step_ns=step_ns)
    _print(_facts(str(instrument), window), columns, step_ns, to, as_json)


def _facts(source: str, window: Words) -> dict[str, Any]:
    return {"source": source, "start": window[0], "end": window[1], "step_seconds": window[2]}


def _window(window: Words) -> tuple[int, int, int]:
    from synth_pipeline.ticks.csv_form import moment_ns

    start, end, step = window
    if not 1 <= step * NS_PER_SECOND <= _LONGEST_STEP_NS:
        raise InputError(f"step of {step} seconds is not within 1 ns and a year: give seconds such as 0.5 with --step")
    step_ns = round(step * NS_PER_SECOND)
    return moment_ns(start), moment_ns(end), step_ns


def _print(facts: dict[str, Any], columns: dict[str, np.ndarray], step_ns: int, to: Path | None, as_json: bool) -> None:
    facts |= {"rows": len(columns["label_ns"]), "known_mid": int(np.isfinite(columns["mid"]).sum())}
    if to is not None:
        _write(to, columns, step_ns)
        facts["file"] = str(to)
    if as_json:
        rows = {} if to is not None else {"features": {name: _plain(column) for name, column in columns.items()}}
        print_json(facts | rows)
        return
    if to is not None:
        out.print(f"{facts['rows']:,} rows written to {to}", highlight=False, soft_wrap=True)
        return
    table = Table(*_SHOWN)
    rows_shown = [*range(min(len(columns["label_ns"]), 10))]
    for row in rows_shown:
        table.add_row(
            *(f"{columns[name][row]:.10g}" if name != "label_ns" else str(columns[name][row]) for name in _SHOWN)
        )
    out.print(table)
    out.print(
        f"{len(rows_shown)} of {facts['rows']:,} rows; all of them with --json or --out FILE.parquet", highlight=False
    )


def _plain(column: np.ndarray) -> list[Any]:
    if column.dtype.kind == "f":
        return [None if math.isnan(value) else value for value in column.tolist()]
    return list(column.tolist())


def _write(path: Path, columns: dict[str, np.ndarray], step_ns: int) -> None:
    from synth_pipeline import schema
    from synth_pipeline.ticks import parquet

    if path.suffix != ".parquet":
        raise InputError(f"--out {path} does not end in .parquet, the one format that is written")
    with fresh_file(path) as fresh:
        parquet.write_table(fresh, schema.GRID, columns, step_ns=str(step_ns))


@contextmanager
def fresh_file(path: Path) -> Iterator[Path]:
    """Yield where to write what takes the place of `path` once it is whole. Raises `InputError` where none can be."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        yield fresh
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"--out {path} cannot be written ({reason}): name a file in a folder that is writable"
        ) from error


def _print_remarks(facts: dict[str, Any]) -> None:
    """Say what the files had wrong; places are bytes of the file."""
    for name in ("quotes", "trades"):
        read = facts[name]
        if not read:
            continue
        remarks = [f"{count:,} {reason}" for reason, count in read["rejected"].items()]
        if remarks:
            out.print(
                f"{name}: rows left out: {', '.join(remarks)}, from byte {read['rejected_at'][0]:,} on", highlight=False
            )
        if read["unsorted"]:
            where = f"from byte {read['unsorted_at'][0]:,} on"
            out.print(
                f"{name}: time steps back at {read['unsorted']:,} places, {where}; rows were sorted", highlight=False
            )
        if read["unfinished_bytes"]:
            out.print(
                f"{name}: a last line of {read['unfinished_bytes']} bytes without line end was left out",
                highlight=False,
            )
