"""JSON to columns, validation included: the byte scanner against DuckDB and msgspec on one uncompressed file each.

DuckDB reads newline-delimited JSON with a typed struct (`read_json`), we read the same messages as records of the raw
log, uncompressed; both on two threads. The file holds depth updates and trades only, because the keys of
quotes differ by case alone (`b`, `B`) and DuckDB's structs do not tell them apart. Output of both: event time, update
id, price and size of every level in exact units of 1e-8, and the trades; DuckDB's nested lists count as columns as they
are. msgspec is measured as in `record_decode`, on all messages.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import record_decode
import wire_day
from common import Claim, arguments, interleaved, report

from synth_pipeline import plugins, venues
from synth_pipeline.archives.rawlog import Record, pack
from synth_pipeline.ticks import ingest
from synth_pipeline.ticks import scan_kernels as columns
from synth_pipeline.ticks.scan import Names, scan_ahead

Arrays = dict[str, np.ndarray]
_OF_DEPTH = [columns.RECEIVED, columns.EVENT_NS, columns.ID, columns.BIDS, columns.ASKS]
_OF_TRADES = [columns.RECEIVED, columns.EVENT_NS, columns.PRICE, columns.SIZE, columns.SIDE]
_THREADS = 2
_LEVELS, _NUMBER = "DECIMAL(18,8)[][]", "DECIMAL(18,8)"
_STRUCT = f'STRUCT("T" BIGINT, u BIGINT, b {_LEVELS}, a {_LEVELS}, p {_NUMBER}, q {_NUMBER}, m BOOLEAN)'


def files(folder: Path, count: int) -> tuple[Path, Path]:
    """Write depth updates and trades of a generated day as JSON lines, and as records: blocks behind their length."""
    lines, records = folder / "day.ndjson", folder / "day.records"
    with lines.open("wb") as as_json, records.open("wb") as as_records:
        block = bytearray()
        for received_ns, payload in wire_day.messages(count):
            if b"depthUpdate" in payload or b"@trade" in payload:
                as_json.write(b'{"recv_ns":%d,%b\n' % (received_ns, payload[1:]))
                block += pack(Record(received_ns, payload))
            if len(block) > ingest.BLOCK_BYTES:
                as_records.write(len(block).to_bytes(4, "little") + block)
                block.clear()
        as_records.write(len(block).to_bytes(4, "little") + block)
    return lines, records


def by_scanner(records: Path) -> Arrays:
    """Our way."""
    names, size = Names(plugins.load(venues, "binance_usdm")(), "BTCUSDT"), records.stat().st_size
    # Room for whatever so many bytes can hold; what is not used is never touched.
    found = {"depth": np.empty((size // 64, 5), np.int64), "levels": np.empty((size // 9, 2), np.int64)}
    found["trades"] = np.empty((size // 64, 5), np.int64)
    filled = dict.fromkeys(found, 0)
    for block in scan_ahead(_blocks(records), names, _THREADS):
        codes = block.records[:, columns.CODE]
        depth, trades = np.flatnonzero(codes == columns.DEPTH), np.flatnonzero(codes == columns.TRADE)
        assert len(depth) + len(trades) == len(codes)
        parts = (block.records[np.ix_(depth, _OF_DEPTH)], block.levels, block.records[np.ix_(trades, _OF_TRADES)])
        for (name, rows), part in zip(found.items(), parts, strict=True):
            rows[filled[name] : filled[name] + len(part)] = part
            filled[name] += len(part)
    return {name: rows[: filled[name]] for name, rows in found.items()}


def _blocks(records: Path) -> Iterator[list[bytes]]:
    with records.open("rb") as file:
        while size := int.from_bytes(file.read(4), "little"):
            yield [file.read(size)]


def by_duckdb(lines: Path, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """DuckDB's way, as far as Arrow columns."""
    return connection.sql(
        f"SELECT recv_ns, data FROM read_json('{lines}', format = 'newline_delimited', columns = "
        f"{{recv_ns: 'BIGINT', data: '{_STRUCT}'}})"
    ).to_arrow_table()


def integers(table: pa.Table) -> dict[str, np.ndarray]:
    """The exact integers of DuckDB's decimals: Arrow keeps each in sixteen bytes, of which these need half."""
    data = table.column("data").chunks
    found = {}
    for name in ("b", "a", "p", "q"):
        parts = []
        for chunk in data:
            column = chunk.field(name)
            numbers = column.flatten().flatten() if name in "ba" else column.drop_null()
            halves = np.frombuffer(numbers.buffers()[1], np.int64)[2 * numbers.offset :]
            parts.append(halves[: 2 * len(numbers) : 2])
        found[name] = np.concatenate(parts)
    return found


def _arrays_of(table: pa.Table) -> Arrays:
    """DuckDB's columns in our form, to compare; not timed."""
    data = {name: table.column("data").combine_chunks().field(name) for name in ("T", "u", "b", "a", "p", "q", "m")}
    received, is_depth = table.column("recv_ns").to_numpy(), data["u"].is_valid().to_numpy(zero_copy_only=False)
    stamps = data["T"].to_numpy(zero_copy_only=False).astype(np.int64) * 1_000_000
    sides = [
        [level for side in pair for level in side]
        for pair in zip(*(data[n].to_pylist() for n in "ba"), strict=True)
        if pair[0] is not None
    ]
    counts = [
        [len(side) for side in pair]
        for pair in zip(*(data[n].to_pylist() for n in "ba"), strict=True)
        if pair[0] is not None
    ]
    levels = [(int(price * 10**8), int(size * 10**8)) for event in sides for price, size in event]
    trades = [
        (int(price * 10**8), int(size * 10**8), -1 if maker else 1)
        for price, size, maker in zip(*(data[name].to_pylist() for name in "pqm"), strict=True)
        if price is not None
    ]
    ids = data["u"].drop_null().to_numpy()
    return {
        "depth": np.column_stack((received[is_depth], stamps[is_depth], ids, np.array(counts))),
        "levels": np.array(levels),
        "trades": np.column_stack((received[~is_depth], stamps[~is_depth], np.array(trades))),
    }


def against_duckdb(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Return messages a second by way. Raises `AssertionError` when the columns differ."""
    lines, records = files(folder, count)
    connection = duckdb.connect(config={"threads": _THREADS})
    ours, theirs = by_scanner(records), _arrays_of(by_duckdb(lines, connection))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours), "the columns differ"
    number = len(ours["depth"]) + len(ours["trades"])
    ways: dict[str, Callable[[], Any]] = {
        "scanner": lambda: by_scanner(records),
        "DuckDB": lambda: integers(by_duckdb(lines, connection)),
    }
    gc.collect()
    gc.disable()
    try:
        seconds = interleaved(ways, rounds)
    finally:
        gc.enable()
    return {way: number / each for way, each in seconds.items()}


def main() -> None:
    given = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = against_duckdb(Path(folder), 100_000 if given.quick else 500_000, 3 if given.quick else 9)
    decoded = record_decode.claims(quick=given.quick)[0]
    duckdb_claim = Claim(
        "ingest_vs_duckdb",
        "JSON to exact integer columns, validated: speed against DuckDB read_json",
        rates["scanner"] / rates["DuckDB"],
        2.0,
        "high",
        {f"{way}, messages/s": rate for way, rate in rates.items()},
    )
    msgspec_claim = Claim(
        "ingest_vs_msgspec",
        "JSON to exact integer columns, validated: speed against msgspec, the slowest of the logs",
        decoded.value,
        record_decode.BAR,
        "high",
        decoded.peers,
    )
    report("ingest", [duckdb_claim, msgspec_claim], as_json=given.json)


if __name__ == "__main__":
    main()
