"""Binance's depth, trades and snapshots merged into one CSV (Unfazed Binance Data Processor), back to messages.

Comments (`# …`), then a header and a row a level or trade, in order of receipt:

    TimestampOfReceiveUS,TimestampOfReceive,Stream,EventType,EventTime,TransactionTime,Symbol,FirstUpdateId,
    FinalUpdateId,FinalUpdateIdInLastStream,IsAsk,Price,Quantity,PSUnknownField,TradeId,IsBuyerMarketMaker,
    XUnknownParameter,TimestampOfRequest,MessageOutputTime,LastUpdateId,StreamType,Market,IsLast,ServiceId

Rows of one message end with `IsLast` 1. What stood in a message is all there, so each is put together again as Binance
sends it, and the venue's own sequence rule, snapshots and trade ids are followed as in any capture. A
FINAL_DEPTH_SNAPSHOT is the book as the day before left it: a snapshot whose last update is the latest of its levels'.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from synth_pipeline.archives import FrameArchive, Line, opened
from synth_pipeline.archives.csv import first_lines, header_of, peek
from synth_pipeline.schema import NS_PER_DAY, day_of

_KEY = ("timestampofreceiveus", "timestampofreceive", "stream", "eventtype")
_VENUES = {"SPOT": "binance_spot", "USD_M_FUTURES": "binance_usdm", "COIN_M_FUTURES": "binance_coinm"}
_SNAPSHOTS = {"DEPTH_SNAPSHOT", "FINAL_DEPTH_SNAPSHOT"}
_Row = Mapping[str, str]


class MergedCsv(FrameArchive):
    """Depth, trades and snapshots of Binance in one CSV."""

    @classmethod
    def matches(cls, path: Path, head: bytes) -> bool:
        """Its header; the comments before it may be longer than the head."""
        if header_of(head)[:4] == _KEY:
            return True
        return head.startswith(b"#") and not first_lines(head)[1] and header_of(peek(path))[:4] == _KEY

    def venue_of(self, path: Path) -> str | None:
        """Return the segment that the column Market names."""
        row = next(_rows(path), None)
        return _VENUES.get(row["Market"]) if row is not None else None

    def symbols(self, path: Path) -> list[str]:
        """Return the symbol of the first rows."""
        return sorted({row["Symbol"].upper() for row, _ in zip(_rows(path), range(200), strict=False)})

    def days(self, path: Path) -> list[date]:
        """Return the UTC days of the receive times."""
        stamps = {line.received_ns // NS_PER_DAY for line in self.lines(path) if line.received_ns is not None}
        return [day_of(number * NS_PER_DAY) for number in sorted(stamps)]

    def lines(self, path: Path, venue: str | None = None) -> Iterator[Line]:  # noqa: ARG002 - of one venue
        """Yield one message for every run of rows that ends with `IsLast`; rows that are none come as they are."""
        rows: list[_Row] = []
        for row in _rows(path):
            if rows and (row["StreamType"], row["TimestampOfReceiveUS"]) != (
                rows[0]["StreamType"],
                rows[0]["TimestampOfReceiveUS"],
            ):
                yield _message(rows)
                rows = []
            rows.append(row)
            if row["IsLast"] == "1" and row["StreamType"] != "FINAL_DEPTH_SNAPSHOT":
                yield _message(rows)
                rows = []
        if rows:
            yield _message(rows)


def _rows(path: Path) -> Iterator[_Row]:
    preamble, _ = first_lines(peek(path))
    with opened(path) as file:
        file.read(len(preamble))
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        yield from csv.DictReader(text, restval="")
        text.detach()


def _message(rows: list[_Row]) -> Line:
    first = rows[0]
    stamp = first["TimestampOfReceiveUS"]
    received_ns = int(stamp) * 1000 if stamp.isdigit() and len(stamp) == 16 else None
    try:
        return Line(received_ns, msgspec.json.encode(_content(rows, first)))
    except (ValueError, TypeError, KeyError):
        return Line(received_ns, ",".join(str(value) for value in first.values()).encode())


def _content(rows: list[_Row], first: _Row) -> dict[str, Any]:
    kind = first["StreamType"]
    if kind == "TRADE_STREAM":
        return {"stream": first["Stream"], "data": _trade(first)}
    sides: dict[str, list[list[str]]] = {"0": [], "1": []}
    for row in rows:
        sides[row["IsAsk"]].append([row["Price"], row["Quantity"]])
    bids, asks = sides["0"], sides["1"]
    if kind in _SNAPSHOTS:
        last = max(int(row["LastUpdateId"] or row["FinalUpdateId"]) for row in rows)
        times = {"E": int(first["MessageOutputTime"] or first["EventTime"]), "T": int(first["TransactionTime"])}
        named = {"lastUpdateId": last, "symbol": first["Symbol"]}
        return named | (times if first["Market"] != "SPOT" else {}) | {"bids": bids, "asks": asks}
    content: dict[str, Any] = {"e": "depthUpdate", "E": int(first["EventTime"])}
    if first["TransactionTime"]:
        content["T"] = int(first["TransactionTime"])
    content |= {"s": first["Symbol"], "U": int(first["FirstUpdateId"]), "u": int(first["FinalUpdateId"])}
    if first["FinalUpdateIdInLastStream"]:
        content["pu"] = int(first["FinalUpdateIdInLastStream"])
    return {"stream": first["Stream"], "data": content | {"b": bids, "a": asks}}


def _trade(row: _Row) -> dict[str, Any]:
    content: dict[str, Any] = {"e": "trade", "E": int(row["EventTime"]), "T": int(row["TransactionTime"])}
    content |= {"s": row["Symbol"], "t": int(row["TradeId"]), "p": row["Price"], "q": row["Quantity"]}
    content |= {"X": row["XUnknownParameter"]} if row["XUnknownParameter"] else {}
    return content | {"m": {"1": True, "0": False}[row["IsBuyerMarketMaker"]]}
