"""The predictive score of order-book generators: can a network that saw only synthetic messages tell real mid prices?

After Berti et al. 2025, "TRADES: Generating Realistic Market Simulations with Diffusion Models", ECAI: a two-layer LSTM
of 128 units reads 100 messages, each with the best quotes after it, and tells the mid price 200 messages after the
first; the score is its mean absolute error on real messages. Where this differs from the authors' script: the test is
the last fifth of real time and not a random one, which would share messages with training; the mid price is told as a
difference to the last one that was read, so that its level is no answer; the scale is that of the real messages
learned from, for both sources. Training is a fixed number of steps, far below the authors' epochs, and equal for both
sources; so values compare with the replay and the persistent price beside them, not with printed ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.errors import MetricError
from synth_pipeline.fidelity import recurrent, ts2vec
from synth_pipeline.fidelity.book_sample import CANCEL, LIMIT, MARKET, BookSample
from synth_pipeline.fidelity.learners import resampled
from synth_pipeline.rng import one_thread, per_path
from synth_pipeline.series import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

READ, AHEAD = 100, 200
"""Messages that are read, and from the first of them to the mid price that is told."""
UNITS, LAYERS, BATCH, LEARNING_RATE = 128, 2, 48, 1e-3
STEPS, MOST_TESTED = 120, 500
TRAINED = 0.8
"""Share of real messages, the earlier ones, that the replay is trained on."""
CONFIDENCE, RESAMPLES = 0.95, 200
_FEWEST = 200
_NS_PER_S = 1e9


@dataclass(frozen=True)
class BookPrediction:
    """Mean absolute errors of the mid price in ticks on the last fifth of the real messages."""

    replay: float
    """Trained on the real messages before."""
    synthetic: float
    """Trained on synthetic messages."""
    persistence: float
    """Of the last mid price that was read."""
    low: float
    high: float
    """Ends of the 95 % interval of `ratio`, by resampling the tested windows in blocks that share messages."""

    @property
    def ratio(self) -> float:
        """Error after synthetic messages over that after real ones; 1 is as good as real."""
        return self.synthetic / self.replay


@dataclass(frozen=True)
class _Messages:
    """What of a sample is read and told."""

    rows: FloatArray
    """Shape (messages, features)."""
    mid: FloatArray
    starts: IntArray
    """First messages of the windows within one stretch, with a mid price at both ends."""

    @classmethod
    def of(cls, sample: BookSample, side: str) -> _Messages:
        starts = np.arange(max(0, len(sample) - AHEAD + 1))
        last = starts + AHEAD - 1
        together = sample.stretch[starts] == sample.stretch[last]
        known = np.isfinite(sample.mid[starts + READ - 1]) & np.isfinite(sample.mid[last])
        if (found := int((together & known).sum())) < _FEWEST:
            raise MetricError(
                f"the predictive score needs {_FEWEST} windows of {AHEAD} messages, the {side} sample has {found}"
            )
        return cls(_features(sample), sample.mid, starts[together & known])

    def windows(self, starts: IntArray) -> FloatArray:
        """Return what is read, shape (windows, `READ`, features)."""
        return np.asarray(self.rows[starts[:, np.newaxis] + np.arange(READ)])

    def moves(self, starts: IntArray) -> FloatArray:
        """Return what is told, in ticks."""
        return np.asarray(self.mid[starts + AHEAD - 1] - self.mid[starts + READ - 1])


def predictive_score(
    real: BookSample, synthetic: BookSample, *, rng: np.random.Generator, steps: int = STEPS
) -> BookPrediction:
    """Score synthetic messages; `steps` of training for each of the two sources.

    Raises `MetricError` where a part has too few messages in a row.
    """
    cut = int(len(real) * TRAINED)
    before = _Messages.of(real.rows(slice(0, cut)), "earlier real")
    after = _Messages.of(real.rows(slice(cut, None)), "later real")
    fake = _Messages.of(synthetic, "synthetic")
    asked = after.starts[:: -(-after.starts.size // MOST_TESTED)]
    truth = after.moves(asked)
    scale = _Scale.of(before)

    def errors(work: tuple[_Messages, np.random.Generator]) -> FloatArray:
        return np.abs(_told(*work, scale, after.windows(asked), steps) - truth)

    streams = per_path(rng, 2)
    with one_thread():
        replayed, made = recurrent.side_by_side(errors, [(before, streams[0]), (fake, streams[1])])
    block = max(1, round(AHEAD / (after.starts.size / asked.size)))
    around = []
    for _ in range(RESAMPLES):
        rows = resampled(asked.size, block, rng=rng)
        around.append(made[rows].mean() / replayed[rows].mean())
    low, high = np.quantile(around, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    replay, score, persistence = (float(each.mean()) for each in (replayed, made, np.abs(truth)))
    return BookPrediction(replay, score, persistence, float(low), float(high))


def _features(sample: BookSample) -> FloatArray:
    """Return messages with the best quotes after each: prices in ticks from the mid price, sizes and times as logs."""
    mid = np.where(sample.has_both_sides, sample.mid, sample.price)
    apart = np.diff(sample.time_ns, prepend=sample.time_ns[:1]) / _NS_PER_S
    bid, bid_size, ask, ask_size = sample.touch
    columns = [
        np.log(np.maximum(apart, 0.0) + 1e-6),
        *(sample.kind == kind for kind in (LIMIT, CANCEL, MARKET)),
        sample.side,
        np.arcsinh(sample.price - mid),
        np.log1p(sample.size),
        np.where(sample.has_both_sides, ask - bid, 0),
        np.log1p(bid_size),
        np.log1p(ask_size),
        np.diff(mid, prepend=mid[:1]),
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


@dataclass(frozen=True)
class _Scale:
    centre: FloatArray
    spread: FloatArray
    move: float

    @classmethod
    def of(cls, messages: _Messages) -> _Scale:
        spread = messages.rows.std(axis=0)
        move = float(messages.moves(messages.starts).std())
        return cls(messages.rows.mean(axis=0), np.where(spread > 0, spread, np.inf), move or 1.0)


def _told(source: _Messages, rng: np.random.Generator, scale: _Scale, asked: FloatArray, steps: int) -> FloatArray:
    """Train an LSTM on windows of one source and return the moves that it tells of others, in ticks."""
    import torch

    def scaled(windows: FloatArray) -> torch.Tensor:
        return torch.from_numpy(((windows - scale.centre) / scale.spread).astype(np.float32))

    network, head = _untrained(len(scale.centre), ts2vec.noise_of(rng))
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], LEARNING_RATE)
    for rows in recurrent.drawn(source.starts.size, steps, BATCH, rng=rng):
        starts = source.starts[rows]
        truth = torch.from_numpy((source.moves(starts) / scale.move).astype(np.float32))
        optimizer.zero_grad()
        told = head(network(scaled(source.windows(starts)))[0][:, -1]).squeeze(1)
        torch.nn.functional.mse_loss(told, truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        told = torch.cat([head(network(scaled(part))[0][:, -1]) for part in np.array_split(asked, 10)])
    return told.squeeze(1).double().numpy() * scale.move


def _untrained(features: int, noise: torch.Generator) -> tuple[torch.nn.LSTM, torch.nn.Linear]:
    """Return an LSTM and its head; all weights are uniform, as torch draws them, but from a noise of their own."""
    import torch

    # Made empty first: weights that a layer draws for itself come from the one generator of the whole process.
    network = torch.nn.LSTM(features, UNITS, LAYERS, batch_first=True, device="meta").to_empty(device="cpu")
    head = torch.nn.Linear(UNITS, 1, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(UNITS)
    for parameter in (*network.parameters(), *head.parameters()):
        torch.nn.init.uniform_(parameter, -bound, bound, generator=noise)
    return network, head
