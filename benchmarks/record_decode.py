"""Raw log to tick columns: the byte scanner against a msgspec decoder with the same output, and the sequence check.

The peer is the quickest msgspec decoder that we could write: one typed Struct a stream, chosen by a byte of its
name, no garbage collection, levels flattened in C, decimals turned into exact integers by one compiled pass over all of
them. Both check forms and ids; both read the same compressed frames; every column is compared first. As in
ingestion, the scanner runs in one thread beside the one that decompresses; msgspec holds the interpreter's lock.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import wire_day
from common import Claim, arguments, interleaved, report

from synth_pipeline import plugins, venues
from synth_pipeline.archives import rawlog
from synth_pipeline.archives.rawlog import RECORD
from synth_pipeline.ticks import decimals, ingest, sequence
from synth_pipeline.ticks import scan_kernels as columns
from synth_pipeline.ticks.assemble import BookRows, Known
from synth_pipeline.ticks.pieces import Timed
from synth_pipeline.ticks.scan import Names, scan_ahead
from synth_pipeline.venues import BookUpdate, Venue
from synth_pipeline.venues.binance import Depth, Print, Snapshot, Ticker, to_ns

Tables = dict[str, np.ndarray]
BAR, SEQUENCE_BAR = 5.0, 1e6


def by_scanner(log: Path, venue: Venue, symbol: str) -> Tables:
    """Our way, as ingestion goes it: what the scanner refuses goes to the venue's parser."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("trades", "quotes", "events", "levels")}
    seq = 0
    for block in scan_ahead(ingest.frames_of(log), Names(venue, symbol)):
        times = block.records[:, columns.RECEIVED]
        timed = Timed(block, times, np.zeros(len(times), np.int64), seq)
        plain = []
        for record in np.flatnonzero(block.records[:, columns.CODE] == columns.REFUSED).tolist():
            (message,) = venue.parse(block.payload(record), int(times[record]))
            assert isinstance(message, BookUpdate)
            shared = (int(times[record]), message.event_ns, seq + record, message.last_id, 0)
            plain.append(BookRows(*shared, message.bids, message.asks))
        events, levels = timed.book(plain)
        # The levels lie in the scanner's own array, which another block will fill anew.
        found = (timed.trades([]), timed.quotes([]), events, levels.copy())
        for kept, rows in zip(parts.values(), found, strict=True):
            kept.append(rows)
        seq += len(block.records)
    return {name: np.concatenate(rows, axis=1) for name, rows in parts.items()}


class _OfDepth(msgspec.Struct, gc=False):
    data: Depth


class _OfTicker(msgspec.Struct, gc=False):
    data: Ticker


class _OfPrint(msgspec.Struct, gc=False):
    data: Print


def by_msgspec(log: Path, venue: Venue, symbol: str) -> Tables:
    """The peer's way."""
    of_depth, of_ticker, of_print, of_snapshot = (
        msgspec.json.Decoder(kind).decode for kind in (_OfDepth, _OfTicker, _OfPrint, Snapshot)
    )
    check, unpack, header = venue.check_segment, RECORD.unpack_from, RECORD.size  # type: ignore[attr-defined]
    books: list[tuple[int, int, Any]] = []
    quotes: list[tuple[int, int, Ticker]] = []
    trades: list[tuple[int, int, Print]] = []
    seq = 0
    for block in rawlog.blocks(log):
        at, end = 0, len(block)  # type: ignore[arg-type]
        while at < end:
            received, _, _, _, length = unpack(block, at)
            at += header
            payload = block[at : at + length]  # type: ignore[index]
            at += length
            kind = payload[payload.find(b"@", 11, 60) + 1] if payload.startswith(b'{"stream":"') else 0
            if kind == 98:
                quote = of_ticker(payload).data
                assert quote.s == symbol
                assert check(quote) is None
                quotes.append((received, seq, quote))
            elif kind == 100:
                depth = of_depth(payload).data
                assert depth.s == symbol
                assert check(depth) is None
                books.append((received, seq, depth))
            elif kind == 116:
                trade = of_print(payload).data
                assert trade.s == symbol
                assert check(trade) is None
                trades.append((received, seq, trade))
            else:
                books.append((received, seq, of_snapshot(payload)))
            seq += 1
    return _columns(books, quotes, trades)


def _columns(books: list[Any], quotes: list[Any], trades: list[Any]) -> Tables:
    events = np.array(
        [
            (at, to_ns(e.T or e.E) or at, seq, e.lastUpdateId, 0, len(e.bids), len(e.asks))
            if type(e) is Snapshot
            else (at, to_ns(e.T or e.E) or at, seq, e.u, 0, len(e.b), len(e.a))
            for at, seq, e in books
        ],
        dtype=np.int64,
    ).T
    sides = ((e.bids, e.asks) if type(e) is Snapshot else (e.b, e.a) for _, _, e in books)
    levels = _numbers(chain.from_iterable(chain.from_iterable(chain.from_iterable(sides)))).reshape(-1, 2).T
    tops = _numbers(chain.from_iterable((q.b, q.B, q.a, q.A) for _, _, q in quotes)).reshape(-1, 4).T
    quote = np.array([(at, to_ns(q.T or q.E) or at, seq, q.u, 1) for at, seq, q in quotes], dtype=np.int64).T
    sizes = _numbers(chain.from_iterable((t.p, t.q) for _, _, t in trades)).reshape(-1, 2).T
    trade = np.array(
        [
            (at, to_ns(t.T), seq, t.t, -1 if t.m else 1, 17 if t.X is not None and t.X != "MARKET" else 1)
            for at, seq, t in trades
        ],
        dtype=np.int64,
    ).T
    return {
        "trades": np.concatenate((trade[:4], sizes, trade[4:])),
        "quotes": np.concatenate((quote[:4], tops, quote[4:])),
        "events": events[:, events[5] + events[6] > 0],
        "levels": levels,
    }


def _numbers(texts: Iterator[str]) -> np.ndarray:
    """Exact units of 1e-8 by the compiled pass of the plain path, without its detour over Python bytes."""
    fixed = np.array(list(texts), dtype=np.bytes_)
    values, valid = decimals._parse(fixed.view(np.uint8).reshape(len(fixed), fixed.dtype.itemsize))
    assert valid.all()
    return np.asarray(values)


def _same(one: Tables, other: Tables) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def decode(log: Path, venue: Venue, symbol: str, rounds: int) -> dict[str, float]:
    """Return messages a second of both ways. Raises `AssertionError` when their columns differ."""
    ours, theirs = by_scanner(log, venue, symbol), by_msgspec(log, venue, symbol)
    assert _same(ours, theirs), f"{log}: the two decoders differ"
    count = ours["trades"].shape[1] + ours["quotes"].shape[1] + ours["events"].shape[1]
    ways: dict[str, Callable[[], Any]] = {
        "scanner": lambda: by_scanner(log, venue, symbol),
        "msgspec": lambda: by_msgspec(log, venue, symbol),
    }
    gc.collect()
    gc.disable()
    try:
        seconds = interleaved(ways, rounds)
    finally:
        gc.enable()
    return {name: count / each for name, each in seconds.items()}


def sequence_rate(log: Path, venue: Venue, symbol: str, rounds: int) -> float:
    """Return messages a second of the sequence check over columns, of all streams, updates bridged from a snapshot."""
    scanned = scan_ahead(ingest.frames_of(log), Names(venue, symbol))
    records = np.concatenate([block.records.copy() for block in scanned])
    records = records[records[:, columns.CODE] != columns.REFUSED]
    first = int(np.flatnonzero(records[:, columns.CODE] == columns.DEPTH)[0])
    rule = venue.sequence_rule()
    start = Known(int(records[first, columns.ID]), False, -1, -1, -1)

    def check() -> int:
        return sequence.in_order(records[first + 1 :], 0, sequence.rule_number(rule), start)[0]

    assert check() == len(records) - first - 1, f"{log} is not in order"
    return len(records) / interleaved({"check": check}, 5 * rounds)["check"]


def claims(*, quick: bool) -> list[Claim]:
    """Measure both; the claim is the worst of the logs."""
    with tempfile.TemporaryDirectory() as folder:
        logs = wire_day.logs(Path(folder), 60_000 if quick else 300_000)
        rounds = 3 if quick else 7
        rates, checks = {}, {}
        for name, (log, venue, symbol) in logs.items():
            parser = plugins.load(venues, venue)()
            rates[name] = decode(log, parser, symbol, rounds)
            checks[name] = sequence_rate(log, parser, symbol, rounds)
    ratios = {name: found["scanner"] / found["msgspec"] for name, found in rates.items()}
    peers = {f"{way}, {name}, messages/s": rate for name, found in rates.items() for way, rate in found.items()}
    return [
        Claim(
            "decode_vs_msgspec",
            "raw log to tick columns: speed against msgspec, equal output, the slowest of the logs",
            min(ratios.values()),
            BAR,
            "high",
            {f"ratio, {name}": ratio for name, ratio in ratios.items()} | peers,
        ),
        Claim(
            "sequence_rate",
            "sequence check over columns, messages/s on one core, the slowest of the logs",
            min(checks.values()),
            SEQUENCE_BAR,
            "high",
            checks,
        ),
    ]


def main() -> None:
    given = arguments(__doc__).parse_args()
    report("record_decode", claims(quick=given.quick), as_json=given.json)


if __name__ == "__main__":
    main()
