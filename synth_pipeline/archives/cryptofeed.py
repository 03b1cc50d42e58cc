"""cryptofeed's raw recordings (format 2): every message of every connection in one JSON envelope a line.

    {"t":"header","format":2,"exchange":"BYBIT",…}
    {"t":"connect","conn":"BYBIT.ws.2","ts":1786310818.2235148,"addr":"wss://stream.bybit.com/v5/public/linear"}
    {"t":"recv","conn":"BYBIT.ws.2","ts":1786310819.526357,"data":"{\\"topic\\":\\"orderbook.200.BTCUSDT\\",…}"}
    {"t":"http","conn":"BYBIT.http.1","ts":1786310817.601629,"url":"https://…","data":"…"}

`ts` is the receipt in seconds; its decimals are taken as they stand. One file holds several connections, and the same
symbol may come from two segments of an exchange: the address of the connection tells them apart. Of HTTP answers only
depth snapshots are messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec

from synth_pipeline.archives import FrameArchive, Line, opened
from synth_pipeline.schema import NS_PER_DAY, day_of

_FIRST = re.compile(rb'\{"t": ?"(?:header|connect|recv|send|http)", ?"')
_ADDRESSES = {
    "bybit_spot": r"/v5/public/spot|bybit.*category=spot",
    "bybit_linear": r"/v5/public/linear|bybit.*category=linear",
    "bybit_inverse": r"/v5/public/inverse|bybit.*category=inverse",
    "binance_spot": r"//stream\.binance\.|//api\d?\.binance\.|data-stream\.binance",
    "binance_usdm": r"//fstream\.binance\.|//fapi\.binance\.",
    "binance_coinm": r"//dstream\.binance\.|//dapi\.binance\.",
}
_SNAPSHOT = re.compile(r"/depth\b|/orderbook\b|/order_book\b")
_SYMBOL = re.compile(r'"topic": ?"[^"]*\.([A-Z0-9\-]+)"|"s(?:ymbol)?": ?"([A-Z0-9_\-]+)"')
_PEEK = 5000


class _Record(msgspec.Struct, gc=False):
    t: str
    conn: str = ""
    ts: msgspec.Raw = msgspec.Raw()
    addr: str = ""
    url: str = ""
    data: str = ""


_DECODER = msgspec.json.Decoder(_Record)


class Cryptofeed(FrameArchive):
    """cryptofeed's raw recordings."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:  # noqa: ARG003 - the content decides
        """A first line that is an envelope."""
        return _FIRST.match(head) is not None

    def venues(self, path: Path) -> list[str]:
        """Return the venues that the connections are of."""
        found = {record.addr for record in _records(path) if record is not None and record.t == "connect"}
        return sorted({venue for address in found if (venue := _venue(address)) is not None})

    def symbols(self, path: Path) -> list[str]:
        """Return the symbols of the first messages."""
        payloads = (
            line.payload.decode("utf-8", "replace") for line, _ in zip(self.lines(path), range(_PEEK), strict=False)
        )
        return sorted({match[1] or match[2] for text in payloads if (match := _SYMBOL.search(text))})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the receive times."""
        stamps = {line.received_ns // NS_PER_DAY for line in self.lines(path) if line.received_ns is not None}
        return [day_of(number * NS_PER_DAY) for number in sorted(stamps)]

    def lines(self, path: Path, venue: str | None = None) -> Iterator[Line]:
        """Yield the messages of one venue, None for all; a line that is no envelope comes as it is, without a time."""
        addresses: dict[str, str] = {}
        numbers: dict[str, int] = {}
        for line, record in _envelopes(path):
            if record is None:
                yield Line(None, line)
                continue
            address = addresses.setdefault(record.conn, "")
            if record.addr and not address:
                address = addresses[record.conn] = record.addr
            is_message = record.t == "recv" or (record.t == "http" and _SNAPSHOT.search(record.url) is not None)
            if is_message and venue in (None, _venue(address or record.url)):
                number = numbers.setdefault(record.conn, len(numbers))
                yield Line(_nanoseconds(bytes(record.ts)), record.data.encode(), connection=number)


def _venue(address: str) -> str | None:
    return next((venue for venue, pattern in _ADDRESSES.items() if re.search(pattern, address)), None)


def _nanoseconds(text: bytes) -> int | None:
    """Read seconds with a fraction, digit by digit."""
    match = re.fullmatch(rb"(\d{9,10})(?:\.(\d+))?", text)
    return None if match is None else int(match[1]) * 10**9 + int((match[2] or b"0").ljust(9, b"0")[:9])


def _envelopes(path: Path) -> Iterator[tuple[bytes, _Record | None]]:
    with opened(path) as file:
        for line in file:
            if line.strip():
                yield line.rstrip(b"\r\n"), _decoded(line)


def _records(path: Path) -> Iterator[_Record | None]:
    return (record for _, record in _envelopes(path))


def _decoded(line: bytes) -> _Record | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
