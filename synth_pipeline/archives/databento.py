"""Databento DBN, versions 1 to 3: mbo, mbp-1, mbp-10, trades and tbbo, plain or zstd (`.dbn`, `.dbn.zst`).

Format: https://databento.com/docs/standards-and-conventions/databento-binary-encoding. Metadata (`DBN`, version,
length u32, …), then records that begin `length u8 (in words of 4) · rtype u8 · publisher u16 · instrument u32 ·
ts_event u64`; prices are 1e-9. Symbols come from the metadata's mappings or from SymbolMapping records; `ts_recv` is
the receipt (Databento's). Flags LAST and SNAPSHOT become ours, BAD_TS_RECV is BAD_CLOCK, a stretch of MAYBE_BAD_BOOK is
a gap. mbo becomes orders, and through the book of orders level changes and quotes; mbp windows of 1 or 10 levels; tbbo
trades, each with the quote that it met.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import databento_dbn as dbn
import numpy as np
from numba import njit

from synth_pipeline.archives import OrderAction, opened, plain_symbol
from synth_pipeline.archives.drafts import Draft, Fault, Piece
from synth_pipeline.archives.fields import NO_TIME, Decimals, of_integers
from synth_pipeline.archives.typed import CHUNK_BYTES, TypedArchive
from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND, Flag

_MBO, _MBP_1, _MBP_10, _TRADES, _MAPPING = 0xA0, 0x01, 0x0A, 0x00, 0x16
_MESSAGES: dict[int, Any] = {_MBO: dbn.MBOMsg, _MBP_1: dbn.MBP1Msg, _MBP_10: dbn.MBP10Msg, _TRADES: dbn.TradeMsg}
_TABLES = {
    "mbo": ("trades", "order_events"),
    "mbp-1": ("trades", "quotes", "book_levels"),
    "mbp-10": ("trades", "quotes", "book_levels"),
    "tbbo": ("trades", "quotes"),
    "trades": ("trades",),
}
_RTYPES = {"mbo": _MBO, "mbp-1": _MBP_1, "mbp-10": _MBP_10, "tbbo": _MBP_1, "trades": _TRADES}
_LEVELS = {_MBP_1: 1, _MBP_10: 10}
_ACTIONS = {
    b"A": OrderAction.ADD,
    b"C": OrderAction.REDUCE,
    b"M": OrderAction.SET,
    b"R": OrderAction.CLEAR,
    b"F": OrderAction.FILLED,
}
_SIDES = {b"B": 1, b"A": -1}
_END = 2**63 - 1


class _File(NamedTuple):
    """What a file says before its records."""

    encoded: bytes
    metadata: dbn.Metadata

    @property
    def schema(self) -> str:
        return str(self.metadata.schema)


class _Names:
    """Symbols by instrument and time."""

    def __init__(self, metadata: dbn.Metadata) -> None:
        self._spans: dict[int, list[tuple[int, int, str]]] = {}
        for symbol, intervals in metadata.mappings.items():
            for interval in intervals:
                days = (interval["start_date"], interval["end_date"])
                start, end = (int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) for d in days)
                pair = (symbol, interval["symbol"])
                number, name = pair if not pair[1].isdigit() else pair[::-1]
                if number.isdigit():
                    span = (start * NS_PER_SECOND, end * NS_PER_SECOND, plain_symbol(name))
                    self._spans.setdefault(int(number), []).append(span)

    def learn(self, record: bytes, version: int) -> None:
        """Take a SymbolMapping record: from now on the instrument is of this name."""
        kind = dbn.SymbolMappingMsgV1 if version == 1 else dbn.SymbolMappingMsg
        fields = np.frombuffer(record, np.dtype(kind._dtypes), count=1)[0]
        names = [bytes(fields[name]).rstrip(b"\0").decode() for name in ("stype_out_symbol", "stype_in_symbol")]
        name = next((each for each in names if each and not each.isdigit()), str(fields["instrument_id"]))
        self._spans[int(fields["instrument_id"])] = [(0, _END, plain_symbol(name))]

    def of(self, instrument: int, time_ns: int) -> str:
        """Return the symbol, the instrument's number where none is told."""
        for start, end, symbol in self._spans.get(instrument, ()):
            if start <= time_ns < end:
                return symbol
        return str(instrument)

    @property
    def all(self) -> list[str]:
        return sorted({symbol for spans in self._spans.values() for _, _, symbol in spans})


class Databento(TypedArchive):
    """Databento DBN files."""

    gap_reason = "maybe_bad_book"
    separator = b""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """The magic."""
        return head.startswith(b"DBN")

    def venue_of(self, path: Path) -> str | None:
        """Return the dataset, such as glbx_mdp3."""
        return _opened(path).metadata.dataset.lower().replace(".", "_").replace("-", "_")

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the mappings, else of the first records."""
        file = _opened(path)
        names = _Names(file.metadata)
        if not names.all:
            records, offsets = next(_records(path, file, CHUNK_BYTES), (np.empty(0, np.uint8), np.empty(0, np.int64)))
            _learn(records, offsets, names, file)
            found = np.unique(_numbers(records, offsets, 4, np.uint32)) if len(offsets) else ()
            return names.all or sorted(str(number) for number in found)
        return names.all

    def tables(self, path: Path) -> tuple[str, ...]:
        """Return what the schema holds."""
        return _TABLES[_checked(path, _opened(path)).schema]

    def visible_levels(self, path: Path) -> int:
        """Return 1 or 10 for mbp-1 and mbp-10."""
        schema = _opened(path).schema
        return _LEVELS[_RTYPES[schema]] if schema in ("mbp-1", "mbp-10") else 0

    def preamble(self, path: Path) -> bytes:
        """Return the metadata, and all symbol mappings that stand among the records."""
        file = _opened(path)
        mappings = b""
        if not file.metadata.mappings:
            for records, offsets in _records(path, file, CHUNK_BYTES):
                mappings += b"".join(
                    _bytes_at(records, at) for at in offsets[records[offsets + 1] == _MAPPING].tolist()
                )
        return file.encoded + mappings

    def drafts(self, path: Path, symbol: str | None, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Draft]:
        """Yield the records of one symbol. Raises `InputError` for schemas without ticks and for damaged files."""
        file = _checked(path, _opened(path))
        names, rtype, event = _Names(file.metadata), _RTYPES[file.schema], 0
        first = 0
        for records, offsets in _records(path, file, chunk_bytes):
            _learn(records, offsets, names, file)
            offsets = offsets[records[offsets + 1] == rtype]
            if symbol is not None:
                offsets = offsets[_is_symbol(records, offsets, names, symbol)]
            if len(offsets):
                draft, event = _draft(file, records, offsets, first, event)
                first += len(draft)
                yield draft


def _opened(path: Path) -> _File:
    with opened(path) as file:
        start = file.read(8)
        rest = file.read(int.from_bytes(start[4:8], "little")) if len(start) == 8 else b""
    try:
        return _File(start + rest, dbn.Metadata.decode(start + rest))
    except dbn.DBNError as error:
        raise InputError(f"{path} has no readable DBN metadata ({error}): fetch the file again") from error


def _checked(path: Path, file: _File) -> _File:
    if file.schema not in _TABLES:
        raise InputError(
            f"{path} holds the schema {file.schema}, which is no ticks of the book: give one of {', '.join(_TABLES)}"
        )
    return file


def _records(path: Path, source: _File, chunk_bytes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield whole records as bytes with the offset of each."""
    with opened(path) as file:
        file.read(len(source.encoded))
        rest = b""
        while chunk := file.read(chunk_bytes):
            data = np.frombuffer(rest + chunk, np.uint8)
            offsets, end = _walk(data)
            if end < 0:
                raise InputError(f"{path} is damaged: a record of no length; fetch the file again")
            rest = data[end:].tobytes()
            if len(offsets):
                yield data, offsets
        if rest:
            raise InputError(f"{path} is truncated: it ends within a record; fetch the file again")


@njit(cache=True)
def _walk(data: np.ndarray) -> tuple[np.ndarray, int]:
    """Return where the whole records begin and where they end; -1 for a record of no length."""
    offsets, count, at = np.empty(len(data) // 16 + 1, np.int64), 0, 0
    while at < len(data):
        size = 4 * data[at]
        if size < 16:
            return offsets[:0], -1
        if at + size > len(data):
            break
        offsets[count] = at
        count, at = count + 1, at + size
    return offsets[:count], at


def _bytes_at(records: np.ndarray, at: int) -> bytes:
    return records[at : at + 4 * int(records[at])].tobytes()


def _numbers(records: np.ndarray, offsets: np.ndarray, at: int, dtype: type[np.generic]) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    return records[offsets[:, None] + np.arange(at, at + size)].view(dtype)[:, 0]


def _learn(records: np.ndarray, offsets: np.ndarray, names: _Names, file: _File) -> None:
    for at in offsets[records[offsets + 1] == _MAPPING].tolist():
        names.learn(_bytes_at(records, at), file.metadata.version)


def _is_symbol(records: np.ndarray, offsets: np.ndarray, names: _Names, symbol: str) -> np.ndarray:
    instruments = _numbers(records, offsets, 4, np.uint32)
    days = _numbers(records, offsets, 8, np.uint64).astype(np.int64) // (86_400 * NS_PER_SECOND)
    pairs, which = np.unique(np.stack([instruments, days], axis=1), axis=0, return_inverse=True)
    wanted = [names.of(instrument, day * 86_400 * NS_PER_SECOND) == symbol for instrument, day in pairs.tolist()]
    return np.array(wanted, np.bool_)[which.reshape(-1)]


def _draft(file: _File, records: np.ndarray, offsets: np.ndarray, first: int, event: int) -> tuple[Draft, int]:
    """Return the draft, and the number of the event that the next record goes on with."""
    dtype: np.dtype[Any] = np.dtype(_MESSAGES[_RTYPES[file.schema]]._dtypes)
    rows: np.ndarray = records[offsets[:, None] + np.arange(dtype.itemsize)].view(dtype)[:, 0]
    recv_ns, event_ns = _times(rows["ts_recv"]), _times(rows["ts_event"])
    ends = (rows["flags"] & dbn.F_LAST) > 0
    events = event + np.concatenate(([0], np.cumsum(ends)[:-1]))
    draft = Draft(
        recv_ns,
        np.where(event_ns == NO_TIME, 0, event_ns),
        np.zeros(len(rows), np.uint8),
        lambda: _pieces(file, rows, events, first),
        lambda row: _bytes_at(records, int(offsets[row])),
    )
    return draft, event + int(ends.sum())


def _times(values: np.ndarray) -> np.ndarray:
    return np.where(values >= np.uint64(2**62), NO_TIME, values.astype(np.int64))


def _pieces(file: _File, rows: np.ndarray, events: np.ndarray, first: int) -> list[Piece]:
    pieces = [_trades(rows, first)]
    if file.schema == "mbo":
        pieces.append(_order_events(rows))
    elif file.schema == "tbbo":
        pieces.append(_quotes(rows, first))
    elif file.schema != "trades":
        pieces.append(_windows(rows, events, first, _LEVELS[_RTYPES[file.schema]]))
    return pieces


def _flags(rows: np.ndarray) -> np.ndarray:
    """Return ours for Databento's, LAST excepted."""
    flags = rows["flags"]
    pairs = (
        (dbn.F_SNAPSHOT, Flag.SNAPSHOT),
        (dbn.F_BAD_TS_RECV, Flag.BAD_CLOCK),
        (dbn.F_MAYBE_BAD_BOOK, Flag.GAP_BEFORE),
    )
    ours: np.ndarray = np.bitwise_or.reduce(
        [np.where(flags & theirs, np.uint8(mark), np.uint8(0)) for theirs, mark in pairs]
    )
    return ours


def _prices(values: np.ndarray) -> Decimals:
    numbers = of_integers(np.where(values == dbn.UNDEF_PRICE, 0, values), -9)
    return numbers._replace(valid=values != dbn.UNDEF_PRICE)


def _sides(rows: np.ndarray) -> np.ndarray:
    return np.select([rows["side"] == word for word in _SIDES], list(_SIDES.values()), 0).astype(np.int8)


def _trades(rows: np.ndarray, first: int) -> Piece:
    at = np.flatnonzero(rows["action"] == b"T")
    traded = rows[at]
    # A trade's side is the aggressor's.
    columns = {"trade_id": first + 1 + at, "side": _sides(traded), "flags": _flags(traded) & ~np.uint8(Flag.SNAPSHOT)}
    numbers = {"price": _prices(traded["price"])}, {"size": of_integers(traded["size"], 0)}
    return Piece("trades", at, columns, *numbers, np.zeros(len(at), np.uint8))


def _order_events(rows: np.ndarray) -> Piece:
    action = np.select([rows["action"] == letter for letter in _ACTIONS], list(map(int, _ACTIONS.values())), 0)
    # Trades and empty records change no order, but one of them may end an event.
    is_last = (rows["flags"] & dbn.F_LAST) > 0
    at = np.flatnonzero((action > 0) | is_last | ~np.isin(rows["action"], (b"T", b"N")))
    rows, action = rows[at], action[at]
    side, no_order = _sides(rows), np.isin(rows["action"], (b"T", b"N"))
    needs_side = np.isin(action, (OrderAction.ADD, OrderAction.REDUCE, OrderAction.SET))
    faults = np.where((side == 0) & needs_side, Fault.UNKNOWN_SIDE, 0).astype(np.uint8)
    aggregated = (rows["flags"] & (dbn.F_MBP | dbn.F_TOB)) > 0
    faults[((action == 0) & ~no_order) | (aggregated & ~no_order)] = Fault.UNKNOWN_KIND
    marks = _flags(rows) | np.where(is_last[at], np.uint8(Flag.LAST), np.uint8(0))
    columns: dict[str, np.ndarray] = {"order_id": rows["order_id"].view(np.int64), "action": action.astype(np.int8)}
    columns |= {"side": side, "flags": marks}
    numbers = {"price": _prices(rows["price"])}, {"size": of_integers(rows["size"], 0)}
    return Piece("order_events", at, columns, *numbers, faults, action == OrderAction.ADD)


def _stacked(rows: np.ndarray, levels: int, what: str) -> np.ndarray:
    """Return (rows, levels, sides) of ask and bid."""
    return np.stack(
        [np.stack([rows[f"{side}_{what}_{level:02}"] for side in ("ask", "bid")], axis=1) for level in range(levels)],
        axis=1,
    )


def _windows(rows: np.ndarray, events: np.ndarray, first: int, levels: int) -> Piece:
    prices, sizes = _stacked(rows, levels, "px"), _stacked(rows, levels, "sz")
    absent = (prices == dbn.UNDEF_PRICE) | (sizes == 0)
    numbers = np.arange(first + 1, first + 1 + len(rows))
    shown = (
        {"price": of_integers(np.where(absent, 0, prices), -9)},
        {"size": of_integers(np.where(absent, 0, sizes), 0)},
    )
    flags = _flags(rows) & ~np.uint8(Flag.SNAPSHOT)
    columns: dict[str, np.ndarray] = {"update_id": numbers, "event": events, "flags": flags}
    return Piece("books", np.arange(len(rows)), columns, *shown, np.zeros(len(rows), np.uint8))


def _quotes(rows: np.ndarray, first: int) -> Piece:
    numbers = np.arange(first + 1, first + 1 + len(rows))
    columns = {"update_id": numbers, "flags": _flags(rows)}
    prices, sizes = {}, {}
    for side in ("bid", "ask"):
        price, size = rows[f"{side}_px_00"], rows[f"{side}_sz_00"]
        absent = (price == dbn.UNDEF_PRICE) | (size == 0)
        prices[f"{side}_price"] = of_integers(np.where(absent, 0, price), -9)
        sizes[f"{side}_size"] = of_integers(np.where(absent, 0, size), 0)
    return Piece("quotes", np.arange(len(rows)), columns, prices, sizes, np.zeros(len(rows), np.uint8))
