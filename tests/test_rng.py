"""Streams by name, one a path, and a stream that begins at a later path."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.rng import Paths, later, per_path, stream


def draws(rng: np.random.Generator) -> list[float]:
    """A few numbers, of the stream and of one that it spawns."""
    return [*rng.random(3), *rng.spawn(2)[1].random(2)]


def test_streams_of_different_names_differ() -> None:
    named = [("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",)]
    assert len({stream(0, *labels).random() for labels in named} | {stream(1, "a").random()}) == len(named) + 1
    assert stream(0, "a").random() == stream(0, "a").random()


def test_a_path_is_that_of_numpys_seed_sequences() -> None:
    parent = stream(0, "paths")
    children = np.random.SeedSequence(int(stream(0, "paths").integers(0, 2**63))).spawn(5)
    expected = [draws(np.random.Generator(np.random.PCG64(child))) for child in children]
    assert [draws(each) for each in per_path(parent, 5)] == expected


@given(count=st.integers(1, 40), first=st.integers(0, 1_000_000), at=st.integers(0, 39))
def test_a_path_depends_on_its_number_only(count: int, first: int, at: int) -> None:
    at %= count
    whole = per_path(stream(0, "paths"), first + count)
    assert len(whole) == first + count
    assert draws(per_path(later(stream(0, "paths"), first), count)[at]) == draws(whole[first + at])
    assert draws(whole[first:][at]) == draws(whole[first + at])
    assert draws(per_path(later(later(stream(0, "paths"), 1), first), count)[at]) == draws(
        per_path(stream(0, "paths"), first + count + 1)[first + at + 1]
    )


def test_beginning_later_leaves_the_stream_where_it_is() -> None:
    rng = stream(0, "paths")
    moved = later(rng, 7)
    assert moved.random() == rng.random()
    assert draws(per_path(rng, 1)[0]) != draws(per_path(rng, 1)[0])


@given(seed=st.integers(0, 2**63 - 1), first=st.integers(0, 2**32 + 1_000), count=st.integers(1, 40))
def test_streams_made_in_blocks_are_those_that_a_seed_sequence_spawns(seed: int, first: int, count: int) -> None:
    streams = Paths(seed, range(first, first + count))
    for at in {0, count // 2, count - 1}:
        alone = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(first + at,))))
        ours = streams[at]
        assert ours.bit_generator.state == alone.bit_generator.state
        assert draws(ours) == draws(alone)


def test_streams_are_asked_for_in_any_order() -> None:
    streams = Paths(7, range(2_000))
    forward = [streams[at].integers(2**62) for at in range(2_000)]
    assert [streams[at].integers(2**62) for at in reversed(range(2_000))] == forward[::-1]
    assert streams[-1].integers(2**62) == forward[-1]


def test_threads_may_ask_one_set_of_paths() -> None:
    paths = per_path(stream(0, "threads"), 4_096)
    expected = [own.random() for own in paths]

    def some(first: int) -> list[float]:
        return [paths[at].random() for at in range(first, 4_096, 8)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(some, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert [found[at % 8][at // 8] for at in range(4_096)] == expected
