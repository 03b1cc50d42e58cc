"""The embedded market beside real captures: the facts of a half-second grid; with `--write`, its calibration made anew.

`--write` fits everything that `synth_pipeline/market/calibration.json` says. From the USD-M capture the order flow and
how full the book is; from how market orders of three captures bunch over seconds, and volume of one-minute bars over
minutes to days, the pace; from hourly bars the shape of the day and the mean pace; from one-minute bars the news.

Real captures lie in SYNTH_REAL_DATA (default `../shared/data`); without them nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import re
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from embedded_facts import facts, recorded, show
from order_flow import CAPTURES, REAL_DATA, capture
from scipy import optimize

import synth_pipeline
from synth_pipeline.market import calibration
from synth_pipeline.market.calibration import STORED_POINTS, plain, stored
from synth_pipeline.market.flows.queue_reactive import QueueReactive
from synth_pipeline.market.flows.replaying import record_of
from synth_pipeline.market.simulation import simulate
from synth_pipeline.rng import stream
from synth_pipeline.schema import NS_PER_DAY, NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import MARKET, Messages

FITTED = "USD-M"
MINUTES, HOURS = "ftx_btcperp_1m_202201.csv.zst", "binance_usdm_BTCUSDT_1h_to20230630.csv.xz"
BIN_S, LAGS_S = 0.5, 10.0
"""Width of the bins in which market orders are counted, and the furthest lag of their autocovariance."""
SLOW_HALF_LIVES_S = (300.0, 3600.0, 86_400.0)
"""Given; the bars tell how much of log pace forgets so."""
SLOWEST_LAG = 1440
"""Minutes."""
WINDOW = 120
"""Minutes by which the local volatility is told that jumps are measured in."""
LOOKS = 150
"""Books of the capture that the mean one is told from."""


# --- the book


def fullness(messages: Messages, classes: IntArray) -> dict[str, Any]:
    """Return quantiles of what stands at the best price and behind it, and the share of prices taken, by class."""
    start, end = (int(each) for each in messages.spans[0])
    best: list[int] = []
    held: list[list[int]] = [[] for _ in range(int(classes.max()) + 1)]
    prices, looks = np.bincount(classes[1:]), 0
    for moment in range(start, end - (end - start) // LOOKS, (end - start) // LOOKS):
        book = messages.slice(moment, moment + 1).initial[-1]
        for levels, sign in ((book.bids[::-1], -1), (book.asks[::-1], 1)):
            looks += 1
            best.append(int(levels[0, 1]))
            away = sign * (levels[1:, 0] - levels[0, 0])
            near = away < classes.size
            for each, lots in zip(classes[away[near]].tolist(), levels[1:, 1][near].tolist(), strict=True):
                held[each].append(lots)
    return {
        "best": _points(np.array(best)).tolist(),
        "shares": plain(np.array([len(each) for each in held]) / (prices * looks)),
        "lots": [_points(np.array(each)).tolist() for each in held],
    }


def _points(values: IntArray) -> IntArray:
    """Return quantiles at the middles of equal shares, the last one the mean of its share."""
    ordered = np.sort(values)
    table = ordered[((np.arange(STORED_POINTS) + 0.5) / STORED_POINTS * ordered.size).astype(np.int64)]
    table[-1] = round(ordered[-max(1, ordered.size // STORED_POINTS) :].mean())
    return np.maximum(table, 1)


# --- the pace


def bunching(counts: list[FloatArray]) -> FloatArray:
    """Return the relative autocovariance of counts in bins, lag after lag from one bin on, the mean over records."""
    lags = range(1, int(LAGS_S / BIN_S) + 1)
    found = []
    for each in counts:
        off = each / each.mean() - 1
        found.append([float(np.mean(off[lag:] * off[:-lag])) for lag in lags])
    return np.mean(found, axis=0)


def fast_pace(counts: list[FloatArray]) -> FloatArray:
    """Return variance and half-life (s) of the log pace: counts of a log-normal pace covary as exp(c) - 1."""
    lags = BIN_S * np.arange(1, int(LAGS_S / BIN_S) + 1)

    def covariance(lag: FloatArray, variance: float, half_life: float) -> FloatArray:
        return np.expm1(variance * 0.5 ** (lag / half_life))

    return optimize.curve_fit(covariance, lags, bunching(counts), p0=(0.7, 1.5), bounds=(1e-3, (3.0, 60.0)))[0]


def slow_pace(log_volume: FloatArray) -> FloatArray:
    """Return the variances of log pace by `SLOW_HALF_LIVES_S`, from the autocovariance of log volume by the minute."""
    lags = np.unique(np.geomspace(1, SLOWEST_LAG, 60).astype(np.int64))
    off = log_volume - log_volume.mean()
    covariances = [float(np.mean(off[lag:] * off[:-lag])) for lag in lags.tolist()]
    decays = 0.5 ** (60.0 * lags[:, None] / np.array(SLOW_HALF_LIVES_S))
    return optimize.nnls(decays, covariances)[0]


def without_hours(values: FloatArray, hour: IntArray) -> FloatArray:
    """Return values less their mean at that hour of the day."""
    return values - (np.bincount(hour, values) / np.bincount(hour))[hour]


def jackknife(parts: list[Any], estimate: Callable[[list[Any]], FloatArray]) -> FloatArray:
    """Return standard errors of an estimate from leaving out one part at a time."""
    without = np.array([estimate(parts[:each] + parts[each + 1 :]) for each in range(len(parts))])
    return np.sqrt((len(parts) - 1) * without.var(axis=0))


# --- the news


def news(returns: FloatArray) -> FloatArray:
    """Return jumps a day and their mean absolute size.

    How many: Lee and Mykland (2008), Rev. Financ. Stud. 21, at 1 %. How large: the share of the variance that bipower
    variation lacks (Barndorff-Nielsen and Shephard 2004, J. Financ. Econometrics 2), as Laplace jumps have it.
    """
    size = np.abs(returns)
    half_pi, n = np.pi / 2, size.size
    pairs = np.convolve(size[1:] * size[:-1], np.ones(WINDOW) / WINDOW, "valid")[:-1]
    told = size[WINDOW + 1 :] / np.sqrt(half_pi * pairs)
    root = np.sqrt(2 * np.log(n))
    critical = root - (np.log(np.pi) + np.log(np.log(n))) / (2 * root) + 4.6001 / root
    days = n / 1440
    jumps = float((told > critical).sum()) / days
    of_jumps = max(float((returns**2).sum() - half_pi * (size[1:] * size[:-1]).sum()), 0.0) / days
    return np.array([jumps, np.sqrt(of_jumps / (2 * jumps))])


# --- the file


def calibrated() -> dict[str, Any]:
    """Fit everything and return what the file says."""
    captures = {name: capture(name) for name in ("USD-M", "spot", "COIN-M")}
    messages = captures[FITTED]
    flow = QueueReactive().fit(messages, rng=stream(0, "embedded", "fit"))
    law, opening = flow.law, flow.opening
    return {
        "provenance": _provenance(captures),
        "flow": {
            "model": "queue_reactive",
            "reach": opening.reach,
            "unit": float(f"{opening.unit:.4g}"),
            "law": stored(law),
            "estimates": {
                name: [_short(each.value), None if each.error is None else _short(each.error)]
                for name, each in flow.estimates.items()
            },
            "diagnostics": {name: _short(each) for name, each in flow.diagnostics.items()},
            "notes": list(flow.notes),
        },
        "book": fullness(messages, law.grid.distances.class_of),
        "efficient_price": _efficient(captures),
    }


def _efficient(captures: dict[str, Messages]) -> dict[str, Any]:
    halves = [half for messages in captures.values() for half in np.array_split(_takers(messages), 2)]
    fast, fast_error = fast_pace(halves), jackknife(halves, fast_pace)
    log_volume, returns, hours = _minutes()
    rest = without_hours(log_volume, hours)
    slow = slow_pace(rest)
    blocks = [np.array_split(each, 8) for each in (rest, returns)]
    slow_error = jackknife(blocks[0], lambda parts: slow_pace(np.concatenate(parts)))
    often, often_error = news(returns), jackknife(blocks[1], lambda parts: news(np.concatenate(parts)))
    level, level_error, day, day_error = _day(captures[FITTED])
    return {
        "level": _short(level),
        "level_se": _short(level_error),
        "day": plain(day),
        "day_se": plain(day_error),
        "variances": plain(np.append(fast[:1], slow)),
        "variances_se": plain(np.append(fast_error[:1], slow_error)),
        "half_lives_s": plain(np.append(fast[1:], SLOW_HALF_LIVES_S)),
        "half_lives_s_se": [*plain(fast_error[1:]), *(0.0 for _ in SLOW_HALF_LIVES_S)],
        "news_per_day": _short(often[0]),
        "news_per_day_se": _short(often_error[0]),
        "news_scale": _short(often[1]),
        "news_scale_se": _short(often_error[1]),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _takers(messages: Messages) -> FloatArray:
    """Return market orders in bins of `BIN_S`."""
    rows = record_of(messages).rows
    since = (rows.time_ns[rows.takes > 0] - int(messages.spans[0, 0])) / NS_PER_SECOND
    return np.bincount((since / BIN_S).astype(np.int64))[:-1].astype(np.float64)


def _minutes() -> tuple[FloatArray, FloatArray, IntArray]:
    """Return log volume, log return and hour of one-minute bars."""
    bars = pl.read_csv(REAL_DATA / MINUTES, try_parse_dates=True)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    hours = bars["timestamp"].dt.hour().to_numpy().astype(np.int64)[1:]
    return np.log(np.maximum(bars["volume"].to_numpy()[1:], 1.0)), returns, hours


def _day(messages: Messages) -> tuple[float, float, FloatArray, FloatArray]:
    """Return the mean pace and the shape of the day by hourly bars, each with its standard error.

    The pace of 1 is that of the record, by the volume that it traded.
    """
    bars = pl.read_csv(io.BytesIO(lzma.decompress((REAL_DATA / HOURS).read_bytes())), try_parse_dates=True)
    volume = bars["Volume"].to_numpy()[: len(bars) // 24 * 24].reshape(-1, 24)
    relative = volume / volume.mean(axis=1, keepdims=True)
    whole = relative[volume.min(axis=1) > 0]
    traded = float(messages.size[messages.kind == MARKET].sum()) * float(messages.scale.lot_size) / messages.seconds
    daily = volume.mean(axis=1) / 3600 / traded
    months = daily[: daily.size // 30 * 30].reshape(-1, 30).mean(axis=1)  # days are not independent, months nearly
    level_error = float(months.std() / np.sqrt(months.size))
    return float(daily.mean()), level_error, whole.mean(axis=0), whole.std(axis=0) / np.sqrt(len(whole))


def _provenance(captures: dict[str, Messages]) -> dict[str, Any]:
    names = [*dict.fromkeys(file for name in captures for file in CAPTURES[name][0]), MINUTES, HOURS]
    days = {FITTED: "binance_usdm.BTCUSDT", "spot": "binance_spot.BTCUSDT", "COIN-M": "binance_coinm.BTCUSD_PERP"}
    return {
        "made_by": "benchmarks/embedded_market.py --write",
        "code_version": synth_pipeline.__version__,
        "date": date.today().isoformat(),
        "captures": [
            {"instrument": days[name], "days": list(CAPTURES[name][1]), "seconds": round(messages.seconds, 1)}
            for name, messages in captures.items()
        ],
        "bars": {MINUTES: "FTX BTC-PERP, January 2022", HOURS: "Binance USD-M BTCUSDT, 2020-01 to 2023-06"},
        "files_sha256": {name: hashlib.sha256((REAL_DATA / name).read_bytes()).hexdigest() for name in names},
        "estimators": {
            "flow": "rates n / T by state of the queue, errors sqrt(n) / T, from the first capture alone",
            "book": f"mean over {LOOKS} moments of the first capture",
            "variances, half_lives_s": "autocovariance of market orders in half seconds (all captures, the first), of "
            "log volume by the minute without its hourly means (the others, at given half-lives); errors by jackknife",
            "level, day": "hourly volume by the first capture's, by the day's; errors over months and days",
            "news": "Lee-Mykland count at 1 %, size by what bipower variation lacks; errors by jackknife",
        },
    }


def write() -> None:
    """Fit, and write the file, its lists in one line each."""
    text = json.dumps(calibrated(), indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{chr(32).join(found[1].split())}]", text)
    calibration.PATH.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Print the facts of the embedded market beside those of captures, or write the calibration."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="fit on the captures and write the calibration")
    options.add_argument("--seconds", type=float, default=3600.0, help="length of the simulated market")
    given = options.parse_args()
    if given.write:
        write()
        return
    start = 20_000 * NS_PER_DAY + NS_PER_DAY // 2
    end = start + int(given.seconds * NS_PER_SECOND)
    columns = {"simulated": facts((frame for frame in simulate("BTCUSDT", start, end, rng=stream(0, "market"))), 0.1)}
    for name, tick in (("USD-M", 0.1), ("spot", 0.01), ("COIN-M", 0.1)):
        paths = [REAL_DATA / file for file in CAPTURES[name][0]]
        if all(path.exists() for path in paths):
            columns[name] = facts(recorded(paths), tick)
    show(columns)


if __name__ == "__main__":
    main()
