"""The book rebuilt from its level changes, best bid and ask read after every message: speed against hftbacktest, and
every message against a plain dictionary.

Books: a generated one with two million changes; ones that are hard on a rebuild (they drift, leap, lose a side, delete
what is not there, start anew); every recorded capture in `SYNTH_REAL_DATA`. hftbacktest's backtest keeps two books, the
exchange's and the trader's, so its time is that of two changes for each of ours. It runs in a process of its own, timed
inside it, since it cannot share an environment with us; without it that figure is absent and says so:

    python -m venv /tmp/peers && /tmp/peers/bin/pip install hftbacktest==2.4.4
    python benchmarks/book.py --peers /tmp/peers/bin/python
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
from common import Claim, arguments, report

from synth_pipeline import stages
from synth_pipeline.archives import FrameArchive
from synth_pipeline.capture import importing
from synth_pipeline.errors import NoDataError, SynthError
from synth_pipeline.rng import stream
from synth_pipeline.schema import Flag
from synth_pipeline.settings import Settings
from synth_pipeline.ticks import parquet
from synth_pipeline.ticks.book import Book

Rows = dict[str, np.ndarray]
"""Of `schema.BOOK_LEVELS`."""
BOOKS_OF_THE_PEER = 2
TOUCH = 600_000
_RECORDED = Path(os.environ.get("SYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))

PEER = """
import sys, time
import numpy as np
from numba import njit
from hftbacktest import BacktestAsset, ROIVectorMarketDepthBacktest
from hftbacktest import BUY_EVENT, DEPTH_CLEAR_EVENT, DEPTH_EVENT, EXCH_EVENT, LOCAL_EVENT, SELL_EVENT
from hftbacktest.types import event_dtype

@njit
def prices(backtest, out):
    for row in range(len(out)):
        backtest.elapse(1000)
        depth = backtest.depth(0)
        out[row, 0], out[row, 1] = depth.best_bid_tick, depth.best_ask_tick

@njit
def whole(backtest, out):
    for row in range(len(out)):
        backtest.elapse(1000)
        depth = backtest.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        out[row, 0], out[row, 1] = bid, depth.bid_qty_at_tick(bid)
        out[row, 2], out[row, 3] = ask, depth.ask_qty_at_tick(ask)

rows = np.load(sys.argv[1])
price, side, size, message = rows["price"], rows["side"], rows["size"], rows["message"]
count = int(message[-1]) + 1
clock = np.zeros(1, event_dtype)  # the clock starts with the first event: one before all others
clock["ev"], clock["exch_ts"], clock["local_ts"] = DEPTH_CLEAR_EVENT | EXCH_EVENT | LOCAL_EVENT, 1000, 1000
events = np.zeros(len(price), event_dtype)
events["ev"] = DEPTH_EVENT | EXCH_EVENT | LOCAL_EVENT
events["ev"] |= np.where(side > 0, BUY_EVENT, SELL_EVENT).astype(np.uint64)
events["exch_ts"] = events["local_ts"] = (message + 1) * 1000 + 500
events["px"], events["qty"] = price, size
events = np.concatenate((clock, events))

def backtest():
    asset = BacktestAsset().data(events).linear_asset(1.0).constant_order_latency(0, 0)
    asset = asset.power_prob_queue_model(2.0).no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0)
    asset = asset.tick_size(1.0).lot_size(1.0).roi_lb(float(price.min() - 1)).roi_ub(float(price.max() + 1))
    return ROIVectorMarketDepthBacktest([asset.last_trades_capacity(0)])

def run(read, columns):
    out = np.zeros((count, columns))
    made = backtest()
    started = time.perf_counter()
    read(made, out)
    seconds = time.perf_counter() - started
    made.close()
    return out, seconds

np.save(sys.argv[2], run(whole, 4)[0])
run(prices, 2)
print("ready", flush=True)
for _ in sys.stdin:
    print(run(prices, 2)[1], flush=True)
"""


# --- books


def rows_of(event: np.ndarray, side: np.ndarray, price: np.ndarray, size: np.ndarray, snapshot: np.ndarray) -> Rows:
    """Return rows of messages numbered 0, 1, …, in order; `snapshot` is a flag of every row."""
    last = np.append(event[1:] != event[:-1], True)
    flags = last * np.uint8(Flag.LAST) | snapshot * np.uint8(Flag.SNAPSHOT)
    shared = dict.fromkeys(("recv_ns", "event_ns", "seq", "update_id"), event)
    return shared | {"side": side.astype(np.int8), "price": price, "size": size, "flags": flags.astype(np.uint8)}


def market(messages: int, *, stride: int = 3, width: float = 300.0, name: str = "market") -> Rows:
    """A touch that wanders by up to `stride` ticks a message, twenty changes near it and further off, and the removal
    of what it passed, known or not: the book is never crossed."""
    rng = stream(29, "benchmark", "book", name)
    touch = TOUCH + np.cumsum(rng.integers(-stride, stride + 1, messages))
    event = np.repeat(np.arange(messages), rng.poisson(20, messages))
    side = rng.choice(np.array([1, -1]), event.size)
    away = rng.exponential(np.where(rng.random(event.size) < 0.6, 10.0, width)).astype(np.int64)
    price = touch[event] + np.where(side > 0, -away, 1 + away)
    size = rng.integers(1, 9000, event.size) * (rng.random(event.size) < 0.65)
    moves = np.diff(touch, prepend=touch[0])
    passed = np.repeat(np.arange(messages), np.abs(moves))
    number = np.arange(passed.size) - np.repeat(np.cumsum(np.abs(moves)) - np.abs(moves), np.abs(moves))
    rose = moves[passed] > 0
    gone = touch[passed] + np.where(rose, -number, 1 + number)
    columns = ((event, passed), (side, np.where(rose, -1, 1)), (price, gone), (size, np.zeros(gone.size, np.int64)))
    event, side, price, size = (np.concatenate(pair) for pair in columns)
    order = np.lexsort((np.arange(event.size), -side, event))
    return rows_of(event[order], side[order], price[order], size[order], np.zeros(event.size, np.bool_))


def wild(messages: int, *, leap: int, name: str, share_gone: float = 0.4, snapshots: float = 0.0) -> Rows:
    """A touch that leaps by up to `leap` ticks and leaves everything behind: crossed, one-sided and far-flung books."""
    rng = stream(31, "benchmark", "book", name)
    touch = 10**8 + np.cumsum(rng.integers(-leap, leap + 1, messages) * (rng.random(messages) < 0.2))
    event = np.repeat(np.arange(messages), 1 + rng.poisson(6, messages))
    side = np.where(rng.random(event.size) < 0.5 + 0.5 * np.sign(np.sin(event / 50)), 1, -1)
    price = np.abs(touch[event] - side * rng.geometric(0.02, event.size)) + 1
    is_snapshot = (rng.random(messages) < snapshots)[event]
    size = rng.integers(1, 90, event.size) * (is_snapshot | (rng.random(event.size) > share_gone))
    return rows_of(event, side, price, size, is_snapshot)


def hard(messages: int) -> dict[str, Rows]:
    """Books that a rebuild must not trip over, by what is hard about them."""
    return {
        "drifts": market(messages, stride=400, name="drifts"),
        "leaps": wild(messages, leap=200_000, name="leaps"),
        "removes": wild(messages, leap=300, name="removes", share_gone=0.8),
        "starts anew": wild(messages, leap=30_000, name="starts anew", snapshots=0.02),
    }


def recorded(folder: Path, *, quick: bool) -> tuple[dict[str, Rows], list[str]]:
    """Ingest the captures that there are; return rows by name, and what could not be read.

    The short form takes one instrument of each capture.
    """
    found: dict[str, Rows] = {}
    left_out = []
    for path in sorted(_RECORDED.iterdir()) if _RECORDED.is_dir() else []:
        try:
            archive = importing.archive_of(path)
        except SynthError:
            continue  # bars and notes
        if isinstance(archive, FrameArchive):
            try:
                for name, rows in islice(_instruments(path, archive, folder / path.name), 1 if quick else None):
                    found[name] = rows
            except SynthError as error:
                left_out.append(str(error))
    return found, left_out


def _instruments(path: Path, archive: FrameArchive, home: Path) -> Iterator[tuple[str, Rows]]:
    workspace = stages.Workspace.of(Settings(home=home, tracking=False))
    venues = archive.venues(path) or importing.venues_of(path, archive)[:1]
    for venue, symbol in product(venues, archive.symbols(path) or [None]):
        instrument = stages.identify([path], venue, symbol)
        for day in importing.days_of([path]):
            try:
                stages.record(workspace, instrument, day, [path])
                made = stages.ingest(workspace, instrument, day)
            except NoDataError:
                continue  # a symbol of the capture's other venue
            rows = parquet.read_table(workspace.file(made, "book_levels"))
            if len(rows["price"]):
                yield f"{instrument} {day}", rows


# --- correctness


def oracle(rows: Rows) -> Iterator[tuple[int, int, int, int]]:
    """Yield best bid and ask, price and size, after every message: a dictionary a side, searched anew each time."""
    sides: dict[int, dict[int, int]] = {1: {}, -1: {}}
    opened = False
    columns = (rows[name].tolist() for name in ("side", "price", "size", "flags"))
    for side, price, size, flags in zip(*columns, strict=True):
        if flags & Flag.SNAPSHOT and not opened:
            sides = {1: {}, -1: {}}
        opened = bool(flags & Flag.SNAPSHOT) and not flags & Flag.LAST
        if size:
            sides[side][price] = size
        else:
            sides[side].pop(price, None)
        if flags & Flag.LAST:
            bid, ask = max(sides[1], default=0), min(sides[-1], default=0)
            yield bid, sides[1].get(bid, 0), ask, sides[-1].get(ask, 0)


def mismatches(rows: Rows) -> int:
    """Return after how many messages the rebuilt top differs from the dictionary's."""
    return int((Book().feed(rows).top != np.array(list(oracle(rows)))).any(axis=1).sum())


# --- speed


class Peer:
    """hftbacktest in its own process, with one book loaded."""

    def __init__(self, python: str, rows: Rows, folder: Path) -> None:
        message = np.concatenate(([0], np.cumsum(rows["flags"][:-1] & Flag.LAST)))
        source, out = folder / "rows.npz", folder / "out.npy"
        np.savez(source, message=message, **{name: rows[name] for name in ("side", "price", "size")})
        self._process = subprocess.Popen(
            [python, "-c", PEER, str(source), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != "ready\n":
            why = self._process.stderr.read().strip().splitlines()[-1]
            self.absent = (
                f"hftbacktest is not there to compare with ({why}): make it an environment, name it in --peers"
            )
            return
        self.absent = ""
        self.top = np.load(out)

    def seconds(self) -> float:
        """Replay the book once more and return how long it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def speed(python: str, rows: Rows, rounds: int, folder: Path) -> tuple[dict[str, float], str]:
    """Return changes a second of ours and per book of the peer's, timed in turn, and why the peer's is absent."""
    top = Book().feed(rows).top
    peer = Peer(python, rows, folder)
    ours, theirs = [], []
    if not peer.absent:
        sides = top[:, 1::2] > 0
        np.testing.assert_array_equal(peer.top[sides.all(axis=1)], top[sides.all(axis=1)])
    for _ in range(rounds):
        started = time.perf_counter()
        Book().feed(rows)
        ours.append(time.perf_counter() - started)
        if not peer.absent:
            theirs.append(peer.seconds())
    peer.close()
    changes = len(rows["price"])
    found = {"ours": changes / statistics.median(ours)}
    if theirs:
        found["hftbacktest, per book"] = BOOKS_OF_THE_PEER * changes / statistics.median(theirs)
    return found, peer.absent


def speed_of(rows: Rows) -> float:
    """Return changes a second of ours."""
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        Book().feed(rows)
        seconds.append(time.perf_counter() - started)
    return len(rows["price"]) / statistics.median(seconds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peers", default=sys.executable, help="a Python that has hftbacktest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captures, left_out = recorded(folder, quick=given.quick)
        books = hard(4_000 if given.quick else 40_000) | {"generated": market(10_000 if given.quick else 100_000)}
        wrong = {name: float(mismatches(rows)) for name, rows in (books | captures).items()}
        rates, absent = speed(given.peers, market(100_000), 9 if given.quick else 25, folder)
        own = {name: speed_of(rows) for name, rows in captures.items()}
    theirs = rates.get("hftbacktest, per book")
    claims = [
        Claim(
            "book_vs_hftbacktest",
            "book rebuild, best bid and ask after every message: changes a second against hftbacktest, per book",
            rates["ours"] / theirs if theirs else None,
            4.0,
            "high",
            {f"{name}, changes/s": rate for name, rate in (rates | own).items()},
            absent,
        ),
        Claim(
            "book_mismatches",
            f"messages of {len(wrong)} books after which best bid or ask differ from a dictionary's",
            sum(wrong.values()),
            0.0,
            "equal",
            wrong,
            f"left out: {'; '.join(left_out)}" if left_out else "",
        ),
    ]
    report("book", claims, as_json=given.json)


if __name__ == "__main__":
    main()
