"""Facts of a market on a half-second grid, told from the frames of Binance that a recorder has, real or simulated."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GRID_S = 0.5
_SKIPPED_S = 2.0
_LOOK_NS = 1_000_000_000
LEVELS = (1, 2, 3, 5, 10, 20)
"""Of which the mean size is told."""
Facts = dict[str, list[float]]


def recorded(paths: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Yield time of receipt and payload of each line of captures."""
    for path in paths:
        with gzip.open(path, "rb") as lines:
            for line in lines:
                received, _, payload = line.rstrip().partition(b" ")
                yield int(received), payload


class _Heard:
    """What the frames said."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.touch: list[tuple[float, ...]] = []
        self.trades: list[tuple[int, bool]] = []
        self.changes: list[int] = []
        self.sizes: list[list[float]] = []
        self._book: tuple[dict[str, float], dict[str, float]] | None = None
        self._early: list[Any] = []
        self._next_look_ns = 0

    def hear(self, received_ns: int, payload: bytes) -> None:
        message = json.loads(payload)
        data = message.get("data", message)
        self.received.append(received_ns)
        if "lastUpdateId" in data:
            self._open(data)
        elif data.get("e") == "depthUpdate":
            self._change(received_ns, data)
        elif data.get("e") == "trade":
            self.trades.append((data["T"], data["m"]))
        elif "B" in data:
            self.touch.append((received_ns, float(data["b"]), float(data["a"])))

    def _open(self, data: Any) -> None:
        self._book = tuple({price: float(size) for price, size in data[side]} for side in ("bids", "asks"))  # type: ignore[assignment]
        for each in self._early:
            if each["u"] > data["lastUpdateId"]:
                self._apply(each)

    def _change(self, received_ns: int, data: Any) -> None:
        self.changes.append(len(data["b"]) + len(data["a"]))
        if self._book is None:
            self._early.append(data)
            return
        self._apply(data)
        if received_ns >= self._next_look_ns:
            self._next_look_ns = received_ns + _LOOK_NS
            for side, sign in zip(self._book, (-1, 1), strict=True):
                ordered = sorted((sign * float(price), size) for price, size in side.items())
                self.sizes.append([size for _, size in ordered[: LEVELS[-1]]])

    def _apply(self, data: Any) -> None:
        assert self._book is not None
        for side, levels in zip(self._book, (data["b"], data["a"]), strict=True):
            for price, size in levels:
                side[price] = float(size)
                if not side[price]:
                    del side[price]


def facts(frames: Iterable[tuple[int, bytes]], tick: float) -> Facts:
    """Return the facts by name."""
    heard = _Heard()
    for received_ns, payload in frames:
        heard.hear(received_ns, payload)
    return _of_prices(heard, tick) | _of_trades(heard) | _of_messages(heard)


def _of_prices(heard: _Heard, tick: float) -> Facts:
    touch = np.array(heard.touch)
    times = (touch[:, 0] - touch[0, 0]) / 1e9
    grid = np.arange(_SKIPPED_S, times[-1], GRID_S)
    _, bid, ask = touch[np.searchsorted(times, grid, side="right") - 1].T
    spread, mid = (ask - bid) / tick, 0.5 * (bid + ask)
    returns = np.diff(np.log(mid))
    size = np.abs(returns)
    slow = np.diff(np.log(mid[::20]))
    yearly = np.sqrt(365 * 86_400 / GRID_S)
    return {
        "seconds": [float(times[-1])],
        "spread: share of 1 tick, up to 10; mean": [float(np.mean(spread < n + 0.5)) for n in (1, 10)]
        + [spread.mean()],
        "annual volatility; of 10 s to of 0.5 s": [
            returns.std() * yearly,
            slow.std() / returns.std() / np.sqrt(20),
        ],
        "kurtosis; share of zero returns": [
            float(np.mean((returns / returns.std()) ** 4)),
            float(np.mean(returns == 0)),
        ],
        "autocorrelation of returns, lag 1": [_acf(returns, 1)],
        "of their size, lags 1, 2, 5; means of 1-20, 21-50": [
            *(_acf(size, lag) for lag in (1, 2, 5)),
            *(float(np.mean([_acf(size, lag) for lag in lags])) for lags in (range(1, 21), range(21, 51))),
        ],
    }


def _of_trades(heard: _Heard) -> Facts:
    orders = sorted(set(heard.trades))
    times = np.array([each for each, _ in orders]) / 1e3
    seconds = times[-1] - times[0]
    counts = [np.bincount(((times - times[0]) / width).astype(int))[:-1] for width in (1.0, 10.0)]
    buys = np.array([not sold for _, sold in orders], dtype=float)
    return {
        "trades, market orders a second": [len(heard.trades) / seconds, len(orders) / seconds],
        "Fano factor of market orders, 1 s, 10 s": [each.var() / each.mean() for each in counts],
        "autocorrelation of their signs, lags 1, 5": [_acf(buys, lag) for lag in (1, 5)],
    }


def _of_messages(heard: _Heard) -> Facts:
    times = (np.array(heard.received) - heard.received[0]) / 1e9
    counts = np.bincount(times.astype(int))
    depth = np.array([each for each in heard.sizes if len(each) == LEVELS[-1]])
    return {
        "frames, quotes, diffs a second": [len(each) / times[-1] for each in (times, heard.touch, heard.changes)],
        "Fano factor of frames, 1 s": [counts.var() / counts.mean()],
        "levels a diff: 10 %, 50 %, 90 %, mean": [*np.quantile(heard.changes, (0.1, 0.5, 0.9)), np.mean(heard.changes)],
        f"mean size at levels {', '.join(map(str, LEVELS))}": [depth[:, level - 1].mean() for level in LEVELS],
    }


def _acf(values: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def show(columns: Mapping[str, Facts]) -> None:
    """Print the facts of several markets beside each other."""
    print(f"{'':52}" + "".join(f"{name:>40}" for name in columns))
    for fact in next(iter(columns.values())):
        cells = (" ".join(f"{value:.3g}" for value in column[fact]) for column in columns.values())
        print(f"{fact:52}" + "".join(f"{cell:>40}" for cell in cells))
