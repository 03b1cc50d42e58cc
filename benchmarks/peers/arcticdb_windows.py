"""ArcticDB on LMDB as a peer of `window.py`, in a Python of its own: arcticdb and our pandas do not install together.

Run with a folder; then, a line of JSON each on standard input: the day files ([[quotes, trades], …]), answered with
"ready", and queries {"span": [start, end], "step": ns, "look_back": ns, "flag": OFF_MARKET, "out": file or null},
answered with the seconds that one took.
"""

from __future__ import annotations

import json
import sys
import time

import arcticdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

COLUMNS = {"quotes": ["bid_price", "ask_price"], "trades": ["price", "size", "flags"]}


def stored(folder: str, files: list[tuple[str, str]]) -> arcticdb.version_store.library.Library:
    """Append the days to a library, without the rows that repeat the end of the day before."""
    library = arcticdb.Arctic(f"lmdb://{folder}").create_library("ticks")
    for number, paths in enumerate(files):
        for name, path in zip(COLUMNS, paths, strict=True):
            table = pq.read_table(path, columns=["recv_ns", "seq", *COLUMNS[name]])
            frame = pd.DataFrame({column: table.column(column).to_numpy() for column in table.column_names})
            frame = frame[(frame["seq"] >= 0) | (number == 0)]
            frame = frame.set_index(pd.to_datetime(frame["recv_ns"]))[COLUMNS[name]]
            (library.append if number else library.write)(name, frame)
    return library


def features(
    library: arcticdb.version_store.library.Library, start: int, end: int, step: int, look_back: int, flag: int
) -> dict[str, np.ndarray]:
    """Let ArcticDB resample both tables; put the buckets on the grid and carry the quote forward."""
    first, last = (pd.Timestamp(at) for at in (start, end - 1))
    frequency = f"{step}ns"
    touch = arcticdb.QueryBuilder().resample(frequency).agg({"bid_price": "last", "ask_price": "last"})
    quotes = library.read("quotes", date_range=(pd.Timestamp(start - look_back), last), query_builder=touch).data
    on_market = arcticdb.QueryBuilder()
    on_market = on_market[on_market["flags"] < flag]
    sums = on_market.apply("turnover", on_market["size"] * on_market["price"]).resample(frequency)
    trades = library.read(
        "trades", date_range=(first, last), query_builder=sums.agg({"size": "sum", "turnover": "sum"})
    ).data
    labels = np.arange(start + step, end + step, step)
    row = np.searchsorted(quotes.index.asi8, labels) - 1
    bid, ask = (np.where(row >= 0, quotes[name].to_numpy()[row], np.nan) for name in ("bid_price", "ask_price"))
    size, turnover = np.zeros(labels.size), np.full(labels.size, np.nan)
    bucket = (trades.index.asi8 - start) // step
    size[bucket], turnover[bucket] = trades["size"], trades["turnover"]
    with np.errstate(invalid="ignore"):
        vwap = turnover / size / 10
    return {
        "label_ns": labels,
        "mid": (bid + ask) / 20,
        "spread": (ask - bid) / 10,
        "vwap": vwap,
        "volume": size / 1000,
    }


def main() -> None:
    library = stored(sys.argv[1], json.loads(sys.stdin.readline()))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        query = json.loads(line)
        started = time.perf_counter()
        found = features(library, *query["span"], query["step"], query["look_back"], query["flag"])
        seconds = time.perf_counter() - started
        if query["out"]:
            np.savez(query["out"], **found)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
