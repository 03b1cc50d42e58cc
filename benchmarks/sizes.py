"""Bytes a row of the tick store takes on disk, on recorded captures where there are any and on generated messages.

`--markdown` prints what each encoding would make of each column, the table of `docs/tick-store.md`: the
store takes the smallest over all captures together.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import wire_day
from common import Claim, arguments, report

from synth_pipeline import plugins, venues
from synth_pipeline.ticks import ingest, parquet
from synth_pipeline.ticks.day import DayTicks

TABLES = ("quotes", "book_levels", "trades")
BARS = {"quotes": 7.0, "book_levels": 4.0}
ENCODINGS = ("PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT")
_BEST_LEVEL = 19
_NOTE = (
    "COIN-M's quotes are the sparsest: receive stamps in ns take 3.0 bytes of each under any encoding, ids 1.2, "
    "exchange times 1.2, sizes 1.9"
)


def ingested(folder: Path, count: int) -> dict[str, DayTicks]:
    """Ingest every log there is; recorded captures first."""
    days = {}
    for name, (log, venue, symbol) in reversed(wire_day.logs(folder, count).items()):
        place = folder / name
        place.mkdir()
        days[name] = ingest.ingest_frames(log, plugins.load(venues, venue)(), symbol, 0, lambda: None, place)
    return days


def bytes_a_row(day: DayTicks, table: str) -> float:
    """Size of a table's file over its rows."""
    return day.files[table].stat().st_size / day.rows[table]


def column_bytes(values: pa.ChunkedArray, encoding: str, level: int) -> float:
    """What one column of a table takes a row."""
    written = io.BytesIO()
    pq.write_table(
        pa.table({"x": values}),
        written,
        compression="zstd",
        compression_level=level,
        use_dictionary=encoding == "DICTIONARY",
        column_encoding=None if encoding == "DICTIONARY" else {"x": encoding},
        row_group_size=parquet.ROW_GROUP,
        write_statistics=False,
    )
    return len(written.getvalue()) / len(values)


def best(day: DayTicks, table: str) -> float:
    """Bytes a row if every column had its own best encoding at zstd-19, whatever that costs."""
    columns = pq.read_table(day.files[table]).columns
    return sum(min(column_bytes(values, encoding, _BEST_LEVEL) for encoding in _possible(values)) for values in columns)


def _possible(values: pa.ChunkedArray) -> tuple[str, ...]:
    return (*(ENCODINGS if values.type == pa.int64() else ENCODINGS[:1]), "DICTIONARY")


def print_markdown(days: Mapping[str, DayTicks]) -> None:
    """Print bytes a row by column, encoding and log."""
    for table in TABLES:
        logs = ", ".join(f"{name} ({day.rows[table]:,} rows)" for name, day in days.items())
        print(f"\n`{table}`, bytes a row at the store's zstd levels: {logs}\n")
        print("| column | " + " | ".join((*ENCODINGS, "DICTIONARY")) + " |\n| --- |" + " --- |" * 4)
        columns = {name: pq.read_table(day.files[table]) for name, day in days.items()}
        for column in next(iter(columns.values())).column_names:
            cells, level = [], parquet.compression_level(table, column)
            for encoding in (*ENCODINGS, "DICTIONARY"):
                found = (each[column] for each in columns.values() if encoding in _possible(each[column]))
                cells.append(" · ".join(f"{column_bytes(values, encoding, level):.2f}" for values in found))
            print(f"| {column} | " + " | ".join(cells) + " |")


def claim(days: Mapping[str, DayTicks], table: str, what: str, *, quick: bool) -> Claim:
    """The claim of one table: the largest of the recorded captures, of the generated log where there is none."""
    names = [name for name in days if name != "generated"] or ["generated"]
    measure: dict[str, Callable[[DayTicks], float]] = {"": lambda day: bytes_a_row(day, table)}
    if not quick:
        measure[", every column at its best, zstd-19"] = lambda day: best(day, table)
    peers = {name + suffix: size(day) for suffix, size in measure.items() for name, day in days.items()}
    note = _NOTE if table == "quotes" else ""
    return Claim(
        f"bytes_per_{what}",
        f"bytes a {what} on disk, the largest of the captures",
        max(peers[name] for name in names),
        BARS[table],
        "low",
        peers,
        note,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the table of columns and encodings instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        days = ingested(Path(folder), 60_000 if given.quick else 300_000)
        if given.markdown:
            print_markdown(days)
            return
        found = [
            claim(days, table, what, quick=given.quick)
            for table, what in (("quotes", "quote"), ("book_levels", "level"))
        ]
    report("sizes", found, as_json=given.json)


if __name__ == "__main__":
    main()
