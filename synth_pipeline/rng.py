"""The only maker of randomness, and what else the same bytes need.

A stream is named, not numbered: `stream(seed, "sample", "wgan_gp")` is the same generator on every machine and does not
change when another consumer is added before it. Streams of different labels are statistically independent
(`numpy.random.SeedSequence` hashes its entropy).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence
from numpy.typing import NDArray

_BLOCK, _FEW = 256, 16
# Of the hash inside `numpy.random.SeedSequence` (O'Neill 2015, seed_seq_fe128); numpy promises not to change it.
_FIRST_A, _NEXT_A, _FIRST_B, _NEXT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_LEFT, _RIGHT, _SHIFT = 0xCA01F9DD, 0x4973F715, np.uint32(16)
_HASHED = 16
"""Numbers that are hashed into the pool of a seed before the number of the path is."""


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """Return the random stream that `seed` and the labels name.

    The labels are hashed with SHA-256, so `("ab", "c")` and `("a", "bc")` are different streams.
    """
    name = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, entropy])))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: a sum that is split over threads depends on how many there are."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Paths(Sequence[np.random.Generator]):
    """Independent streams, one a path, each made when it is asked for."""

    def __init__(self, seed: int, numbers: range) -> None:
        self.seed, self.numbers = seed, numbers
        # One object, so that threads which draw from one set of paths never see half of a change.
        self._block = 0, np.empty((0, 4), dtype=np.uint64)

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
        number = self.numbers[at]
        if len(self) < _FEW or number >= 2**32:
            return np.random.Generator(np.random.PCG64(_child(self.seed, number)))
        first, states = self._block
        if not first <= number < first + len(states):
            first = number - number % _BLOCK
            states = _states(self.seed, np.arange(first, first + _BLOCK, dtype=np.uint32))
            self._block = first, states
        known: Any = _Known(states[number - first], self.seed, number)
        return np.random.Generator(np.random.PCG64(known))


def _child(seed: int, number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(number,))


class _Known(ISpawnableSeedSequence):
    """The seed sequence of a path, whose state is known already."""

    def __init__(self, words: NDArray[np.uint64], seed: int, number: int) -> None:
        self.words, self.seed, self.number = words, seed, number

    @cached_property
    def whole(self) -> np.random.SeedSequence:
        """The same as numpy has it."""
        return _child(self.seed, self.number)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """Return the four words that a PCG64 asks for."""
        known = n_words == len(self.words) and np.dtype(dtype) == np.uint64
        return self.words if known else self.whole.generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        """Return children as numpy makes them."""
        return list(self.whole.spawn(n_children))


def _states(seed: int, numbers: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return what `SeedSequence(seed, spawn_key=(number,))` seeds a PCG64 with, of all numbers at once, shape (n, 4).

    To hash a number by itself costs more than to draw a window's noise.
    """
    constant = _FIRST_A * pow(_NEXT_A, _HASHED, 2**32) % 2**32
    pool = []
    for word in np.random.SeedSequence(seed).pool:
        after = constant * _NEXT_A % 2**32
        mixed = np.uint32(_LEFT * int(word) % 2**32) - np.uint32(_RIGHT) * _hashed(numbers, constant, after)
        pool.append(mixed ^ (mixed >> _SHIFT))
        constant = after
    constant, words = _FIRST_B, np.empty((len(numbers), 8), dtype="<u4")
    for at in range(8):
        after = constant * _NEXT_B % 2**32
        words[:, at] = _hashed(pool[at % 4], constant, after)
        constant = after
    return words.view("<u8").astype(np.uint64)


def _hashed(values: NDArray[np.uint32], constant: int, after: int) -> NDArray[np.uint32]:
    mixed = (values ^ np.uint32(constant)) * np.uint32(after)
    return mixed ^ (mixed >> _SHIFT)


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
