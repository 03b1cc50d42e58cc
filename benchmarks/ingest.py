"""JSON to columns, validation included: the byte scanner against DuckDB and msgspec on one uncompressed file each.

DuckDB reads newline-delimited JSON with a typed struct (`read_json`), we read the same messages as records of the raw
log, uncompressed; both on the same number of threads. The file holds depth updates and trades only, because the keys of
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


def by_scanner(records: Path, threads: int = record_decode.THREADS) -> Arrays:
    """Our way."""
    names = Names(plugins.load(venues, "binance_usdm")(), "BTCUSDT")
    parts: dict[str, list[np.ndarray]] = {"depth": [], "levels": [], "trades": []}
    for block in scan_ahead(_blocks(records), names, threads):
        codes = block.records[:, columns.CODE]
        is_depth, is_trade = codes == columns.DEPTH, codes == columns.TRADE
        assert (is_depth | is_trade).all()
        parts["depth"].append(block.records[is_depth][:, _OF_DEPTH])
        parts["levels"].append(block.levels.copy())
        parts["trades"].append(block.records[is_trade][:, _OF_TRADES])
    return {name: np.concatenate(rows) for name, rows in parts.items()}


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
    connection = duckdb.connect(config={"threads": record_decode.THREADS})
    ours, theirs = by_scanner(records), _arrays_of(by_duckdb(lines, connection))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours), "the columns differ"
    number = len(ours["depth"]) + len(ours["trades"])
    ways: dict[str, Callable[[], Any]] = {
        "scanner": lambda: by_scanner(records),
        "scanner, 1 thread": lambda: by_scanner(records, 1),
        "DuckDB": lambda: by_duckdb(lines, connection),
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
