"""Half an hour out of 17 days of ticks, to half-second mid, spread, VWAP and volume: the store against Polars, DuckDB
and the pipeline of the article on 155 million rows, whose algorithm is written anew here.

All but the article's and ArcticDB's read the same Parquet files; all but the article's take the quote before the
window in, and their outputs are compared. Market and windows are generated in a temporary folder. ArcticDB runs in a
process of its own, timed inside it: `--peers` names a Python that has it (by default this one); without it the table
has no line of it.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install arcticdb pyarrow
    python benchmarks/window.py --peers /tmp/peers/bin/python
"""

from __future__ import annotations

import bisect
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
from common import Claim, arguments, interleaved, report
from numba import njit

from synth_pipeline import schema
from synth_pipeline.lineage import commit
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND, Flag, Instrument, Scale, day_start_ns
from synth_pipeline.stages.window_features import window_features
from synth_pipeline.ticks import parquet, store

BTC = Instrument("simulated", "BTCUSDT")
FIRST = date(2025, 1, 6)
STEP_NS = 500_000_000
LENGTH_NS = 1800 * NS_PER_SECOND
SCALE = Scale(Decimal("0.1"), Decimal("0.001"))
TICK, LOT = 10.0, 1000.0
FEATURES = ("mid", "spread", "vwap", "volume")
LOOK_BACK_NS = 60 * NS_PER_SECOND
"""How far before a window the peers look for the quote to carry in: the generated market is never silent longer."""
Arrays = dict[str, np.ndarray]
Span = tuple[int, int]


# --- the market


def market(days: int, quotes_a_day: int) -> Iterator[tuple[int, Arrays, Arrays]]:
    """Yield day by day its start and its quotes and trades: bursts, lulls, prices that wander; times in whole us."""
    price = 600_000
    for number in range(days):
        rng = stream(17, "benchmark", "window", number)
        start_ns = day_start_ns(FIRST + timedelta(days=number))
        quotes = _times(rng, start_ns, quotes_a_day)
        bid = price + np.cumsum(rng.integers(-1, 2, quotes.size) * (rng.random(quotes.size) < 0.3))
        price = int(bid[-1])
        trades = np.sort(rng.choice(quotes.size, quotes.size // 8, replace=False))
        side = rng.choice(np.array([-1, 1], np.int8), trades.size)
        ask = bid + rng.integers(1, 4, quotes.size)
        sizes = rng.integers(1, 20_000, (2, quotes.size))
        yield (
            start_ns,
            {"recv_ns": quotes, "bid_price": bid, "bid_size": sizes[0], "ask_price": ask, "ask_size": sizes[1]},
            {
                "recv_ns": quotes[trades],
                "price": np.where(side > 0, ask[trades], bid[trades]),
                "size": rng.integers(1, 5000, trades.size),
                "side": side,
            },
        )


def _times(rng: np.random.Generator, start_ns: int, count: int) -> np.ndarray:
    busy = np.exp(rng.normal(0, 1.3, 1440).cumsum() * 0.02 + rng.normal(0, 0.8, 1440))
    minutes = rng.choice(1440, count, p=busy / busy.sum())
    lone = np.arange(0, 86_400, 20)  # a quote every twenty seconds at least
    within = minutes * 60_000_000 + (rng.random(count) ** 2 * 60_000_000).astype(np.int64)
    return start_ns + np.sort(np.concatenate([within, lone * 1_000_000 + 1])) * 1000


def write_store(home: Path, days: int, quotes_a_day: int) -> list[tuple[Path, Path]]:
    """Write the market as partitions of the store; return the files of quotes and trades of each day."""
    files, last = [], None
    for start_ns, quotes, trades in market(days, quotes_a_day):
        day = FIRST + timedelta(days=(start_ns - day_start_ns(FIRST)) // NS_PER_DAY)
        tables = {"quotes": _full(schema.QUOTES, quotes), "trades": _full(schema.TRADES, trades)}
        if last is not None:
            opening = last | {"recv_ns": start_ns, "event_ns": start_ns, "seq": -1, "flags": Flag.LAST | Flag.SNAPSHOT}
            tables["quotes"] = {name: np.insert(column, 0, opening[name]) for name, column in tables["quotes"].items()}
        last = {name: column[-1] for name, column in tables["quotes"].items()}
        tables["book_levels"] = schema.BOOK_LEVELS.empty()
        tables["gaps"] = {
            name: np.empty(0, object if name in {"stream", "reason"} else np.int64) for name in schema.GAPS.names
        }
        folder = home / "ticks" / BTC.venue / BTC.symbol / day.isoformat()
        draft = Manifest(stage="ticks", key=f"{BTC}/{day}", inputs={}, code_version="benchmark", config={})
        metadata = {"visible_levels": "0", "coverage": json.dumps([[start_ns, start_ns + NS_PER_DAY]])}
        with commit.staging(folder) as place:
            for name, columns in tables.items():
                parquet.write_table(place / f"{name}.parquet", schema.TICK_TABLES[name], columns, SCALE, **metadata)
            staged = {name: place / f"{name}.parquet" for name in tables}
            made = commit.commit(folder, draft, staged, facts={"opened_from_yesterday": bool(files)})
        files.append((made.file(folder, "quotes"), made.file(folder, "trades")))
    return files


def _full(table: schema.Table, columns: Arrays) -> Arrays:
    count = columns["recv_ns"].size
    others = {"event_ns": columns["recv_ns"], "seq": np.arange(count), "update_id": np.arange(count)}
    others |= {"trade_id": np.arange(count), "flags": np.full(count, Flag.LAST)}
    return {each.name: (columns | others)[each.name].astype(each.dtype) for each in table.columns}


def random_spans(days: int, count: int) -> list[Span]:
    """Return half hours at random, the first of them over midnight."""
    rng = stream(17, "benchmark", "spans")
    start = day_start_ns(FIRST)
    starts = (
        rng.integers(start + LOOK_BACK_NS, start + days * NS_PER_DAY - LENGTH_NS, count - 1) // 1_000_000 * 1_000_000
    )
    first = [start + NS_PER_DAY - LENGTH_NS // 3] if days > 1 else []
    return [
        (begin // STEP_NS * STEP_NS, begin // STEP_NS * STEP_NS + LENGTH_NS) for begin in [*first, *starts.tolist()]
    ]


# --- the peers


class Peers:
    """The same query in Polars and in DuckDB, on explicit paths of the days it needs."""

    def __init__(self, files: list[tuple[Path, Path]]) -> None:
        self.files = files
        self.duck = duckdb.connect()

    def paths(self, span: Span) -> tuple[list[str], list[str]]:
        """Return the files of quotes and of trades that a window needs."""
        first, last = ((at - day_start_ns(FIRST)) // NS_PER_DAY for at in (span[0] - LOOK_BACK_NS, span[1] - 1))
        days = self.files[max(first, 0) : last + 1]
        return [str(quotes) for quotes, _ in days], [str(trades) for _, trades in days]

    def polars(self, span: Span) -> Arrays:
        """One lazy query: last quote and sums a bucket, joined to the grid, carried forward."""
        quote_paths, trade_paths = self.paths(span)
        bucket = (pl.col("recv_ns") // STEP_NS).alias("bucket")
        quotes = (
            pl.scan_parquet(quote_paths, glob=False)
            .filter(pl.col("recv_ns").is_between(span[0] - LOOK_BACK_NS, span[1], closed="left"))
            .group_by(bucket, maintain_order=True)
            .agg(pl.col("bid_price").last(), pl.col("ask_price").last())
        )
        trades = (
            pl.scan_parquet(trade_paths, glob=False)
            .filter(pl.col("recv_ns").is_between(*span, closed="left") & (pl.col("flags") & int(Flag.OFF_MARKET) == 0))
            .group_by(bucket, maintain_order=True)
            .agg(pl.col("size").sum(), (pl.col("size") * pl.col("price")).sum().alias("turnover"))
        )
        first = span[0] // STEP_NS
        buckets = pl.int_range(first - LOOK_BACK_NS // STEP_NS, span[1] // STEP_NS, eager=True).alias("bucket")
        bid, ask = pl.col("bid_price"), pl.col("ask_price")
        frame = (
            buckets.to_frame()
            .lazy()
            .join(quotes, on="bucket", how="left", maintain_order="left")
            .join(trades, on="bucket", how="left", maintain_order="left")
            .with_columns(bid.forward_fill(), ask.forward_fill())
            .filter(pl.col("bucket") >= first)
            .select(
                ((pl.col("bucket") + 1) * STEP_NS).alias("label_ns"),
                ((bid + ask) / (2 * TICK)).alias("mid"),
                ((ask - bid) / TICK).alias("spread"),
                (pl.col("turnover") / pl.col("size") / TICK).alias("vwap"),
                (pl.col("size").fill_null(0) / LOT).alias("volume"),
            )
            .collect()
        )
        return {name: frame[name].to_numpy() for name in frame.columns}

    def duckdb(self, span: Span) -> Arrays:
        """The same in SQL."""
        quote_paths, trade_paths = self.paths(span)
        first, since = span[0] // STEP_NS, (span[0] - LOOK_BACK_NS) // STEP_NS
        query = f"""
            with quotes as (
                select recv_ns // {STEP_NS} as bucket,
                       arg_max(bid_price, row) as bid, arg_max(ask_price, row) as ask
                from (select recv_ns, bid_price, ask_price, (recv_ns, seq) as row from read_parquet({quote_paths})
                      where recv_ns >= {span[0] - LOOK_BACK_NS} and recv_ns < {span[1]})
                group by bucket
            ), trades as (
                select recv_ns // {STEP_NS} as bucket, sum(size)::bigint as size, sum(size * price)::bigint as turnover
                from read_parquet({trade_paths})
                where recv_ns >= {span[0]} and recv_ns < {span[1]} and flags & {int(Flag.OFF_MARKET)} = 0
                group by bucket
            ), carried as (
                select bucket, last_value(bid ignore nulls) over before as bid,
                       last_value(ask ignore nulls) over before as ask, size, turnover
                from (select unnest(range({since}, {span[1] // STEP_NS})) as bucket)
                left join quotes using (bucket) left join trades using (bucket)
                window before as (order by bucket)
            )
            select (bucket + 1) * {STEP_NS} as label_ns,
                   (bid + ask) / {2 * TICK} as mid, (ask - bid) / {TICK} as spread,
                   turnover / size / {TICK} as vwap, coalesce(size, 0) / {LOT} as volume
            from carried where bucket >= {first} order by bucket
        """
        found = self.duck.execute(query).fetchnumpy()
        return {name: np.ma.filled(column.astype(np.float64), np.nan) for name, column in found.items()}


@njit(cache=True)
def article_features(
    at: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    traded_at: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    step: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The article's aggregation, its faults kept: a grid from the first tick on, empty buckets without a quote."""
    count = (at[-1] - at[0]) // step + 1
    mid, vwap, volume = np.empty(count), np.empty(count), np.empty(count)
    row, trade = 0, 0
    for bucket in range(count):
        end, last_bid, last_ask, quantity, value = at[0] + (bucket + 1) * step, 0.0, 0.0, 0.0, 0.0
        while row < at.size and at[row] < end:
            last_bid, last_ask = bid[row], ask[row]
            row += 1
        while trade < traded_at.size and traded_at[trade] < end:
            quantity += size[trade]
            value += price[trade] * size[trade]
            trade += 1
        mid[bucket], volume[bucket] = (last_bid + last_ask) / 2.0, quantity
        vwap[bucket] = value / quantity if quantity > 0 else mid[bucket]
    return mid, vwap, volume


class ArcticDB:
    """The same query by ArcticDB's own resampling, on its LMDB store; asked line by line."""

    def __init__(self, python: str, folder: Path, files: list[tuple[Path, Path]]) -> None:
        self.out = folder / "answer.npz"
        order = [python, str(Path(__file__).parent / "peers" / "arcticdb_windows.py"), str(folder / "arcticdb")]
        self.process = subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.is_there = self._asked([[str(path) for path in pair] for pair in files]) == "ready"

    def seconds(self, span: Span, out: Path | None = None) -> float:
        """Return how long a window took."""
        query = {"span": span, "step": STEP_NS, "look_back": LOOK_BACK_NS, "flag": int(Flag.OFF_MARKET)}
        found = self._asked(query | {"out": None if out is None else str(out)})
        assert isinstance(found, float)
        return found

    def features(self, span: Span) -> Arrays:
        """Return what it computes."""
        self.seconds(span, self.out)
        with np.load(self.out) as found:
            return dict(found)

    def _asked(self, question: object) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return json.loads(self.process.stdout.readline() or b"null")

    def close(self) -> None:
        """End its process."""
        self.process.communicate()


class ArticleLoader:
    """The article's loader: every 100,000th row's time and place in memory, whole granules read and then cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[int] = []
        self.places: list[int] = []
        with path.open("rb") as file:
            self.header = file.readline().decode()
            place = len(self.header)
            for number, line in enumerate(file):
                if number % 100_000 == 0:
                    self.times.append(int(line.split(b",", 1)[0]))
                    self.places.append(place)
                place += len(line)
            self.places.append(place)

    def load(self, start: int, end: int) -> pd.DataFrame:
        """Return the rows of a closed interval of microseconds."""
        first = max(bisect.bisect_left(self.times, start) - 1, 0)
        last = min(bisect.bisect_right(self.times, end) + 1, len(self.places) - 1)
        with self.path.open(encoding="utf-8") as file:
            file.seek(self.places[first])
            content = file.read(self.places[last] - self.places[first])
        frame = pd.read_csv(io.StringIO(self.header + content))
        return frame[(frame["timestamp"] >= start) & (frame["timestamp"] <= end)].reset_index(drop=True)


def write_csv(folder: Path, days: int, quotes_a_day: int) -> tuple[Path, Path]:
    """Write the market as the article has it: two files, microseconds, market units."""
    paths = folder / "quotes.csv", folder / "trades.csv"
    with paths[0].open("wb") as quote_file, paths[1].open("wb") as trade_file:
        for number, (_, quotes, trades) in enumerate(market(days, quotes_a_day)):
            pl.DataFrame(
                {
                    "timestamp": quotes["recv_ns"] // 1000,
                    "bid_price": quotes["bid_price"] / TICK,
                    "ask_price": quotes["ask_price"] / TICK,
                    "bid_volume": quotes["bid_size"] / LOT,
                    "ask_volume": quotes["ask_size"] / LOT,
                }
            ).write_csv(quote_file, include_header=number == 0)
            pl.DataFrame(
                {
                    "timestamp": trades["recv_ns"] // 1000,
                    "price": trades["price"] / TICK,
                    "volume": trades["size"] / LOT,
                }
            ).write_csv(trade_file, include_header=number == 0)
    return paths


def article(quotes: ArticleLoader, trades: ArticleLoader, span: Span) -> tuple[np.ndarray, ...]:
    """Load and aggregate as the article does."""
    edges = span[0] // 1000, span[1] // 1000
    ticks, prints = quotes.load(*edges), trades.load(*edges)
    columns = (
        ticks["timestamp"],
        ticks["bid_price"],
        ticks["ask_price"],
        prints["timestamp"],
        prints["price"],
        prints["volume"],
    )
    return article_features(*(column.to_numpy() for column in columns), STEP_NS // 1000)


# --- figures


def require_equal(ours: Arrays, theirs: Arrays, who: str) -> None:
    """Stop when an output differs."""
    for name in ("label_ns", *FEATURES):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-12, atol=1e-9, err_msg=f"{who}: {name}")


def warm(
    home: Path, peers: Peers, arctic: ArcticDB, spans: list[Span], rounds: int, csv: tuple[Path, Path]
) -> dict[str, float]:
    """Return the median seconds of a window for each method, outputs compared."""
    loaders = [ArticleLoader(path) for path in csv]
    methods: dict[str, Callable[[Span], object]] = {
        "parquet": lambda span: window_features(home, BTC, *span, step_ns=STEP_NS, columns=FEATURES),
        "hot": lambda span: window_features(home, BTC, *span, step_ns=STEP_NS, columns=FEATURES, hot=True),
        "polars": peers.polars,
        "duckdb": peers.duckdb,
        "article": lambda span: article(*loaders, span),
    }
    for span in spans:
        ours = window_features(home, BTC, *span, step_ns=STEP_NS, columns=FEATURES)
        for name in ("hot", "polars", "duckdb"):
            require_equal(ours, methods[name](span), name)  # type: ignore[arg-type]
        if arctic.is_there:
            require_equal(ours, arctic.features(span), "ArcticDB")
        methods["article"](span)
    # The article's takes a hundred times the memory: whatever ran after it would find its caches gone. So it has rounds
    # of its own, and the store runs in these as well.
    groups = [
        {name: methods[name] for name in ("parquet", "hot", "polars", "duckdb")},
        {"parquet beside the article": methods["parquet"], "article": methods["article"]},
    ]
    seconds: dict[str, list[float]] = {name: [] for group in groups for name in group}
    if arctic.is_there:
        seconds["arcticdb"] = [statistics.median(arctic.seconds(span) for _ in range(rounds)) for span in spans]
    for group in groups:
        for span in spans:
            calls = {name: lambda method=method, span=span: method(span) for name, method in group.items()}
            for name, value in interleaved(calls, rounds).items():
                seconds[name].append(value)
    return {name: statistics.median(values) for name, values in seconds.items()}


COLD_COLUMNS = {"quotes": ["recv_ns", "bid_price", "ask_price"], "trades": ["recv_ns", "price", "size"]}


def cold_query(home: Path, method: str, span: Span) -> float:
    """Run one query, the first of this process, and return its seconds."""
    if method == "polars":
        days = [FIRST + timedelta(days=(at - day_start_ns(FIRST)) // NS_PER_DAY) for at in (span[0], span[1] - 1)]
        folders = [home / "ticks" / BTC.venue / BTC.symbol / day.isoformat() for day in dict.fromkeys(days)]
        paths = {name: [next(folder.glob(f"{name}-*.parquet")) for folder in folders] for name in COLD_COLUMNS}
        started = time.perf_counter()
        within = pl.col("recv_ns").is_between(*span, closed="left")
        pl.collect_all(
            [pl.scan_parquet(paths[name], glob=False).filter(within).select(COLD_COLUMNS[name]) for name in paths]
        )
    else:
        started = time.perf_counter()
        for name, columns in COLD_COLUMNS.items():
            store.read(home, BTC, name, *span, columns, hot=method == "hot")
    return time.perf_counter() - started


def cold(home: Path, spans: list[Span], rounds: int) -> dict[str, float]:
    """Return the median seconds of the first query of a fresh process, files out of the page cache, imports apart."""
    seconds: dict[str, list[float]] = {"polars": [], "parquet": [], "hot": []}
    files = [path for path in home.rglob("*") if path.is_file()]
    for _ in range(rounds):
        for span in spans:
            for method, values in seconds.items():
                for path in files:
                    _forget(path)
                order = [sys.executable, __file__, "--cold", str(home), method, *map(str, span)]
                values.append(float(subprocess.run(order, capture_output=True, check=True, text=True).stdout))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _forget(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def main() -> None:
    if sys.argv[1:2] == ["--cold"]:
        print(cold_query(Path(sys.argv[2]), sys.argv[3], (int(sys.argv[4]), int(sys.argv[5]))))
        return
    parser = arguments(__doc__)
    parser.add_argument("--peers", default=sys.executable, help="a Python that has arcticdb")
    options = parser.parse_args()
    days, quotes_a_day, rounds = (2, 1_176_000, 3) if options.quick else (17, 1_176_000, 5)
    place = Path(tempfile.mkdtemp(prefix="synth-window-"))
    try:
        home = place / "home"
        files = write_store(home, days, quotes_a_day)
        spans = random_spans(days, 5 if options.quick else 9)
        arctic = ArcticDB(options.peers, place, files)
        found = warm(home, Peers(files), arctic, spans, rounds, write_csv(place, days, quotes_a_day))
        arctic.close()
        first = cold(home, spans[:3], 1 if options.quick else 5)
    finally:
        shutil.rmtree(place)
    report("window", claims(found, first, days * quotes_a_day), as_json=options.json)


def claims(found: dict[str, float], first: dict[str, float], rows: int) -> list[Claim]:
    ms = {name: value * 1000 for name, value in found.items()}
    what = f"30 minutes of {rows / 1e6:.1f} M quotes to half-second features"

    def faster(name: str, who: str, ours: str, than: str, bar: float, *beside: str) -> Claim:
        return Claim(
            name,
            f"{what}, {who}",
            found[than] / found[ours],
            bar,
            "high",
            {f"{each} (ms)": ms[each] for each in dict.fromkeys((ours, than, *beside)) if each in ms},
            note="" if not beside or set(beside) <= ms.keys() else "arcticdb is not there to compare with: see --peers",
        )

    return [
        faster("window_vs_polars", "same Parquet, warm: speed over Polars", "parquet", "polars", 2, "arcticdb"),
        faster("window_vs_duckdb", "same Parquet, warm: speed over DuckDB", "parquet", "duckdb", 3),
        faster("hot_vs_polars", "hot tier: speed over Polars on Parquet", "hot", "polars", 15),
        faster(
            "window_vs_seed",
            "Parquet: speed over the article's loader and kernel on CSV",
            "parquet beside the article",
            "article",
            50,
        ),
        Claim(
            "cold_vs_polars",
            "first read of 30 minutes in a fresh process, cold cache, hot tier: time over Polars, explicit day paths",
            first["hot"] / first["polars"],
            0.5,
            "low",
            {f"{name} (ms)": value * 1000 for name, value in first.items()},
        ),
    ]


if __name__ == "__main__":
    main()
