"""Small files of our own in every archive format: what the formats' documentation says, in a few rows."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zipfile
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import databento_dbn as dbn
import numpy as np
import zstandard

from synth_pipeline import archives as package
from synth_pipeline import plugins
from synth_pipeline.archives import Batch, RowArchive
from synth_pipeline.ticks import parquet
from synth_pipeline.ticks.rows import ingest_rows

DAY = date(2024, 1, 5)
START_S = 1_704_412_800
START_NS = START_S * 10**9
DBN_ID = 4711


class Sample(NamedTuple):
    """One file, and what it is."""

    path: Path
    archive: str
    symbol: str
    venue: str | None
    day: date = DAY


def _text(folder: Path, name: str, lines: Iterable[str]) -> Path:
    path = folder / name
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def zipped(path: Path, name: str = "") -> Path:
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(path, name or path.name)
    return target


def gzipped(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def vision_trades(folder: Path, *, spot: bool = False, header: bool = True, micro: bool = False) -> Path:
    names = "id,price,qty,quote_qty,time,is_buyer_maker" + (",is_best_match" if spot else "")
    unit = 1000 if micro else 1
    rows = [
        f"{100 + n},4200{n}.{n}0,0.00{n + 1},1.0,{(START_S * 1000 + 7 * n) * unit},{n % 2 == 0}"
        + (",True" if spot else "")
        for n in range(9)
    ]
    return _text(folder, "BTCUSDT-trades-2024-01-05.csv", ([names] if header else []) + rows)


def vision_agg_trades(folder: Path, *, spot: bool = False) -> Path:
    rows = [
        f"{n},4200{n}.{n}0,0.00{n + 1},{5 * n},{5 * n + 4},{START_S * 1000 + 7 * n},{str(n % 2 == 0).lower()}"
        + (",True" if spot else "")
        for n in range(9)
    ]
    return _text(folder, "BTCUSD_PERP-aggTrades-2024-01-05.csv" if not spot else "BTCUSDT-aggTrades-2024-01.csv", rows)


def vision_quotes(folder: Path, *, header: bool = True) -> Path:
    names = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
    rows = [f"{n * 3},100.{n},{n + 1},101.{n},2,{START_S * 1000 + n},{START_S * 1000 + n + 2}" for n in range(9)]
    return _text(folder, "BTCUSDT-bookTicker-2024-01-05.csv", ([names] if header else []) + rows)


TARDIS = "exchange,symbol,timestamp,local_timestamp,"


def tardis_book(folder: Path) -> Path:
    def row(n: int, snapshot: bool, side: str, price: str, amount: str) -> str:
        at = START_S * 10**6 + 1000 * n
        return f"binance-futures,BTCUSDT,{at},{at + 5},{str(snapshot).lower()},{side},{price},{amount}"

    rows = [
        *(row(0, True, side, price, "1.5") for side, price in (("bid", "100"), ("bid", "99.5"), ("ask", "100.5"))),
        row(1, False, "bid", "100", "0"),
        row(1, False, "ask", "100.5", "2e-1"),
        row(2, False, "bid", "99.5", "0.3"),
        *(row(9, True, side, price, "4") for side, price in (("bid", "98"), ("ask", "99"))),
        row(10, False, "ask", "99", "1"),
    ]
    return gzipped(
        _text(
            folder,
            "binance-futures_incremental_book_L2_2024-01-05_BTCUSDT.csv",
            [TARDIS + "is_snapshot,side,price,amount", *rows],
        )
    )


def tardis_trades(folder: Path) -> Path:
    rows = [
        f"binance-futures,{symbol},{at},{at + 4},{trade_id},{side},{100 + n}.5,0.{n + 1}"
        for n, (symbol, trade_id, side) in enumerate(
            [("BTCUSDT", "77", "buy"), ("ETHUSDT", "5", "buy"), ("BTCUSDT", "a-b", "sell"), ("BTCUSDT", "", "unknown")]
        )
        for at in [START_S * 10**6 + 500 * n]
    ]
    return _text(folder, "binance-futures_trades_2024-01-05_GROUP.csv", [TARDIS + "id,side,price,amount", *rows])


def tardis_quotes(folder: Path) -> Path:
    rows = [
        f"deribit,BTC-PERPETUAL,{at},{at + 3},{size},{price},100.5,10"
        for n, (size, price) in enumerate([("7", "101"), ("", ""), ("3", "101.5")])
        for at in [START_S * 10**6 + 500 * n]
    ]
    return _text(folder, "q.csv", [TARDIS + "ask_amount,ask_price,bid_price,bid_amount", *rows])


def tardis_snapshots(folder: Path) -> Path:
    names = ",".join(f"asks[{n}].price,asks[{n}].amount,bids[{n}].price,bids[{n}].amount" for n in range(2))
    rows = [
        f"binance,BTCUSDT,{at},{at + 3},{body}"
        for n, body in enumerate(["101,1,100,2,102,3,99,4", "101,1,100,2,,,98,4", "100.5,5,100,2,101,1,98,4"])
        for at in [START_S * 10**6 + 500 * n]
    ]
    return _text(folder, "s.csv", [TARDIS + names, *rows])


def bybit_trades(folder: Path) -> Path:
    names = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional,RPI"
    rows = [
        f"{START_S}.{n}047,BTCUSDT,{'Buy' if n % 2 else 'Sell'},0.00{n + 1},6506{n}.80,PlusTick,x-{n},1e+11,0.1,2.5,0"
        for n in range(5)
    ]
    return gzipped(_text(folder, "BTCUSDT2024-01-05.csv", [names, *rows]))


def bybit_spot(folder: Path) -> Path:
    rows = [f"{n + 1},{START_S * 1000 + n},64142.{n},0.00016,{'buy' if n % 2 else 'sell'},0" for n in range(5)]
    return gzipped(_text(folder, "BTCUSDT_2024-01-05.csv", ["id,timestamp,price,volume,side,rpi", *rows]))


def bybit_book(folder: Path, skip: int | None = None) -> Path:
    def line(n: int, kind: str, bids: list[list[str]], asks: list[list[str]]) -> str:
        data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": 100 + n, "seq": n}
        return json.dumps(
            {
                "topic": "orderbook.500.BTCUSDT",
                "type": kind,
                "ts": START_S * 1000 + 20 * n,
                "data": data,
                "cts": START_S * 1000 + 20 * n - 3,
            }
        )

    lines = [
        line(0, "snapshot", [["100.5", "1"], ["100", "2"]], [["101", "3"]]),
        line(1, "delta", [["100.5", "0"]], []),
        line(2, "delta", [], [["101", "0.5"], ["102", "4"]]),
        line(3, "delta", [["99", "4"]], []),
        line(4, "snapshot", [["98", "1"]], [["99", "1"]]),
    ]
    return zipped(
        _text(folder, "2024-01-05_BTCUSDT_ob500.data", [each for n, each in enumerate(lines) if n != skip]), "b.data"
    )


def _order(n: int, event: str, order_id: int, side: int, price: str, amount: str) -> tuple[int, str, dict[str, object]]:
    data = {"price": price, "amount": amount, "datetime": str(START_S + n), "id": order_id, "order_type": side}
    return START_S * 1000 + 1000 * n, event, data


BITSTAMP = [
    _order(0, "order_created", 1, 0, "236.47", "2.00000000"),
    _order(1, "order_created", 2, 1, "236.60", "1.00000000"),
    _order(2, "order_created", 3, 0, "236.40", "1.50000000"),
    _order(3, "order_changed", 1, 0, "236.47", "1.78855669"),
    _order(4, "order_changed", 2, 1, "236.60", "0.40000000"),
    _order(5, "order_deleted", 1, 0, "236.47", "1.78855669"),
    _order(6, "order_deleted", 99, 1, "236.55", "1.00000000"),
    _order(7, "order_deleted", 2, 1, "236.60", "0.00000000"),
]


def bitstamp_log(folder: Path) -> Path:
    lines = [f"{at} {event} {json.dumps(data)}" for at, event, data in BITSTAMP]
    lines.insert(4, f'{BITSTAMP[3][0] + 5} trade {{"price": 236.47, "amount": 0.21144330999999999, "id": 8111041}}')
    lines.insert(2, f'{BITSTAMP[1][0] + 1} order_book {{"bids": [["236.47", "2"]], "asks": []}}')
    return _text(folder, "bitstamp_btcusd_raw.log", lines)


def bitstamp_live(folder: Path) -> Path:
    lines = [
        json.dumps(
            {
                "event": event,
                "channel": "live_orders_btcusd",
                "data": {
                    **data,
                    "price_str": data["price"],
                    "amount_str": data["amount"],
                    "microtimestamp": str(at * 1000),
                },
            }
        )
        for at, event, data in BITSTAMP
    ]
    trade = {"id": 5, "timestamp": str(START_S), "amount_str": "0.21144331", "price_str": "236.47", "type": 1}
    stamp = {"microtimestamp": str(BITSTAMP[3][0] * 1000)}
    lines.insert(4, json.dumps({"event": "trade", "channel": "live_trades_btcusd", "data": trade | stamp}))
    lines.insert(0, '{"event":"bts:subscription_succeeded","channel":"live_orders_btcusd","data":{}}')
    return _text(folder, "live.jsonl", lines)


def bitstamp_orders(folder: Path) -> Path:
    words = {"order_created": "created", "order_changed": "changed", "order_deleted": "deleted"}
    rows = [
        f"{data['id']},{at},{START_S * 1000},{data['price']},{str(data['amount']).replace('.', '').lstrip('0') or 0},"
        f"{words[event]},{('bid', 'ask')[int(str(data['order_type']))]}"
        for at, event, data in BITSTAMP
    ]
    return _text(
        folder, "bitstamp_btcusd_orders.csv", ["id,timestamp,exchange.timestamp,price,volume,action,direction", *rows]
    )


class _Interval:
    start_date, end_date, symbol = dt.date(2024, 1, 1), dt.date(2024, 2, 1), str(DBN_ID)


class _Mapping:
    raw_symbol, intervals = "ESH4", [_Interval]


def dbn_metadata(schema: dbn.Schema, *, mapped: bool = True) -> bytes:
    return bytes(
        dbn.Metadata(
            dataset="GLBX.MDP3",
            start=START_NS,
            stype_in=dbn.SType.RAW_SYMBOL,
            stype_out=dbn.SType.INSTRUMENT_ID,
            schema=schema,
            symbols=["ESH4"],
            mappings=[_Mapping()] if mapped else [],  # type: ignore[list-item]
        )
    )


A, S = dbn.Action, dbn.Side


def mbo(
    n: int,
    order: int,
    price: float,
    size: int,
    action: dbn.Action,
    side: dbn.Side,
    flags: int = 128,
    instrument: int = DBN_ID,
) -> bytes:
    ticks = dbn.UNDEF_PRICE if action == A.CLEAR else round(price * 10**9)
    at = START_NS + n * 1000
    return bytes(dbn.MBOMsg(1, instrument, at, order, ticks, size, action, side, at + 50, flags=flags))


MBO = [
    mbo(0, 0, 0, 0, A.CLEAR, S.NONE, 8),
    mbo(1, 1, 100.0, 5, A.ADD, S.BID, 32),
    mbo(1, 2, 100.25, 7, A.ADD, S.ASK, 32 | 128),
    mbo(2, 3, 99.75, 2, A.ADD, S.BID),
    mbo(3, 0, 100.0, 4, A.TRADE, S.ASK, 0),
    mbo(3, 1, 100.0, 4, A.FILL, S.BID, 0),
    mbo(3, 1, 100.0, 4, A.CANCEL, S.BID, 128),
    mbo(4, 3, 99.5, 2, A.MODIFY, S.BID),
    mbo(5, 9, 50.0, 1, A.ADD, S.BID, instrument=6),
    mbo(6, 1, 100.0, 1, A.CANCEL, S.BID, 128 | 4),
    mbo(7, 4, 99.75, 3, A.ADD, S.BID),
]


def dbn_file(
    folder: Path, schema: dbn.Schema, records: Iterable[bytes], *, plain: bool = False, mapped: bool = True
) -> Path:
    content = dbn_metadata(schema, mapped=mapped) + b"".join(records)
    path = folder / ("x.dbn" if plain else "x.dbn.zst")
    path.write_bytes(content if plain else zstandard.compress(content))
    return path


def dbn_mapping() -> bytes:
    kinds = (dbn.SType.RAW_SYMBOL, "ES.FUT", dbn.SType.INSTRUMENT_ID, "ESH4")
    return bytes(dbn.SymbolMappingMsg(0, DBN_ID, START_NS, *kinds, START_NS, START_NS + 10**15))


def mbp(
    n: int,
    levels: list[tuple[float, int, float, int]],
    action: dbn.Action = A.ADD,
    side: dbn.Side = S.BID,
    depth: int = 10,
) -> bytes:
    def px(value: float) -> int:
        return dbn.UNDEF_PRICE if value == 0 else round(value * 10**9)

    pairs = [dbn.BidAskPair(px(bid), px(ask), bid_size, ask_size) for bid, bid_size, ask, ask_size in levels]
    at = START_NS + n * 1000
    shared = (1, DBN_ID, at, round(levels[0][0] * 10**9), 3, action, side, 0, at + 50)
    if depth == 1:
        return bytes(dbn.MBP1Msg(*shared, flags=128, levels=pairs[0]))
    return bytes(dbn.MBP10Msg(*shared, flags=128, levels=pairs + [dbn.BidAskPair()] * (10 - len(pairs))))


def es_trades(folder: Path) -> Path:
    rows = [
        f"2024-01-05 0{9 + n // 60 if n < 60 else 9}:30:0{n % 10}.{n:03},{1640 + n / 4:.2f},{n + 1}" for n in range(9)
    ]
    return _text(folder, "es.csv", ["DateTime,Price,Volume", *rows])


def depth_quotes(folder: Path) -> Path:
    rows = [f"{START_S * 10**6 + n},100.{n},{n + 1}.5,101.{n},2" for n in range(9)]
    return _text(folder, "depth.csv", ["timestamp,bid_price,bid_volume,ask_price,ask_volume", *rows])


def generic_book(folder: Path) -> Path:
    rows = [f"{START_S * 1000 + n // 2},{('bid', 'ask')[n % 2]},{100 + (n % 2) + n / 100},{n % 3}" for n in range(9)]
    return _text(folder, "l2.csv", ["time,side,price,quantity", *rows])


def generic_windows(folder: Path) -> Path:
    rows = [
        f"{START_S * 1000 + n},{100 - n / 10},1,{101 + n / 10},2,{99 - n / 10},3,{102 + n / 10},4" for n in range(5)
    ]
    names = ",".join(f"BidPrice{n},BidSize{n},AskPrice{n},AskSize{n}" for n in (1, 2))
    return _text(folder, "snapshots.csv", [f"ts,{names}", *rows])


def lobster(folder: Path) -> Path:
    from tests.test_lobster import BOOKS, MESSAGES, NAME

    path = folder / "session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(NAME.format("message"), MESSAGES)
        archive.writestr(NAME.format("orderbook"), BOOKS)
        archive.writestr("LOBSTER_SampleFiles_ReadMe.txt", "what the columns mean")
    return path


ROWS: dict[str, tuple[Callable[[Path], Path], str, str, str | None]] = {
    "vision trades": (vision_trades, "binance_vision", "BTCUSDT", "binance_usdm"),
    "vision spot trades": (
        lambda at: vision_trades(at, spot=True, header=False, micro=True), "binance_vision", "BTCUSDT", "binance_spot",
    ),
    "vision bare trades": (lambda at: vision_trades(at, header=False), "binance_vision", "BTCUSDT", "binance_usdm"),
    "vision zip": (lambda at: zipped(vision_trades(at)), "binance_vision", "BTCUSDT", "binance_usdm"),
    "vision aggTrades": (vision_agg_trades, "binance_vision", "BTCUSD_PERP", "binance_coinm"),
    "vision spot aggTrades": (lambda at: vision_agg_trades(at, spot=True), "binance_vision", "BTCUSDT", "binance_spot"),
    "vision quotes": (vision_quotes, "binance_vision", "BTCUSDT", "binance_usdm"),
    "vision bare quotes": (lambda at: vision_quotes(at, header=False), "binance_vision", "BTCUSDT", "binance_usdm"),
    "tardis book": (tardis_book, "tardis", "BTCUSDT", "binance_usdm"),
    "tardis trades": (tardis_trades, "tardis", "BTCUSDT", "binance_usdm"),
    "tardis quotes": (tardis_quotes, "tardis", "BTC-PERPETUAL", "deribit"),
    "tardis snapshots": (tardis_snapshots, "tardis", "BTCUSDT", "binance_spot"),
    "bybit trades": (bybit_trades, "bybit_public", "BTCUSDT", "bybit_linear"),
    "bybit spot": (bybit_spot, "bybit_public", "BTCUSDT", "bybit_spot"),
    "bybit book": (bybit_book, "bybit_orderbook", "BTCUSDT", None),
    "bitstamp log": (bitstamp_log, "bitstamp", "BTCUSD", "bitstamp"),
    "bitstamp live": (bitstamp_live, "bitstamp", "BTCUSD", "bitstamp"),
    "bitstamp orders": (bitstamp_orders, "bitstamp_orders", "BTCUSD", "bitstamp"),
    "dbn mbo": (lambda at: dbn_file(at, dbn.Schema.MBO, MBO), "databento", "ESH4", "glbx_mdp3"),
    "dbn mbp-10": (
        lambda at: dbn_file(
            at, dbn.Schema.MBP_10, [mbp(n, [(100, 2 + n, 101, 1), (99, 1, 0, 0)]) for n in range(4)], plain=True
        ),
        "databento", "ESH4", "glbx_mdp3",
    ),
    "dbn mbp-1": (
        lambda at: dbn_file(
            at, dbn.Schema.MBP_1, [mbp(n, [(100, 2 + n, 101, 1)], A.TRADE, S.ASK, 1) for n in range(4)]
        ),
        "databento", "ESH4", "glbx_mdp3",
    ),
    "dbn tbbo": (
        lambda at: dbn_file(at, dbn.Schema.TBBO, [mbp(n, [(100, 2 + n, 101, 1)], A.TRADE, S.ASK, 1) for n in range(4)]),
        "databento", "ESH4", "glbx_mdp3",
    ),
    "es trades": (es_trades, "generic_csv", "ES", None),
    "depth quotes": (depth_quotes, "generic_csv", "ES", None),
    "generic book": (generic_book, "generic_csv", "ES", None),
    "generic windows": (generic_windows, "generic_csv", "ES", None),
    "lobster": (lobster, "lobster", "TEST", "nasdaq"),
}  # fmt: skip
"""By name: how the file is made, its archive, symbol and venue."""


def sample(name: str, folder: Path) -> Sample:
    make, archive, symbol, venue = ROWS[name]
    return Sample(make(folder), archive, symbol, venue, date(2012, 6, 21) if archive == "lobster" else DAY)


def load(name: str) -> RowArchive:
    return plugins.load(package, name)()  # type: ignore[no-any-return]


def tables_of(
    archive: RowArchive, path: Path, symbol: str, folder: Path, day: date = DAY
) -> dict[str, dict[str, np.ndarray]]:
    """The tick tables as ingestion writes them."""
    place = folder / "ticks"
    place.mkdir(exist_ok=True)
    ticks = ingest_rows([(archive, path)], symbol, day, place)
    return {name: parquet.read_table(file) for name, file in ticks.files.items()}


def joined(batches: Iterable[Batch]) -> tuple[dict[str, dict[str, np.ndarray]], list[object], list[object]]:
    """All batches as one."""
    tables: dict[str, list[dict[str, np.ndarray]]] = {}
    gaps: list[object] = []
    rejected: list[object] = []
    for batch in batches:
        gaps += batch.gaps
        rejected += batch.quarantine
        for name, columns in batch.tables.items():
            tables.setdefault(name, []).append(columns)
    whole = {name: {c: np.concatenate([p[c] for p in parts]) for c in parts[0]} for name, parts in tables.items()}
    return whole, gaps, rejected
