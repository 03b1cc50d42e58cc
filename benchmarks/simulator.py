"""The limit-order-book simulator: how fast it matches, beside whom, whether it keeps every law of a book, and how near
its calibrated flows come to real markets (`order_flow.py`, which also prints their tables).

Seconds are of CPU: everything runs on one core, and other load on the machine takes none of them. The peers, pams and
bourse, get the very stream of orders that we get, each in a virtual environment of its own: `--peers` names the folder
of both, which are made where missing (this needs PyPI); without it they are made in a temporary folder, but not by
`--quick`.

    python benchmarks/simulator.py --peers /tmp/peers
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import order_flow
import simulator_laws as laws
from common import Claim, arguments, report

from synth_pipeline.market import engine, tape
from synth_pipeline.rng import stream

PEERS = Path(__file__).parent / "peers"
ROUNDS = 5
POOL = 2**14
QUEUE_RATES = (4.0, 2.0, 0.5)
"""Arrivals, trades and cancellations of each order, a second."""
RARE = 0.01
"""States in which a queue is for a smaller share of the time are not looked at: chance rules there."""


# --- speed


def events_per_second(events: int) -> Claim:
    """Let zero intelligence send orders to the engine, which reports level changes, trades and order events."""
    flow, rng = laws.new_flow(events), stream(6, "benchmark", "simulator")
    laws.zero_intelligence(flow, rng)  # compiles, and fills the book
    seconds, trades = [], 0
    for _ in range(ROUNDS):
        started = time.process_time()
        trades = laws.zero_intelligence(flow, rng)
        seconds.append(time.process_time() - started)
    kinds = np.bincount(flow.sent.kind, minlength=3) / events
    orders = flow.market.book.sides.orders.sum()
    return Claim(
        "simulator_events_per_s",
        "order events a second and core: matching, level changes, trades and order events out",
        events / statistics.median(seconds),
        1e6,
        "high",
        {"best round": events / min(seconds)},
        f"one compiled loop that also draws the orders: {kinds[0]:.0%} limit, {kinds[1]:.0%} market, {kinds[2]:.0%} "
        f"cancel, {trades / events:.2f} trades an event, {orders:,} orders resting",
    )


def recorded_stream(events: int) -> np.recarray:
    """Return what zero intelligence sends to a book that was empty."""
    flow = laws.new_flow(events)
    laws.zero_intelligence(flow, stream(6, "benchmark", "peers"))
    return flow.sent


class Ours:
    """Our engine on a recorded stream."""

    def __init__(self, sent: np.recarray) -> None:
        self._sent, self._ids = sent, np.zeros(sent.size, np.int64)
        self._trades = engine.records(4 * sent.size, engine.TRADE)
        self._count = 0
        self.seconds()  # compiles

    def seconds(self) -> float:
        """Replay the stream on an empty book and return the seconds of CPU."""
        market = tape.new_tape(engine.new_book(int(self._sent.price[0]), pool=POOL), 0)
        started = time.process_time()
        self._count = laws.replay(market, self._sent, self._ids, self._trades)
        return time.process_time() - started

    def trades(self) -> np.ndarray:
        """Return maker, taker, price, lots of each trade, orders by their number in the stream."""
        rows = self._trades[: self._count]
        return np.column_stack([rows.maker_id // POOL - 1, rows.taker_id // POOL - 1, rows.price, rows.lots])


class Peer:
    """A package in a virtual environment of its own, and a script that puts a stream of orders to it."""

    def __init__(self, package: str, folder: Path) -> None:
        self._python, self._script = folder / package / "bin" / "python", PEERS / f"{package}_orders.py"
        if not self._python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / package], check=True, capture_output=True)
            subprocess.run(
                [self._python, "-m", "pip", "install", "--quiet", package], check=True, capture_output=True, text=True
            )

    def run(self, sent: np.recarray, *how: str) -> tuple[float, np.ndarray]:
        """Return seconds of CPU and the trades."""
        with tempfile.TemporaryDirectory() as folder:
            given, taken = Path(folder) / "sent.npy", Path(folder) / "trades.npy"
            np.save(given, np.asarray(sent))
            order = [str(self._python), str(self._script), str(given), str(taken), *how]
            answer = subprocess.run(order, check=True, capture_output=True, text=True)
            return float(answer.stdout), np.load(taken)


def vs_bourse(folder: Path, events: int, rounds: int) -> Claim:
    """Compare with bourse, called for each order, and with its batches, whichever is the faster."""
    peer, sent = Peer("bourse", folder), recorded_stream(events)
    ours, seconds = Ours(sent), {"ours": [], "one call an order": [], "batches of 1,000": []}
    for _ in range(rounds):
        seconds["ours"].append(ours.seconds())
        for name, how in (("one call an order", "each"), ("batches of 1,000", "batches")):
            taken, trades = peer.run(sent, how)
            seconds[name].append(taken)
            if how == "each":
                np.testing.assert_array_equal(trades, ours.trades())
    speed = {name: events / statistics.median(values) for name, values in seconds.items()}
    return Claim(
        "simulator_vs_bourse",
        "speed over the faster way to call bourse (Rust), same stream of orders",
        speed["ours"] / max(value for name, value in speed.items() if name != "ours"),
        1,
        "high",
        {f"{name} (events/s)": value for name, value in speed.items()},
        f"{events:,} orders; the {len(ours.trades()):,} trades are all the same where it is called for each order. It "
        "draws the order within a batch, so those trades differ, and stores ten levels after it. bourse keeps every "
        "order ever sent and reports trades; ours reports level changes and order events too",
    )


def vs_pams(folder: Path, events: int, rounds: int) -> Claim:
    """Compare with the market of pams, without its agents and runner."""
    peer, sent = Peer("pams", folder), recorded_stream(events)
    ours, own, theirs = Ours(sent), [], []
    for _ in range(rounds):
        own.append(statistics.median(ours.seconds() for _ in range(9)))
        taken, trades = peer.run(sent)
        theirs.append(taken)
        np.testing.assert_array_equal(trades, as_pams(sent, ours.trades()))
    speed = {"ours": events / statistics.median(own), "pams": events / statistics.median(theirs)}
    return Claim(
        "simulator_vs_pams",
        "speed over the market of pams (Python), same stream of orders",
        speed["ours"] / speed["pams"],
        20,
        "high",
        {f"{name} (events/s)": value for name, value in speed.items()},
        f"{events:,} orders, the same {len(trades):,} trades but for their price: pams trades all that one order does "
        "at the last of its prices. Its market alone, without agents, runner and logger; it keeps heaps, searches all "
        "orders for one to cancel, and reports executions, no level changes",
    )


def as_pams(sent: np.recarray, trades: np.ndarray) -> np.ndarray:
    """Return buy order, sell order, price, lots of our trades the way pams prices them."""
    maker, taker, price, lots = trades.T
    buys = sent.side[sent.kind != laws.CANCEL][taker] == engine.BID
    last = np.searchsorted(taker, taker, side="right") - 1
    return np.column_stack([np.where(buys, taker, maker), np.where(buys, maker, taker), price[last], lots])


def peer_claims(given: str | None, *, quick: bool) -> list[Claim]:
    """Return the claims beside peers, unmeasured where these cannot be had."""
    if given is None and quick:
        return _without_peers("--quick makes no environments: name a folder of them by --peers")
    with tempfile.TemporaryDirectory(prefix="synth-peers-") as temporary:
        folder = Path(given or temporary)
        try:
            return [
                vs_pams(folder, 2_000 if quick else 10_000, 1 if quick else 3),
                vs_bourse(folder, 200_000 if quick else 1_000_000, 1 if quick else ROUNDS),
            ]
        except subprocess.CalledProcessError as error:
            lines = str(error.stderr or error).strip().splitlines()
            return _without_peers(f"the peers could not be installed or run: {lines[-1]}")


def _without_peers(note: str) -> list[Claim]:
    return [
        Claim("simulator_vs_pams", "speed over the market of pams (Python)", None, 20, "high", note=note),
        Claim("simulator_vs_bourse", "speed over bourse (Rust)", None, 1, "high", note=note),
    ]


# --- laws


def violations(events: int) -> Claim:
    """Send every kind of order to a narrow band under each self-trade rule, watch all answers, recount at intervals."""
    flow, rng = laws.new_flow(1, levels=256), stream(6, "benchmark", "laws")
    book, shadow = flow.market.book, laws.new_shadow(flow.market.book)
    interval, broken = 10_000, laws.stress(flow, shadow, 1, rng)  # compiles
    started = time.process_time()
    for number in range(events // interval):
        book.rules.self_trade[0] = number % 4
        broken += laws.stress(flow, shadow, interval, rng)
        broken += laws.recount(book, shadow)
        best = book.sides.best
        if best[engine.BID] != engine.NO_BID and best[engine.ASK] != engine.NO_ASK:
            broken += laws.follow(flow, shadow, int(best[:2].sum()) // 2)
    orders = book.sides.orders
    return Claim(
        "simulator_violations",
        f"laws broken in {events:,} operations",
        broken,
        0,
        "equal",
        {"operations a second, looked at": events / (time.process_time() - started)},
        "limit, market, cancel and modify; owners, immediate-or-cancel, post-only, hidden, icebergs; after each: never "
        "crossed, best maker first, hidden lots last, prices within the limit, the ledger of every order, level "
        f"changes and order events follow on; every {interval:,}: all queues recounted against ledger and journal "
        f"({orders[:2].sum()} orders displayed and {orders[2:].sum()} hidden at the end)",
    )


def queue_theory_error(events: int) -> Claim:
    """Compare the time that one queue spends at each length with the law of its birth-death process.

    Detailed balance: P(n) (μ + (n + 1) θ) = … of arrival λ: P(n + 1) / P(n) = λ / (μ + (n + 1) θ), with trades at rate
    μ while anything rests and cancellations at rate θ of each order.
    """
    arrivals, trades, cancels = QUEUE_RATES
    states = np.arange(1, 80)
    theory = np.concatenate([[1.0], np.cumprod(arrivals / (trades + cancels * states))])
    theory /= theory.sum()
    seconds, market = np.zeros(theory.size), laws.new_flow(1).market
    laws.one_queue(market, QUEUE_RATES, events, stream(6, "benchmark", "queue"), seconds)
    found, common = seconds / seconds.sum(), theory >= RARE
    return Claim(
        "queue_theory_error",
        f"one queue, stationary law: largest relative error among lengths that take {RARE:.0%} of the time or more",
        float(np.abs(found / theory - 1)[common].max()),
        0.02,
        "low",
        {
            "total variation": float(np.abs(found - theory).sum() / 2),
            "mean length": float(found @ np.arange(theory.size)),
            "mean length, theory": float(theory @ np.arange(theory.size)),
        },
        f"{events:,} events; lots arrive at {arrivals:g}/s, trade at {trades:g}/s, cancel at {cancels:g}/s each",
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peers", help="a folder with the virtual environments pams and bourse, made where missing")
    given = parser.parse_args()
    claims = [
        events_per_second(500_000 if given.quick else 2_000_000),
        *peer_claims(given.peers, quick=given.quick),
        violations(1_000_000 if given.quick else 100_000_000),
        queue_theory_error(10_000_000 if given.quick else 40_000_000),
        *order_flow.measured(quick=given.quick),
    ]
    report("simulator", claims, as_json=given.json)


if __name__ == "__main__":
    main()
