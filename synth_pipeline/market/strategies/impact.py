"""Market impact: what a parent order of some size does to the mid of an order flow, and what of it remains.

Each run is made twice with the same seed, once undisturbed and once with a TWAP taker (common random numbers: until the
taker acts both are the same, and after that they still share much). The impact path is the mean difference of the mids,
in the direction of the order. Its value a quarter of a slice after the last one is the *peak*, its mean over the last
quarter of the time after execution the *permanent* part, the difference the *temporary* one. Over sizes Q the peak is
fitted by c Q^δ; of markets the literature reports δ about 1/2 (Almgren, Thum, Hauptmann and Li 2005, "Direct
estimation of equity market impact", Risk 18; Tóth et al. 2011, "Anomalous price impact and the critical nature of
liquidity", Phys. Rev. X 1), of a memoryless flow it is whatever its book gives. Errors are those of a jackknife over
runs, since all sizes share their seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synth_pipeline.errors import InputError, SynthError
from synth_pipeline.market.book import ASK, BID
from synth_pipeline.market.flows import OrderFlow
from synth_pipeline.market.session import Session
from synth_pipeline.market.strategies.taker import Twap
from synth_pipeline.progress import Progress, silent
from synth_pipeline.rng import per_path
from synth_pipeline.schema import NS_PER_SECOND
from synth_pipeline.series import FloatArray, IntArray

_FEWEST_RUNS, _FEWEST_SIZES = 4, 3
_STEPS = 4
"""Of a session for each slice, so that the path between slices is seen."""


@dataclass(frozen=True, eq=False)
class Impact:
    """Measured impact, all prices in ticks."""

    sizes: IntArray
    """[Q] lots of the parent order."""
    share: FloatArray
    """Q over the lots that trade in the same time without it."""
    times_s: FloatArray
    """Seconds since the order began."""
    path: FloatArray
    """Mean difference of the mid, shape (sizes, times)."""
    path_se: FloatArray
    peak: FloatArray
    """Of each size, when its last slice has been executed."""
    peak_se: FloatArray
    permanent: FloatArray
    """Of each size, over the last quarter of the time after it."""
    permanent_se: FloatArray
    filled: FloatArray
    """Share of each size that found a counterparty."""
    exponent: float | None
    """[δ] of peak = c Q^δ; None where `note` says why."""
    exponent_se: float | None
    note: str = ""

    @property
    def temporary(self) -> FloatArray:
        """What is gone again at the end."""
        return self.peak - self.permanent

    def table(self) -> list[dict[str, float]]:
        """Return one row a size."""
        names = ("share", "filled", "peak", "peak_se", "permanent", "permanent_se", "temporary")
        return [
            {"lots": int(lots)} | {name: float(getattr(self, name)[row]) for name in names}
            for row, lots in enumerate(self.sizes)
        ]


def impact(
    flow: OrderFlow,
    sizes: Sequence[int],
    *,
    rng: np.random.Generator,
    runs: int = 40,
    start_ns: int = 0,
    warm_up_s: float = 5.0,
    execution_s: float = 10.0,
    after_s: float = 20.0,
    slices: int = 10,
    progress: Progress = silent,
) -> Impact:
    """Measure the impact of parent orders of some sizes, bought in every other run and sold in the rest.

    Raises `InputError` for too few runs or sizes that are no sizes, `SynthError` where an order empties the book.
    """
    lots = np.array(sorted(set(sizes)), dtype=np.int64)
    if runs < _FEWEST_RUNS or lots.size == 0 or lots[0] < 1:
        raise InputError(f"{runs} runs of sizes {list(sizes)}: give {_FEWEST_RUNS} runs and sizes of a lot or more")
    if slices < 1 or min(execution_s, after_s) <= 0 or warm_up_s < 0:
        raise InputError("execution_s, after_s and slices must be positive, warm_up_s 0 or more")
    step_ns = round(execution_s * NS_PER_SECOND / (_STEPS * slices))
    steps = _STEPS * slices + max(_STEPS, round(after_s * NS_PER_SECOND / step_ns))
    plan = _Plan(flow, start_ns, round(warm_up_s * NS_PER_SECOND), slices, step_ns, steps)
    paths, filled, volume = np.zeros((runs, lots.size, steps)), np.zeros((runs, lots.size)), np.zeros(runs)
    streams = per_path(rng, runs)
    for run in range(runs):
        side = BID if run % 2 == 0 else ASK
        usual, _, volume[run] = plan.run(streams[run], side, 0)
        for which, size in enumerate(lots.tolist()):
            mid, filled[run, which], _ = plan.run(streams[run], side, size)
            paths[run, which] = (mid - usual) * (1 - 2 * side)
        progress(run + 1, runs, "measuring impact")
    times_s = (np.arange(steps) + 1) * step_ns / NS_PER_SECOND
    return _measured(lots, paths, times_s, filled.mean(axis=0) / lots, lots / max(float(volume.mean()), 1.0), slices)


class _Plan(NamedTuple):
    flow: OrderFlow
    start_ns: int
    warm_up_ns: int
    slices: int
    step_ns: int
    steps: int

    def run(self, rng: np.random.Generator, side: int, lots: int) -> tuple[FloatArray, int, int]:
        """Return the mid after each step, the lots filled, and the lots that traded while the order was worked off."""
        session = Session(self.flow.start(self.start_ns, rng=rng))
        taker = session.join("taker")
        begin_ns = self.start_ns + self.warm_up_ns
        session.step(begin_ns)
        end_ns = begin_ns + _STEPS * self.slices * self.step_ns
        order = Twap(taker, side, lots, start_ns=begin_ns, end_ns=end_ns, slices=self.slices) if lots else None
        mids, volume = np.empty(self.steps), 0
        for step in range(self.steps):
            if order is not None:
                order.act(session.now_ns)
            session.step(begin_ns + (step + 1) * self.step_ns)
            if taker.mid is None:
                raise SynthError(f"{lots} lots have emptied a side of the book: measure smaller sizes")
            mids[step] = taker.mid
            volume += int(taker.trades["lots"].sum()) if session.now_ns <= end_ns else 0
        return mids, abs(taker.position), volume


def _measured(
    lots: IntArray, paths: FloatArray, times_s: FloatArray, filled: FloatArray, share: FloatArray, slices: int
) -> Impact:
    """Return what paths of shape (runs, sizes, times) show."""
    after = paths.shape[2] - _STEPS * slices
    peaks, stays = paths[:, :, _STEPS * (slices - 1)], paths[:, :, -max(after // 4, 1) :].mean(axis=2)
    exponent, error, note = _exponent(lots, peaks)
    return Impact(
        sizes=lots,
        share=share,
        times_s=times_s,
        path=paths.mean(axis=0),
        path_se=_error(paths),
        peak=peaks.mean(axis=0),
        peak_se=_error(peaks),
        permanent=stays.mean(axis=0),
        permanent_se=_error(stays),
        filled=filled,
        exponent=exponent,
        exponent_se=error,
        note=note,
    )


def _error(values: FloatArray) -> FloatArray:
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def _exponent(lots: IntArray, peaks: FloatArray) -> tuple[float | None, float | None, str]:
    """Fit c Q^δ to mean peaks, of shape (runs, sizes), by weighted least squares."""
    from scipy.optimize import least_squares

    mean, error = peaks.mean(axis=0), np.maximum(_error(peaks), 1e-9)
    if lots.size < _FEWEST_SIZES:
        return None, None, f"no exponent from {lots.size} sizes: measure {_FEWEST_SIZES} or more"
    if mean[-1] < 2 * error[-1]:
        return (
            None,
            None,
            f"no exponent: the impact of {lots[-1]} lots does not stand out from {len(peaks)} runs' noise",
        )
    logs = np.log(lots / lots[-1])

    def fitted(target: FloatArray) -> float:
        # c is that of the largest size, so that both parameters are of the order of one.
        def misfit(law: FloatArray) -> FloatArray:
            return np.asarray((law[0] * np.exp(law[1] * logs) - target) / error)

        return float(least_squares(misfit, (float(target[-1]), 0.5)).x[1])

    without = np.array([fitted(np.delete(peaks, run, axis=0).mean(axis=0)) for run in range(len(peaks))])
    return fitted(mean), float(np.sqrt((len(peaks) - 1) * without.var())), ""
