"""The only maker of randomness.

A stream is named, not numbered: `stream(seed, "sample", "wgan_gp")` is the same generator on every machine and does not
change when another consumer is added before it. Streams of different labels are statistically independent
(`numpy.random.SeedSequence` hashes its entropy).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import overload

import numpy as np


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """Return the random stream that `seed` and the labels name.

    The labels are hashed with SHA-256, so `("ab", "c")` and `("a", "bc")` are different streams.
    """
    name = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, entropy])))


class Paths(Sequence[np.random.Generator]):
    """Independent streams, one a path, each made when it is asked for."""

    def __init__(self, seed: int, numbers: range) -> None:
        self.seed, self.numbers = seed, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> np.random.Generator: ...

    @overload
    def __getitem__(self, at: slice) -> Paths: ...

    def __getitem__(self, at: int | slice) -> np.random.Generator | Paths:
        """Return the stream of one path, or those of several."""
        if isinstance(at, slice):
            return Paths(self.seed, self.numbers[at])
        child = np.random.SeedSequence(self.seed, spawn_key=(self.numbers[at],))
        return np.random.Generator(np.random.PCG64(child))


def per_path(rng: np.random.Generator, count: int) -> Paths:
    """Split a stream into `count` independent ones, one a path.

    Path k draws the same numbers whatever `count` is, which is what makes a sample independent of its batch size.
    The parent stream gives one number, so two calls on the same parent differ.
    """
    first = rng.first if isinstance(rng, _Later) else 0
    return Paths(int(rng.integers(0, 2**63)), range(first, first + count))


def later(rng: np.random.Generator, first: int) -> np.random.Generator:
    """Return a stream of the same state whose path 0, by `per_path`, is path `first` of `rng`."""
    made = _Later(copy.deepcopy(rng.bit_generator))
    made.first = first + (rng.first if isinstance(rng, _Later) else 0)
    return made


class _Later(np.random.Generator):
    first: int
