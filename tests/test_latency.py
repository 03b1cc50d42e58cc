"""The latency of a session's links: its law, its order, its randomness."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth_pipeline.errors import InputError
from synth_pipeline.market.latency import Delay, Latency, Link, next_arrival_ns
from synth_pipeline.rng import stream
from tests.naive_session import arrivals

MS = 1_000_000


def test_delays_are_log_normal_around_the_median() -> None:
    link = Link(Delay(5 * MS, 0.4), stream(1, "link"))
    # Sent so seldom that none waits for another.
    delays = np.array([link.arrival_ns(k * 10**10) - k * 10**10 for k in range(20_000)])
    assert stats.kstest(np.log(delays / (5 * MS)) / 0.4, "norm").pvalue > 1e-3
    assert np.median(delays) == pytest.approx(5 * MS, rel=0.02)


@settings(max_examples=50)
@given(
    sent=st.lists(st.integers(0, 3 * MS), min_size=1, max_size=60).map(sorted),
    jitter=st.sampled_from([0.0, 0.1, 2.0]),
    median=st.integers(0, 2 * MS),
)
def test_nothing_overtakes_and_nothing_comes_before_it_is_sent(sent: list[int], jitter: float, median: int) -> None:
    link = Link(Delay(median, jitter), stream(3, "link"))
    found = [link.arrival_ns(time_ns) for time_ns in sent]
    assert found == sorted(found)
    assert all(came >= went for came, went in zip(found, sent, strict=True))
    assert found == arrivals(Delay(median, jitter), sent, stream(3, "link"))
    if jitter == 0:
        assert found == [time_ns + median for time_ns in sent]


def test_compiled_links_are_the_same_links() -> None:
    plain, compiled = Link(Delay(MS, 0.7), stream(2, "link")), Link(Delay(MS, 0.7), stream(2, "link"))
    sent = np.cumsum(stream(4, "sent").integers(0, MS, 500)).tolist()
    law, last_ns = compiled.law, compiled.last_ns
    assert [plain.arrival_ns(each) for each in sent] == [
        next_arrival_ns(law, last_ns, each, compiled.rng) for each in sent
    ]
    assert next_arrival_ns(Delay(MS).law, np.array([0]), 7, None) == MS + 7


def test_links_of_a_participant_draw_apart_from_each_other() -> None:
    latency = Latency.of(MS, 0.5)
    one, other = latency.links(stream(1, "a")), latency.links(stream(1, "a"))
    for _ in range(10):
        other[0].arrival_ns(0)
    assert [link.arrival_ns(10**9) for link in one[1:]] == [link.arrival_ns(10**9) for link in other[1:]]
    assert len({link.arrival_ns(10**12) for link in one}) == 3


def test_a_constant_latency_needs_no_stream() -> None:
    assert [link.arrival_ns(5) for link in Latency.of(7).links(None)] == [12, 12, 12]
    assert not Latency().is_random
    with pytest.raises(InputError, match="has no rng"):
        Latency.of(7, 0.1).links(None)


@pytest.mark.parametrize("values", [(-1, 0.0), (0, -0.1), (0, math.inf), (math.nan, 0.0)])
def test_what_is_no_delay_is_named(values: tuple[int, float]) -> None:
    with pytest.raises(InputError, match="of a link is"):
        Delay(*values)
