"""The only maker of randomness.

A stream is named, not numbered: `stream(seed, "sample", "wgan_gp")` is the same generator on every machine and does not
change when another consumer is added before it. Streams of different labels are statistically independent
(`numpy.random.SeedSequence` hashes its entropy).
"""

import hashlib

import numpy as np


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """Return the random stream that `seed` and the labels name.

    The labels are hashed with SHA-256, so `("ab", "c")` and `("a", "bc")` are different streams.
    """
    name = "\x1f".join(f"{type(label).__name__}:{label}" for label in labels)
    entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, entropy])))


def per_path(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Split a stream into `count` independent ones, one a path.

    Path k draws the same numbers whatever `count` is, which is what makes a sample independent of its batch size.
    The parent stream gives one number, so two calls on the same parent differ.
    """
    seed = int(rng.integers(0, 2**63))
    children = np.random.SeedSequence(seed).spawn(count)
    return [np.random.Generator(np.random.PCG64(child)) for child in children]
